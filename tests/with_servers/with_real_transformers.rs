//! Transformers' real server on the CPU: installed, given a checkpoint of ours, launched, measured and torn down by
//! this project's own steps, with continuous batching and without.

use crate::with_real_servers::{assert_nothing_left, engine, installed, result, run, uv, value};
use crate::world::World;
use serde_json::Value;
use std::fs;

const LOCK: &str = "transformers.lock";

/// A plan that measures two of its servers, of one checkpoint: one batches, the other does not.
fn plan(variables: &str) -> String {
    let engine = engine(LOCK);
    let common = format!(
        r#"model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", device = "cpu", dtype = "bfloat16", env = {{ {variables} }}"#
    );
    format!(
        r#"
{engine}
[steps.shape]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ model_type = "llama", architectures = ["LlamaForCausalLM"], num_hidden_layers = 2, vocab_size = 4096, hidden_size = 256, intermediate_size = 512, num_attention_heads = 4, num_key_value_heads = 2, bos_token_id = 0, eos_token_id = 1, max_position_embeddings = 4096 }} }}

[steps.model]
use = "model.weights"
with = {{ model = "${{steps.shape.dir}}", dtype = "bf16" }}

[steps.prompts]
use = "dataset.random"
with = {{ model = "${{steps.model.dir}}", requests = 8, input_tokens = 32, output_tokens = 8 }}

[services.batching]
use = "server.transformers"
with = {{ {common}, continuous_batching = true, cb_max_memory_percent = 0.03, flush_cache = false }}

[steps.warm]
use = "load.warm"
with = {{ server = "${{services.batching}}", requests = 2, output_tokens = 4 }}

[steps.load_batched]
use = "load.test"
after = ["warm"]
with = {{ server = "${{services.batching}}", workload = "${{steps.prompts.workload}}", concurrency = 2, calibration = "none" }}

[services.plain]
use = "server.transformers"
with = {{ {common} }}

[steps.load_plain]
use = "load.test"
with = {{ server = "${{services.plain}}", workload = "${{steps.prompts.workload}}", concurrency = 2, calibration = "none" }}
"#
    )
}

/// Every request was answered with the tokens that it asked for, as the server counts them.
fn holds(world: &World, load: &str) {
    let result = result(world, load);
    assert!((value(&result, "completed") - 8.0).abs() < f64::EPSILON);
    let results = world.out().join("latest/results");
    let view = results.join(load).join("0/views/vllm.json");
    let view = fs::read_to_string(view).expect("a view");
    let view: Value = serde_json::from_str(&view).expect("JSON");
    assert_eq!(view["total_input_tokens"], 8 * 32, "{load}");
    assert_eq!(view["total_output_tokens"], 8 * 8, "{load}");
    assert_eq!(result["target"]["version"], "5.19.0");
    // It tells none of its own.
    assert!(result["rows"][0]["values"]["server_output_tokens"].is_null());
    let reasons = result["details"]["verdict"]["reasons"].as_array();
    let reasons = reasons.expect("reasons");
    assert!(
        reasons.iter().all(|reason| reason["check"] != "applied"),
        "{reasons:?}"
    );
}

#[test]
fn transformers_serves_a_checkpoint_of_ours() {
    let Some(uv) = uv("serving.py") else {
        return;
    };
    let world = World::new();
    let variables = installed(&world, &uv, LOCK);
    let finished = run(&world, &uv, &world.plan(&plan(&variables)));
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_nothing_left(&world);
    holds(&world, "load_batched");
    holds(&world, "load_plain");
}
