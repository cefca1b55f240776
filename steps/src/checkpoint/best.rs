//! What loads make of samples of `storage.ceiling`: the best of a tier, the job that reads as a load does, and how
//! far either can be believed.

use super::ceiling::{Rates, medians};
use crate::files;
use crate::result::MeasuredFile;
use checkpoints::loader::Way;
use engine::step::{Grade, Sample, StepError};
use std::collections::BTreeSet;

/// What a load could reach.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ceiling {
    /// The best median, GB/s.
    pub(super) rate: f64,
    /// The median of every job of the tier, GB/s.
    pub(super) jobs: Vec<(String, f64)>,
    /// Why a share of it is doubtful; empty if it is not.
    pub(super) doubts: Vec<String>,
    /// What else is to be known of it.
    pub(super) notes: Vec<String>,
}

impl Ceiling {
    /// The best of a tier among samples. Only samples that are valid count, if there are any; else those that are
    /// degraded, which is a doubt; those that are invalid never do.
    pub(super) fn of(samples: &[Sample], tier: &str) -> Result<Self, StepError> {
        let with = |grade: Grade| -> Vec<&Sample> {
            let all = samples.iter();
            all.filter(|sample| sample.verdict.grade == grade).collect()
        };
        let (valid, degraded) = (with(Grade::Valid), with(Grade::Degraded));
        let invalid = samples.len() - valid.len() - degraded.len();
        let counted = if valid.is_empty() { &degraded } else { &valid };
        let mut rates = Rates::new();
        let mut notes = BTreeSet::new();
        for sample in counted {
            let Some(path) = sample.outputs.get("result") else {
                continue;
            };
            let file: MeasuredFile = files::read_json(path)?;
            rates.extend(rates_of(&file, tier));
            notes.extend(
                file.notes
                    .into_iter()
                    .map(|note| format!("ceiling: {note}")),
            );
        }
        let jobs: Vec<(String, f64)> = medians(rates.iter().map(|(job, rate)| (&**job, *rate)));
        let Some((_, rate)) = jobs.first() else {
            return Err(nothing(tier, samples));
        };
        if !valid.is_empty() && !degraded.is_empty() {
            let (all, n) = (samples.len(), degraded.len());
            notes.insert(format!(
                "ceiling: {n} of {all} samples were degraded and were left out"
            ));
        }
        if invalid > 0 {
            let all = samples.len();
            notes.insert(format!(
                "ceiling: {invalid} of {all} samples were invalid and were left out"
            ));
        }
        Ok(Self {
            rate: *rate,
            doubts: if valid.is_empty() {
                reasons(&degraded)
            } else {
                Vec::new()
            },
            notes: notes.into_iter().collect(),
            jobs,
        })
    }

    /// The lower of two that a load has to pass both.
    pub(super) fn lower(self, other: Self) -> Self {
        let (mut lower, higher) = match self.rate <= other.rate {
            true => (self, other),
            false => (other, self),
        };
        for (own, others) in [
            (&mut lower.doubts, higher.doubts),
            (&mut lower.notes, higher.notes),
        ] {
            let new: Vec<String> = others
                .into_iter()
                .filter(|text| !own.contains(text))
                .collect();
            own.extend(new);
        }
        lower
    }

    /// The rate of the job that reads as a loader does: as many blocks of the same length at once, GB/s.
    pub(super) fn matching(&self, way: Way, at_once: usize, block: u64) -> Option<f64> {
        let engines = match way {
            Way::Direct => ["fio psync", "own direct"],
            Way::IoUring => ["fio io_uring", "own io_uring"],
            _ => return None,
        };
        engines.iter().find_map(|engine| {
            let name = format!("{engine} {at_once} × {} MiB", block >> 20);
            let job = self.jobs.iter().find(|(job, _)| *job == name);
            job.map(|(_, rate)| *rate)
        })
    }
}

fn rates_of(file: &MeasuredFile, tier: &str) -> Rates {
    let rows = file.rows.iter();
    let of_tier = rows.filter(|row| row.labels.get("tier").is_some_and(|own| own == tier));
    of_tier
        .filter_map(|row| Some((row.labels.get("job")?.clone(), row.value("rate")?)))
        .collect()
}

fn reasons(samples: &[&Sample]) -> Vec<String> {
    let reasons = samples.iter().flat_map(|sample| &sample.verdict.reasons);
    let mut reasons: Vec<String> = reasons.cloned().collect();
    reasons.sort_unstable();
    reasons.dedup();
    if reasons.is_empty() {
        reasons.push("its samples are degraded".to_owned());
    }
    reasons
}

fn nothing(tier: &str, samples: &[Sample]) -> StepError {
    let message = format!("`ceiling` has no rate of {tier} that can be believed");
    let is_invalid = samples
        .iter()
        .any(|sample| sample.verdict.grade == Grade::Invalid);
    let help = match is_invalid {
        true => "its samples are invalid: see why, and measure it again",
        false => "refer to all samples of a `storage.ceiling`",
    };
    StepError::new(message).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Row;
    use engine::step::Verdict;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// A sample with one rate of each of two jobs.
    fn sample(folder: &Path, index: u32, grade: Grade, rates: [f64; 2]) -> Sample {
        let jobs = ["fio psync 4 × 16 MiB", "fio libaio 32 × 1 MiB"];
        let row = |(job, rate): (&str, f64)| {
            let mut row = Row::default();
            row.labels.insert("job".to_owned(), job.to_owned());
            row.labels.insert("tier".to_owned(), "storage".to_owned());
            row.set("rate", rate);
            row
        };
        let file = MeasuredFile {
            rows: jobs.into_iter().zip(rates).map(row).collect(),
            definitions: Vec::new(),
            notes: Vec::new(),
            target: BTreeMap::new(),
            details: serde_json::Value::Null,
        };
        let path = folder.join(format!("{index}.json"));
        files::write_json(&path, &file).unwrap();
        Sample {
            node: "ceiling".to_owned(),
            axes: Vec::new(),
            index,
            verdict: Verdict {
                grade,
                reasons: vec!["small pages".to_owned()],
            },
            drawn_at: 0,
            outputs: BTreeMap::from([("result".to_owned(), path)]),
        }
    }

    #[test]
    fn only_valid_samples_count_where_there_are_any_and_what_was_left_out_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |index, grade, rates| sample(folder.path(), index, grade, rates);
        let samples = [
            sample(0, Grade::Valid, [2.0, 1.0]),
            sample(1, Grade::Degraded, [9.0, 9.0]),
            sample(2, Grade::Invalid, [99.0, 99.0]),
        ];
        let ceiling = Ceiling::of(&samples, "storage").unwrap();
        assert!((ceiling.rate - 2.0).abs() < 1e-9 && ceiling.doubts.is_empty());
        assert_eq!(ceiling.notes.len(), 2, "{:?}", ceiling.notes);
        assert_eq!(ceiling.matching(Way::Direct, 4, 16 << 20), Some(2.0));
        assert_eq!(ceiling.matching(Way::Direct, 8, 16 << 20), None);
        assert_eq!(ceiling.matching(Way::Buffered, 4, 16 << 20), None);
    }

    #[test]
    fn degraded_samples_alone_are_a_doubt_and_invalid_ones_alone_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |index, grade, rates| sample(folder.path(), index, grade, rates);
        let degraded = [sample(0, Grade::Degraded, [1.0, 1.5])];
        let ceiling = Ceiling::of(&degraded, "storage").unwrap();
        assert!((ceiling.rate - 1.5).abs() < 1e-9);
        assert_eq!(ceiling.doubts, ["small pages"]);
        let valid = [sample(1, Grade::Valid, [0.5, 0.25])];
        let lower = ceiling.lower(Ceiling::of(&valid, "storage").unwrap());
        assert!((lower.rate - 0.5).abs() < 1e-9);
        assert_eq!(lower.doubts, ["small pages"]);
        let invalid = [sample(2, Grade::Invalid, [1.0, 1.0])];
        let error = Ceiling::of(&invalid, "storage").unwrap_err();
        assert!(error.help.unwrap().contains("invalid"));
        assert!(Ceiling::of(&valid, "device").is_err());
    }
}
