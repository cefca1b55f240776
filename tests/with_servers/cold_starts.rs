//! A server that is launched anew for each sample, with its weights out of the page cache, and serves others
//! after that.

use crate::world::World;
use serde_json::Value;
use std::fs;

const MODEL: &str = r#"
[steps.small]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 2, vocab_size = 512 }, scale = { hidden_size = 0.125, num_attention_heads = 0.5, num_key_value_heads = 0.5, intermediate_size = 0.0625 }, unset = ["sliding_window"] }

[steps.weights]
use = "model.weights"
with = { model = "${steps.small.dir}" }
"#;

fn result(world: &World, step: &str, sample: usize) -> Value {
    let path = format!("latest/results/{step}/{sample}/result.json");
    let path = world.out().join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// A row has all stages, in the order in which they come.
pub(crate) fn assert_stages(result: &Value, more: &[&str]) {
    let values = &result["rows"][0]["values"];
    let value = |name: &str| {
        let value = values[name].as_f64();
        value.unwrap_or_else(|| panic!("no `{name}` in {values}"))
    };
    let order = [
        "spawn_ms",
        "listening_ms",
        "ready_ms",
        "first_token_ms",
        "end_to_end_ms",
    ];
    for pair in order.windows(2) {
        assert!(value(pair[0]) <= value(pair[1]), "{pair:?}: {values}");
    }
    for name in [
        "ttft_cold_ms",
        "ttft_warm_ms",
        "throughput",
        "throughput_warm",
    ] {
        assert!(value(name) > 0.0, "{name}: {values}");
    }
    for name in more {
        assert!(
            value(name) > 0.0 && value(name) <= value("ready_ms"),
            "{name}: {values}"
        );
    }
    assert!(
        (value("answer_tokens") - 50.0).abs() < f64::EPSILON,
        "{values}"
    );
}

#[test]
fn each_sample_is_a_launch_and_the_server_serves_others_after_it() {
    let world = World::new();
    let plan = world.plan(&format!(
        r#"
{MODEL}
[services.server]
use = "server.embedded"
with = {{ model = "${{steps.weights.dir}}", load_format = "safetensors" }}

[steps.cold]
use = "server.cold_start"
samples = {{ target = 2 }}
with = {{ server = "${{services.server}}", weights = "${{steps.weights.dir}}" }}

[steps.warm]
use = "load.warm"
with = {{ server = "${{services.server}}", requests = 2, output_tokens = 4 }}

[steps.test]
use = "server.test"
after = ["cold", "warm"]
with = {{ server = "${{services.server}}" }}
"#
    ));
    let finished = world.run(&["run", plan.to_str().expect("a path"), "--json"]);
    // Beside other tests a page may stay where it should be evicted: such a sample is invalid, and replaced.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let events = finished.said();
    let launches = events.matches("\"event\":\"service_launching\"").count();
    for sample in 0..2 {
        let result = result(&world, "cold", sample);
        assert_stages(&result, &[]);
        assert_eq!(result["target"]["state"], "guest_cold");
    }
    // The engine's own launches are few: those of samples are not among them, and none died of it.
    assert!((1..=2).contains(&launches), "{events}");
    assert!(!events.contains("service_died"), "{events}");
    let logs = world.out().join("latest/logs");
    let again = walk(&logs)
        .into_iter()
        .filter(|path| path.contains("/again-"));
    let starts = again.filter(|path| path.ends_with("/command.json")).count();
    assert!(starts >= 2, "{starts} launches of samples");
    world.assert_nothing_left();
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(walk(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[test]
fn a_server_that_does_not_come_back_is_told_of_with_its_log() {
    let world = World::new();
    // It serves once, and finds its own mark when it is started again.
    let mark = world.path("mark");
    let serve = "test ! -e MARK || { echo 'cannot start twice' >&2; exit 7; }; touch MARK; exec BINARY server --model-path \"$1\" --port \"$2\"";
    let serve = serve.replace("MARK", &mark.display().to_string());
    let serve = serve.replace("BINARY", env!("CARGO_BIN_EXE_benchwright"));
    let plan = world.plan(&format!(
        r#"
{MODEL}
[services.server]
use = "server.command"
with = {{ argv = ["sh", "-c", '''{serve}''', "sh", "${{steps.small.dir}}", "{{port}}"] }}

[steps.cold]
use = "server.cold_start"
with = {{ server = "${{services.server}}" }}
"#
    ));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    assert!(said.contains("cannot start twice"), "{said}");
    world.assert_nothing_left();
}
