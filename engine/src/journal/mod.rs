//! An append-only file of records that survives the death of its writer at any moment.
//!
//! One process writes; anyone may read meanwhile. A record that was appended
//! [`Synced`](Durability::Synced) is there after a crash, and so is all before it. Reading accepts
//! whatever is whole: the end that a crash tore off is cut away when writing goes on, a record that
//! was damaged in place is skipped and reported, and neither ever yields a record that nobody
//! wrote.
//!
//! Knows nothing of what records mean: they are bytes. How they lie in the file is in `frame`;
//! who may write is decided by a [`RunLock`].

mod frame;

mod file;
mod lock;

pub use file::{DiskFile, JournalFile};
pub use frame::{Damage, MAX_RECORD, Recovered, recover};
pub use lock::{LockError, RunLock};

use crate::disk;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many bytes of records are held before they are written all the same.
const MOST_HELD: usize = 32 << 10;

/// What must have happened to a record when [`Journal::append`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The journal itself has it, until the next record of another kind, [`Journal::flush`], or
    /// some ten thousand bytes of them: the death of this process may lose it, and so
    /// does dropping the journal.
    Held,
    /// The system has it: it survives the death of this process, but not of the machine.
    Buffered,
    /// The disk has it, and all before it.
    Synced,
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be used.
    #[error("could not {action} the journal `{}`: {}", path.display(), told(source))]
    Io {
        /// What was tried: `create`, `open`, `read`, `append to`, `sync` or `truncate`.
        action: &'static str,
        /// The journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("the journal `{}` is being written by another process; wait for it or stop it", path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// Nothing in the file is a record, so opening it for writing would destroy it.
    #[error("`{}` is not a journal; move it away", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// The record is larger than [`MAX_RECORD`].
    #[error("a record of {size} bytes is too large for the journal `{}`, at most {MAX_RECORD} are possible", path.display())]
    TooLarge {
        /// The journal.
        path: PathBuf,
        /// The record's size in bytes.
        size: usize,
    },
    /// An earlier write or sync failed, so nobody knows what the file holds.
    #[error("the journal `{}` failed before and takes no more records; open it again", path.display())]
    Broken {
        /// The journal.
        path: PathBuf,
    },
}

fn told(source: &io::Error) -> String {
    match disk::is_full(source) {
        true => disk::FULL.to_owned(),
        false => source.to_string(),
    }
}

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal<F: JournalFile = DiskFile> {
    file: F,
    path: PathBuf,
    /// Where the next record begins, in bytes.
    end: u64,
    /// What ends there and is not written yet.
    held: Vec<u8>,
    broken: bool,
}

impl Journal {
    /// Creates the journal at `path`; when it returns, the file's name is on disk too.
    ///
    /// # Errors
    /// [`JournalError::Io`], also if the file exists.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let file = DiskFile::create(path).map_err(|source| failed("create", path, source))?;
        Ok(Self::over(file, path, 0))
    }

    /// Opens the journal at `path` for appending, and returns what it holds.
    ///
    /// Cuts away what follows the last whole record.
    ///
    /// # Errors
    /// [`JournalError::Busy`] if another process has it open for appending,
    /// [`JournalError::NotAJournal`] if cutting would leave nothing of a file that is no journal,
    /// [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<(Self, Recovered), JournalError> {
        let Some(file) = DiskFile::open(path).map_err(|source| failed("open", path, source))?
        else {
            return Err(JournalError::Busy {
                path: path.to_owned(),
            });
        };
        let bytes = fs::read(path).map_err(|source| failed("read", path, source))?;
        let recovered = recover(&bytes);
        if recovered.records.is_empty() && !frame::may_begin_one(&bytes) {
            return Err(JournalError::NotAJournal {
                path: path.to_owned(),
            });
        }
        Ok((Self::resume(file, path, &recovered)?, recovered))
    }
}

impl<F: JournalFile> Journal<F> {
    /// Starts an empty journal in any file; `path` is only for errors.
    pub fn over(file: F, path: &Path, end: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            end,
            held: Vec::new(),
            broken: false,
        }
    }

    /// Goes on after the last whole record of what was [`recover`]ed from `file`.
    ///
    /// # Errors
    /// [`JournalError::Io`] if the rest cannot be cut away.
    pub fn resume(mut file: F, path: &Path, recovered: &Recovered) -> Result<Self, JournalError> {
        if recovered.end < recovered.size {
            file.truncate(recovered.end)
                .map_err(|source| failed("truncate", path, source))?;
            // Otherwise the torn end might come back after what is appended now.
            file.sync_data()
                .map_err(|source| failed("sync", path, source))?;
        }
        Ok(Self::over(file, path, recovered.end))
    }

    /// Appends one record. Blocks for the disk if it is to be synced: some milliseconds.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] leaves everything as it was. After [`JournalError::Io`] the
    /// record, and those held before it, may or may not be there; a partial write is taken back,
    /// and if that fails too, or if it was the sync that failed, every later call fails with
    /// [`JournalError::Broken`].
    pub fn append(&mut self, record: &[u8], durability: Durability) -> Result<(), JournalError> {
        self.check()?;
        if record.len() > MAX_RECORD {
            return Err(JournalError::TooLarge {
                path: self.path.clone(),
                size: record.len(),
            });
        }
        frame::encode(self.end, record, &mut self.held);
        self.end += frame::size(record);
        match durability {
            Durability::Held if self.held.len() < MOST_HELD => Ok(()),
            Durability::Held | Durability::Buffered => self.flush(),
            Durability::Synced => self.sync(),
        }
    }

    /// Hands the system every record that is held.
    ///
    /// # Errors
    /// As [`append`](Journal::append).
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.held.is_empty() {
            return Ok(());
        }
        let written = self.file.write(&self.held);
        if written.is_err() {
            self.end -= self.held.len() as u64;
            self.broken = self.file.truncate(self.end).is_err();
        }
        self.held.clear();
        written.map_err(|source| failed("append to", &self.path, source))
    }

    fn check(&self) -> Result<(), JournalError> {
        match self.broken {
            false => Ok(()),
            true => Err(JournalError::Broken {
                path: self.path.clone(),
            }),
        }
    }

    /// Waits until the disk has every record.
    ///
    /// # Errors
    /// [`JournalError::Io`], and from then on [`JournalError::Broken`]: after a failed sync a
    /// system may have dropped what it held, so trying again would only seem to succeed.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.file.sync_data().map_err(|source| {
            self.broken = true;
            failed("sync", &self.path, source)
        })
    }

    /// Returns the journal's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the journal at `path`, which may be written meanwhile: then its last record may appear as
/// a [`Damage::TornEnd`].
///
/// # Errors
/// [`JournalError::Io`]. Damage is no error, it is part of the answer.
pub fn read(path: &Path) -> Result<Recovered, JournalError> {
    let bytes = fs::read(path).map_err(|source| failed("read", path, source))?;
    Ok(recover(&bytes))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
