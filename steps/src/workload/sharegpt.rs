//! `workload.sharegpt`: real conversations of ShareGPT, or of a file of that form, by the rules of the
//! suites' clients and with their random numbers: the same requests as theirs.

use super::OUTPUT;
use super::published::{Making, check_output};
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
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// What prompts for a bare model end with, behind which an answer follows.
const ASSISTANT: &str = "Assistant:";

engine::choices! {
    /// Whose rules say which conversations pass.
    pub enum Rules {
        /// Those of SGLang's `bench_serving` in 2024: the first two things said, whoever said them; both of
        /// 4 tokens at least, the first of 1,024 at most, both together of 2,048 at most.
        Of2024 = "2024",
        /// Those of SGLang's `bench_serving` now: the same, of 2 tokens at least, and of `context_length`
        /// at most if that is given. Numbers of one cannot be compared with numbers of the other.
        Present = "present",
        /// Those of the hierarchical cache's client: conversations that a human begins and in which as much
        /// was answered as said; each exchange of 4 tokens at least on both sides.
        Hicache = "hicache",
    }
}

engine::choices! {
    /// How much of a conversation is asked.
    pub enum Turns {
        /// What was said first, as a request by itself.
        First = "first",
        /// Everything that was said, turn by turn, each behind the server's real answers.
        All = "all",
    }
}

engine::options! {
    /// Options of `workload.sharegpt`.
    pub struct WorkloadSharegpt {
        /// The data set: a JSON array, or one JSON object per line, of
        /// `{"conversations": [{"from": …, "value": …}, …]}`; `conversation` and `content` are understood, too.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// How many conversations. Where fewer pass the rules, there are fewer, and the step says so; by the
        /// rules of `hicache` those that pass are there again then.
        conversations: NonZeroU32, in "conversations";
        /// Whose rules say which conversations pass.
        rules: Rules = Rules::Present;
        /// How much of a conversation is asked; `all` needs `rules = "hicache"`.
        turns: Turns = Turns::First;
        /// Answer length to ask for, in place of that of the answer in the data set.
        output_tokens: Option<NonZeroU32>, in "tokens";
        /// By the present rules, the longest prompt and answer together; no limit if absent.
        context_length: Option<NonZeroU32>, in "tokens";
        /// Is put behind each prompt of a request by itself, and then `Assistant:` once.
        prompt_suffix: Option<String>;
        /// Whether conversations are taken in a random order, that of Python's `random.shuffle`; otherwise in
        /// the file's.
        shuffle: bool = true;
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadSharegpt {
    const NAME: &'static str = "workload.sharegpt";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Takes real conversations of ShareGPT, by the rules and random numbers of the suites' clients.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_output(self.output_tokens, (table, place), parser);
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.turns == Turns::All && self.rules != Rules::Hicache {
            let message = "these rules take what was said first alone";
            let help = "write `rules = \"hicache\"` beside it";
            parser.wrong::<()>(&at("turns"), message, "not by these rules", help);
        }
        if self.context_length.is_some() && self.rules != Rules::Present {
            let message = "only the present rules have a context length";
            let help = "remove it, or write `rules = \"present\"`";
            parser.wrong::<()>(&at("context_length"), message, "not used", help);
        }
        if self.prompt_suffix.is_some() && self.rules == Rules::Hicache {
            let message = "the client of these rules puts nothing behind prompts";
            parser.wrong::<()>(&at("prompt_suffix"), message, "not used", "remove it");
        }
    }
}

/// A record, as far as it matters.
#[derive(Deserialize)]
struct Record {
    #[serde(default, alias = "conversation")]
    conversations: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    from: String,
    #[serde(alias = "content")]
    value: String,
}

impl Rules {
    fn limits(self, context_length: Option<NonZeroU32>) -> Limits {
        match self {
            Self::Of2024 => Limits {
                least_input: 4,
                least_output: 4,
                most_input: Some(1024),
                most_total: Some(2048),
            },
            Self::Present => Limits {
                least_input: 2,
                least_output: 2,
                most_input: None,
                most_total: context_length.map(NonZeroU32::get),
            },
            Self::Hicache => Limits {
                least_input: 4,
                least_output: 4,
                ..Limits::default()
            },
        }
    }

    /// What of a record may pass; nothing of some.
    fn exchanges(self, record: Record, turns: Turns) -> Vec<Exchange> {
        let said = record.conversations;
        let begins = said.first().map_or("", |first| first.from.as_str());
        let is_paired = said.len().is_multiple_of(2) && begins == "human";
        if said.len() < 2 || (self == Self::Hicache && !is_paired) {
            return Vec::new();
        }
        let all = pairs(said.into_iter().map(|one| one.value));
        match turns {
            Turns::First => all.take(1).collect(),
            Turns::All => all.collect(),
        }
    }
}

/// What was said, and what was answered, out of texts that follow each other.
pub(super) fn pairs(mut texts: impl Iterator<Item = String>) -> impl Iterator<Item = Exchange> {
    std::iter::from_fn(move || {
        Some(Exchange {
            said: texts.next()?,
            answered: texts.next()?,
            images: Arc::default(),
        })
    })
}

/// A prompt with something behind it, and where an answer follows that is said once.
fn with_suffix(prompt: &str, suffix: &str) -> String {
    let prompt = prompt.strip_suffix(ASSISTANT).unwrap_or(prompt);
    format!("{prompt}{suffix}{ASSISTANT}")
}

impl WorkloadSharegpt {
    fn talks(&self, path: &Path) -> Result<(Vec<Talk>, Whole), StepError> {
        let mut talks = Vec::new();
        let whole = read(path, self.damaged, |number, record: Record| {
            let mut exchanges = self.rules.exchanges(record, self.turns);
            if exchanges.is_empty() {
                return Ok(());
            }
            if let Some(suffix) = &self.prompt_suffix {
                exchanges[0].said = with_suffix(&exchanges[0].said, suffix);
            }
            let name = format!("sharegpt-{number}");
            talks.push(Talk { name, exchanges });
            Ok(())
        })?;
        Ok((talks, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadSharegpt {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading conversations");
        let (talks, whole) = self.talks(&context.path(&self.source)?)?;
        let making = Making {
            sampling: Sampling {
                counter,
                wanted: self.conversations,
                limits: self.rules.limits(self.context_length),
                output: self.output_tokens,
                cycles: self.rules == Rules::Hicache,
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

    fn record(said: &[&str]) -> Record {
        let said = said.iter().map(|one| {
            let (from, value) = one.split_once(':').unwrap();
            Said {
                from: from.to_owned(),
                value: value.to_owned(),
            }
        });
        Record {
            conversations: said.collect(),
        }
    }

    fn said(rules: Rules, turns: Turns, record: Record) -> Vec<String> {
        let exchanges = rules.exchanges(record, turns);
        let text = |e: Exchange| format!("{}>{}", e.said, e.answered);
        exchanges.into_iter().map(text).collect()
    }

    #[test]
    fn each_client_s_rules_say_who_may_begin_and_how_much_is_taken() {
        let four = || record(&["human:a", "gpt:b", "human:c", "gpt:d"]);
        let three = || record(&["gpt:a", "human:b", "gpt:c"]);
        let nothing: Vec<String> = Vec::new();
        for rules in [Rules::Of2024, Rules::Present] {
            assert_eq!(said(rules, Turns::First, four()), ["a>b"]);
            // Nobody looks at who said it.
            assert_eq!(said(rules, Turns::First, three()), ["a>b"]);
            assert_eq!(said(rules, Turns::First, record(&["human:a"])), nothing);
            assert_eq!(said(rules, Turns::First, record(&[])), nothing);
        }
        assert_eq!(said(Rules::Hicache, Turns::First, four()), ["a>b"]);
        assert_eq!(said(Rules::Hicache, Turns::All, four()), ["a>b", "c>d"]);
        assert_eq!(said(Rules::Hicache, Turns::All, three()), nothing);
        let begun_by_gpt = record(&["gpt:a", "human:b"]);
        assert_eq!(said(Rules::Hicache, Turns::All, begun_by_gpt), nothing);
    }

    #[test]
    fn other_spellings_of_the_record_are_understood() {
        let custom =
            r#"{"conversation": [{"role": "user", "content": "a"}, {"content": "b"}], "id": 7}"#;
        let record: Record = serde_json::from_str(custom).unwrap();
        assert_eq!(said(Rules::Present, Turns::First, record), ["a>b"]);
        let none: Record = serde_json::from_str(r#"{"id": 7}"#).unwrap();
        assert!(none.conversations.is_empty());
    }

    #[test]
    fn the_limits_are_those_of_the_clients() {
        let numbers = |rules: Rules, context| {
            let limits = rules.limits(NonZeroU32::new(context));
            (
                limits.least_input,
                limits.least_output,
                limits.most_input,
                limits.most_total,
            )
        };
        assert_eq!(numbers(Rules::Of2024, 0), (4, 4, Some(1024), Some(2048)));
        assert_eq!(numbers(Rules::Present, 0), (2, 2, None, None));
        assert_eq!(numbers(Rules::Present, 4096), (2, 2, None, Some(4096)));
        assert_eq!(numbers(Rules::Hicache, 0), (4, 4, None, None));
    }

    #[test]
    fn a_suffix_stands_before_where_the_answer_follows() {
        assert_eq!(with_suffix("a Assistant:", " !"), "a  !Assistant:");
        assert_eq!(with_suffix("a", " !"), "a !Assistant:");
    }
}
