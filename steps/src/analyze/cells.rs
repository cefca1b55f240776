//! Measured times of fixed batches, out of samples of any step whose rows say phase, batch and length, in
//! their values and labels or as axes of the plan.

use crate::files;
use crate::result::{MeasuredFile, Row, SIMULATED};
use cost::{Phase, Work};
use engine::problem::did_you_mean;
use engine::step::{AxisValue, Grade, Sample, StepError};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// One time of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timed {
    /// What ran.
    pub(super) work: Work,
    /// How long it took, milliseconds.
    pub(super) ms: f64,
    /// The number of layers, where that was asked for.
    pub(super) layers: Option<f64>,
}

/// All times of some samples.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// In the order of samples and rows.
    pub(super) all: Vec<Timed>,
    /// How the times came about where nothing was computed; each once.
    pub(super) simulated: BTreeSet<String>,
}

impl Times {
    /// Reads the value `time` of each row of samples that are not invalid, and `layers` if that is asked
    /// for. Rows without such a time are passed over: steps may measure other things beside.
    ///
    /// # Errors
    /// If no row has such a time, or one that has does not say what it is of, or is not positive.
    pub(super) fn read(
        samples: &[Sample],
        time: &str,
        layers: Option<&str>,
    ) -> Result<Self, StepError> {
        let mut times = Times::default();
        let mut names = BTreeSet::new();
        let valid = samples.iter().filter(|s| s.verdict.grade != Grade::Invalid);
        for sample in valid {
            let path = sample.outputs.get("result");
            let path =
                path.ok_or_else(|| StepError::new(format!("`{}` left no result", sample.node)))?;
            let file: MeasuredFile = files::read_json(path)?;
            times.simulated.extend(file.target.get(SIMULATED).cloned());
            for row in &file.rows {
                names.extend(row.values.keys().cloned());
                if let Some(ms) = row.value(time) {
                    let cell = Cell { sample, row };
                    times.all.push(cell.timed(time, ms, layers)?);
                }
            }
        }
        if times.all.is_empty() {
            let message = format!("no valid sample has a value `{time}`");
            let known = names.iter().map(String::as_str);
            return Err(StepError::new(message).help(did_you_mean(time, known)));
        }
        Ok(times)
    }

    /// Times by what ran, milliseconds.
    pub(super) fn by_work(&self) -> BTreeMap<Work, Vec<f64>> {
        let mut by_work: BTreeMap<Work, Vec<f64>> = BTreeMap::new();
        for timed in &self.all {
            by_work.entry(timed.work).or_default().push(timed.ms);
        }
        by_work
    }
}

/// A row with the sample that it is of.
struct Cell<'a> {
    sample: &'a Sample,
    row: &'a Row,
}

impl Cell<'_> {
    fn timed(&self, time: &str, ms: f64, layers: Option<&str>) -> Result<Timed, StepError> {
        if !(ms > 0.0 && ms.is_finite()) {
            let message = format!(
                "`{}` has {time} = {ms}, expected a time above 0",
                self.sample.node
            );
            return Err(StepError::new(message)
                .help("leave the sample out, or mark what failed as invalid"));
        }
        let layers = layers.map(|name| self.number(name)).transpose()?;
        let work = Work {
            phase: self.phase()?,
            batch: self.count("batch")?,
            length: self.count("length")?,
        };
        Ok(Timed { work, ms, layers })
    }

    fn axis(&self, name: &str) -> Option<&AxisValue> {
        let mut axes = self.sample.axes.iter();
        axes.find(|(axis, _)| axis == name).map(|(_, value)| value)
    }

    fn phase(&self) -> Result<Phase, StepError> {
        let of_axis = || self.axis("phase").map(ToString::to_string);
        let text = self.row.labels.get("phase").cloned().or_else(of_axis);
        match text.as_deref() {
            Some("prefill") => Ok(Phase::Prefill),
            Some("decode") => Ok(Phase::Decode),
            Some(other) => Err(self.wrong("phase", other, "`prefill` or `decode`")),
            None => Err(self.absent("phase")),
        }
    }

    fn number(&self, name: &str) -> Result<f64, StepError> {
        let of_label = || self.row.labels.get(name)?.parse().ok();
        let of_axis = || match self.axis(name)? {
            AxisValue::Number(number) => Some(*number),
            other => other.to_string().parse().ok(),
        };
        let number = self.row.value(name).or_else(of_label).or_else(of_axis);
        number.ok_or_else(|| self.absent(name))
    }

    fn count(&self, name: &str) -> Result<NonZeroU32, StepError> {
        let number = self.number(name)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts saturate, and the result is compared with what it came from"
        )]
        let count = number as u32;
        let count = NonZeroU32::new(count).filter(|n| f64::from(n.get()) == number);
        count.ok_or_else(|| self.wrong(name, &number.to_string(), "a whole number above 0"))
    }

    fn absent(&self, name: &str) -> StepError {
        let message = format!("`{}` has a time without `{name}`", self.sample.node);
        let help = format!("let its rows say `{name}`, or make `{name}` an axis of the plan");
        StepError::new(message).help(help)
    }

    fn wrong(&self, name: &str, found: &str, expected: &str) -> StepError {
        StepError::new(format!(
            "`{}` has {name} = {found}, expected {expected}",
            self.sample.node
        ))
    }
}

#[cfg(test)]
pub(super) mod made_up {
    //! Samples with times for the tests of these steps.

    use super::*;
    use engine::step::Verdict;
    use serde_json::json;
    use std::path::Path;

    /// A sample of one time of `phase`, `batch` and `length`, at so many layers.
    pub(crate) fn sample(
        folder: &Path,
        index: u32,
        (phase, batch, length): (&str, f64, f64),
        layers: f64,
        ms: f64,
    ) -> Sample {
        let path = folder.join(format!("{index}.json"));
        let result = json!({
            "rows": [{ "labels": { "phase": phase }, "values": { "batch": batch, "ms": ms } }],
            "definitions": [{ "name": "ms", "unit": "ms", "formula": "forward" }],
            "notes": [], "target": {}, "details": null,
        });
        std::fs::write(&path, result.to_string()).expect("a file");
        Sample {
            node: format!("latency[{phase},{batch},{length}]"),
            axes: vec![
                ("length".to_owned(), AxisValue::Number(length)),
                ("layers".to_owned(), AxisValue::Number(layers)),
            ],
            index,
            verdict: Verdict {
                grade: Grade::Valid,
                reasons: Vec::new(),
            },
            drawn_at: 0,
            outputs: [("result".to_owned(), path)].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::sample;
    use super::*;

    #[test]
    fn times_are_read_from_rows_and_axes_and_kept_apart_by_what_ran() {
        let folder = tempfile::tempdir().expect("a folder");
        let samples: Vec<Sample> = [(4.0, 3.0), (4.0, 5.0), (8.0, 9.0)]
            .into_iter()
            .zip(0..)
            .map(|((batch, ms), i)| sample(folder.path(), i, ("decode", batch, 128.0), 2.0, ms))
            .collect();
        let times = Times::read(&samples, "ms", Some("layers")).expect("times");
        let all: Vec<Vec<f64>> = times.by_work().into_values().collect();
        assert_eq!(all, [vec![3.0, 5.0], vec![9.0]]);
        assert_eq!(times.all[0].work.length.get(), 128);
        assert_eq!(times.all[0].layers, Some(2.0));
        let mut invalid = samples.clone();
        invalid[1].verdict.grade = Grade::Invalid;
        assert_eq!(
            Times::read(&invalid, "ms", None).expect("times").all.len(),
            2
        );
    }

    #[test]
    fn what_is_no_time_of_a_batch_is_refused_with_what_was_expected() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = |cell, ms, time: &str, layers| {
            let one = sample(folder.path(), 0, cell, 2.0, ms);
            Times::read(&[one], time, layers).expect_err("refused")
        };
        let sound = ("decode", 4.0, 128.0);
        assert_eq!(
            told(("mixed", 4.0, 128.0), 1.0, "ms", None).message,
            "`latency[mixed,4,128]` has phase = mixed, expected `prefill` or `decode`"
        );
        assert_eq!(
            told(("decode", 4.0, -1.0), 1.0, "ms", None).message,
            "`latency[decode,4,-1]` has length = -1, expected a whole number above 0"
        );
        assert_eq!(
            told(("decode", 2.5, 128.0), 1.0, "ms", None).message,
            "`latency[decode,2.5,128]` has batch = 2.5, expected a whole number above 0"
        );
        assert_eq!(
            told(sound, -3.0, "ms", None).message,
            "`latency[decode,4,128]` has ms = -3, expected a time above 0"
        );
        let error = told(sound, 1.0, "mss", None);
        assert_eq!(error.message, "no valid sample has a value `mss`");
        assert_eq!(error.help.as_deref(), Some("did you mean `ms`?"));
        let error = told(sound, 1.0, "ms", Some("n_layers"));
        assert_eq!(
            error.message,
            "`latency[decode,4,128]` has a time without `n_layers`"
        );
    }
}
