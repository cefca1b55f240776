//! Lines through times of a few layers, what they say of a whole model, and when they say nothing.
//!
//! A forward pass takes a fixed part and one for each layer. That holds where all layers that are added
//! are alike, and is checked as far as the counts allow: two say nothing of it.

use super::cells::Timed;
use crate::result::Row;
use cost::Work;
use engine::step::StepError;
use statistics::{Interval, Level, Line};
use std::collections::BTreeMap;

/// Confidence of intervals.
const LEVEL: f64 = 0.95;
/// Confidence at which a count is farther from the line than noise explains.
const STRICT: f64 = 0.99;

/// A model's time, from those of a few layers.
#[derive(Debug)]
pub(super) struct Whole {
    /// What ran.
    pub(super) work: Work,
    /// The line through all times.
    pub(super) line: Line,
    /// Layers of the whole model.
    pub(super) full: f64,
    n_times: usize,
    /// Where the line lies at the whole model; `None` where nothing tells.
    pub(super) interval: Option<Interval>,
    /// The largest count against what the others foretell, if they can.
    pub(super) check: Option<Check>,
}

/// A count that was foretold from smaller ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Check {
    layers: f64,
    foretold: f64,
    measured: f64,
}

/// What is extrapolated to, and what counts as a line.
pub(super) struct Extrapolation<'a> {
    /// What the number of layers is called.
    pub(super) layers: &'a str,
    /// Layers of the whole model.
    pub(super) full: f64,
    /// How far a count may be from the line if noise does not explain it, as a share of the line.
    pub(super) tolerance: f64,
}

impl Extrapolation<'_> {
    /// The whole model's time for each batch.
    ///
    /// # Errors
    /// If there are fewer than two counts, more layers take no more time, or the counts lie on no line.
    pub(super) fn wholes(&self, times: &[Timed]) -> Result<Vec<Whole>, StepError> {
        let mut by_work: BTreeMap<Work, Vec<Level>> = BTreeMap::new();
        for timed in times {
            let level = Level {
                x: timed.layers.unwrap_or(f64::NAN),
                values: vec![timed.ms],
            };
            by_work.entry(timed.work).or_default().push(level);
        }
        let wholes = by_work.into_iter();
        wholes
            .map(|(work, levels)| self.whole(work, &levels))
            .collect()
    }

    fn whole(&self, work: Work, levels: &[Level]) -> Result<Whole, StepError> {
        let name = title(&work);
        let line = Line::fit(levels).ok_or_else(|| {
            let found = levels.first().map_or(f64::NAN, |level| level.x);
            let message = format!(
                "{name} was measured with {found} layers alone, expected two counts or more"
            );
            StepError::new(message)
                .help("measure derived models of two counts, and a third for the check")
        })?;
        let is_count = |x: f64| x >= 1.0 && x.fract() == 0.0;
        if let Some(odd) = line.levels.iter().find(|level| !is_count(level.x)) {
            let message = format!(
                "{name} was measured with {} = {}, expected a whole number above 0",
                self.layers, odd.x
            );
            return Err(StepError::new(message));
        }
        if line.slope <= 0.0 {
            let message = format!("{name}: more layers take no more time");
            return Err(StepError::new(message)
                .help("measure more often, or counts that are farther apart"));
        }
        self.straight(&name, &line)?;
        Ok(Whole {
            work,
            full: self.full,
            n_times: levels.len(),
            interval: line.interval(self.full, LEVEL),
            check: check(levels, &line),
            line,
        })
    }

    /// Refuses a line that the counts do not lie on.
    fn straight(&self, name: &str, line: &Line) -> Result<(), StepError> {
        let knows_noise = line.noise_freedom() > 0.0;
        let explained: Vec<f64> = line.beyond_noise(STRICT).map(|level| level.x).collect();
        let is_off = |level: &&statistics::Deviation| {
            let is_beyond = !knows_noise || explained.contains(&level.x);
            is_beyond && level.relative().abs() > self.tolerance
        };
        let mut off = line.levels.iter().filter(is_off);
        let Some(worst) = off.next() else {
            return Ok(());
        };
        let worst = off.fold(worst, |a, b| {
            match b.relative().abs() > a.relative().abs() {
                true => b,
                false => a,
            }
        });
        let noise = match knows_noise {
            true => "more than noise explains and",
            false => "with no noise known, and",
        };
        let message = format!(
            "{name} is not linear in layers: {} layers take {} ms, {} % off the line through all counts, {noise} more than `tolerance`",
            worst.x,
            charts::format_number(worst.mean),
            charts::format_number(worst.relative() * 100.0),
        );
        Err(StepError::new(message).help(
            "measure counts whose added layers are alike (more than those before the first with experts), or larger ones",
        ))
    }
}

/// Foretells the largest count from the others, of which there must be two.
fn check(levels: &[Level], line: &Line) -> Option<Check> {
    let largest = line.levels.last()?;
    let others: Vec<Level> = levels.iter().filter(|l| l.x < largest.x).cloned().collect();
    let others = Line::fit(&others)?;
    Some(Check {
        layers: largest.x,
        foretold: others.at(largest.x),
        measured: largest.mean,
    })
}

impl Check {
    /// `(foretold − measured) / measured`.
    pub(super) fn error(&self) -> f64 {
        (self.foretold - self.measured) / self.measured
    }
}

/// A batch in words.
pub(super) fn title(work: &Work) -> String {
    format!(
        "{} of batch {}, length {}",
        work.phase.name(),
        work.batch,
        work.length
    )
}

impl Whole {
    /// The row of a result.
    pub(super) fn row(&self) -> Row {
        let mut row = Row::default();
        let phase = self.work.phase.name().to_owned();
        row.labels.insert("phase".to_owned(), phase);
        let checked = match self.check {
            Some(_) => "by a further count",
            None => "no",
        };
        row.labels.insert("checked".to_owned(), checked.to_owned());
        for (name, value) in [
            ("batch", f64::from(self.work.batch.get())),
            ("length", f64::from(self.work.length.get())),
            ("full_layers", self.full),
            ("full_ms", self.line.at(self.full)),
            ("fixed_ms", self.line.fixed),
            ("layer_ms", self.line.slope),
            ("counts", self.line.levels.len() as f64),
            ("times", self.n_times as f64),
        ] {
            row.set(name, value);
        }
        if let Some(interval) = self.interval {
            row.set("full_low_ms", interval.low);
            row.set("full_high_ms", interval.high);
        }
        if let Some(check) = self.check {
            row.set("check_layers", check.layers);
            row.set("check_foretold_ms", check.foretold);
            row.set("check_measured_ms", check.measured);
            row.set("check_error", check.error());
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Times;
    use super::super::cells::made_up::sample;
    use super::*;
    use engine::step::Sample;

    /// Times of decode by layers.
    fn wholes(times: &[(f64, f64)]) -> Result<Vec<Whole>, StepError> {
        let folder = tempfile::tempdir().expect("a folder");
        let samples: Vec<Sample> = times
            .iter()
            .zip(0..)
            .map(|((layers, ms), i)| sample(folder.path(), i, ("decode", 4.0, 128.0), *layers, *ms))
            .collect();
        let times = Times::read(&samples, "ms", Some("layers")).expect("times");
        let extrapolation = Extrapolation {
            layers: "layers",
            full: 32.0,
            tolerance: 0.02,
        };
        extrapolation.wholes(&times.all)
    }

    fn refusal(times: &[(f64, f64)]) -> String {
        wholes(times).expect_err("refused").message
    }

    #[test]
    fn two_counts_give_the_whole_model_without_a_check() {
        let all = wholes(&[(2.0, 10.0), (4.0, 16.0), (2.0, 10.2), (4.0, 16.2)]).expect("a line");
        let row = all[0].row();
        assert!((row.value("full_ms").expect("a time") - 100.1).abs() < 1e-9);
        assert!((row.value("layer_ms").expect("a slope") - 3.0).abs() < 1e-9);
        let low = row.value("full_low_ms").expect("an interval");
        assert!(low < 100.1 && low > 90.0);
        assert_eq!(row.labels["checked"], "no");
        assert_eq!(row.value("check_error"), None);
    }

    #[test]
    fn a_third_count_is_foretold_from_the_others() {
        let times = [
            (2.0, 10.0),
            (4.0, 16.0),
            (8.0, 28.2),
            (2.0, 10.1),
            (4.0, 16.1),
            (8.0, 28.3),
        ];
        let all = wholes(&times).expect("a line");
        let check = all[0].check.expect("three counts");
        assert!((check.foretold - 28.05).abs() < 1e-9 && check.layers == 8.0);
        assert!((check.error() + 0.2 / 28.25).abs() < 1e-9);
        assert_eq!(all[0].row().labels["checked"], "by a further count");
    }

    #[test]
    fn two_counts_of_one_time_have_no_interval_and_say_so() {
        let all = wholes(&[(2.0, 10.0), (4.0, 16.0)]).expect("a line");
        assert_eq!(all[0].row().value("full_low_ms"), None);
        assert!(all[0].interval.is_none() && all[0].check.is_none());
    }

    #[test]
    fn what_is_no_line_is_refused() {
        assert_eq!(
            refusal(&[(2.0, 10.0), (2.0, 10.2)]),
            "decode of batch 4, length 128 was measured with 2 layers alone, expected two counts or more"
        );
        let bent = [
            (2.0, 10.0),
            (4.0, 16.0),
            (8.0, 40.0),
            (2.0, 10.1),
            (4.0, 16.1),
            (8.0, 40.1),
        ];
        let message = refusal(&bent);
        assert!(
            message.contains("is not linear in layers")
                && message.contains("more than noise explains"),
            "{message}"
        );
        let single = refusal(&[(2.0, 10.0), (4.0, 16.0), (8.0, 40.0)]);
        assert!(single.contains("with no noise known"), "{single}");
        let falling = refusal(&[(2.0, 10.0), (4.0, 9.0)]);
        assert!(
            falling.ends_with("more layers take no more time"),
            "{falling}"
        );
        let odd = refusal(&[(0.0, 10.0), (4.0, 12.0)]);
        assert!(
            odd.contains("layers = 0, expected a whole number above 0"),
            "{odd}"
        );
    }

    #[test]
    fn what_noise_explains_or_is_small_is_no_bend() {
        let noisy = [
            (2.0, 8.0),
            (4.0, 14.0),
            (8.0, 28.0),
            (2.0, 12.0),
            (4.0, 18.0),
            (8.0, 32.0),
        ];
        assert!(wholes(&noisy).is_ok());
        // A hundredth off, and not one time differs from the other.
        let small = [
            (2.0, 10.0),
            (4.0, 16.16),
            (8.0, 28.0),
            (2.0, 10.0),
            (4.0, 16.16),
            (8.0, 28.0),
        ];
        assert!(wholes(&small).is_ok());
    }
}
