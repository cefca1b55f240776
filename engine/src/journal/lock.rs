//! Who runs a run: a lock that ends with its holder, however that dies.
//!
//! It is `flock` on a file; what the file says is only for error messages. Knows nothing of
//! journals.

use crate::disk;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often taking a lock is tried: [`RunLock::is_held`] holds it for an instant too.
const ATTEMPTS: usize = 10;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A process that lives holds it.
    #[error("{} holds the lock `{}`; wait for it or stop it", holder(*by), path.display())]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The holder's pid, if it has said so.
        by: Option<u32>,
    },
    /// The lock's file could not be used.
    #[error("could not {action} the lock `{}`: {}", path.display(), super::told(source))]
    Io {
        /// What was tried: `open`, `take` or `write`.
        action: &'static str,
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(by: Option<u32>) -> String {
    by.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

/// A lock held by this process until it is dropped or the process ends.
#[derive(Debug)]
pub struct RunLock {
    _file: disk::File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the lock at `path`, a file that is created if missing and never removed.
    ///
    /// Does not wait for a holder; at most 50 ms for one that only looks.
    ///
    /// # Errors
    /// [`LockError::Held`], [`LockError::Io`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |action| {
            move |source| LockError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = disk::File::open_or_create(path).map_err(failed("open"))?;
        let mut tries = 1;
        loop {
            match file.as_file().try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed("take")(source)),
                Err(TryLockError::WouldBlock) if tries < ATTEMPTS => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        by: read_pid(file.as_file()),
                    });
                }
            }
        }
        write_pid(&mut file).map_err(failed("write"))?;
        Ok(Self {
            _file: file,
            path: path.to_owned(),
        })
    }

    /// Whether a living process holds the lock at `path`; a file that is missing is not held.
    ///
    /// # Errors
    /// What the system says if the file cannot be opened or asked.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Returns the lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write_pid(file: &mut disk::File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!RunLock::is_held(&path).unwrap());
        let lock = RunLock::acquire(&path).unwrap();
        assert!(RunLock::is_held(&path).unwrap());
        let error = RunLock::acquire(&path).unwrap_err();
        assert!(
            matches!(error, LockError::Held { by: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        drop(lock);
        assert!(!RunLock::is_held(&path).unwrap());
        RunLock::acquire(&path).unwrap();
    }

    #[test]
    fn the_pid_of_a_dead_holder_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "1234567890123\n").unwrap();
        let lock = RunLock::acquire(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(lock.path()).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = RunLock::acquire(Path::new("/nowhere/lock")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("could not open the lock `/nowhere/lock`"),
            "{error}"
        );
    }
}
