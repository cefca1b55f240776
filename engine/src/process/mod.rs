//! Child processes that cannot outlive the engine.
//!
//! Every service and every program of a step runs under a *guardian*: this same binary
//! re-executed with [`GUARDIAN_ARGUMENT`]. The guardian holds one end of a pipe from the engine
//! and is a child subreaper, so when the engine dies, even by SIGKILL, it kills whatever the
//! program started, descendants that called `setsid` or were double-forked included. Output goes
//! to files and never through a pipe that somebody must drain.
//!
//! This module knows nothing of plans, steps or readiness: what it means for a service to be
//! ready is asked of the service.
//!
//! Reading order: `spec` (what to run), `supervisor` and `running` (the engine's side), `protocol`
//! (what the two sides say to each other), `guardian` (the other side), `tree` (who descends from
//! whom), `attempt` and `secrets` (what is kept of a process on disk), `register` and `reaper` (what
//! is left when both sides were killed).

mod spec;

mod supervisor;

mod running;

mod protocol;

pub mod guardian;

mod channel;

mod attempt;
mod secrets;

pub mod reaper;

mod register;

mod identity;
mod log;
mod port;
mod program;
mod tree;

pub use attempt::{STDERR_LOG, STDOUT_LOG, logs_in, telling_log};
pub use identity::Identity;
pub use log::log_tail;
pub use port::{free_port, port_closed, port_is_free};
pub use program::{ProgramError, find_program};
pub use running::{End, Gone, Process, StopError};
pub use spec::{Exit, ProcessSpec};
pub use supervisor::{StartError, Supervisor};

/// The hidden first argument with which the binary becomes a guardian.
pub const GUARDIAN_ARGUMENT: &str = "__guardian";
