//! The engine's side of the profiler: finds the processes of a server in which the injected library listens,
//! opens and closes a window in all of them at once, and makes a table of kernels out of what they spooled.
//!
//! [`Ranks`] are the processes, [`Recording`] what a window records, [`KernelTable`] what comes out, which
//! says of itself whether anything is missing. Every wait has a limit; a process that died meanwhile is
//! told, and its spool can be read as far as it goes. Knows neither CUPTI nor plans.
//!
//! Reading order: `error`, `recording`, `rank`, `ranks`, `kernels`.

#![forbid(unsafe_code)]

mod error;

mod recording;

mod rank;

mod ranks;

mod kernels;

mod gaps;

pub use error::ControlError;
pub use gaps::Missing;
pub use kernels::{KernelRow, KernelTable};
pub use rank::Rank;
pub use ranks::{Outcomes, Ranks};
pub use recording::Recording;
