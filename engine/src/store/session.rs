//! The part of `tmp/` that belongs to one open store, and the removal of what the dead left there.

use super::durable;
use super::{StoreError, walk};
use crate::disk;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What is older than this and belongs to nobody is removed. A clock that is off by hours, as
/// between machines that share a store, must not cost anyone their work.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The file in each session's folder that is locked as long as the session lives.
const LOCK: &str = "lock";

/// A folder of its own for files that are not finished; removed when dropped.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    _lock: disk::File,
    n_names: AtomicU64,
}

impl Session {
    /// Creates a folder in `tmp`.
    pub(super) fn begin(tmp: &Path) -> io::Result<Self> {
        // Two stores of one process may be opened in the same instant.
        static N_SESSIONS: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let number = N_SESSIONS.fetch_add(1, Ordering::Relaxed);
        let folder = tmp.join(format!(
            "{}-{:x}-{number}",
            std::process::id(),
            now.as_nanos()
        ));
        disk::create_folder(&folder)?;
        let lock = disk::File::create_new(&folder.join(LOCK))?;
        // Whoever cleans up tries every lock for a moment; nobody else knows of this one.
        lock.as_file().lock()?;
        Ok(Self {
            folder,
            _lock: lock,
            n_names: AtomicU64::new(0),
        })
    }

    /// Returns a path at which nothing is yet.
    pub(super) fn fresh(&self) -> PathBuf {
        self.folder
            .join(self.n_names.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed now is so by a later clean-up.
        let _ = durable::remove_all(&self.folder);
    }
}

/// Removes from `tmp` what is older than a day and locked by nobody; returns what resisted.
pub(super) fn clean_up(tmp: &Path) -> Vec<StoreError> {
    let young = SystemTime::now() - ABANDONED_AFTER;
    abandoned(tmp, young)
        .iter()
        .filter_map(|path| durable::remove_all(path).err())
        .collect()
}

/// Lists what in `tmp` nobody touched since `young` and nobody has locked.
pub(super) fn abandoned(tmp: &Path, young: SystemTime) -> Vec<PathBuf> {
    let entries = walk::entries(tmp).into_iter().map(|(path, _)| path);
    entries.filter(|path| is_abandoned(path, young)).collect()
}

fn is_locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(lock) => lock.try_lock().is_err(),
        // What cannot be looked at may be locked.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn is_abandoned(path: &Path, young: SystemTime) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|data| data.modified());
    // Looked at last, and only if it matters: trying a lock keeps its owner from taking it.
    modified.is_ok_and(|at| at < young) && !is_locked(&path.join(LOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_old(path: &Path) {
        let then = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_session_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let session = Session::begin(tmp.path()).unwrap();
        let (one, two) = (session.fresh(), session.fresh());
        assert_ne!(one, two);
        fs::create_dir(&one).unwrap();
        drop(session);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_is_old_and_unlocked_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let living = Session::begin(tmp.path()).unwrap();
        make_old(&living.folder);
        for name in ["old", "young"] {
            fs::create_dir(tmp.path().join(name)).unwrap();
            fs::write(tmp.path().join(name).join(LOCK), "").unwrap();
        }
        make_old(&tmp.path().join("old"));
        assert!(clean_up(tmp.path()).is_empty());
        assert!(living.folder.exists() && tmp.path().join("young").exists());
        assert!(!tmp.path().join("old").exists());
    }
}
