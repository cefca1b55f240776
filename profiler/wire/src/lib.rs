//! What the library within a server and the engine outside tell each other.
//!
//! A [`Line`] is a request or an answer over the socket. A spool is a file of frames, each with its own
//! checksum, so that all of them can be read that were written before a process was killed: [`Spooler`]
//! writes it, [`Frames`] reads it back. [`rows`] are what frames hold, in columns of differences.
//!
//! One crate for both sides, so that they cannot disagree; with no dependency that a server would mind to
//! have loaded into it. Knows neither CUPTI nor sockets.
//!
//! Reading order: `line`, `rows`, `columns`, `frame`, `spool`.

#![forbid(unsafe_code)]

mod line;

pub mod rows;

mod columns;

mod frame;

mod spool;

pub use frame::{Damage, Frame};
pub use line::{LONGEST as LONGEST_LINE, Line, LineError};
pub use rows::Row;
pub use spool::{Frames, LONGEST_NAME, SpoolError, Spooler};

/// Version of lines and frames; the two sides must have the same.
pub const PROTOCOL: u64 = 1;

/// The environment's variable that names the folder of sockets and spools. The library does nothing in a
/// process without it.
pub const FOLDER: &str = "BENCHWRIGHT_PROFILER_DIR";

/// How sockets in that folder end; what is before is the id of a process.
pub const SOCKET: &str = "sock";
