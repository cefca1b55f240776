//! Loads whose records are held to what the server wrote down, with faults and without, as steps of a
//! plan.

use crate::misbehaving::{FEW, assert_says, failing, plan_with};
use crate::world::World;
use embedded_server::{FaultKind, Trace};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "model = \"${steps.model.dir}\"";

fn traced(more: &str) -> String {
    format!("use = \"server.embedded\"\nwith = {{ {MODEL}, trace = true{more} }}")
}

/// The values of the load's result.
fn values(world: &World) -> Value {
    let path = world.out().join("latest/results/load/0/result.json");
    let result: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("a result")).expect("JSON");
    result["rows"][0]["values"].clone()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        let is_it = path.file_name().is_some_and(|file| file == name);
        match is_it {
            true => Some(path),
            false if path.is_dir() && !path.is_symlink() => find(&path, name),
            false => None,
        }
    })
}

#[test]
fn every_token_of_a_load_is_held_to_the_server_s_trace() {
    let world = World::new();
    let plan = world.plan(&plan_with(
        &traced(""),
        &format!("{FEW}, causality = \"required\""),
    ));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    // Beside other tests a measurement may well be invalid, but not for this.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let values = values(&world);
    for (name, wanted) in [
        ("requests", 8.0),
        ("tokens", 32.0),
        ("unread", 0.0),
        ("violations", 0.0),
        ("mismatches", 0.0),
        ("unknown", 0.0),
    ] {
        assert_eq!(values[format!("causality_{name}")], wanted, "{values}");
    }
    for link in ["request", "queue", "compute", "write", "read"] {
        let least = values[format!("causality_{link}_least_us")].as_f64();
        assert!(least >= Some(0.0), "{link}: {values}");
    }
    world.assert_nothing_left();
}

#[test]
fn what_faults_did_is_what_was_recorded() {
    let world = World::new();
    let faults = ", args = { fault = [\"error=0.5\", \"split=5\", \"comments\"], fault_seed = 1 }";
    let plan = world.plan(&plan_with(&traced(faults), FEW));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 3, "{}", finished.said());
    let trace = find(&world.out().join("runs"), "trace.jsonl").expect("a trace");
    let mut answers = Trace::read(&trace).expect("a trace");
    // The load is what came last: before it the server was warmed, and hit as well.
    answers.sort_by_key(|answer| answer.received_ns);
    let answers = answers.split_off(answers.len().saturating_sub(8));
    let is_hit = |fault: &embedded_server::Injected| fault.fault == FaultKind::Error;
    let n_hit = answers
        .iter()
        .filter(|a| a.faults.iter().any(is_hit))
        .count();
    assert!(n_hit > 0 && n_hit < 8, "{n_hit}");
    let values = values(&world);
    assert_eq!(values["failed"], n_hit as f64, "{values}");
    assert_eq!(values["completed"], (8 - n_hit) as f64);
    assert_eq!(values["causality_requests"], 8.0);
    assert!(values["causality_unread"].as_f64() > Some(0.0), "{values}");
    let wrong = ["violations", "mismatches", "unknown"];
    assert!(
        wrong
            .iter()
            .all(|name| values[format!("causality_{name}")] == 0.0)
    );
    world.assert_nothing_left();
}

#[test]
fn a_load_that_is_to_be_held_to_a_trace_fails_without_one() {
    let world = World::new();
    let service = format!("use = \"server.embedded\"\nwith = {{ {MODEL} }}");
    let said = failing(
        &world,
        &plan_with(&service, &format!("{FEW}, causality = \"required\"")),
    );
    assert_says(
        &said,
        &[
            "cannot be held to the server's trace: it keeps none",
            "`trace = true` of `server.embedded`",
        ],
    );
}

#[test]
fn a_fault_that_there_is_not_is_answered_with_those_there_are() {
    let world = World::new();
    let said = failing(
        &world,
        &plan_with(&traced(", args = { fault = [\"stal=0.1:2s\"] }"), FEW),
    );
    assert_says(
        &said,
        &["`stal=0.1:2s` is no fault; there are `stall=SHARE:DURATION`"],
    );
}
