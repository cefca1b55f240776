//! What a window records, and what ends it if nobody does.

use profiler_wire::Line;
use std::num::NonZeroU32;
use std::time::Duration;

/// CUPTI's kinds of what is recorded by default: copies, memory that is set, kernels as they overlap,
/// overheads, and copies between GPUs.
const KINDS: [u32; 5] = [1, 2, 10, 17, 22];
/// Launches of graphs as a whole.
const GRAPHS: u32 = 51;
/// Kernels as they overlap.
const KERNELS: u32 = 10;

/// A window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Whether a graph is one record instead of one for each of its kernels, which costs far less.
    pub whole_graphs: bool,
    /// Whether the calls that launch are recorded, too.
    pub launches: bool,
    /// Rows after which the window closes itself.
    pub max_records: u64,
    /// Time after which it closes itself.
    pub max_time: Duration,
    /// How long work in flight is waited for when it closes.
    pub grace: Duration,
    /// How many buffers CUPTI may hold on a GPU, of some 3.2 MB and 100,000 records each; its own limit is 250,
    /// which is 0.8 GB that the server may not have left.
    pub device_buffers: Option<NonZeroU32>,
    /// Buffers of a process, from 1 to 256.
    pub buffers: u32,
    /// Bytes of each, from 4 KiB to 64 MiB.
    pub buffer_bytes: u32,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            whole_graphs: false,
            launches: true,
            // CUPTI's device buffers hold 25 million, and not all versions use them again.
            max_records: 20_000_000,
            max_time: Duration::from_secs(60),
            grace: Duration::from_millis(100),
            device_buffers: None,
            buffers: 12,
            buffer_bytes: 4 << 20,
        }
    }
}

impl Recording {
    pub(crate) fn arm(&self) -> Line {
        Line::new("arm")
            .with("buffers", self.buffers)
            .with("buffer_bytes", self.buffer_bytes)
    }

    pub(crate) fn start(&self) -> Line {
        let kinds = KINDS.map(|kind| match kind {
            KERNELS if self.whole_graphs => format!("{KERNELS},{GRAPHS}"),
            kind => kind.to_string(),
        });
        Line::new("start")
            .with("kinds", kinds.join(","))
            .with("calls", if self.launches { "launches" } else { "none" })
            .with("max_records", self.max_records)
            .with("max_ms", self.max_time.as_millis())
            .with("grace_ms", self.grace.as_millis())
            .with(
                "device_buffers",
                self.device_buffers.map_or(0, NonZeroU32::get),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_recorded_whole_if_asked_for() {
        let nodes = Recording::default();
        assert_eq!(nodes.start().get("kinds"), Some("1,2,10,17,22"));
        let whole = Recording {
            whole_graphs: true,
            ..nodes
        };
        assert_eq!(whole.start().get("kinds"), Some("1,2,10,51,17,22"));
    }
}
