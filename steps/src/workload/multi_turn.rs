//! `workload.multi_turn`: conversations whose every turn says something new behind everything that
//! was said before, the server's real answers included.

use super::prompts::{PromptForm, Prompts};
use super::{OUTPUT, check_ratio, check_tokens, ideal_text, made, write};
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Artifact;
use engine::value::Table;
use loadgen::{Prefixes, Request};
use std::num::NonZeroU32;

engine::options! {
    /// Options of `workload.multi_turn`.
    pub struct WorkloadMultiTurn {
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// Number of conversations.
        conversations: NonZeroU32 = NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN), in "conversations";
        /// Turns of each.
        rounds: NonZeroU32 = NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN), in "turns";
        /// Length of what is said in the first turn.
        input_tokens: NonZeroU32 = NonZeroU32::new(512).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Length of what is said in each later turn; as in the first if absent.
        sub_question_tokens: Option<NonZeroU32>, in "tokens";
        /// Answer length to ask for.
        output_tokens: NonZeroU32 = NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Lengths are drawn evenly from this share of the given length up to the length itself.
        range_ratio: f64 = 1.0;
        /// What prompts are sent as. `tokens` needs a server that tells the token ids of its answers,
        /// and keeps histories free of what tokenising them again would change.
        prompt: PromptForm = PromptForm::Text;
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadMultiTurn {
    const NAME: &'static str = "workload.multi_turn";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Makes conversations whose turns are sent behind their history, real answers included.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let later = u64::from(self.rounds.get() - 1) * u64::from(self.sub_question().get());
        let each = u64::from(self.input_tokens.get()) + later;
        let tokens = u64::from(self.conversations.get()).saturating_mul(each);
        check_tokens(tokens, "conversations", (table, place), parser);
        check_ratio(self.range_ratio, (table, place), parser);
    }
}

impl WorkloadMultiTurn {
    fn sub_question(&self) -> NonZeroU32 {
        self.sub_question_tokens.unwrap_or(self.input_tokens)
    }

    fn shape(&self) -> Shape {
        Shape {
            conversations: self.conversations,
            rounds: self.rounds,
            input: self.input_tokens,
            sub_question: self.sub_question(),
            output: self.output_tokens,
            range_ratio: self.range_ratio,
        }
    }
}

/// How many turns there are, and how long.
struct Shape {
    conversations: NonZeroU32,
    rounds: NonZeroU32,
    input: NonZeroU32,
    sub_question: NonZeroU32,
    output: NonZeroU32,
    range_ratio: f64,
}

impl Shape {
    /// The turns, round by round.
    fn requests(
        &self,
        prompts: &mut Prompts,
        mut made: impl FnMut(u32) -> Result<(), StepError>,
    ) -> Result<Vec<Request>, StepError> {
        let mut seen = Prefixes::default();
        let mut requests = Vec::new();
        for round in 0..self.rounds.get() {
            made(round)?;
            for conversation in 0..self.conversations.get() {
                requests.push(self.turn(conversation, round, prompts, &mut seen)?);
            }
        }
        Ok(requests)
    }

    fn turn(
        &self,
        conversation: u32,
        round: u32,
        prompts: &mut Prompts,
        seen: &mut Prefixes,
    ) -> Result<Request, StepError> {
        let most = if round == 0 {
            self.input
        } else {
            self.sub_question
        };
        let input = prompts.length(most, self.range_ratio);
        let output = prompts.length(self.output, self.range_ratio);
        // A later turn shares its history with itself and nothing with any other conversation.
        let (drawn, cacheable) = if round == 0 {
            let drawn = prompts.draw(input)?;
            let cacheable = seen.add(&drawn.ids);
            (drawn, u32::try_from(cacheable).unwrap_or(u32::MAX))
        } else {
            (prompts.draw_next(input)?, 0)
        };
        let id = format!("conversation-{conversation}-{round}");
        Ok(Request {
            conversation: Some(format!("conversation-{conversation}")),
            turn: round,
            continues: round > 0,
            cacheable_tokens: Some(cacheable),
            ..Request::new(id, drawn.prompt, input.get(), output)
        })
    }
}

#[async_trait::async_trait]
impl Step for WorkloadMultiTurn {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let mut prompts = Prompts::new(&context.path(&self.model)?, self.prompt, self.seed)?;
        let rounds = self.rounds;
        let requests = self.shape().requests(&mut prompts, |round| {
            made(context, "making turns", round, rounds)
        })?;
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{} conversations of {rounds} turns{}",
            self.conversations,
            ideal_text(&workload)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompts::of_words;
    use super::*;
    use loadgen::{Prompt, Workload};

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn shape(conversations: u32, rounds: u32) -> Shape {
        Shape {
            conversations: n(conversations),
            rounds: n(rounds),
            input: n(512),
            sub_question: n(512),
            output: n(64),
            range_ratio: 1.0,
        }
    }

    fn made(shape: &Shape, form: PromptForm, seed: u64) -> Workload {
        let mut prompts = of_words(4000, form, seed);
        Workload::new(shape.requests(&mut prompts, |_| Ok(())).unwrap()).unwrap()
    }

    #[test]
    fn the_defaults_of_the_published_workload_could_be_cached_to_69_percent() {
        // 256 clients, 5 rounds of 512 tokens, answers of 64: a client sends 8,320 tokens, 5,760
        // of which it or the server has said before. Two prompts begin alike by chance alone.
        let workload = made(&shape(256, 5), PromptForm::Tokens, 1);
        assert_eq!(workload.requests().len(), 1280);
        let exact = 5760.0 / 8320.0;
        let chance: u32 = workload
            .requests()
            .iter()
            .filter_map(|r| r.cacheable_tokens)
            .sum();
        let ideal = workload.ideal_cache_hit_rate().unwrap();
        let by_chance = f64::from(chance) / (256.0 * 8320.0);
        assert!((ideal - exact - by_chance).abs() < 1e-12, "{ideal}");
        assert!(by_chance < 1e-4, "{by_chance}");
        assert_eq!(format!("{:.1}", ideal * 100.0), "69.2");
    }

    #[test]
    fn turns_come_round_by_round_and_have_their_lengths() {
        let mut shape = shape(3, 2);
        shape.sub_question = n(20);
        let workload = made(&shape, PromptForm::Text, 1);
        let told = workload.requests().iter();
        let told: Vec<_> = told
            .map(|r| (r.id.as_str(), r.turn, r.continues, r.input_tokens))
            .collect();
        assert_eq!(
            told[2..4],
            [
                ("conversation-2-0", 0, false, 512),
                ("conversation-0-1", 1, true, 20)
            ]
        );
        let Prompt::Text(said) = &workload.requests()[3].prompt else {
            panic!("text")
        };
        assert_eq!(said.split_whitespace().count(), 20);
        assert!(said.starts_with(' '), "{said}");
        let again = |seed| made(&shape, PromptForm::Text, seed).digest();
        assert_eq!(
            (again(1) == workload.digest(), again(2) == workload.digest()),
            (true, false)
        );
    }

    #[test]
    fn lengths_vary_within_their_range() {
        let mut shape = shape(40, 3);
        shape.range_ratio = 0.5;
        let workload = made(&shape, PromptForm::Tokens, 1);
        let (inputs, outputs): (Vec<u32>, Vec<u32>) = workload
            .requests()
            .iter()
            .map(|r| (r.input_tokens, r.output_tokens.get()))
            .unzip();
        assert!(inputs.iter().all(|i| (256..=512).contains(i)));
        assert!(outputs.iter().all(|o| (32..=64).contains(o)));
        assert!(inputs.iter().any(|i| *i < 300) && inputs.iter().any(|i| *i > 470));
    }
}
