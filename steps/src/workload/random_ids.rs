//! `workload.random_ids`: prompts that are runs of token ids, with the draws of SGLang's `random-ids`, so
//! that both clients ask for the very same ids.

use super::numpy::LegacyRandom;
use super::prompts::load_tokenizer;
use super::{OUTPUT, check_tokens, ideal_text, tokens_text, write};
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Artifact;
use engine::value::Table;
use loadgen::{Prefixes, Prompt, Request};
use std::num::NonZeroU32;

engine::options! {
    /// Options of `workload.random_ids`.
    pub struct WorkloadRandomIds {
        /// The model whose tokenizer has the ids.
        model: Artifact<Model>;
        /// Number of requests.
        requests: NonZeroU32, in "requests";
        /// The longest prompt.
        input_tokens: NonZeroU32, in "tokens";
        /// The longest answer to ask for.
        output_tokens: NonZeroU32, in "tokens";
        /// Lengths are drawn evenly from this share of the given length, rounded down, up to the length itself;
        /// 0 begins at one token.
        range_ratio: f64 = 1.0;
        /// Number of ids, from 0, special ones among them; those of the tokenizer if absent. Other clients may leave
        /// out the tokens that were added to a vocabulary: they print the number that they take.
        vocab_size: Option<NonZeroU32>, in "ids";
        /// Starts the random numbers, as `np.random.seed` of NumPy.
        seed: u32 = 42;
    }
}

impl StepType for WorkloadRandomIds {
    const NAME: &'static str = "workload.random_ids";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Makes prompts that are runs of token ids, the same as those of SGLang's `random-ids`.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let tokens = u64::from(self.requests.get()) * u64::from(self.input_tokens.get());
        check_tokens(tokens, "requests", (table, place), parser);
        if !(0.0..=1.0).contains(&self.range_ratio) {
            let at = table.get("range_ratio").map_or(place, |v| &v.place);
            let message = format!("expected a share from 0 to 1, found {}", self.range_ratio);
            let help = "1.0 makes every request as long as asked for";
            parser.wrong::<()>(at, message, "out of range", help);
        }
    }
}

/// How many requests there are, and what is drawn of each.
struct Shape {
    requests: u32,
    input: u32,
    output: u32,
    range_ratio: f64,
    vocab_size: u32,
}

impl Shape {
    /// All lengths of prompts, then those of answers, then where each run of ids begins: the draws of
    /// SGLang, in its order.
    fn requests(&self, seed: u32) -> Vec<Request> {
        let mut random = LegacyRandom::seeded(seed);
        let inputs = self.lengths(self.input, &mut random);
        let outputs = self.lengths(self.output, &mut random);
        let mut seen = Prefixes::default();
        let all = (0..).zip(inputs.into_iter().zip(outputs));
        all.map(|(i, (input, output))| {
            let begins = u64::from(random.integer(0, self.vocab_size)) + i;
            let ids = self.run(begins, input);
            let cacheable = u32::try_from(seen.add(&ids)).unwrap_or(u32::MAX);
            let output = NonZeroU32::new(output).unwrap_or(NonZeroU32::MIN);
            Request {
                cacheable_tokens: Some(cacheable),
                ..Request::new(
                    format!("random-ids-{i}"),
                    Prompt::Tokens(ids),
                    input,
                    output,
                )
            }
        })
        .collect()
    }

    fn lengths(&self, most: u32, random: &mut LegacyRandom) -> Vec<u32> {
        // A share of a u32 is one.
        let least = ((f64::from(most) * self.range_ratio) as u32).max(1);
        let draw = |_| random.integer(least, most.saturating_add(1));
        (0..self.requests).map(draw).collect()
    }

    /// Ids one after the other; behind the last comes the first.
    fn run(&self, begins: u64, tokens: u32) -> Vec<u32> {
        let size = u64::from(self.vocab_size.max(1));
        let id = |j: u64| u32::try_from((begins + j) % size).unwrap_or(0);
        (0..u64::from(tokens)).map(id).collect()
    }
}

#[async_trait::async_trait]
impl Step for WorkloadRandomIds {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let tokenizer = load_tokenizer(&context.path(&self.model)?)?;
        let own = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let shape = Shape {
            requests: self.requests.get(),
            input: self.input_tokens.get(),
            output: self.output_tokens.get(),
            range_ratio: self.range_ratio,
            vocab_size: self.vocab_size.map_or(own, NonZeroU32::get),
        };
        if shape.vocab_size > own {
            let message = format!("the tokenizer has {own} ids, not {}", shape.vocab_size);
            return Err(StepError::new(message).help("remove `vocab_size`, or lower it"));
        }
        let workload = write(context, shape.requests(self.seed))?;
        Ok(StepReport::line(format!(
            "{} requests of {} in, {} out{}",
            self.requests,
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get()),
            ideal_text(&workload)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NumPy 2.4.6 draws after `np.random.seed(seed)` where SGLang's client asks it.
    fn drawn(seed: u32, shape: &Shape) -> Vec<[u32; 3]> {
        let told = |r: &Request| {
            let Prompt::Tokens(ids) = &r.prompt else {
                panic!("ids")
            };
            assert_eq!(ids.len(), r.input_tokens as usize);
            [r.input_tokens, r.output_tokens.get(), ids[0]]
        };
        shape.requests(seed).iter().map(told).collect()
    }

    #[test]
    fn every_request_is_the_one_of_the_other_client() {
        let shape = |requests, input, output, range_ratio, vocab_size| Shape {
            requests,
            input,
            output,
            range_ratio,
            vocab_size,
        };
        // Each begins its number behind what was drawn.
        let expected = [
            [88, 14, 4426],
            [78, 16, 21963],
            [64, 19, 14425],
            [92, 12, 28023],
            [57, 16, 11367],
        ];
        assert_eq!(drawn(42, &shape(5, 100, 20, 0.5, 32_000)), expected);
        // Lengths that do not vary draw nothing.
        let expected = [
            [16, 8, 128_037],
            [16, 8, 5193],
            [16, 8, 50_059],
            [16, 8, 109_262],
        ];
        assert_eq!(drawn(1, &shape(4, 16, 8, 1.0, 151_936)), expected);
        let expected = [
            [48, 24, 28_232],
            [5, 40, 27_355],
            [26, 29, 45_962],
            [55, 58, 19_626],
            [4, 15, 38_890],
            [20, 24, 1097],
        ];
        assert_eq!(drawn(7, &shape(6, 64, 64, 0.0, 50_000)), expected);
    }

    #[test]
    fn runs_of_ids_go_round() {
        let shape = Shape {
            requests: 1,
            input: 5,
            output: 1,
            range_ratio: 1.0,
            vocab_size: 4,
        };
        assert_eq!(shape.run(6, 5), [2, 3, 0, 1, 2]);
    }
}
