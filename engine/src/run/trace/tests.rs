//! Traces of hand-made journals: what is drawn, and that the form is sound whatever was cut off.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

/// One entry; the event is written as the journal writes it.
fn entry(wall_ms: u64, at_ms: u64, event: Value) -> Entry {
    serde_json::from_value(json!({ "wall_ms": wall_ms, "at_ms": at_ms, "event": event }))
        .expect("an entry")
}

fn started(resumed: bool, nodes: Value) -> Value {
    json!({ "event": "run_started", "run": "r", "plan": "p", "resumed": resumed, "seed": 0, "nodes": nodes })
}

/// A service that dies and is launched again, a measurement of two samples of which the second is
/// invalid, an interruption, and a part that resumes and is cut off.
fn life() -> Vec<Entry> {
    let nodes = json!([
        { "node": "server", "uses": "server.embedded", "kind": null, "target": 1 },
        { "node": "load[rate=4]", "uses": "load.test", "kind": "measure", "target": 2 },
    ]);
    let never = json!({ "state": "stale", "reason": { "reason": "never_ran" } });
    let begin = 1_000_000;
    let told = [
        (0, started(false, nodes.clone())),
        (
            1,
            json!({ "event": "decided", "node": "load[rate=4]", "freshness": never }),
        ),
        (
            2,
            json!({ "event": "service_launching", "node": "server", "incarnation": 1 }),
        ),
        (
            300,
            json!({ "event": "service_ready", "node": "server", "url": "http://x:1", "took_ms": 298 }),
        ),
        (
            301,
            json!({ "event": "started", "node": "load[rate=4]", "sample": 0, "logs": "l" }),
        ),
        (
            900,
            json!({ "event": "finished", "node": "load[rate=4]", "sample": 0, "took_ms": 599, "summary": "TTFT 3 ms", "verdict": { "grade": "valid", "reasons": [] }, "outputs": {} }),
        ),
        (
            905,
            json!({ "event": "started", "node": "load[rate=4]", "sample": 1, "logs": "l" }),
        ),
        (
            950,
            json!({ "event": "service_died", "node": "server", "how": "was killed", "log": null, "log_tail": [] }),
        ),
        (
            951,
            json!({ "event": "failed", "node": "load[rate=4]", "sample": 1, "message": "gone", "help": null, "class": "infrastructure", "log": null, "log_tail": [] }),
        ),
        (
            960,
            json!({ "event": "service_launching", "node": "server", "incarnation": 2 }),
        ),
        (990, json!({ "event": "interrupted", "at_once": false })),
        (
            1000,
            json!({ "event": "service_stopped", "node": "server", "took_ms": 5, "trouble": null }),
        ),
        (
            1001,
            json!({ "event": "run_finished", "outcome": "interrupted", "took_ms": 1001 }),
        ),
    ];
    let mut life: Vec<Entry> = told
        .into_iter()
        .map(|(at, event)| entry(begin + at, at, event))
        .collect();
    let later = begin + 3_600_000;
    life.push(entry(later, 0, started(true, nodes)));
    life.push(entry(
        later + 7,
        7,
        json!({ "event": "service_launching", "node": "server", "incarnation": 1 }),
    ));
    life
}

fn slice<'a>(trace: &'a Trace, name: &str) -> &'a Slice {
    let found = trace.slices.iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {:#?}", trace.slices))
}

fn span(trace: &Trace, name: &str) -> (u64, u64) {
    let slice = slice(trace, name);
    (slice.start_us, slice.took_us)
}

#[test]
fn everything_that_took_time_has_its_time() {
    let trace = trace("r", &life(), None);
    assert_eq!(span(&trace, "launch 1"), (2_000, 298_000));
    assert_eq!(span(&trace, "up 1"), (300_000, 650_000));
    assert_eq!(span(&trace, "load[rate=4] waits"), (1_000, 300_000));
    assert_eq!(span(&trace, "load[rate=4] sample 1"), (301_000, 599_000));
    assert_eq!(span(&trace, "load[rate=4] sample 2"), (905_000, 46_000));
    assert_eq!(span(&trace, "stop"), (995_000, 5_000));
    assert_eq!(span(&trace, "run"), (0, 1_001_000));
    assert_eq!(trace.plan, "p");
}

#[test]
fn a_slice_says_how_it_ended() {
    let trace = trace("r", &life(), None);
    assert_eq!(
        slice(&trace, "load[rate=4] sample 1").args["verdict"],
        "valid"
    );
    assert_eq!(
        slice(&trace, "load[rate=4] sample 1").args["waited_ms"],
        300
    );
    assert_eq!(
        slice(&trace, "load[rate=4] sample 2").args["failed"],
        "gone"
    );
    assert_eq!(slice(&trace, "up 1").args["died"], "was killed");
    assert_eq!(slice(&trace, "up 1").args["url"], "http://x:1");
    assert_eq!(slice(&trace, "launch 2").took_us, 35_000);
    assert_eq!(slice(&trace, "run").args["outcome"], "interrupted");
    assert_eq!(slice(&trace, "resumed").args["outcome"], "cut off");
    let marks: Vec<&str> = trace.marks.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(marks, ["server died", "load[rate=4] failed", "interrupted"]);
}

#[test]
fn parts_lie_as_far_apart_as_they_did_on_the_clock() {
    let trace = trace("r", &life(), None);
    assert_eq!(span(&trace, "resumed"), (3_600_000_000, 7_000));
}

#[test]
fn a_clock_that_was_set_back_puts_no_part_over_another() {
    let mut entries = life();
    for entry in entries.iter_mut().rev().take(2) {
        entry.wall_ms -= 3_600_500;
    }
    assert_eq!(span(&trace("r", &entries, None), "resumed").0, 1_001_000);
}

#[test]
fn what_goes_on_reaches_to_the_present_and_what_was_cut_off_to_the_last_word() {
    let entries = &life()[..5];
    let live = trace("r", entries, Some(1_002_000));
    assert_eq!(span(&live, "load[rate=4] sample 1"), (301_000, 1_699_000));
    assert_eq!(slice(&live, "up 1").args["ended"], "goes on");
    let dead = trace("r", entries, None);
    assert_eq!(span(&dead, "up 1"), (300_000, 1_000));
    assert_eq!(slice(&dead, "up 1").args["ended"], "cut off");
}

#[test]
fn nodes_may_be_introduced_in_parts_and_reused_results_are_marks() {
    let planned = json!({ "event": "planned", "nodes": [{ "node": "a", "uses": "x", "kind": "pure", "target": 1 }] });
    let reused = json!({ "event": "decided", "node": "a", "freshness": { "state": "reused", "age_s": 60, "samples": null } });
    let entries = [
        entry(0, 0, started(false, json!([]))),
        entry(0, 0, planned),
        entry(1, 1, reused),
    ];
    let trace = trace("r", &entries, None);
    assert_eq!(trace.marks[0].name, "reused a");
    assert_eq!(trace.marks[0].row.group, Group::Steps("pure"));
}

/// What the format asks for: known phases, whole times, a name for every process and thread, and
/// no two slices of a thread that overlap.
fn check_form(written: &Value) {
    let events = written["traceEvents"].as_array().expect("events");
    let mut named = std::collections::BTreeSet::new();
    let mut slices: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in events {
        let number = |key: &str| {
            event[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{key}: {event}"))
        };
        assert!(
            event["name"].is_string() && event["args"].is_object(),
            "{event}"
        );
        let (pid, at) = (number("pid"), number("ts"));
        match event["ph"].as_str().expect("a phase") {
            "M" => drop(named.insert((pid, number("tid")))),
            "C" => assert!(event["args"]["running"].is_u64()),
            "i" => assert!(named.contains(&(pid, number("tid"))), "{event}"),
            "X" => {
                let thread = (pid, number("tid"));
                assert!(named.contains(&thread), "{event}");
                slices
                    .entry(thread)
                    .or_default()
                    .push((at, at + number("dur")));
            }
            other => panic!("phase {other}"),
        }
    }
    for spans in slices.values_mut() {
        spans.sort_unstable();
        assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "{spans:?}");
    }
}

#[test]
fn an_empty_journal_is_an_empty_trace() {
    check_form(&json(&trace("r", &[], None)));
}

proptest! {
    #[test]
    fn the_form_is_sound_wherever_a_journal_was_cut(
        keep in proptest::collection::vec(any::<bool>(), 15),
        live in any::<bool>(),
    ) {
        let kept: Vec<Entry> = life().into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(e, _)| e).collect();
        check_form(&json(&trace("r", &kept, live.then_some(1_000_500))));
    }
}
