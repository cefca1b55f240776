//! What steps keep beyond their run: small values in the store, none of which a result consists of.
//!
//! Two kinds. *Unfinished work* is found again by whoever does the same work on the same class of
//! machine, whichever run that is; only one at a time does, so it needs no name. *Shared* notes are
//! found by all steps, by the names that they agree on. Whoever reads a note says what it is worth:
//! the engine knows nothing of what it means.

use crate::step::StepError;
use crate::store::{Digest, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// Where unfinished work is kept.
const UNFINISHED: &str = "unfinished";
/// Where shared notes are kept, by their kind.
const SHARED: &str = "notes";
/// How long notes stay that nobody has written anew: none is worth anything for longer.
pub(crate) const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whether notes are kept in a space of the store.
pub(crate) fn are_in(space: &str) -> bool {
    space == UNFINISHED || space.split('/').next() == Some(SHARED)
}

/// What a step finds of earlier ones, and leaves for later ones. All methods block for the disk.
#[derive(Debug, Clone)]
pub struct Notes {
    store: Arc<Store>,
    /// The key of the work; `None` for what is never kept.
    work: Option<Digest>,
}

impl Notes {
    pub(crate) fn new(store: Arc<Store>, work: Option<Digest>) -> Self {
        Self { store, work }
    }

    /// Returns what an earlier try of the same work has left; nothing if that cannot be understood.
    pub fn unfinished<T: DeserializeOwned>(&self) -> Option<T> {
        let found = self.store.get_record(UNFINISHED, &self.work?.to_string())?;
        serde_json::from_value(found).ok()
    }

    /// Leaves `value` for the next try, in place of what was left before; it is on disk when this
    /// returns.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn leave_unfinished(&self, value: &impl Serialize) -> Result<(), StepError> {
        match &self.work {
            Some(work) => self.put(UNFINISHED, &work.to_string(), value),
            None => Ok(()),
        }
    }

    /// Forgets what was left: a step does so at its end, or its next sample would find it.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn finished(&self) -> Result<(), StepError> {
        let Some(work) = &self.work else {
            return Ok(());
        };
        let removed = self.store.remove_record(UNFINISHED, &work.to_string());
        removed.map(drop).map_err(failed)
    }

    /// Returns what any step has shared under `name`, among notes of one `kind`.
    pub fn shared<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Option<T> {
        let found = self.store.get_record(&namespace(kind), name)?;
        serde_json::from_value(found).ok()
    }

    /// Shares `value` with all steps, in place of what was shared before under that name.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn share(&self, kind: &str, name: &str, value: &impl Serialize) -> Result<(), StepError> {
        self.put(&namespace(kind), name, value)
    }

    fn put(&self, namespace: &str, key: &str, value: &impl Serialize) -> Result<(), StepError> {
        let value = serde_json::to_value(value)
            .map_err(|e| StepError::because("could not write a note down", e))?;
        let put = self.store.put_record(namespace, key, &value);
        put.map_err(failed)
    }
}

fn namespace(kind: &str) -> String {
    format!("{SHARED}/{kind}")
}

fn failed(error: StoreError) -> StepError {
    StepError::because("could not write a note down", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FsckOptions, GcOptions, Roots};

    #[test]
    fn work_finds_what_it_left_and_no_other_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path()).expect("a store"));
        let notes = |work: &str| Notes::new(store.clone(), Some(Digest::of(work.as_bytes())));
        notes("a").leave_unfinished(&[1, 2]).expect("left");
        notes("a").leave_unfinished(&[1, 2, 3]).expect("left");
        assert_eq!(notes("a").unfinished(), Some(vec![1, 2, 3]));
        assert_eq!(notes("a").unfinished::<String>(), None);
        assert_eq!(notes("b").unfinished::<Vec<u32>>(), None);
        notes("a").finished().expect("forgotten");
        notes("a").finished().expect("nothing to forget");
        assert_eq!(notes("a").unfinished::<Vec<u32>>(), None);
        let never_kept = Notes::new(store.clone(), None);
        never_kept.leave_unfinished(&1).expect("no matter");
        assert_eq!(never_kept.unfinished::<u32>(), None);
        never_kept.share("speeds", "fast", &4).expect("shared");
        assert_eq!(notes("b").shared("speeds", "fast"), Some(4));
        assert_eq!(notes("b").shared::<u32>("sizes", "fast"), None);
    }

    /// Makes every file of a folder this much older.
    fn age(folder: &std::path::Path, by: Duration) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                age(&path, by);
            } else {
                let file = std::fs::File::open(&path).expect("a file");
                let then = std::time::SystemTime::now() - by;
                file.set_modified(then).expect("its time");
            }
        }
    }

    #[test]
    fn notes_are_no_rubbish_to_the_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path()).expect("a store"));
        let notes = Notes::new(store.clone(), Some(Digest::of(b"a")));
        notes.leave_unfinished(&1).expect("left");
        notes.share("speeds", "fast", &4).expect("shared");
        assert!(store.fsck(FsckOptions::default()).expect("read").is_sound());
        let options = GcOptions {
            grace: std::time::Duration::ZERO,
            ..GcOptions::default()
        };
        for days in [0, 29] {
            age(folder.path(), Duration::from_secs(days * 24 * 60 * 60));
            store.gc(Roots::default, &options).expect("swept");
            assert_eq!(notes.unfinished(), Some(1));
            assert_eq!(notes.shared("speeds", "fast"), Some(4));
        }
        age(folder.path(), Duration::from_secs(31 * 24 * 60 * 60));
        store.gc(Roots::default, &options).expect("swept");
        assert_eq!(notes.unfinished::<u32>(), None);
        assert_eq!(notes.shared::<u32>("speeds", "fast"), None);
    }
}
