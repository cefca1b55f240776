//! `workload.mix`: conversations of unequal length whose turns grow shorter, as a service has them: what
//! `bench_mix.py` of the hierarchical cache draws.

use super::prompts::{PromptForm, Prompts};
use super::{OUTPUT, check_tokens, ideal_text, made, write};
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Artifact;
use engine::value::Table;
use loadgen::{Prefixes, Request};
use std::num::NonZeroU32;

engine::options! {
    /// Options of `workload.mix`.
    pub struct WorkloadMix {
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// Number of conversations.
        conversations: NonZeroU32, in "conversations";
        /// How many conversations have one turn, how many two, and so on, each beside the others: weights.
        round_ratios: Vec<f64> = vec![50.0, 25.0, 15.0, 15.0, 10.0, 10.0, 9.0, 8.0, 7.0, 6.0];
        /// Mean length of what is said in the first turn, in the second, and so on.
        new_tokens: Vec<u32> = vec![1000, 400, 350, 300, 280, 260, 240, 220, 210, 200], in "tokens";
        /// Mean answer length to ask for in the first turn, in the second, and so on.
        return_tokens: Vec<u32> = vec![100; 10], in "tokens";
        /// Lengths lie evenly within this share of their mean, on both sides.
        spread: f64 = 0.2;
        /// What prompts are sent as. `tokens` needs a server that tells the token ids of its answers.
        prompt: PromptForm = PromptForm::Text;
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadMix {
    const NAME: &'static str = "workload.mix";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Makes conversations of unequal length, with lengths of their own for each turn.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        let rounds = self.round_ratios.len();
        let is_weight = |ratio: &f64| ratio.is_finite() && *ratio >= 0.0;
        let sum: f64 = self.round_ratios.iter().sum();
        if !self.round_ratios.iter().all(is_weight) || sum <= 0.0 {
            let message = "expected weights of which one is above 0";
            let help = "`[50, 25]` are twice as many conversations of one turn as of two";
            parser.wrong::<()>(&at("round_ratios"), message, "no weights", help);
        }
        for (option, lengths) in [
            ("new_tokens", &self.new_tokens),
            ("return_tokens", &self.return_tokens),
        ] {
            if lengths.len() != rounds || lengths.contains(&0) {
                let message =
                    format!("expected {rounds} lengths above 0, as many as `round_ratios`");
                let help = "give one for each turn of the longest conversations";
                parser.wrong::<()>(&at(option), message, "does not fit", help);
            }
        }
        if !(0.0..1.0).contains(&self.spread) {
            let message = format!(
                "expected a share from 0 up to and without 1, found {}",
                self.spread
            );
            parser.wrong::<()>(
                &at("spread"),
                message,
                "out of range",
                "0 makes all lengths their mean",
            );
        }
        let longest: u64 = self.new_tokens.iter().map(|n| u64::from(*n)).sum();
        let tokens = u64::from(self.conversations.get()).saturating_mul(longest);
        check_tokens(tokens, "conversations", (table, place), parser);
    }
}

/// What conversations are drawn from.
struct Mix<'a> {
    ratios: &'a [f64],
    new: &'a [u32],
    answers: &'a [u32],
    spread: f64,
}

impl Mix<'_> {
    /// How many turns each conversation has.
    fn rounds(&self, conversations: NonZeroU32, prompts: &mut Prompts) -> Vec<usize> {
        let all: f64 = self.ratios.iter().sum();
        let draw = |_| {
            let mut left = prompts.share() * all;
            let chosen = self.ratios.iter().position(|ratio| {
                left -= ratio;
                left < 0.0
            });
            // Rounding may leave a little: then it is the last that is chosen at all.
            let last = self.ratios.iter().rposition(|ratio| *ratio > 0.0);
            chosen.or(last).map_or(1, |i| i + 1)
        };
        (0..conversations.get()).map(draw).collect()
    }

    /// The turns of all, round by round.
    fn requests(
        &self,
        rounds: &[usize],
        prompts: &mut Prompts,
        mut made: impl FnMut(u32) -> Result<(), StepError>,
    ) -> Result<Vec<Request>, StepError> {
        let mut seen = Prefixes::default();
        let mut requests = Vec::new();
        for (round, (new, answer)) in (0..).zip(self.new.iter().zip(self.answers)) {
            made(round)?;
            let goes_on = |rounds: &usize| *rounds > round as usize;
            let all = (0..).zip(rounds).filter(|(_, rounds)| goes_on(rounds));
            for (conversation, _) in all {
                let lengths = [*new, *answer].map(|mean| prompts.about(mean, self.spread));
                requests.push(turn(conversation, round, lengths, prompts, &mut seen)?);
            }
        }
        Ok(requests)
    }
}

fn turn(
    conversation: u32,
    round: u32,
    [input, output]: [NonZeroU32; 2],
    prompts: &mut Prompts,
    seen: &mut Prefixes,
) -> Result<Request, StepError> {
    // A later turn shares its history with itself and nothing with any other conversation.
    let (drawn, cacheable) = if round == 0 {
        let drawn = prompts.draw(input)?;
        let cacheable = seen.add(&drawn.ids);
        (drawn, u32::try_from(cacheable).unwrap_or(u32::MAX))
    } else {
        (prompts.draw_next(input)?, 0)
    };
    Ok(Request {
        conversation: Some(format!("mix-{conversation}")),
        turn: round,
        continues: round > 0,
        cacheable_tokens: Some(cacheable),
        ..Request::new(
            format!("mix-{conversation}-{round}"),
            drawn.prompt,
            input.get(),
            output,
        )
    })
}

#[async_trait::async_trait]
impl Step for WorkloadMix {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let mut prompts = Prompts::new(&context.path(&self.model)?, self.prompt, self.seed)?;
        let mix = Mix {
            ratios: &self.round_ratios,
            new: &self.new_tokens,
            answers: &self.return_tokens,
            spread: self.spread,
        };
        let rounds = mix.rounds(self.conversations, &mut prompts);
        let most = rounds.iter().max().copied().unwrap_or(1);
        let all = u32::try_from(self.new_tokens.len())
            .ok()
            .and_then(NonZeroU32::new);
        let all = all.unwrap_or(NonZeroU32::MIN);
        let requests = mix.requests(&rounds, &mut prompts, |round| {
            made(context, "making turns", round, all)
        })?;
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{} turns of {} conversations of 1 to {most} turns{}",
            workload.requests().len(),
            self.conversations,
            ideal_text(&workload)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompts::of_words;
    use super::*;
    use loadgen::Workload;

    fn made(ratios: &[f64], conversations: u32, seed: u64) -> (Vec<usize>, Workload) {
        let mix = Mix {
            ratios,
            new: &[100, 40, 10],
            answers: &[10, 20, 30],
            spread: 0.2,
        };
        let mut prompts = of_words(4000, PromptForm::Tokens, seed);
        let rounds = mix.rounds(NonZeroU32::new(conversations).unwrap(), &mut prompts);
        let requests = mix.requests(&rounds, &mut prompts, |_| Ok(())).unwrap();
        (rounds, Workload::new(requests).unwrap())
    }

    #[test]
    fn conversations_are_as_long_as_their_weights_say() {
        let (rounds, workload) = made(&[50.0, 25.0, 25.0], 4000, 1);
        let share = |n: usize| rounds.iter().filter(|r| **r == n).count() as f64 / 4000.0;
        // Three deviations of a share of a quarter or a half are 2.4 percent at most.
        for (n, expected) in [(1, 0.5), (2, 0.25), (3, 0.25)] {
            assert!((share(n) - expected).abs() < 0.024, "{n}: {}", share(n));
        }
        assert_eq!(workload.requests().len(), rounds.iter().sum::<usize>());
        assert_eq!(made(&[0.0, 0.0, 1.0], 50, 1).0, [3; 50]);
        let again = |seed| made(&[1.0, 1.0, 1.0], 20, seed).1.digest();
        assert!(again(1) == again(1) && again(1) != again(2));
    }

    #[test]
    fn each_turn_has_lengths_of_its_own_and_the_ideal_is_what_was_said_before() {
        let (_, workload) = made(&[0.0, 0.0, 1.0], 200, 3);
        for (turn, (new, answer)) in (0..).zip([(100, 10), (40, 20), (10, 30)]) {
            let of = |r: &&Request| r.turn == turn;
            for request in workload.requests().iter().filter(of) {
                let (input, output) = (request.input_tokens, request.output_tokens.get());
                assert!(input.abs_diff(new) * 5 <= new && output.abs_diff(answer) * 5 <= answer);
                assert_eq!(request.continues, turn > 0);
            }
        }
        // The naive sum: each prompt, and of it what the conversation has said and heard before.
        let (mut cached, mut sent) = (0, 0);
        for conversation in workload.conversations() {
            let mut history = 0;
            for at in conversation {
                let turn = &workload.requests()[usize::try_from(at).unwrap()];
                cached += history + turn.cacheable_tokens.unwrap();
                history += turn.input_tokens;
                sent += history;
                history += turn.output_tokens.get();
            }
        }
        let ideal = workload.ideal_cache_hit_rate().unwrap();
        assert!(
            (ideal - f64::from(cached) / f64::from(sent)).abs() < 1e-12,
            "{ideal}"
        );
    }
}
