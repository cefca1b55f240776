//! A trace as the JSON of Chrome's trace events: groups are processes, lanes are threads.

use super::lanes::{Lane, lanes};
use super::{Group, Row, Trace};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Writes a trace as one JSON object.
#[must_use]
pub fn json(trace: &Trace) -> Value {
    let of_slices = lanes(&trace.slices);
    let marked = trace.marks.iter().map(|mark| (mark.row.clone(), 0));
    let used: BTreeSet<Lane> = of_slices.iter().flatten().cloned().chain(marked).collect();
    let threads = Threads::number(&used);
    let mut events = threads.names(trace);
    for (slice, lane) in trace.slices.iter().zip(&of_slices) {
        let Some(lane) = lane else { continue };
        let mut event = json!({
            "ph": "X",
            "name": slice.name,
            "cat": slice.category,
            "ts": slice.start_us,
            "dur": slice.took_us,
            "args": slice.args,
        });
        threads.place(&mut event, lane);
        events.push(event);
    }
    for mark in &trace.marks {
        let mut event = json!({
            "ph": "i",
            "s": "t",
            "name": mark.name,
            "ts": mark.at_us,
            "args": mark.args,
        });
        threads.place(&mut event, &(mark.row.clone(), 0));
        events.push(event);
    }
    events.extend(counters(trace));
    json!({
        "displayTimeUnit": "ms",
        "otherData": { "run": trace.run, "plan": trace.plan },
        "traceEvents": events,
    })
}

/// Draws how many steps ran and waited as curves of the run.
fn counters(trace: &Trace) -> impl Iterator<Item = Value> {
    trace.counts.iter().map(|count| {
        json!({
            "ph": "C",
            "name": "steps",
            "ts": count.at_us,
            "pid": process(&Group::Run),
            "args": { "running": count.running, "waiting": count.waiting },
        })
    })
}

/// Numbers groups in the order in which they are drawn, from 1.
fn process(group: &Group) -> u32 {
    match group {
        Group::Run => 1,
        Group::Services => 2,
        Group::Steps("measure") => 3,
        Group::Steps("effect") => 4,
        Group::Steps("fetch") => 5,
        Group::Steps("pure") => 6,
        Group::Steps(_) => 7,
    }
}

fn group_name(trace: &Trace, group: &Group) -> String {
    match group {
        Group::Run => format!("run {}", trace.run),
        Group::Services => "services".to_owned(),
        Group::Steps(kind) => format!("steps: {kind}"),
    }
}

fn lane_name((row, lane): &Lane) -> String {
    match lane {
        0 => row.name.clone(),
        n => format!("{} ({})", row.name, n + 1),
    }
}

/// Every lane with its number.
struct Threads {
    numbers: BTreeMap<Lane, usize>,
}

impl Threads {
    fn number(used: &BTreeSet<Lane>) -> Self {
        // The first lane of a row is there even if only its second was used.
        let rows: BTreeSet<&Row> = used.iter().map(|(row, _)| row).collect();
        let first = rows.into_iter().map(|row| (row.clone(), 0));
        let all: BTreeSet<Lane> = used.iter().cloned().chain(first).collect();
        Self {
            numbers: all.into_iter().zip(1..).collect(),
        }
    }

    fn place(&self, event: &mut Value, lane: &Lane) {
        event["pid"] = process(&lane.0.group).into();
        event["tid"] = self.numbers.get(lane).copied().unwrap_or(0).into();
    }

    /// Says what groups and lanes are called and in which order they are drawn.
    fn names(&self, trace: &Trace) -> Vec<Value> {
        let groups: BTreeSet<&Group> = self.numbers.keys().map(|(row, _)| &row.group).collect();
        let mut events = Vec::new();
        for group in groups {
            let pid = process(group);
            let name = group_name(trace, group);
            events.push(metadata("process_name", pid, 0, json!({ "name": name })));
            let order = json!({ "sort_index": pid });
            events.push(metadata("process_sort_index", pid, 0, order));
        }
        for (lane, tid) in &self.numbers {
            let pid = process(&lane.0.group);
            let name = json!({ "name": lane_name(lane) });
            events.push(metadata("thread_name", pid, *tid, name));
            let order = json!({ "sort_index": tid });
            events.push(metadata("thread_sort_index", pid, *tid, order));
        }
        events
    }
}

fn metadata(name: &str, pid: u32, tid: usize, args: Value) -> Value {
    json!({ "ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0, "args": args })
}
