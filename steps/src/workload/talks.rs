//! Conversations of a data set: what people said and what was answered then. Which of them make a
//! workload, by rules on their lengths, and in which order their turns stand.
//!
//! Knows no data set. Steps that make workloads never run beside a measurement.

use super::MOST_TOKENS;
use super::tokens::{Counter, Text};
use engine::step::StepError;
use loadgen::{Prefixes, Prompt, Request};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

/// Conversations whose texts are counted together.
const TOGETHER: usize = 256;

/// What was said, and what was answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exchange {
    pub(super) said: String,
    pub(super) answered: String,
    /// What was shown before it was said.
    pub(super) images: Arc<[Image]>,
}

/// An image of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Image {
    /// Its name there.
    pub(super) name: String,
    /// What stands for it where lengths are counted: ids that no text and no other image has.
    pub(super) ids: Range<u32>,
}

/// A conversation as the data set has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Talk {
    /// Names its requests.
    pub(super) name: String,
    pub(super) exchanges: Vec<Exchange>,
}

/// Which exchanges are taken, by their lengths in tokens; the others are left out one by one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) least_input: u32,
    pub(super) least_output: u32,
    pub(super) most_input: Option<u32>,
    /// Of prompt and answer together.
    pub(super) most_total: Option<u32>,
}

impl Limits {
    fn fit(&self, input: u32, output: u32) -> Fit {
        let total = u64::from(input) + u64::from(output);
        let is_over = |most: Option<u32>, n: u64| most.is_some_and(|most| n > most.into());
        if input < self.least_input || output < self.least_output {
            Fit::Short
        } else if is_over(self.most_input, input.into()) || is_over(self.most_total, total) {
            Fit::Long
        } else {
            Fit::Fits
        }
    }
}

enum Fit {
    Fits,
    Short,
    Long,
}

/// How a workload is taken from conversations.
pub(super) struct Sampling {
    pub(super) counter: Counter,
    /// How many conversations there are to be.
    pub(super) wanted: NonZeroU32,
    pub(super) limits: Limits,
    /// The length of every answer, in place of that of the data set's.
    pub(super) output: Option<NonZeroU32>,
    /// Whether those that pass are taken again, from the first, where fewer do than are wanted.
    pub(super) cycles: bool,
}

/// Of an exchange, the ids of what was shown and said, and how many tokens the answer has.
type Counted = (Vec<u32>, u32);

/// Conversations of a workload.
#[derive(Debug, Default)]
pub(super) struct Sample {
    kept: Vec<Kept>,
    /// How many the data set has.
    of: usize,
    looked_at: usize,
    /// Exchanges that were left out.
    short: usize,
    long: usize,
    /// How many are there a second time, or more.
    repeated: usize,
    tokens: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    name: String,
    turns: Vec<Turn>,
}

/// An exchange that was taken.
#[derive(Debug, Clone)]
struct Turn {
    /// Which of its conversation: where others were left out, there are holes.
    number: u32,
    said: String,
    images: Arc<[Image]>,
    /// Of its images and of what was said.
    ids: Vec<u32>,
    output: NonZeroU32,
}

impl Sampling {
    /// Takes conversations in their order until there are as many as wanted; `made` is told how many
    /// there are.
    pub(super) fn take(
        &mut self,
        talks: &[Talk],
        mut made: impl FnMut(u32) -> Result<(), StepError>,
    ) -> Result<Sample, StepError> {
        let wanted = self.wanted.get() as usize;
        let mut sample = Sample {
            of: talks.len(),
            ..Sample::default()
        };
        for some in talks.chunks(TOGETHER) {
            made(u32::try_from(sample.kept.len()).unwrap_or(u32::MAX))?;
            for (talk, lengths) in some.iter().zip(self.count(some)?) {
                if sample.kept.len() == wanted {
                    return Ok(sample);
                }
                sample.add(talk, lengths, &self.limits)?;
            }
        }
        if sample.kept.is_empty() {
            return Err(sample.nothing());
        }
        if self.cycles {
            sample.repeat(wanted)?;
        }
        Ok(sample)
    }

    /// For each exchange of each conversation the ids of what was said, and how many tokens the answer
    /// has.
    fn count(&mut self, talks: &[Talk]) -> Result<Vec<Vec<Counted>>, StepError> {
        let mut texts = Vec::new();
        for exchange in talks.iter().flat_map(|t| &t.exchanges) {
            texts.push(Text::Ids(&exchange.said));
            if self.output.is_none() {
                texts.push(Text::Number(&exchange.answered));
            }
        }
        let mut counted = self.counter.count(&texts)?.into_iter();
        let given = self.output.map(NonZeroU32::get);
        let mut next = |exchange: &Exchange| -> Option<Counted> {
            let shown = exchange.images.iter().flat_map(|image| image.ids.clone());
            let mut ids: Vec<u32> = shown.collect();
            ids.extend(counted.next()?.ids);
            let output = given.or_else(|| Some(counted.next()?.number))?;
            Some((ids, output))
        };
        let of = |talk: &Talk| talk.exchanges.iter().filter_map(&mut next).collect();
        Ok(talks.iter().map(of).collect())
    }
}

impl Sample {
    fn add(
        &mut self,
        talk: &Talk,
        lengths: Vec<Counted>,
        limits: &Limits,
    ) -> Result<(), StepError> {
        self.looked_at += 1;
        let mut turns = Vec::new();
        for (number, (exchange, (ids, output))) in (0..).zip(talk.exchanges.iter().zip(lengths)) {
            match limits.fit(count(ids.len()), output) {
                Fit::Short => self.short += 1,
                Fit::Long => self.long += 1,
                Fit::Fits => turns.push(Turn {
                    number,
                    said: exchange.said.clone(),
                    images: Arc::clone(&exchange.images),
                    ids,
                    // Answers without a token are not asked for.
                    output: NonZeroU32::new(output).unwrap_or(NonZeroU32::MIN),
                }),
            }
        }
        if turns.is_empty() {
            return Ok(());
        }
        let name = talk.name.clone();
        self.keep(Kept { name, turns })
    }

    fn keep(&mut self, kept: Kept) -> Result<(), StepError> {
        self.tokens += kept.turns.iter().map(|t| t.ids.len() as u64).sum::<u64>();
        if self.tokens > MOST_TOKENS {
            let message = format!("the prompts are more than {MOST_TOKENS} tokens");
            return Err(StepError::new(message).help("take fewer conversations"));
        }
        self.kept.push(kept);
        Ok(())
    }

    /// Takes the first ones again, under other names, until there are `wanted`.
    fn repeat(&mut self, wanted: usize) -> Result<(), StepError> {
        let passed = self.kept.len();
        for at in passed..wanted {
            let mut again = self.kept[at % passed].clone();
            again.name = format!("{}-again-{}", again.name, at / passed);
            self.keep(again)?;
            self.repeated += 1;
        }
        Ok(())
    }

    fn nothing(&self) -> StepError {
        StepError::new(format!(
            "none of {} conversations passes the rules: {} exchanges are too short, {} too long",
            self.of, self.short, self.long
        ))
        .help("look whether the tokenizer is that of the model, or take other rules")
    }

    /// What was taken of how many, and what was not.
    pub(super) fn text(&self, wanted: NonZeroU32) -> String {
        let mut text = format!("{} of {} conversations looked at", self.looked_at, self.of);
        for (n, what) in [(self.short, "too short"), (self.long, "too long")] {
            if n > 0 {
                text += &format!(", {n} exchanges {what}");
            }
        }
        let passed = self.kept.len() - self.repeated;
        if self.repeated > 0 {
            text += &format!("; only {passed} pass, so {} are there again", self.repeated);
        } else if passed < wanted.get() as usize {
            text += &format!("; only {passed} of {wanted} that were asked for pass");
        }
        text
    }

    /// Requests by themselves, in the order of conversations: each exchange stands alone, behind those
    /// of its own conversation. `group` is how the conversation of each is told.
    pub(super) fn grouped(self, is_told: bool) -> Vec<Request> {
        let mut seen = Prefixes::default();
        let all = self.kept.into_iter().flat_map(|kept| {
            let is_alone = kept.turns.len() == 1 && !is_told;
            let name = kept.name;
            kept.turns.into_iter().map(move |turn| {
                let id = match is_alone {
                    true => name.clone(),
                    false => format!("{name}-{}", turn.number),
                };
                let group = is_told.then(|| name.clone());
                (id, group, turn)
            })
        });
        all.map(|(id, group, turn)| Request {
            group,
            ..turn.request(id, &mut seen, true)
        })
        .collect()
    }

    /// Turns of conversations, each behind its history: all first ones, all second ones, and so on, each
    /// time in the order of conversations.
    pub(super) fn by_turn(self) -> Vec<Request> {
        let mut seen = Prefixes::default();
        let mut rest: Vec<(String, std::vec::IntoIter<Turn>)> = self
            .kept
            .into_iter()
            .map(|kept| (kept.name, kept.turns.into_iter()))
            .collect();
        let mut requests = Vec::new();
        let mut is_first = true;
        loop {
            let before = requests.len();
            for (name, turns) in &mut rest {
                let Some(turn) = turns.next() else { continue };
                requests.push(Request {
                    conversation: Some(name.clone()),
                    turn: turn.number,
                    continues: !is_first,
                    ..turn.request(format!("{name}-{}", turn.number), &mut seen, is_first)
                });
            }
            if requests.len() == before {
                return requests;
            }
            is_first = false;
        }
    }
}

impl Turn {
    /// `is_first` if nothing was said before it; what was is its conversation's own, and shared with no
    /// other.
    fn request(&self, id: String, seen: &mut Prefixes, is_first: bool) -> Request {
        let cacheable = if is_first {
            count(seen.add(&self.ids))
        } else {
            0
        };
        let prompt = Prompt::Text(self.said.clone());
        Request {
            cacheable_tokens: Some(cacheable),
            images: self.images.iter().map(|image| image.name.clone()).collect(),
            ..Request::new(id, prompt, count(self.ids.len()), self.output)
        }
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation whose exchanges have so many words.
    fn talk(name: &str, lengths: &[(usize, usize)]) -> Talk {
        // Beginnings differ, so that only what is meant to be shared is.
        let words = |n: usize, what: &str| vec![what; n].join(" ");
        let exchange = |(said, answered): &(usize, usize)| Exchange {
            said: words(*said, if name == "a" { "baba" } else { "babe" }),
            answered: words(*answered, "babi"),
            images: Arc::default(),
        };
        Talk {
            name: name.to_owned(),
            exchanges: lengths.iter().map(exchange).collect(),
        }
    }

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn take(
        talks: &[Talk],
        wanted: u32,
        limits: Limits,
        cycles: bool,
    ) -> Result<Sample, StepError> {
        let tokenizer = embedded_server::tokenizer::Tokenizer::of_words(500).unwrap();
        let mut sampling = Sampling {
            counter: Counter::of(tokenizer),
            wanted: n(wanted),
            limits,
            output: None,
            cycles,
        };
        sampling.take(talks, |_| Ok(()))
    }

    fn ids(requests: &[Request]) -> Vec<&str> {
        requests.iter().map(|r| r.id.as_str()).collect()
    }

    const FOUR: Limits = Limits {
        least_input: 4,
        least_output: 4,
        most_input: None,
        most_total: None,
    };

    #[test]
    fn turns_come_round_by_round_as_the_suites_say() {
        // Their example has conversations of 2, 3 and 4 turns.
        let talks = [("A", 2), ("B", 3), ("C", 4)].map(|(name, n)| talk(name, &vec![(5, 5); n]));
        let requests = take(&talks, 3, FOUR, false).unwrap().by_turn();
        let expected = [
            "A-0", "B-0", "C-0", "A-1", "B-1", "C-1", "B-2", "C-2", "C-3",
        ];
        assert_eq!(ids(&requests), expected);
        assert!(requests.iter().all(|r| r.continues == (r.turn > 0)));
        assert_eq!(requests[4].conversation.as_deref(), Some("B"));
    }

    #[test]
    fn questions_about_one_document_stay_together() {
        let talks = [("A", 2), ("B", 1)].map(|(name, n)| talk(name, &vec![(5, 5); n]));
        let requests = take(&talks, 2, FOUR, false).unwrap().grouped(true);
        assert_eq!(ids(&requests), ["A-0", "A-1", "B-0"]);
        let groups: Vec<_> = requests.iter().map(|r| r.group.as_deref()).collect();
        assert_eq!(groups, [Some("A"), Some("A"), Some("B")]);
        assert!(
            requests
                .iter()
                .all(|r| r.conversation.is_none() && !r.continues)
        );
        // The helper writes the same word in both conversations.
        let cacheable: Vec<_> = requests.iter().map(|r| r.cacheable_tokens).collect();
        assert_eq!(cacheable, [Some(0), Some(5), Some(5)]);
    }

    #[test]
    fn exchanges_are_left_out_one_by_one_and_leave_holes() {
        let talks = [
            talk("a", &[(5, 5), (3, 9), (9, 3), (6, 6)]),
            talk("b", &[(1, 1)]),
        ];
        let sample = take(&talks, 5, FOUR, false).unwrap();
        assert_eq!((sample.short, sample.long, sample.looked_at), (3, 0, 2));
        let told = sample.text(n(5));
        assert_eq!(
            told,
            "2 of 2 conversations looked at, 3 exchanges too short; only 1 of 5 that were asked for pass"
        );
        let requests = sample.by_turn();
        let turns: Vec<_> = requests
            .iter()
            .map(|r| (r.turn, r.continues, r.input_tokens))
            .collect();
        assert_eq!(turns, [(0, false, 5), (3, true, 6)]);
    }

    #[test]
    fn limits_mean_what_they_say() {
        let limits = Limits {
            least_input: 4,
            least_output: 4,
            most_input: Some(10),
            most_total: Some(16),
        };
        for (lengths, fits) in [
            ((4, 4), true),
            ((3, 4), false),
            ((4, 3), false),
            ((10, 6), true),
            ((11, 4), false),
            ((10, 7), false),
        ] {
            let taken = take(&[talk("a", &[lengths])], 1, limits, false);
            assert_eq!(taken.is_ok(), fits, "{lengths:?}");
        }
        let refused = take(&[talk("a", &[(11, 4)])], 1, limits, false).unwrap_err();
        assert!(
            refused
                .message
                .contains("0 exchanges are too short, 1 too long"),
            "{refused}"
        );
    }

    #[test]
    fn too_few_are_taken_again_where_that_is_the_rule_and_none_is_an_end() {
        let talks = [
            talk("a", &[(5, 5)]),
            talk("b", &[(1, 1)]),
            talk("c", &[(6, 5)]),
        ];
        let sample = take(&talks, 5, FOUR, true).unwrap();
        assert!(
            sample
                .text(n(5))
                .ends_with("; only 2 pass, so 3 are there again")
        );
        let requests = sample.grouped(false);
        assert_eq!(
            ids(&requests),
            ["a", "c", "a-again-1", "c-again-1", "a-again-2"]
        );
        // What is there again is cached whole.
        let cacheable: Vec<_> = requests.iter().filter_map(|r| r.cacheable_tokens).collect();
        assert_eq!(cacheable, [0, 0, 5, 6, 5]);
        assert!(take(&talks[1..2], 5, FOUR, true).is_err());
        assert!(take(&[], 5, FOUR, true).is_err());
    }

    #[test]
    fn it_stops_where_there_are_enough_and_keeps_the_order() {
        let talks: Vec<Talk> = (0..1000)
            .map(|i| talk(&i.to_string(), &[(5 + i % 7, 5)]))
            .collect();
        let sample = take(&talks, 600, FOUR, false).unwrap();
        assert_eq!(sample.looked_at, 600);
        let requests = sample.grouped(false);
        for (i, request) in requests.iter().enumerate() {
            let told = (request.id.clone(), request.input_tokens as usize);
            assert_eq!(told, (i.to_string(), 5 + i % 7));
        }
    }
}
