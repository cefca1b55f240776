//! `server.lmdeploy` and `server.trtllm` against a replay of what these servers say, which neither could be run
//! for: launched with the plan's flags, asked for a token, their counts beside the records.

use crate::misbehaving::{assert_says, plan_with};
use crate::world::{Finished, World};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether there is a Python to replay with.
pub(crate) fn has_python() -> bool {
    let mut command = Command::new("python3");
    let asked = command.arg("--version").stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// A service that is replayed: its kind, how it behaves, and its options besides.
pub(crate) fn replayed(uses: &str, how: &str, options: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_servers/foreign");
    let script = folder.join("replay.py").display().to_string();
    format!(
        "use = \"{uses}\"\nready = {{ timeout = \"60s\" }}\nwith = {{ model = \"${{steps.model.dir}}\", command = [\"python3\", \"-B\", \"{script}\", \"{how}\"], {options} }}"
    )
}

/// One request at a time, so that counts are known.
const ONE: &str = "concurrency = 1, calibration = \"none\"";

fn run(world: &World, service: &str) -> Finished {
    let plan = world.plan(&plan_with(service, ONE));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    world.assert_nothing_left();
    finished
}

fn result(world: &World) -> Value {
    let path = world.out().join("latest/results/load/0/result.json");
    serde_json::from_str(&fs::read_to_string(path).expect("a result")).expect("JSON")
}

/// The command line of the launch.
fn argv(world: &World) -> String {
    let path = world.out().join("latest/logs/server");
    let launch = fs::read_dir(path).expect("launches").flatten().next();
    let path = launch.expect("a launch").path().join("command.json");
    let command: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("a command")).expect("JSON");
    let words = command["argv"].as_array().expect("words").iter();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    words.join(" ")
}

fn assert_counted(result: &Value) {
    let value = |name: &str| result["rows"][0]["values"][name].as_f64();
    assert_eq!(value("completed"), Some(8.0));
    assert_eq!(value("server_prompt_tokens"), Some(64.0));
    assert_eq!(value("server_cached_tokens"), Some(32.0));
    assert_eq!(value("server_output_tokens"), Some(32.0));
}

#[test]
fn lmdeploy_is_launched_asked_and_counted() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options = r#"backend = "pytorch", session_len = 64, args = { eager_mode = true }"#;
    let finished = run(&world, &replayed("server.lmdeploy", "lmdeploy", options));
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let argv = argv(&world);
    assert_says(
        &argv,
        &[
            "--server-name 127.0.0.1 --server-port ",
            "--backend pytorch --session-len 64 --eager-mode",
        ],
    );
    let result = result(&world);
    assert_counted(&result);
    assert_eq!(result["target"]["model"], "replayed");
    assert_eq!(result["target"]["version"], Value::Null, "nothing tells it");
}

#[test]
fn trtllm_is_launched_asked_counted_and_held_to_what_it_tells() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options = r#"backend = "pytorch", max_batch_size = 8, kv_cache_free_gpu_memory_fraction = 0.5, load_format = "dummy", llm_api_options = { kv_cache_config = { tokens_per_block = 32 } }"#;
    let finished = run(&world, &replayed("server.trtllm", "trtllm", options));
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let argv = argv(&world);
    assert_says(
        &argv,
        &[
            "--host 127.0.0.1 --port ",
            "--backend pytorch --kv_cache_free_gpu_memory_fraction 0.5 --max_batch_size 8 --extra_llm_api_options ",
        ],
    );
    let (_, file) = argv.rsplit_once(' ').expect("a file");
    let file: Value =
        serde_json::from_str(&fs::read_to_string(file).expect("a file")).expect("JSON");
    let expected = serde_json::json!({
        "kv_cache_config": { "enable_block_reuse": false, "free_gpu_memory_fraction": 0.5, "tokens_per_block": 32 },
        "return_perf_metrics": true,
        "load_format": "dummy",
    });
    assert_eq!(file, expected);
    let result = result(&world);
    assert_counted(&result);
    assert_eq!(result["target"]["version"], "1.2.1");
}

#[test]
fn what_trtllm_tells_otherwise_makes_the_sample_invalid() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options = r#"tp_size = 2, args = { ignores = "tensor_parallel_size=1" }"#;
    let service = replayed("server.trtllm", "trtllm", options);
    let finished = run(&world, &format!("{service}\nresources = {{ gpus = 0 }}"));
    assert_eq!(finished.code(), 3, "{}", finished.said());
    let verdict = result(&world)["details"]["verdict"].to_string();
    let words = "`tp_size` was asked to be 2 and is 1";
    assert!(verdict.contains(words), "{verdict}");
}

#[test]
fn a_launch_of_either_that_dies_says_what_its_log_means() {
    if !has_python() {
        return;
    }
    for (uses, last_words, class) in [
        (
            "server.lmdeploy",
            "lmdeploy: error: argument --backend: invalid choice: 'x'",
            "unrecognised argument",
        ),
        (
            "server.trtllm",
            "Error: No such option: --max-batch-size",
            "unrecognised argument",
        ),
        (
            "server.trtllm",
            "ValueError: No GPU devices found on the node",
            "CUDA and its driver do not fit",
        ),
    ] {
        let world = World::new();
        let args = format!("args = {{ last_words = \"{last_words}\" }}");
        let finished = run(&world, &replayed(uses, "dies", &args));
        assert_eq!(finished.code(), 1, "{}", finished.said());
        let said = finished.said();
        assert_says(&said, &["it died before it was healthy", class, last_words]);
    }
}
