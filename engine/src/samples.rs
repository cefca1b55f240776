//! Measurements as samples: kept by class, topped up to a target, never mixed across classes.
//!
//! A class is everything that samples must share: the recipe and the identity of the environment.

use crate::environment::Condition;
use crate::step::{Figure, Grade, Verdict};
use crate::store::{ArtifactRef, Digest, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sample as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The run that drew it.
    pub run: String,
    /// Its position in that run's set, from 0.
    pub index: u32,
    /// Seconds since 1970.
    pub drawn_at: u64,
    /// The boot of the machine in which it was drawn.
    pub boot_id: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// How far it can be believed.
    pub verdict: Verdict,
    /// What the step had to say.
    pub summary: Option<String>,
    /// The numbers in that.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// What the machine was like before.
    pub before: Condition,
    /// What the machine was like after.
    pub after: Condition,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, ArtifactRef>,
    /// Which launch of each service it was drawn on, by the service's name.
    #[serde(default)]
    pub incarnations: BTreeMap<String, String>,
}

impl SampleRecord {
    /// Whether it cannot be believed, so that another should take its place.
    pub fn is_suspect(&self) -> bool {
        self.verdict.grade == Grade::Invalid
    }
}

/// Samples of one class, oldest first.
#[derive(Debug, Clone, Default)]
pub struct SampleSet {
    /// The samples.
    pub records: Vec<SampleRecord>,
}

fn namespace(class: &Digest) -> String {
    format!("samples/{class}")
}

/// Returns seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

impl SampleSet {
    /// Reads the samples of `class` that are whole and not older than `max_age`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn load(
        store: &Store,
        class: &Digest,
        max_age: Option<Duration>,
    ) -> Result<Self, StoreError> {
        let oldest = max_age.map_or(0, |age| now_s().saturating_sub(age.as_secs()));
        let mut records: Vec<SampleRecord> = store
            .list_records(&namespace(class), "")?
            .into_iter()
            .filter_map(|key| store.get_record(&namespace(class), &key))
            .filter_map(|value| serde_json::from_value::<SampleRecord>(value).ok())
            .filter(|r| r.drawn_at >= oldest && r.outputs.values().all(|o| store.present(o)))
            .collect();
        records.sort_by(|a, b| (a.drawn_at, a.index, &a.run).cmp(&(b.drawn_at, b.index, &b.run)));
        Ok(Self { records })
    }

    /// Keeps a sample for good.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn keep(store: &Store, class: &Digest, record: &SampleRecord) -> Result<(), StoreError> {
        let key = format!("{}-{:04}-{}", record.drawn_at, record.index, record.run);
        let value = serde_json::to_value(record).unwrap_or_default();
        store.put_record(&namespace(class), &key, &value)
    }

    /// Returns the samples that a result of `target` samples rests on: all that can be believed,
    /// and only where those are too few the newest invalid ones beside them.
    pub fn current(&self, target: u32) -> Self {
        let is_believed = |r: &&SampleRecord| !r.is_suspect();
        let n_believed = self.records.iter().filter(is_believed).count();
        let n_invalid = self.records.len() - n_believed;
        let room = usize::try_from(target)
            .unwrap_or(usize::MAX)
            .saturating_sub(n_believed);
        let mut too_old = n_invalid.saturating_sub(room);
        let records = self.records.iter().filter(|record| {
            let left_out = !is_believed(record) && too_old > 0;
            too_old -= usize::from(left_out);
            !left_out
        });
        Self {
            records: records.cloned().collect(),
        }
    }

    /// Hashes what readers of the set see.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"benchwright-samples-1");
        for record in &self.records {
            hasher.update(&record.drawn_at.to_le_bytes());
            for (name, output) in &record.outputs {
                hasher.update(name.as_bytes());
                hasher.update(output.digest.to_string().as_bytes());
            }
        }
        Digest::from(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(grades: &[Grade]) -> SampleSet {
        let record = |(i, grade): (usize, &Grade)| SampleRecord {
            run: "r".to_owned(),
            index: u32::try_from(i).unwrap(),
            drawn_at: i as u64,
            boot_id: String::new(),
            took_ms: 0,
            verdict: Verdict {
                grade: *grade,
                reasons: vec![],
            },
            summary: None,
            figures: vec![],
            before: Condition::now(),
            after: Condition::now(),
            outputs: BTreeMap::new(),
            incarnations: BTreeMap::new(),
        };
        SampleSet {
            records: grades.iter().enumerate().map(record).collect(),
        }
    }

    fn current(grades: &[Grade], target: u32) -> Vec<u32> {
        let current = set(grades).current(target);
        current.records.iter().map(|r| r.index).collect()
    }

    #[test]
    fn invalid_samples_count_only_until_there_are_better_ones() {
        use Grade::{Degraded, Invalid, Valid};
        assert_eq!(current(&[Invalid, Invalid, Invalid], 2), [1, 2]);
        assert_eq!(current(&[Invalid, Valid, Invalid], 2), [1, 2]);
        assert_eq!(current(&[Invalid, Valid, Degraded], 2), [1, 2]);
        assert_eq!(current(&[Valid, Valid, Valid], 2), [0, 1, 2]);
    }
}
