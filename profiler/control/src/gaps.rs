//! What of a window is missing: a table that lacks something says so.

use profiler_wire::{Line, SpoolError};
use std::fmt;

/// Counts of a spool of which each has to be 0, with what it means.
const COUNTS: [(&str, &str); 10] = [
    ("dropped", "records were dropped by CUPTI"),
    ("discarded", "buffers were lost because none was free"),
    ("outstanding", "buffers did not come back"),
    ("lost_bytes", "bytes of records could not be read"),
    ("zero_times", "rows have no instants"),
    ("backwards", "rows end before they begin"),
    ("unfinished", "rows had not ended"),
    ("unwritten", "rows could not be written"),
    ("lost_ranges", "ranges of NVTX were lost"),
    ("state_errors", "errors were reported by CUPTI"),
];

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Its process did not close the window; what was spooled is all there is.
    End,
    /// The spool is damaged behind what was read.
    Damage(String),
    /// Something was counted that should not be.
    Counted {
        /// How much of it.
        count: u64,
        /// What.
        what: &'static str,
    },
    /// Replays of one graph have different numbers of kernels, the first and the last aside.
    Replays {
        /// How many have another number than most.
        uneven: u64,
    },
    /// A call failed when the window was closed.
    Failure(String),
}

impl Missing {
    /// What a spool's last word counts.
    pub(crate) fn counted(line: &Line) -> impl Iterator<Item = Self> {
        let counts = COUNTS.into_iter().filter_map(|(key, what)| {
            let count = line.number(key).ok().filter(|count| *count > 0)?;
            Some(Self::Counted { count, what })
        });
        let failures = ["failures", "failure"].into_iter().filter_map(|key| {
            let failure = line.get(key).filter(|failure| !failure.is_empty())?;
            Some(Self::Failure(failure.to_owned()))
        });
        counts.chain(failures)
    }

    pub(crate) fn damage(error: &SpoolError) -> Self {
        Self::Damage(error.to_string())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the window was not closed: its process ended first"),
            Self::Damage(damage) => f.write_str(damage),
            Self::Counted { count, what } => write!(f, "{count} {what}"),
            Self::Replays { uneven } => {
                write!(
                    f,
                    "{uneven} replays of graphs have another number of kernels than most"
                )
            }
            Self::Failure(failure) => f.write_str(failure),
        }
    }
}
