//! What stands around a measurement: the client calibrated, the server tested, reset and searched, old
//! records computed anew.

use crate::world::World;
use std::fs;

const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 } }

[steps.prompts]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 200, input_tokens = 8, output_tokens = 4 }

[steps.scheduled]
use = "workload.schedule"
with = { workload = "${steps.prompts.workload}", arrivals = "gamma", burstiness = 0.5, requests = 40, stages = [{ rate = 50, to = 100, duration = "5s" }] }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}", args = { executor = "sim", sim_ttft_ms = 10, sim_tpot_ms = 2 } }

[services.real]
use = "server.embedded"
with = { model = "${steps.model.dir}" }

[steps.client]
use = "load.calibrate"
with = { workload = "${steps.prompts.workload}", concurrency = 4, duration = "500ms", ttft = "10ms", tpot = "2ms" }

[steps.load]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.scheduled.workload}", arrivals = "listed", speed = 2, calibration = "${steps.client.all}" }

[steps.shared]
use = "load.test"
after = ["load"]
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 16, http = "2", event_time = "kernel" }

[steps.works]
use = "server.test"
with = { server = "${services.real}" }

[steps.reset]
use = "server.reset"
with = { server = "${services.real}" }

[steps.most]
use = "load.search"
after = ["reset"]
with = { server = "${services.real}", workload = "${steps.prompts.workload}", over = "concurrency", lowest = 1, highest = 2, requests = 10, repeats = 1, slo_e2el = "60s", percentile = 50 }
"#;

#[test]
fn a_client_is_calibrated_and_a_server_tested_reset_and_searched() {
    let world = World::new();
    let plan = world.plan(PLAN);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let results = world.out().join("latest/results");
    let read = |node: &str| -> serde_json::Value {
        let text = fs::read_to_string(results.join(node).join("0/result.json")).expect("a result");
        serde_json::from_str(&text).expect("JSON")
    };
    let client = read("client");
    assert!(
        client["details"]["client_error"]["requests"].as_u64() > Some(8),
        "{client}"
    );
    assert_eq!(client["details"]["client_error"]["unknown"], 0);
    let load = read("load");
    let values = &load["rows"][0]["values"];
    assert_eq!(values["completed"], 40.0, "{values}");
    assert_eq!(
        values["client_error_ttft_p50_ms"],
        client["rows"][0]["values"]["client_error_ttft_p50_ms"]
    );
    // What a paced server told can be no earlier than it was due.
    assert!(values["ttft_p50_ms"].as_f64() >= Some(10.0), "{values}");
    let shared = read("shared");
    assert_eq!(shared["rows"][0]["values"]["completed"], 200.0, "{shared}");
    assert_eq!(shared["details"]["info"]["event_time"], "kernel");
    // It has rehearsed itself in the same way.
    let rehearsed = &shared["rows"][0]["values"]["client_error_ttft_p50_ms"];
    assert!(rehearsed.is_f64(), "{shared}");

    let works = read("works");
    let rows = works["rows"].as_array().expect("rows");
    assert!(
        rows.len() >= 9 && rows.iter().all(|row| row["values"]["passed"] == 1.0),
        "{works}"
    );
    assert_eq!(
        read("most")["rows"][0]["values"]["highest_concurrency"],
        2.0
    );
    let said = finished.said();
    assert!(said.contains("emptied by `/flush_cache`"), "{said}");

    let vllm = fs::read_to_string(results.join("load/0/views/vllm.json")).expect("a view");
    let vllm: serde_json::Value = serde_json::from_str(&vllm).expect("JSON");
    assert_eq!(
        (&vllm["completed"], &vllm["ttfts"][39].is_f64()),
        (&40.into(), &true)
    );
    let anew = world.path("anew");
    let again = world.run(&[
        "report",
        "latest",
        "--recompute",
        anew.to_str().expect("a path"),
    ]);
    assert_eq!(again.code(), 0, "{}", again.said());
    assert!(
        again.said().contains("40 requests, every number as it was"),
        "{}",
        again.said()
    );
    world.assert_nothing_left();
}
