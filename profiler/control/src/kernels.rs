//! Kernels by name: how often, how long, and how much of the time the GPUs were busy.
//!
//! Only what lies within the window counts: a kernel that had begun before it, or ended after it, would
//! make shares of its time wrong. Names are mangled, as CUPTI has them.

use crate::gaps::Missing;
use profiler_wire::rows::Kernel;
use profiler_wire::{Frame, Frames, Line, SpoolError};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The kernels of one process's window.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTable {
    /// The process.
    pub pid: u64,
    /// By name, the one that took most time first.
    pub rows: Vec<KernelRow>,
    /// Length of the window, nanoseconds. Of one that was not closed: until its last kernel ended.
    pub window_ns: u64,
    /// By number of the GPU: time within the window in which some kernel ran, nanoseconds.
    pub busy_ns: BTreeMap<u64, u64>,
    /// Kernels that do not lie within the window, and count nowhere else.
    pub outside: u64,
    /// Why it is not the whole truth; nothing if it is.
    pub missing: Vec<Missing>,
}

/// The kernels of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRow {
    /// The name, as the linker has it.
    pub name: String,
    /// How many ran.
    pub count: u64,
    /// How many of them as nodes of graphs.
    pub in_graphs: u64,
    /// How long all took together, nanoseconds.
    pub total_ns: u64,
    /// The duration that half of them did not exceed, nanoseconds.
    pub p50_ns: u64,
    /// The duration that 99 of 100 did not exceed, nanoseconds.
    pub p99_ns: u64,
}

/// What is gathered of one name.
#[derive(Debug, Default)]
struct Gathered {
    durations: Vec<u64>,
    in_graphs: u64,
}

/// What is read of a spool, frame by frame.
#[derive(Debug, Default)]
struct Reading {
    opened: Option<Line>,
    counted: Option<Line>,
    closed: Option<Line>,
    names: HashMap<u64, String>,
    /// What is known of a kernel before it is known when the window ended.
    kernels: Vec<Known>,
    /// By graph, then by launch: how many kernels.
    replays: BTreeMap<u64, BTreeMap<u64, u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    start: u64,
    end: u64,
    name: u64,
    device: u64,
    is_in_graph: bool,
}

impl KernelTable {
    /// Reads a spool, as far as it goes: what is behind a damage is missing.
    ///
    /// # Errors
    /// The file cannot be read, or it does not begin as a window.
    pub fn read(path: &Path) -> Result<Self, SpoolError> {
        let mut reading = Reading::default();
        let mut missing = Vec::new();
        for frame in Frames::open(path)? {
            match frame {
                Ok(frame) => reading.add(frame),
                Err(error @ SpoolError::Damaged { .. }) if reading.opened.is_some() => {
                    missing.push(Missing::damage(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(reading.table(missing))
    }
}

impl Reading {
    fn add(&mut self, frame: Frame) {
        match frame {
            Frame::Opened(line) => self.opened = Some(line),
            Frame::Status(line) => self.counted = Some(line),
            Frame::Closed(line) => self.closed = Some(line),
            Frame::Names(names) => self.names.extend(names),
            Frame::Kernels(kernels) => kernels.iter().for_each(|kernel| self.add_kernel(kernel)),
            _ => {}
        }
    }

    fn add_kernel(&mut self, kernel: &Kernel) {
        if kernel.graph != 0 {
            let replays = self.replays.entry(kernel.graph).or_default();
            *replays.entry(kernel.correlation).or_default() += 1;
        }
        self.kernels.push(Known {
            start: kernel.start_ns,
            end: kernel.end_ns,
            name: kernel.name,
            device: kernel.device,
            is_in_graph: kernel.graph != 0,
        });
    }

    fn table(self, mut missing: Vec<Missing>) -> KernelTable {
        let number =
            |line: &Option<Line>, key| line.as_ref().and_then(|line| line.number(key).ok());
        let t0 = number(&self.opened, "t0").unwrap_or(0);
        let last = self.kernels.iter().map(|kernel| kernel.end).max();
        let t1 = number(&self.closed, "t1").or(last).unwrap_or(t0);
        if self.closed.is_none() {
            missing.push(Missing::End);
        }
        let counted = self.closed.as_ref().or(self.counted.as_ref());
        missing.extend(counted.into_iter().flat_map(Missing::counted));
        let uneven = uneven(&self.replays);
        if uneven > 0 {
            missing.push(Missing::Replays { uneven });
        }
        let is_within =
            |kernel: &&Known| kernel.start >= t0 && kernel.start <= kernel.end && kernel.end <= t1;
        let within: Vec<&Known> = self.kernels.iter().filter(is_within).collect();
        KernelTable {
            pid: number(&self.opened, "pid").unwrap_or(0),
            rows: rows(&within, &self.names),
            window_ns: t1.saturating_sub(t0),
            busy_ns: busy(&within),
            outside: (self.kernels.len() - within.len()) as u64,
            missing,
        }
    }
}

fn rows(kernels: &[&Known], names: &HashMap<u64, String>) -> Vec<KernelRow> {
    let mut gathered: HashMap<u64, Gathered> = HashMap::new();
    for kernel in kernels {
        let one = gathered.entry(kernel.name).or_default();
        one.durations.push(kernel.end - kernel.start);
        one.in_graphs += u64::from(kernel.is_in_graph);
    }
    let row = |(name, mut one): (u64, Gathered)| {
        one.durations.sort_unstable();
        KernelRow {
            name: names.get(&name).cloned().unwrap_or_default(),
            count: one.durations.len() as u64,
            in_graphs: one.in_graphs,
            total_ns: one.durations.iter().sum(),
            p50_ns: nearest(&one.durations, 50),
            p99_ns: nearest(&one.durations, 99),
        }
    };
    let mut rows: Vec<KernelRow> = gathered.into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        b.total_ns
            .cmp(&a.total_ns)
            .then_with(|| a.name.cmp(&b.name))
    });
    rows
}

/// The smallest value that so many percent do not exceed: the nearest rank.
fn nearest(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The time that the union of the kernels of each GPU takes.
fn busy(kernels: &[&Known]) -> BTreeMap<u64, u64> {
    let mut spans: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for kernel in kernels {
        let spans = spans.entry(kernel.device).or_default();
        spans.push((kernel.start, kernel.end));
    }
    let union = |(device, mut spans): (u64, Vec<(u64, u64)>)| {
        spans.sort_unstable();
        let (mut busy, mut until) = (0, 0);
        for (start, end) in spans {
            busy += end.saturating_sub(start.max(until));
            until = until.max(end);
        }
        (device, busy)
    };
    spans.into_iter().map(union).collect()
}

/// How many replays of graphs have another number of kernels than the median of theirs. The first and the
/// last of each graph may be cut by the window.
fn uneven(replays: &BTreeMap<u64, BTreeMap<u64, u64>>) -> u64 {
    let of_graph = |launches: &BTreeMap<u64, u64>| {
        // Launches are numbered as they come.
        let inner = launches
            .values()
            .skip(1)
            .take(launches.len().saturating_sub(2));
        let mut counts: Vec<u64> = inner.copied().collect();
        counts.sort_unstable();
        let median = nearest(&counts, 50);
        counts.iter().filter(|count| **count != median).count() as u64
    };
    replays.values().map(of_graph).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(start_ns: u64, ns: u64, name: u64, device: u64) -> Kernel {
        Kernel {
            start_ns,
            end_ns: start_ns + ns,
            name,
            device,
            ..Kernel::default()
        }
    }

    fn reading(t0: u64, t1: Option<u64>, kernels: Vec<Kernel>) -> Reading {
        let mut reading = Reading::default();
        reading.add(Frame::Opened(
            Line::new("opened").with("t0", t0).with("pid", 7),
        ));
        reading.add(Frame::Names(vec![(1, "gemm".into()), (2, "norm".into())]));
        reading.add(Frame::Kernels(kernels));
        if let Some(t1) = t1 {
            reading.add(Frame::Closed(
                Line::new("closed").with("t1", t1).with("dropped", 0),
            ));
        }
        reading
    }

    #[test]
    fn only_what_lies_within_the_window_counts() {
        let kernels = vec![
            kernel(90, 20, 1, 0),
            kernel(100, 30, 1, 0),
            kernel(120, 20, 2, 0),
            kernel(150, 10, 1, 0),
            kernel(150, 10, 2, 1),
            kernel(190, 20, 2, 0),
            kernel(0, 0, 2, 0),
        ];
        let table = reading(100, Some(200), kernels).table(Vec::new());
        assert_eq!((table.pid, table.window_ns, table.outside), (7, 100, 3));
        assert_eq!(table.busy_ns, [(0, 50), (1, 10)].into());
        let told: Vec<_> = table
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.count, row.total_ns))
            .collect();
        assert_eq!(told, [("gemm", 2, 40), ("norm", 2, 30)]);
        assert_eq!((table.rows[0].p50_ns, table.rows[0].p99_ns), (10, 30));
        assert!(table.missing.is_empty());
    }

    #[test]
    fn a_window_that_was_not_closed_ends_with_its_last_kernel() {
        let mut reading = reading(100, None, vec![kernel(110, 30, 1, 0)]);
        reading.add(Frame::Status(Line::new("status").with("lost_bytes", 5)));
        let table = reading.table(Vec::new());
        assert_eq!((table.window_ns, table.outside), (40, 0));
        let what = "bytes of records could not be read";
        assert_eq!(
            table.missing,
            [Missing::End, Missing::Counted { count: 5, what }]
        );
    }

    #[test]
    fn replays_of_a_graph_have_one_number_of_kernels() {
        let replay = |correlation, nodes| {
            let node = move |at| Kernel {
                graph: 4,
                correlation,
                ..kernel(100 + at, 1, 1, 0)
            };
            (0..nodes).map(node)
        };
        let of = |nodes: [u64; 6]| {
            let kernels = (1..)
                .zip(nodes)
                .flat_map(|(correlation, nodes)| replay(correlation, nodes));
            reading(0, Some(1000), kernels.collect())
                .table(Vec::new())
                .missing
        };
        assert!(of([1, 5, 5, 5, 5, 2]).is_empty());
        assert_eq!(of([5, 5, 4, 5, 6, 5]), [Missing::Replays { uneven: 2 }]);
    }

    #[test]
    fn ranks_are_the_nearest() {
        assert_eq!(nearest(&[], 50), 0);
        assert_eq!(
            [50, 99].map(|percent| nearest(&[1, 2, 3, 4], percent)),
            [2, 4]
        );
    }
}
