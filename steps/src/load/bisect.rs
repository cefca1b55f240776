//! Finding the highest load that still holds: bracket by doubling, then bisect. Pure.

use serde::{Deserialize, Serialize};
use statistics::wilson;
use std::collections::BTreeMap;

/// The search so far.
#[derive(Clone, Debug)]
pub(super) struct Bisection {
    lowest: f64,
    highest: f64,
    /// How near the answer has to be, as a share of it.
    resolution: f64,
    /// Whether only whole numbers make sense.
    whole: bool,
    /// The highest that held.
    held: Option<f64>,
    /// The lowest that did not.
    broke: Option<f64>,
}

impl Bisection {
    pub(super) fn new(lowest: f64, highest: f64, resolution: f64, whole: bool) -> Self {
        Self {
            lowest,
            highest,
            resolution,
            whole,
            held: None,
            broke: None,
        }
    }

    /// What to try next; `None` when the answer is near enough.
    pub(super) fn next(&self) -> Option<f64> {
        match (self.held, self.broke) {
            (None, None) => Some(self.lowest),
            // Not even the lowest held.
            (None, Some(_)) => None,
            (Some(held), None) if held >= self.highest => None,
            (Some(held), None) => Some((held * 2.0).min(self.highest)),
            (Some(held), Some(broke)) => {
                let middle = (held * broke).sqrt();
                let middle = if self.whole { middle.round() } else { middle };
                let is_near = broke <= held * (1.0 + self.resolution);
                (!is_near && middle > held && middle < broke).then_some(middle)
            }
        }
    }

    pub(super) fn tell(&mut self, value: f64, held: bool) {
        let side = if held {
            &mut self.held
        } else {
            &mut self.broke
        };
        *side = Some(match *side {
            Some(other) if held => other.max(value),
            Some(other) => other.min(value),
            None => value,
        });
    }

    /// The highest that held, and the lowest that did not.
    pub(super) fn found(&self) -> (Option<f64>, Option<f64>) {
        (self.held, self.broke)
    }
}

/// What is known of one load: how many requests met their objectives, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) met: u64,
    pub(super) of: u64,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.met += more.met;
        self.of += more.of;
    }

    /// Whether a share of at least `wanted` is met, by an interval of this confidence; `None` while
    /// that cannot be told from the opposite.
    pub(super) fn decides(self, wanted: f64, confidence: f64) -> Option<bool> {
        let interval = wilson(self.met, self.of, confidence)?;
        match (interval.low >= wanted, interval.high < wanted) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// The share that was met.
    pub(super) fn share(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
        let share = self.met as f64 / self.of.max(1) as f64;
        share
    }
}

/// What is known of one load, of all requests and by models where each has to hold by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tallies {
    #[serde(flatten)]
    pub(super) all: Tally,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) by_model: BTreeMap<String, Tally>,
}

impl Tallies {
    /// Adds what another trial of the same load came to.
    pub(super) fn add(&mut self, more: &Self) {
        self.all.add(more.all);
        for (model, tally) in &more.by_model {
            self.by_model.entry(model.clone()).or_default().add(*tally);
        }
    }

    fn each(&self) -> impl Iterator<Item = Tally> {
        [self.all]
            .into_iter()
            .chain(self.by_model.values().copied())
    }

    /// Whether each keeps a share of at least `wanted`: sure if all do, or if one does not.
    pub(super) fn decides(&self, wanted: f64, confidence: f64) -> Option<bool> {
        let mut all_do = Some(true);
        for tally in self.each() {
            match tally.decides(wanted, confidence) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all_do = None,
            }
        }
        all_do
    }

    /// Whether each has kept a share of at least `wanted`, however sure that is.
    pub(super) fn hold(&self, wanted: f64) -> bool {
        self.each().all(|tally| tally.share() >= wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(limit: f64, lowest: f64, highest: f64, whole: bool) -> (Vec<f64>, Bisection) {
        let mut bisection = Bisection::new(lowest, highest, 0.05, whole);
        let mut tried = Vec::new();
        while let Some(value) = bisection.next() {
            assert!(tried.len() < 60, "{tried:?}");
            tried.push(value);
            bisection.tell(value, value <= limit);
        }
        (tried, bisection)
    }

    #[test]
    fn it_doubles_and_then_closes_in() {
        let (tried, bisection) = search(11.0, 1.0, 1000.0, false);
        assert_eq!(tried[..5], [1.0, 2.0, 4.0, 8.0, 16.0]);
        let (held, broke) = bisection.found();
        assert!(held.unwrap() <= 11.0 && broke.unwrap() > 11.0);
        assert!(broke.unwrap() <= held.unwrap() * 1.05);
        assert_eq!(search(0.5, 1.0, 8.0, false).1.found(), (None, Some(1.0)));
        assert_eq!(search(1e9, 1.0, 8.0, false).1.found(), (Some(8.0), None));
        assert_eq!(
            search(5.0, 1.0, 64.0, true).1.found(),
            (Some(5.0), Some(6.0))
        );
    }

    #[test]
    fn a_share_is_decided_only_where_chance_is_not_enough() {
        assert_eq!(
            Tally {
                met: 1000,
                of: 1000
            }
            .decides(0.99, 0.95),
            Some(true)
        );
        assert_eq!(
            Tally { met: 900, of: 1000 }.decides(0.99, 0.95),
            Some(false)
        );
        assert_eq!(Tally { met: 99, of: 100 }.decides(0.99, 0.95), None);
        assert_eq!(Tally::default().decides(0.99, 0.95), None);
    }

    fn tallies(all: (u64, u64), by_model: &[(&str, (u64, u64))]) -> Tallies {
        let tally = |(met, of)| Tally { met, of };
        let named = |(name, of): &(&str, (u64, u64))| ((*name).to_owned(), tally(*of));
        Tallies {
            all: tally(all),
            by_model: by_model.iter().map(named).collect(),
        }
    }

    #[test]
    fn trials_are_summed_by_the_names_of_models() {
        let mut sum = Tallies::default();
        sum.add(&tallies((19, 20), &[("a", (10, 10)), ("b", (9, 10))]));
        sum.add(&tallies((19, 20), &[("a", (9, 10)), ("b", (10, 10))]));
        sum.add(&tallies((5, 5), &[("b", (5, 5))]));
        let wanted = tallies((43, 45), &[("a", (19, 20)), ("b", (24, 25))]);
        assert_eq!(sum, wanted);
        // Each was the worse one once; neither is below nine in ten.
        assert!(sum.hold(0.94) && !sum.hold(0.96));
        let written = serde_json::to_string(&sum).unwrap();
        assert!(written.starts_with("{\"met\":43,\"of\":45,"), "{written}");
        let read: Tallies = serde_json::from_str(&written).unwrap();
        assert_eq!(read, sum);
    }

    #[test]
    fn every_model_has_to_hold_and_one_that_does_not_decides() {
        let good = (1000, 1000);
        let decided = |other| tallies(good, &[("a", good), ("b", other)]).decides(0.9, 0.95);
        assert_eq!(decided(good), Some(true));
        assert_eq!(decided((500, 1000)), Some(false));
        assert_eq!(decided((9, 10)), None);
        let both = tallies(good, &[("a", (9, 10)), ("b", (1, 1000))]);
        assert_eq!(both.decides(0.9, 0.95), Some(false));
        assert!(!tallies(good, &[("a", good), ("b", (89, 100))]).hold(0.9));
    }

    proptest! {
        #[test]
        fn it_always_ends_around_the_limit(limit in 0.1_f64..2000.0, whole: bool) {
            let (tried, bisection) = search(limit, 1.0, 1024.0, whole);
            prop_assert!(tried.iter().all(|v| (1.0..=1024.0).contains(v)));
            let (held, broke) = bisection.found();
            prop_assert!(held.is_none_or(|held| held <= limit));
            prop_assert!(broke.is_none_or(|broke| broke > limit));
        }
    }
}
