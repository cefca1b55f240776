//! `workload.ultrachat`: conversations of UltraChat, by the rules of the hierarchical cache's client.

use super::OUTPUT;
use super::published::{Making, check_output};
use super::records::{Damaged, Whole, read};
use super::sharegpt::{Turns, pairs};
use super::talks::{Exchange, Limits, Sample, Sampling, Talk};
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

engine::options! {
    /// Options of `workload.ultrachat`.
    pub struct WorkloadUltrachat {
        /// The data set: one JSON object per line with `data`, in which what was said and what was answered
        /// take turns. Conversations of an odd number are left out.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// How many conversations. Where fewer pass, those are there again, and the step says so.
        conversations: NonZeroU32, in "conversations";
        /// How much of a conversation is asked.
        turns: Turns = Turns::First;
        /// Answer length to ask for, in place of that of the answer in the data set.
        output_tokens: Option<NonZeroU32>, in "tokens";
        /// Whether conversations are taken in a random order, that of Python's `random.shuffle`; otherwise in
        /// the file's.
        shuffle: bool = true;
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadUltrachat {
    const NAME: &'static str = "workload.ultrachat";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Takes conversations of UltraChat, by the rules of the hierarchical cache's client.";

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
    data: Vec<String>,
}

impl Record {
    fn exchanges(self, turns: Turns) -> Vec<Exchange> {
        if !self.data.len().is_multiple_of(2) {
            return Vec::new();
        }
        let all = pairs(self.data.into_iter());
        match turns {
            Turns::First => all.take(1).collect(),
            Turns::All => all.collect(),
        }
    }
}

impl WorkloadUltrachat {
    fn talks(&self, path: &Path) -> Result<(Vec<Talk>, Whole), StepError> {
        let mut talks = Vec::new();
        let whole = read(path, self.damaged, |number, record: Record| {
            let exchanges = record.exchanges(self.turns);
            if !exchanges.is_empty() {
                let name = format!("ultrachat-{number}");
                talks.push(Talk { name, exchanges });
            }
            Ok(())
        })?;
        Ok((talks, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadUltrachat {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading conversations");
        let (talks, whole) = self.talks(&context.path(&self.source)?)?;
        let making = Making {
            sampling: Sampling {
                counter,
                wanted: self.conversations,
                limits: Limits {
                    least_input: 4,
                    least_output: 4,
                    ..Limits::default()
                },
                output: self.output_tokens,
                cycles: true,
            },
            shuffled: self.shuffle.then_some(self.seed),
            order: match self.turns {
                Turns::First => |sample| sample.grouped(false),
                Turns::All => Sample::by_turn,
            },
        };
        making.run(context, talks, &whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_and_answered_takes_turns() {
        let record = |n: usize| Record {
            data: (0..n).map(|i| i.to_string()).collect(),
        };
        let said = |n, turns| -> Vec<String> {
            let exchanges = record(n).exchanges(turns).into_iter();
            exchanges
                .map(|e| format!("{}>{}", e.said, e.answered))
                .collect()
        };
        assert_eq!(said(4, Turns::All), ["0>1", "2>3"]);
        assert_eq!(said(4, Turns::First), ["0>1"]);
        assert!(said(3, Turns::All).is_empty() && said(0, Turns::All).is_empty());
    }
}
