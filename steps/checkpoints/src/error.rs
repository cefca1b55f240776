//! What can be wrong with a checkpoint, or happen to it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be read, written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder holds no checkpoint, or two.
    #[error("`{}` {problem}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file is not what its format asks for.
    #[error("`{}` {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
    },
    /// A file or folder could not be used.
    #[error("could not {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has too little room.
    #[error(
        "`{}` has {free} bytes free, and {needed} are needed", folder.display()
    )]
    NoSpace {
        /// Where it was to be written.
        folder: PathBuf,
        /// Bytes that would be written, and what is left free beside them.
        needed: u64,
        /// Bytes that may be written there.
        free: u64,
    },
    /// The memory cannot take it.
    #[error("the checkpoint needs {needed} bytes of memory, and the pool has {there}")]
    NoRoom {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes of the pool.
        there: u64,
    },
    /// A device did not do what it was asked for.
    #[error("could not {action} `{device}`: {why}")]
    Device {
        /// What was tried.
        action: &'static str,
        /// Which device.
        device: String,
        /// What its driver said.
        why: String,
    },
    /// The kernel does not do what a loader needs.
    #[error("{0}")]
    Unsupported(String),
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
}

/// Turns what the system said of `path` into an error.
pub(crate) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io {
        action,
        path,
        source,
    }
}

/// An error about what a file says.
pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> CheckpointError {
    CheckpointError::Malformed {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
