//! A run as a trace that <https://ui.perfetto.dev> and `chrome://tracing` open: who did what when,
//! what waited, and how it ended.
//!
//! A function of what the journal says and of nothing else. The form is the JSON of Chrome's
//! trace events ("Trace Event Format", Google, 2016), whose times are microseconds.

mod format;
mod lanes;
mod walk;

use super::history::Entry;
use serde_json::{Map, Value};

pub use format::json;

/// Everything that is drawn of a run. Times are microseconds since the run began.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The run's name.
    pub run: String,
    /// The plan's name.
    pub plan: String,
    /// What took time.
    pub slices: Vec<Slice>,
    /// What happened at one moment.
    pub marks: Vec<Mark>,
    /// How many steps ran, and how many waited, whenever that changed.
    pub counts: Vec<Count>,
}

/// Where something is drawn: a group of rows, and the row's name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The group.
    pub group: Group,
    /// The name of a declaration, or of what the run itself does.
    pub name: String,
}

/// A group of rows, in the order in which they are drawn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The run itself.
    Run,
    /// Services.
    Services,
    /// Steps of one kind, such as `measure`.
    Steps(&'static str),
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Where it is drawn.
    pub row: Row,
    /// What it is called.
    pub name: String,
    /// What kind of thing it is: `run`, `launch`, `up`, `stop`, `step` or `wait`.
    pub category: &'static str,
    /// When it began.
    pub start_us: u64,
    /// How long it took.
    pub took_us: u64,
    /// What else is known.
    pub args: Map<String, Value>,
}

/// Something that happened at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where it is drawn.
    pub row: Row,
    /// What it is called.
    pub name: String,
    /// When it was.
    pub at_us: u64,
    /// What else is known.
    pub args: Map<String, Value>,
}

/// How much went on at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// When.
    pub at_us: u64,
    /// Steps that ran.
    pub running: u32,
    /// Steps that were to run and had not begun.
    pub waiting: u32,
}

/// Draws what `entries` say of a run.
///
/// What has no end yet ends at `now_ms`, milliseconds since 1970, if the run is alive, and
/// otherwise with the last thing that its journal says.
pub fn trace(run: &str, entries: &[Entry], now_ms: Option<u64>) -> Trace {
    let mut walk = walk::Walk::new(run);
    for entry in entries {
        walk.take(entry);
    }
    walk.finish(now_ms)
}

#[cfg(test)]
mod tests;
