//! `workload.longbench_v2`: questions with four choices about long contexts, as SGLang's client asks them.

use super::OUTPUT;
use super::published::{Making, check_output};
use super::records::{Damaged, Whole, read};
use super::talks::{Exchange, Limits, Sampling, Talk};
use super::tokens::Counter;
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use engine::value::Table;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// A letter and a few words.
const USUAL_OUTPUT: NonZeroU32 = match NonZeroU32::new(10) {
    Some(n) => n,
    None => NonZeroU32::MIN,
};

engine::options! {
    /// Options of `workload.longbench_v2`.
    pub struct WorkloadLongbenchV2 {
        /// The data set: JSON objects with `context`, `question` and `choice_A` to `choice_D`.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// How many questions. Where fewer pass, there are fewer, and the step says so.
        requests: NonZeroU32, in "requests";
        /// The longest prompt and answer together; no limit if absent. Contexts have up to two million words.
        context_length: Option<NonZeroU32>, in "tokens";
        /// Answer length to ask for.
        output_tokens: NonZeroU32 = USUAL_OUTPUT, in "tokens";
        /// Whether questions are taken in a random order, that of Python's `random.shuffle`; otherwise in the file's.
        shuffle: bool = true;
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadLongbenchV2 {
    const NAME: &'static str = "workload.longbench_v2";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Takes questions of LongBench v2, each with its choices behind its long context.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_output(Some(self.output_tokens), (table, place), parser);
    }
}

/// A record, as far as it matters.
#[derive(Deserialize)]
#[expect(non_snake_case, reason = "they are called so in the data set")]
struct Record {
    context: String,
    question: String,
    choice_A: String,
    choice_B: String,
    choice_C: String,
    choice_D: String,
    #[serde(default)]
    answer: String,
}

impl Record {
    fn exchange(self) -> Exchange {
        let choices = [self.choice_A, self.choice_B, self.choice_C, self.choice_D];
        let listed = ["A", "B", "C", "D"].iter().zip(choices);
        let listed: String = listed
            .map(|(letter, choice)| format!("{letter}. {choice}\n"))
            .collect();
        let (context, question) = (self.context, self.question);
        Exchange {
            said: format!("{context}\n\nQuestion: {question}\n{listed}Answer:"),
            answered: self.answer,
            images: Arc::default(),
        }
    }
}

impl WorkloadLongbenchV2 {
    fn talks(&self, path: &Path) -> Result<(Vec<Talk>, Whole), StepError> {
        let mut talks = Vec::new();
        let whole = read(path, self.damaged, |number, record: Record| {
            talks.push(Talk {
                name: format!("longbench-{number}"),
                exchanges: vec![record.exchange()],
            });
            Ok(())
        })?;
        Ok((talks, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadLongbenchV2 {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading questions");
        let (talks, whole) = self.talks(&context.path(&self.source)?)?;
        let making = Making {
            sampling: Sampling {
                counter,
                wanted: self.requests,
                limits: Limits {
                    most_total: self.context_length.map(NonZeroU32::get),
                    ..Limits::default()
                },
                output: Some(self.output_tokens),
                cycles: false,
            },
            shuffled: self.shuffle.then_some(self.seed),
            order: |sample| sample.grouped(false),
        };
        making.run(context, talks, &whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_stands_behind_its_context_with_its_choices() {
        let text = r#"{"_id": "66f", "domain": "Single-Document QA", "length": "short", "question": "Who?",
            "choice_A": "a", "choice_B": "b", "choice_C": "c", "choice_D": "d", "answer": "B", "context": "Long."}"#;
        let record: Record = serde_json::from_str(text).expect("a record");
        assert_eq!(
            record.exchange().said,
            "Long.\n\nQuestion: Who?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
        );
    }
}
