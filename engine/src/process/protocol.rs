//! What the engine and a guardian say to each other.
//!
//! Engine to guardian, on its standard input: a [`Launch`] as one line of JSON, then [`Command`]s
//! as lines of text; the end of input means that the engine is gone. Guardian to engine, on its
//! standard output: [`Report`]s as lines of JSON. There are at most four of them, so the guardian
//! can never block on a pipe that nobody reads.

use super::{Exit, ProcessSpec};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The longest accepted launch, in bytes. Linux takes no larger set of arguments and environment
/// than 6 MiB, and less with the usual limit of the stack.
pub(super) const MAX_LAUNCH: usize = 8 << 20;
/// The longest accepted command line, in bytes.
pub(super) const MAX_COMMAND: usize = 64;

/// The longest grace, so that deadlines can be computed.
const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a guardian is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    /// The absolute path of the program: the engine has searched it.
    pub(super) program: PathBuf,
    /// All else; its paths are absolute too.
    pub(super) spec: ProcessSpec,
    /// Where the guardian and the program are registered, if anywhere.
    pub(super) register: Option<PathBuf>,
}

/// What the engine asks of a guardian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// SIGTERM to everything, SIGKILL to what is left after this long.
    Stop(Duration),
    /// SIGKILL to everything at once.
    Kill,
}

impl Command {
    /// Writes the command as a line.
    pub(super) fn line(self) -> String {
        match self {
            Self::Stop(grace) => format!("stop {}\n", grace.min(MAX_GRACE).as_millis()),
            Self::Kill => "kill\n".to_owned(),
        }
    }

    /// Reads a line without its end; `None` if it says nothing known.
    pub(super) fn parse(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            None if line.trim() == "kill" => Some(Self::Kill),
            Some(("stop", millis)) => Some(Self::Stop(
                Duration::from_millis(millis.parse().ok()?).min(MAX_GRACE),
            )),
            _ => None,
        }
    }
}

/// The system's monotonic clock in nanoseconds: the same for all processes of a machine, so that instants which
/// several guardians tell can be set beside each other.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// What a guardian tells the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Report {
    /// The program runs.
    Started { pid: u32, start_time: u64 },
    /// The program could not be started.
    Failed { reason: String },
    /// The program itself ended, at this instant of [`now_ns`].
    Exited { exit: Exit, at_ns: u64 },
    /// These descendants survive SIGKILL so far.
    Remaining { pids: Vec<u32> },
    /// No descendant is left; `forced` if SIGKILL was needed for any.
    Gone { forced: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_their_line() {
        for command in [Command::Kill, Command::Stop(Duration::from_millis(1500))] {
            let line = command.line();
            assert!(line.len() <= MAX_COMMAND);
            assert_eq!(Command::parse(line.trim_end()), Some(command));
        }
        let forever = Command::Stop(Duration::MAX).line();
        assert_eq!(
            Command::parse(forever.trim_end()),
            Some(Command::Stop(MAX_GRACE))
        );
        for line in ["", "stop", "stop x", "stop -1", "killall"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }
}
