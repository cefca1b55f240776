//! `multimodel.controller` before two embedded servers: both policies over the same servers, and a
//! server that dies in the middle of a load.

use crate::world::{World, wait_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Two servers that queue, batch and move as with a model, each step taking a stated time; a trace of
/// requests to both models, and what stands before it.
fn plan(trace: &str, controller: &str, load: &str) -> String {
    let server = "use = \"server.embedded\"\nwith = { model = \"${steps.model.dir}\", served_model_name = \"served\", \
        args = { executor = \"sim\", sim_steps = true, sim_tpot_ms = 2, sim_prefill_us = 1, sim_bytes_per_token = 64, sim_weights = \"3MiB\" } }";
    format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 }} }}

[steps.trace]
use = "workload.multi_model"
with = {{ models = [{{ name = "a" }}, {{ name = "b" }}], input_range = [2, 6], output_range = [2, 6], {trace} }}

[services.one]
{server}

[services.two]
{server}

[services.both]
use = "multimodel.controller"
{controller}

[services.both.with]
queue_threshold = 1
quantum = "20ms"
idle = "50ms"
models = [
    {{ name = "a", server = "${{services.one}}", release = "sglang" }},
    {{ name = "b", server = "${{services.two}}", release = "vllm", memory = "1GiB" }},
]

[steps.load]
use = "load.test"
with = {{ server = "${{services.both}}", workload = "${{steps.trace.workload}}", calibration = "none", {load} }}
"#
    )
}

fn result(world: &World, file: &str) -> Value {
    let path = world.out().join("latest/results").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn completed(world: &World, load: &str) -> f64 {
    let result = result(world, &format!("{load}/0/result.json"));
    let count = result.pointer("/rows/0/values/completed");
    count.and_then(Value::as_f64).expect("a count")
}

/// How often a service was launched.
fn launches(world: &World, service: &str) -> usize {
    let folder = world.out().join("latest/logs").join(service);
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn every_policy_gets_servers_of_its_own_and_tells_what_moved() {
    let world = World::new();
    let text = plan(
        r#"request_rate = 20, duration = "1s""#,
        r#"axes = ["policy"]"#,
        "concurrency = 4",
    );
    let text = text.replace("quantum = ", "policy = \"${axes.policy}\"\nquantum = ");
    let axes = "\n[axes]\npolicy = [\"baseline\", \"enhanced\"]\n";
    let samples = "samples = { target = 2 }\n";
    let plan = world.plan(&(axes.to_owned() + &text + samples));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    for policy in ["baseline", "enhanced"] {
        let load = format!("load[policy={policy}]");
        assert!(
            (completed(&world, &load) - 20.0).abs() < f64::EPSILON,
            "{policy}"
        );
        let kept = result(&world, &format!("{load}/0/result.json"));
        let simulated = kept["target"]["server.simulated"].as_str();
        assert!(
            simulated.is_some_and(|how| how.starts_with("sim")),
            "{kept}"
        );
        let timeline = result(&world, &format!("{load}/0/timeline.json"));
        assert_eq!(timeline["models"], serde_json::json!(["a", "b"]));
        let swaps = timeline["swaps"].as_array().expect("swaps");
        let came = swaps.iter().filter(|swap| swap["direction"] == "in");
        assert!(came.count() > 0, "{timeline}");
        assert!(
            swaps.iter().all(|swap| swap["bytes"] == 3 << 20),
            "{timeline}"
        );
    }
    // Every sample begins with the first model on the device; nobody is idle under this policy.
    for sample in 0..2 {
        let timeline = result(
            &world,
            &format!("load[policy=baseline]/{sample}/timeline.json"),
        );
        let first = &timeline["swaps"][0];
        let move_ = (&first["model"], &first["direction"]);
        assert_eq!(move_, (&"a".into(), &"out".into()), "{timeline}");
    }
    // What one of them made of the servers is not left to the other.
    for server in ["one", "two"] {
        assert_eq!(launches(&world, server), 2, "{server}");
    }
    world.assert_nothing_left();
}

#[test]
fn a_server_that_dies_takes_the_others_along_and_the_load_is_drawn_anew() {
    let world = World::new();
    let text = plan(
        r#"request_rate = 20, duration = "4s""#,
        "",
        r#"arrivals = "listed""#,
    );
    let retry = "retry = { max = 1, on = [\"infrastructure\"], backoff = \"100ms\" }\n";
    let plan = world.plan(&(text + retry));
    let running = world.start(&["run", plan.to_str().expect("a path")]);
    let load: PathBuf = world.out().join("latest/logs/load/0");
    wait_for("the load to begin", || load.exists().then_some(()));
    let server = wait_for("the first server", || {
        let all = world.processes().into_iter();
        let mut servers = all.filter(|(_, line)| {
            line.contains("/logs/one/") && line.contains(" server ") && !line.contains("__guardian")
        });
        servers.next().map(|(pid, _)| pid)
    });
    let killed = Command::new("kill")
        .args(["-9", &server.to_string()])
        .status();
    assert!(killed.expect("kill").success());
    let finished = running.finish();
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert!((completed(&world, "load") - 80.0).abs() < f64::EPSILON);
    for service in ["one", "two", "both"] {
        assert_eq!(
            launches(&world, service),
            2,
            "{service}: {}",
            finished.said()
        );
    }
    world.assert_nothing_left();
}

#[test]
fn a_server_that_gives_no_memory_back_is_no_server_for_it() {
    let world = World::new();
    let text = plan(
        r#"request_rate = 20, duration = "1s""#,
        "",
        "concurrency = 4",
    );
    // At a stated pace there is nothing to move.
    let text = text.replace("sim_steps = true, ", "");
    let plan = world.plan(&text);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 1, "{}", finished.said());
    let said = finished.said();
    let why = "model `a` could not be taken off the device";
    assert!(said.contains(why) && said.contains("`sim_steps`"), "{said}");
    world.assert_nothing_left();
}
