//! `workload.loogle`: long documents of LooGLE and questions about them, by the rules of the hierarchical
//! cache's client.

use super::OUTPUT;
use super::published::{Making, check_output};
use super::python_literal;
use super::records::{Damaged, Whole, read};
use super::talks::{Exchange, Limits, Sample, Sampling, Talk};
use super::tokens::Counter;
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use engine::value::Table;
use serde::Deserialize;
use serde_json::Value;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// A summary is expected to be as long as so many characters of the document.
const SUMMARY: usize = 1024;

engine::choices! {
    /// How the questions about a document are asked.
    pub enum Questions {
        /// The first alone, behind the document.
        First = "first",
        /// As a conversation: the first behind the document, each later one behind the server's real answers.
        MultiTurn = "multi_turn",
        /// Each by itself, behind the whole document: all about one document follow each other.
        SharedPrefix = "shared_prefix",
    }
}

engine::options! {
    /// Options of `workload.loogle`.
    pub struct WorkloadLoogle {
        /// The data set: one JSON object per line with `input`, the document, and `qa_pairs`, a list of `Q` and
        /// `A`, also as a text as Python writes it. Where there are no questions, a summary is asked for.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// How many documents. Where fewer pass, those are there again, and the step says so.
        documents: NonZeroU32, in "documents";
        /// How questions are asked.
        questions: Questions = Questions::First;
        /// Answer length to ask for, in place of that of the answer in the data set; a summary is to be as long
        /// as the document's first 1,024 characters.
        output_tokens: Option<NonZeroU32>, in "tokens";
        /// Whether documents are taken in a random order, that of Python's `random.shuffle`; otherwise in the
        /// file's.
        shuffle: bool = true;
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadLoogle {
    const NAME: &'static str = "workload.loogle";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Takes long documents of LooGLE and questions about them, alone, as conversations or with a shared prefix.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_output(self.output_tokens, (table, place), parser);
    }
}

/// A record, as far as it matters.
#[derive(Deserialize)]
struct Record {
    input: String,
    #[serde(default)]
    qa_pairs: Value,
}

impl Record {
    fn exchanges(self, questions: Questions) -> Result<Vec<Exchange>, String> {
        let document = self.input;
        let behind = |question: &str| format!("Input: {document} Question: {question}");
        let pairs = pairs(self.qa_pairs)?;
        if pairs.is_empty() {
            return Ok(vec![Exchange {
                said: behind("Please summarize the input"),
                answered: document.chars().take(SUMMARY).collect(),
                images: Arc::default(),
            }]);
        }
        let n = match questions {
            Questions::First => 1,
            Questions::MultiTurn | Questions::SharedPrefix => pairs.len(),
        };
        let all = pairs.into_iter().take(n).enumerate();
        Ok(all
            .map(|(i, (question, answered))| Exchange {
                said: match i == 0 || questions == Questions::SharedPrefix {
                    true => behind(&question),
                    false => question,
                },
                answered,
                images: Arc::default(),
            })
            .collect())
    }
}

/// Questions and answers; none where the data set says so.
fn pairs(written: Value) -> Result<Vec<(String, String)>, String> {
    let listed = match written {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text == "none" || text.is_empty() => return Ok(Vec::new()),
        Value::String(text) => {
            python_literal::parse(&text).map_err(|e| format!("`qa_pairs`: {e}"))?
        }
        other => other,
    };
    let Value::Array(listed) = listed else {
        return Err("`qa_pairs` is no list".to_owned());
    };
    let part = |pair: &Value, name: &str| match &pair[name] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("a pair of `qa_pairs` has no `{name}`")),
        other => Ok(other.to_string()),
    };
    let both = |pair: &Value| Ok((part(pair, "Q")?, part(pair, "A")?));
    listed.iter().map(both).collect()
}

impl WorkloadLoogle {
    fn talks(&self, path: &Path) -> Result<(Vec<Talk>, Whole), StepError> {
        let mut talks = Vec::new();
        let whole = read(path, self.damaged, |number, record: Record| {
            talks.push(Talk {
                name: format!("loogle-{number}"),
                exchanges: record.exchanges(self.questions)?,
            });
            Ok(())
        })?;
        Ok((talks, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadLoogle {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading documents");
        let (talks, whole) = self.talks(&context.path(&self.source)?)?;
        let making = Making {
            sampling: Sampling {
                counter,
                wanted: self.documents,
                limits: Limits {
                    least_input: 4,
                    ..Limits::default()
                },
                output: self.output_tokens,
                cycles: true,
            },
            shuffled: self.shuffle.then_some(self.seed),
            order: match self.questions {
                Questions::First => |sample| sample.grouped(false),
                Questions::MultiTurn => Sample::by_turn,
                Questions::SharedPrefix => |sample| sample.grouped(true),
            },
        };
        making.run(context, talks, &whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(qa_pairs: Value, questions: Questions) -> Result<Vec<String>, String> {
        let record = Record {
            input: "doc".repeat(400),
            qa_pairs,
        };
        let exchanges = record.exchanges(questions)?.into_iter();
        let text =
            |e: Exchange| format!("{}>{}", e.said, e.answered).replace(&"doc".repeat(400), "DOC");
        Ok(exchanges.map(text).collect())
    }

    #[test]
    fn questions_stand_behind_the_document_as_they_are_asked() {
        let literal = json!(r#"[{'Q': "what's A?", 'A': 'a', 'S': ['x']}, {'Q': 'B?', 'A': 7}]"#);
        for pairs in [
            literal,
            json!([{"Q": "what's A?", "A": "a"}, {"Q": "B?", "A": 7}]),
        ] {
            let first = "Input: DOC Question: what's A?>a";
            assert_eq!(said(pairs.clone(), Questions::First).unwrap(), [first]);
            assert_eq!(
                said(pairs.clone(), Questions::MultiTurn).unwrap(),
                [first, "B?>7"]
            );
            assert_eq!(
                said(pairs, Questions::SharedPrefix).unwrap(),
                [first, "Input: DOC Question: B?>7"]
            );
        }
    }

    #[test]
    fn without_questions_a_summary_is_asked_for() {
        for pairs in [
            json!(null),
            json!("none"),
            json!(""),
            json!([]),
            json!("[]"),
        ] {
            let said = said(pairs, Questions::MultiTurn).unwrap();
            assert_eq!(said.len(), 1);
            let (said, answered) = said[0].split_once('>').unwrap();
            assert_eq!(said, "Input: DOC Question: Please summarize the input");
            // 1,200 characters were there.
            assert_eq!(answered.len(), 1024);
        }
    }

    #[test]
    fn what_is_no_list_of_pairs_is_told() {
        for (pairs, expected) in [
            (json!("[{'Q': 'a'}]"), "has no `A`"),
            (json!("{'Q': 'a'}"), "no list"),
            (
                json!("[{'Q': open('x')}]"),
                "`qa_pairs`: `open` is no literal",
            ),
            (json!(7), "no list"),
        ] {
            let error = said(pairs, Questions::First).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
