//! `server.sglang` against a replay of what SGLang says: launched with the plan's flags, asked for a token,
//! held to what was asked, its counts beside the records.

use crate::world::{Finished, World};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether there is a Python to replay with; the servers themselves are written in it.
fn has_python() -> bool {
    let mut command = Command::new("python3");
    let asked = command.arg("--version").stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Runs a load on a replayed server: how it behaves, and what its options say besides.
fn replayed(world: &World, how: &str, options: &str) -> Finished {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_servers/foreign");
    let script = folder.join("replay.py").display().to_string();
    let plan = world.plan(&format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 }} }}

[steps.prompts]
use = "dataset.random"
with = {{ model = "${{steps.model.dir}}", requests = 6, input_tokens = 8, output_tokens = 4 }}

[services.server]
use = "server.sglang"
ready = {{ timeout = "20s" }}
with = {{ model = "${{steps.model.dir}}", command = ["python3", "-B", "{script}", "{how}"], {options} }}

[steps.load]
use = "load.test"
with = {{ server = "${{services.server}}", workload = "${{steps.prompts.workload}}", concurrency = 1, calibration = "none" }}
"#
    ));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    world.assert_nothing_left();
    finished
}

fn result(world: &World) -> Value {
    let path = world.out().join("latest/results/load/0/result.json");
    serde_json::from_str(&fs::read_to_string(path).expect("a result")).expect("JSON")
}

#[test]
fn what_was_applied_and_counted_stands_beside_what_was_measured() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options =
        r#"page_size = 16, schedule_policy = "lpm", args = { chunked_prefill_size = 512 }"#;
    let finished = replayed(&world, "serves", options);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let said = finished.said();
    assert!(!said.contains("did not apply"), "{said}");
    let result = result(&world);
    let target = |name: &str| result["target"][name].as_str().map(str::to_owned);
    assert_eq!(target("version").as_deref(), Some("0.5.23"));
    assert_eq!(target("server.schedule_policy").as_deref(), Some("lpm"));
    assert_eq!(target("server.page_size").as_deref(), Some("16"));
    assert_eq!(target("asked"), None, "only its comparison is of interest");
    let value = |name: &str| result["rows"][0]["values"][name].as_f64();
    assert_eq!(value("completed"), Some(6.0));
    // Counted anew for the load: the token of the launch is not among them.
    assert_eq!(value("server_prompt_tokens"), Some(48.0));
    assert_eq!(value("server_cached_tokens"), Some(24.0));
    assert_eq!(value("server_output_tokens"), Some(24.0));
    assert_eq!(value("server_cache_hit_rate"), value("cache_hit_rate"));
}

#[test]
fn metrics_that_get_stuck_under_load_are_missed_and_told_and_the_load_goes_on() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let finished = replayed(&world, "stuck", "page_size = 16");
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let result = result(&world);
    let value = |name: &str| result["rows"][0]["values"][name].as_f64();
    assert_eq!(value("completed"), Some(6.0));
    assert!(value("server_readings_missed") >= Some(1.0), "{result}");
    let notes = result["notes"].as_array().expect("notes");
    let is_told = |note: &Value| {
        let note = note.as_str().unwrap_or_default();
        note.contains("readings of the server's metrics were missed, the first because")
    };
    assert!(notes.iter().any(is_told), "{notes:?}");
    // What was counted before the load cannot be set beside what nobody could read after it.
    assert_eq!(value("server_prompt_tokens"), None);
}

#[test]
fn what_was_not_applied_makes_the_sample_invalid() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options = r#"page_size = 16, args = { ignores = "page_size=1" }"#;
    let finished = replayed(&world, "serves", options);
    let said = finished.said();
    assert_eq!(finished.code(), 3, "{said}");
    let words =
        "the server did not apply what it was asked for: `page_size` was asked to be 16 and is 1";
    let details = &result(&world)["details"]["verdict"];
    assert_eq!(details["grade"], "invalid", "{details}");
    let reasons = details["reasons"].as_array().expect("reasons");
    assert!(
        reasons
            .iter()
            .any(|r| r["check"] == "applied" && r["message"] == words),
        "{details}"
    );
}

#[test]
fn a_server_that_dies_fails_the_launch_with_what_its_log_means() {
    if !has_python() {
        return;
    }
    for (last_words, class) in [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "out of GPU memory",
        ),
        (
            "ModuleNotFoundError: No module named 'sglang'",
            "a Python module is missing",
        ),
        (
            "launch_server.py: error: unrecognized arguments: --page-sise",
            "unrecognised argument",
        ),
    ] {
        let world = World::new();
        let finished = replayed(
            &world,
            "dies",
            &format!("args = {{ last_words = \"{last_words}\" }}"),
        );
        let said = finished.said();
        assert_eq!(finished.code(), 1, "{said}");
        assert!(said.contains("it died before it was healthy"), "{said}");
        assert!(said.contains(class) && said.contains(last_words), "{said}");
    }
}

#[test]
fn a_server_that_makes_no_token_is_not_ready() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let finished = replayed(&world, "deaf", "page_size = 16");
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    assert!(said.contains("503 at `/v1/completions`"), "{said}");
}
