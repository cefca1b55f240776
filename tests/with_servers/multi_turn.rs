//! Conversations whose turns stand behind real answers, against the embedded server: what it cached of
//! them stands beside what could have been.

use crate::world::World;
use serde_json::Value;
use std::fs;

/// Two rounds of 64 tokens with answers of 8: of 64 + 136 prompt tokens 72 come again.
const IDEAL: f64 = 72.0 / 200.0;
/// Tokens per block of the server's cache: a hit is counted in whole ones.
const PAGE: u64 = 4;

const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 2048 } }

[steps.text]
use = "workload.multi_turn"
with = { model = "${steps.model.dir}", conversations = 6, rounds = 2, input_tokens = 64, output_tokens = 8 }

[steps.ids]
use = "workload.multi_turn"
with = { model = "${steps.model.dir}", conversations = 6, rounds = 2, input_tokens = 64, output_tokens = 8, prompt = "tokens", seed = 7 }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}", page_size = 4 }

[steps.ready]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.ids.workload}", request_rate = 20, ready_queue = "random", max_in_flight = 4, calibration = "none" }

[steps.native]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.ids.workload}", concurrency = 2, sessions = true, protocol = "sglang", calibration = "none" }

[steps.held]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.text.workload}", concurrency = 3, sessions = true, calibration = "none" }

[steps.chat]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.text.workload}", request_rate = 20, ready_queue = "fifo", protocol = "chat", calibration = "none" }
"#;

fn result(world: &World, step: &str) -> Value {
    let path = world.out().join(format!("latest/results/{step}/0"));
    let text = fs::read_to_string(path.join("result.json")).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn what_was_cached_of_conversations_stands_beside_what_could_have_been() {
    let world = World::new();
    let plan = world.plan(PLAN);
    let finished = world.run(&["run", &plan.display().to_string()]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    world.assert_nothing_left();
    for step in ["ready", "native", "held", "chat"] {
        let result = result(&world, step);
        let value = |name: &str| result["rows"][0]["values"][name].as_f64();
        assert_eq!(value("completed"), Some(12.0), "{step}");
        let ideal = value("cache_hit_rate_ideal").expect("an ideal");
        assert!((ideal - IDEAL).abs() < 0.01, "{step}: {ideal}");
        let measured = value("cache_hit_rate").expect("what the server counted");
        if step == "chat" {
            // Its template adds to every message, and is itself what all prompts begin with.
            assert!(measured > 0.2, "{step}: {measured}");
        } else {
            // The server has to compute the last token of an answer anew, and keeps whole blocks.
            let least = f64::from(72 - 1 - 2 * i32::try_from(PAGE).expect("a page")) / 200.0;
            assert!(
                measured >= least && measured <= ideal + 0.01,
                "{step}: {measured}"
            );
        }
    }
    // Of token ids the server counted exactly what was expected.
    let counted = result(&world, "ready")["details"]["metrics"]["counts"]["input_tokens"].as_u64();
    assert_eq!(counted, Some(6 * 200));
}
