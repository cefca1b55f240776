//! What can go wrong between the engine and a process of a server.

use profiler_wire::LineError;
use std::io;
use std::path::PathBuf;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The folder of sockets cannot be read.
    #[error("cannot read {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No process listens.
    #[error(
        "no process listens in {path}; was the server started with `CUDA_INJECTION64_PATH`, and has it \
         used CUDA yet?"
    )]
    Nobody {
        /// The folder.
        path: PathBuf,
    },
    /// A process cannot be reached, or not any more.
    #[error("process {pid}: {source}")]
    Gone {
        /// Its id.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// A process says something that is not understood.
    #[error("process {pid}: {source}")]
    Line {
        /// Its id.
        pid: u32,
        /// What is wrong.
        source: LineError,
    },
    /// The library in a process is of another version.
    #[error(
        "process {pid}: its library speaks version {theirs}, expected {ours}; use the one of this build"
    )]
    Protocol {
        /// Its id.
        pid: u32,
        /// Its version.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// A process does not do it.
    #[error("process {pid} refused: {why}")]
    Refused {
        /// Its id.
        pid: u32,
        /// Its reason.
        why: String,
    },
}
