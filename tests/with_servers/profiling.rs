//! `profile.server` against a replay of what the profilers of SGLang and vLLM do: opened, left open for a window,
//! closed, their traces waited for and told. Real ones are profiled in `with_real_servers.rs`.

use crate::misbehaving::{FEW, assert_says, plan_with};
use crate::replayed::{has_python, replayed};
use crate::world::{Finished, World};
use serde_json::{Value, json};
use std::fs;

/// Each opens the profiler anew, which the one before has closed.
const SAMPLES: usize = 2;

/// Runs a plan whose server is profiled, as `profile` says.
fn profiled(world: &World, service: &str, profile: &str) -> Finished {
    let plan = plan_with(service, FEW)
        + &format!(
            "[steps.profile]\nuse = \"profile.server\"\nafter = [\"load\"]\nwith = {{ server = \"${{services.server}}\", workload = \"${{steps.prompts.workload}}\", {profile} }}\nsamples = {{ target = {SAMPLES} }}\n"
        );
    let plan = world.plan(&plan);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    world.assert_nothing_left();
    finished
}

fn result(world: &World) -> Value {
    let path = world.out().join("latest/results/profile/0/result.json");
    serde_json::from_str(&fs::read_to_string(path).expect("a result")).expect("JSON")
}

fn traces(world: &World) -> Vec<String> {
    let path = world.out().join("latest/results/profile/0/traces");
    let entries = fs::read_dir(path).expect("traces").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What the server was asked when its profiler was opened.
fn asked(world: &World) -> Vec<Value> {
    let launches = fs::read_dir(world.out().join("latest/logs/server")).expect("launches");
    let logs = launches
        .flatten()
        .map(|launch| launch.path().join("stderr.log"));
    let text: String = logs
        .filter_map(|log| fs::read_to_string(log).ok())
        .collect();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("asked to profile: "));
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// A row of the result, shortened.
fn row(row: &Value) -> String {
    let label = |name: &str| row["labels"][name].as_str().unwrap_or("-").to_owned();
    let value = |name: &str| row["values"][name].as_f64().expect("a value");
    format!(
        "{} {} {} {}: {} {} {} {}",
        label("process"),
        label("stage"),
        label("kind"),
        label("name"),
        value("count"),
        value("total_ms"),
        value("self_ms"),
        value("share"),
    )
}

#[test]
fn sglang_closes_by_itself_and_its_trace_is_kept_once_it_is_whole() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let service = replayed("server.sglang", "serves", "page_size = 16");
    let finished = profiled(&world, &service, "steps = 3, concurrency = 1");
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let result = result(&world);
    assert_eq!(traces(&world), ["1.5-TP-0.trace.json.gz"]);
    let rows: Vec<String> = result["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(row)
        .collect();
    assert_eq!(
        rows,
        [
            "TP-0 - kernel gemm: 1 0.04 0.04 1",
            "TP-0 - operator aten::addmm: 1 0.075 0.075 0.75",
            "TP-0 - operator aten::linear: 1 0.1 0.025 0.25",
        ]
    );
    let window = &result["details"]["window"];
    assert_eq!(
        (&window["steps_asked"], &window["closed"]),
        (&json!(3), &json!("by itself"))
    );
    let file = &result["details"]["files"][0];
    assert_eq!(
        (&file["events"], &file["process"]),
        (&json!(3), &json!("TP-0"))
    );
    assert!(file["bytes"].as_u64() > Some(0), "{file}");
    let values = result["rows"].to_string();
    assert!(
        !values.contains("ttft"),
        "no latency of it is told: {values}"
    );
    let asked = asked(&world);
    assert_eq!(asked.len(), SAMPLES);
    assert_eq!(asked[0]["num_steps"], 3);
    let to = asked[0]["output_dir"].as_str().expect("a folder");
    assert!(to.starts_with('/'), "{to}");
}

#[test]
fn stages_are_profiled_one_by_one_and_a_time_is_closed_by_us() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let service = replayed("server.sglang", "serves", "page_size = 16");
    let finished = profiled(&world, &service, "steps = 2, by_stage = true");
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let stages = [
        "1.5-TP-0-DECODE.trace.json.gz",
        "1.5-TP-0-EXTEND.trace.json.gz",
    ];
    assert_eq!(traces(&world), stages);
    assert_eq!(
        row(&result(&world)["rows"][0]),
        "TP-0 DECODE kernel gemm: 1 0.04 0.04 1"
    );

    let world = World::new();
    let finished = profiled(&world, &service, "duration = \"100ms\"");
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let window = result(&world)["details"]["window"].clone();
    assert_eq!(window["closed"], "after its time");
    assert_eq!(window["seconds_asked"], 0.1);
    assert_eq!(asked(&world)[0]["num_steps"], Value::Null);
}

#[test]
fn vllm_is_launched_with_a_folder_and_closed_also_where_it_closed_itself() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let service = replayed("server.vllm", "serves", "profiler = true");
    let finished = profiled(&world, &service, "steps = 2");
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_eq!(traces(&world), ["dp0_pp0_tp0_rank0.1.pt.trace.json.gz"]);
    let opening = json!({ "max_iterations": 2 });
    assert_eq!(asked(&world), vec![opening; SAMPLES]);
    let target = result(&world)["target"].clone();
    assert_eq!(
        target["profiler"],
        Value::Null,
        "how it is reached is no fact of the server"
    );
}

#[test]
fn steps_that_do_not_pass_are_closed_at_the_limit_and_that_is_told() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let service = replayed("server.sglang", "serves", "page_size = 16");
    let profile = "steps = 1000000, limit = \"1s\"";
    let finished = profiled(&world, &service, profile);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_eq!(
        result(&world)["details"]["window"]["closed"],
        "at the limit"
    );
    let trouble = result(&world)["details"]["trouble"].to_string();
    assert_says(&trouble, &["its steps had not passed at the limit"]);
}

#[test]
fn a_server_without_a_profiler_says_so_with_the_mend() {
    if !has_python() {
        return;
    }
    for (uses, how, expected) in [
        ("server.vllm", "serves", "write `profiler = true`"),
        ("server.lmdeploy", "lmdeploy", "LMDEPLOY_PROFILE_DELAY"),
        ("server.trtllm", "trtllm", "TLLM_PROFILE_START_STOP"),
    ] {
        let world = World::new();
        let options = "args = { last_words = \"-\" }";
        let finished = profiled(&world, &replayed(uses, how, options), "steps = 2");
        assert_eq!(finished.code(), 1, "{}", finished.said());
        assert_says(&finished.said(), &["profiler", expected]);
    }
}
