//! Who works on what: locks on keys, and on the store as a whole.
//!
//! ```text
//! locks/keys/<namespace>/<key>   held by who makes what belongs to the key
//! locks/store                    shared by who uses the store, held alone by who sweeps it
//! ```
//!
//! All of them are `flock` on a file, so they end with their holder, however that dies; what a
//! file says is only for messages. The file of a key is removed by its holder, and who opened it
//! before that notices. Knows nothing of what keys mean.

use super::{Digest, Store, StoreError, records};
use crate::disk;
use std::fs::{self, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How often a file may be removed under our hands before somebody is taken to hold it.
const MAX_REMOVALS: usize = 100;
/// The longest text in the file of a lock, bytes.
const MAX_TEXT: u64 = 4096;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The run for which it does.
    pub run: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run `{}` (process {})", self.run, self.pid)
    }
}

/// A lock on a key, until it is dropped or the process ends.
#[derive(Debug)]
pub struct KeyLock {
    _file: disk::File,
    path: PathBuf,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is held, so that nobody else's file is meant. One that stays is swept later.
        let _ = disk::remove_file(&self.path);
    }
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(KeyLock),
    /// Somebody has it; who, if that is known already.
    Held(Option<Holder>),
}

/// What came of waiting for a lock.
#[derive(Debug)]
pub enum Waited {
    /// It is ours.
    Taken(KeyLock),
    /// Waiting was no longer wanted.
    Cancelled,
    /// The limit is over, and somebody still has it.
    TooLong(Option<Holder>),
}

/// How to wait for a lock.
pub struct Patience<'a> {
    /// The pause between two attempts.
    pub poll: Duration,
    /// How long to wait at most.
    pub limit: Duration,
    /// Is told before each pause who has the lock, and says whether to give up.
    pub cancelled: &'a mut dyn FnMut(Option<&Holder>) -> bool,
}

/// Says that the store is used: nothing is swept meanwhile. Ends when dropped.
#[derive(Debug)]
pub struct StoreLease {
    _file: disk::File,
}

impl Store {
    /// Takes the lock on `key` for the run called `run`, unless somebody has it.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] for the namespace, [`StoreError::OutOfSpace`], [`StoreError::Io`].
    pub fn try_lock_key(
        &self,
        namespace: &str,
        key: &Digest,
        run: &str,
    ) -> Result<Attempt, StoreError> {
        let mut folder = self.keys();
        folder.extend(records::segments(namespace)?);
        let path = folder.join(key.to_string());
        disk::create_folders(&folder).map_err(StoreError::on("create the folder", &folder))?;
        for _ in 0..MAX_REMOVALS {
            let failed = || StoreError::on("take the lock", &path);
            let mut file = disk::File::open_or_create(&path).map_err(failed())?;
            match file.as_file().try_lock() {
                Err(TryLockError::WouldBlock) => {
                    return Ok(Attempt::Held(read_holder(file.as_file())));
                }
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
                Ok(()) if !is_at(file.as_file(), &path) => {}
                Ok(()) => {
                    // It holds without saying whose it is.
                    let _ = write_holder(&mut file, run);
                    return Ok(Attempt::Taken(KeyLock { _file: file, path }));
                }
            }
        }
        Ok(Attempt::Held(None))
    }

    /// Waits for the lock on `key` for the run called `run`. Blocks the thread.
    ///
    /// # Errors
    /// Like [`try_lock_key`](Self::try_lock_key).
    pub fn lock_key(
        &self,
        namespace: &str,
        key: &Digest,
        run: &str,
        patience: Patience<'_>,
    ) -> Result<Waited, StoreError> {
        let began = Instant::now();
        loop {
            let holder = match self.try_lock_key(namespace, key, run)? {
                Attempt::Taken(lock) => return Ok(Waited::Taken(lock)),
                Attempt::Held(holder) => holder,
            };
            if (patience.cancelled)(holder.as_ref()) {
                return Ok(Waited::Cancelled);
            }
            let Some(left) = patience.limit.checked_sub(began.elapsed()) else {
                return Ok(Waited::TooLong(holder));
            };
            std::thread::sleep(patience.poll.min(left));
        }
    }

    /// Says that the store is used, until what is returned is dropped; waits up to `limit` for
    /// somebody who sweeps it. Blocks the thread.
    ///
    /// # Errors
    /// [`StoreError::BeingSwept`] after `limit`, [`StoreError::Io`].
    pub fn lease(&self, limit: Duration) -> Result<StoreLease, StoreError> {
        let swept = || StoreError::BeingSwept {
            root: self.root().to_owned(),
        };
        self.wait_for_store(limit, fs::File::try_lock_shared, swept)
    }

    /// Makes sure that nobody uses the store, until what is returned is dropped.
    pub(super) fn lease_alone(&self, limit: Duration) -> Result<StoreLease, StoreError> {
        let used = || StoreError::InUse {
            root: self.root().to_owned(),
        };
        self.wait_for_store(limit, fs::File::try_lock, used)
    }

    fn wait_for_store(
        &self,
        limit: Duration,
        take: impl Fn(&fs::File) -> Result<(), TryLockError>,
        in_vain: impl FnOnce() -> StoreError,
    ) -> Result<StoreLease, StoreError> {
        const PAUSE: Duration = Duration::from_millis(20);
        let path = self.inner.locks.join("store");
        let file = disk::File::open_or_create(&path).map_err(StoreError::on("open", &path))?;
        let began = Instant::now();
        loop {
            match take(file.as_file()) {
                Ok(()) => return Ok(StoreLease { _file: file }),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::on("take the lock", &path)(error));
                }
                Err(TryLockError::WouldBlock) if began.elapsed() >= limit => return Err(in_vain()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE.min(limit)),
            }
        }
    }

    /// Removes the files of keys that nobody holds and nobody touched since `then`; they are left
    /// by processes that were killed. Returns how many.
    pub(super) fn sweep_locks(&self, then: SystemTime) -> usize {
        let mut n_removed = 0;
        for path in super::walk::files(&self.keys()) {
            let is_old = fs::metadata(&path)
                .and_then(|data| data.modified())
                .is_ok_and(|at| at < then);
            n_removed += usize::from(is_old && remove_unheld(&path).unwrap_or(false));
        }
        n_removed
    }

    fn keys(&self) -> PathBuf {
        self.inner.locks.join("keys")
    }
}

/// Removes the file of a lock unless somebody holds it.
fn remove_unheld(path: &Path) -> io::Result<bool> {
    let file = fs::File::open(path)?;
    match file.try_lock() {
        Ok(()) if is_at(&file, path) => disk::remove_file(path).map(|()| true),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether `path` still names the open file: its last holder may have removed it.
fn is_at(file: &fs::File, path: &Path) -> bool {
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    let (open, named) = (
        file.metadata().map(identity),
        fs::metadata(path).map(identity),
    );
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

fn write_holder(file: &mut disk::File, run: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{} {run}\n", std::process::id()).as_bytes())
}

fn read_holder(mut file: &fs::File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    // Without its end it is still being written.
    let (pid, run) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Holder {
        pid: pid.parse().ok()?,
        run: run.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn taken(attempt: Attempt) -> KeyLock {
        match attempt {
            Attempt::Taken(lock) => lock,
            Attempt::Held(holder) => panic!("held by {holder:?}"),
        }
    }

    #[test]
    fn a_key_is_held_once_and_its_file_goes_with_the_lock() {
        let (_folder, store) = store();
        let key = Digest::of(b"key");
        let lock = taken(store.try_lock_key("actions", &key, "one").unwrap());
        match store.try_lock_key("actions", &key, "two").unwrap() {
            Attempt::Held(Some(holder)) => {
                assert_eq!((holder.pid, &*holder.run), (std::process::id(), "one"));
            }
            other => panic!("{other:?}"),
        }
        taken(store.try_lock_key("samples/class", &key, "two").unwrap());
        let file = lock.path.clone();
        drop(lock);
        assert!(!file.exists());
        taken(store.try_lock_key("actions", &key, "two").unwrap());
    }

    #[test]
    fn who_opened_the_file_before_it_was_removed_does_not_share_the_lock() {
        let (_folder, store) = store();
        let key = Digest::of(b"key");
        let lock = taken(store.try_lock_key("actions", &key, "one").unwrap());
        let stale = fs::File::open(&lock.path).unwrap();
        let path = lock.path.clone();
        drop(lock);
        stale.try_lock().unwrap();
        assert!(!is_at(&stale, &path));
        let _lock = taken(store.try_lock_key("actions", &key, "two").unwrap());
        assert!(!is_at(&stale, &path));
    }

    #[test]
    fn waiting_ends_by_the_lock_by_the_limit_or_when_unwanted() {
        let (_folder, store) = store();
        let key = Digest::of(b"key");
        let mut lock = Some(taken(store.try_lock_key("a", &key, "one").unwrap()));
        let wait = |limit: u64, cancelled: &mut dyn FnMut(Option<&Holder>) -> bool| {
            let patience = Patience {
                poll: Duration::from_millis(1),
                limit: Duration::from_secs(limit),
                cancelled,
            };
            store.lock_key("a", &key, "two", patience).unwrap()
        };
        assert!(matches!(wait(60, &mut |_| true), Waited::Cancelled));
        let Waited::TooLong(Some(holder)) = wait(0, &mut |_| false) else {
            panic!("it is held");
        };
        assert_eq!(holder.run, "one");
        let mut give_back = |_: Option<&Holder>| {
            lock = None;
            false
        };
        assert!(matches!(wait(60, &mut give_back), Waited::Taken(_)));
    }

    #[test]
    fn sweeping_waits_for_nobody_and_nobody_begins_meanwhile() {
        let (_folder, store) = store();
        let [one, two] = [(); 2].map(|()| store.lease(Duration::ZERO).unwrap());
        let in_use = store.lease_alone(Duration::ZERO).unwrap_err();
        assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
        drop((one, two));
        let alone = store.lease_alone(Duration::ZERO).unwrap();
        let swept = store.lease(Duration::ZERO).unwrap_err();
        assert!(matches!(swept, StoreError::BeingSwept { .. }), "{swept}");
        drop(alone);
        store.lease(Duration::ZERO).unwrap();
    }

    #[test]
    fn only_old_files_that_nobody_holds_are_swept() {
        let (_folder, store) = store();
        let [held, dead] = [b"held", b"dead"].map(|text| Digest::of(text));
        let lock = taken(store.try_lock_key("a", &held, "one").unwrap());
        fs::write(store.keys().join("a").join(dead.to_string()), "1 x\n").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(store.sweep_locks(long_ago), 0);
        assert_eq!(
            store.sweep_locks(SystemTime::now() + Duration::from_secs(60)),
            1
        );
        assert!(lock.path.exists());
    }
}
