//! Results that the last runs of a plan found in the store, so that a run in which nothing is to
//! be done decides each step by one look at each of its outputs.
//!
//! What is said here was true, and its outputs are still there; nothing of it is needed.

use crate::freshness::ActionRecord;
use crate::store::{ArtifactRef, Digest, Index, Known, Store, StoreError};
use std::collections::BTreeMap;

/// The results that are known of one plan.
pub struct Hits {
    /// `None` if the plan's name is none that an index can have.
    index: Option<Index>,
}

/// What a run has to know of a result that is there.
pub struct Hit {
    /// Its outputs by name.
    pub outputs: BTreeMap<String, ArtifactRef>,
    /// When it was made, seconds since 1970.
    pub finished_at: u64,
}

impl Hits {
    /// Reads what is known of the plan called `plan`.
    pub fn load(store: &Store, plan: &str) -> Self {
        Self {
            index: store.load_index(plan).ok(),
        }
    }

    /// Returns the result of a step if its key is known and all its outputs are there.
    pub fn get(&self, key: &Digest) -> Option<Hit> {
        let known = self.index.as_ref()?.get(key)?;
        Some(Hit {
            finished_at: known.note.parse().ok()?,
            outputs: known.outputs,
        })
    }

    /// Remembers a record whose outputs are in the store.
    pub fn learn(&mut self, key: Digest, record: &ActionRecord) {
        if let Some(index) = &mut self.index {
            let (outputs, note) = (record.outputs.clone(), record.finished_at.to_string());
            index.learn(key, &Known { outputs, note });
        }
    }

    /// Keeps what was learned for later runs.
    ///
    /// # Errors
    /// If the store cannot be written; what is lost thereby is time.
    pub fn save(&mut self) -> Result<(), StoreError> {
        self.index.as_mut().map_or(Ok(()), Index::save)
    }
}
