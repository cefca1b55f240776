//! The few things that a journal asks of a file, so that tests can put a simulated one in its
//! place. Knows nothing of records.

use crate::disk::{self, File};
use std::fs::TryLockError;
use std::io::{self, Write};
use std::path::Path;

/// A file to which a journal is appended.
pub trait JournalFile {
    /// Appends all of `bytes`. If it fails, any part of them may have been appended.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written, and the file's size, are on disk.
    ///
    /// # Errors
    /// What the system says; what was written since the last sync may be lost then.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file to `size` bytes; later writes go there.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
}

/// A file on disk that no two processes can append to at once.
#[derive(Debug)]
pub struct DiskFile(File);

impl DiskFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_log(path)?;
        // A file that was just created can only be locked by who found it at once.
        file.as_file().try_lock()?;
        sync_name(path)?;
        Ok(Self(file))
    }

    /// Opens a file that exists; `None` if another process has it open this way.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open_log(path)?;
        match file.as_file().try_lock() {
            Ok(()) => {
                // Who created it may have died before its name was on disk.
                sync_name(path)?;
                Ok(Some(Self(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    disk::sync_folder(folder.unwrap_or(Path::new(".")))
}

impl JournalFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }
}
