//! A load beside which its server is read: series on the clock of the records, numbers out of them, and both drawn.

use crate::world::World;
use serde_json::Value;
use std::fs;
use std::path::Path;

const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 } }

[steps.prompts]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 24, input_tokens = 8, output_tokens = 20 }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}", args = { executor = "sim", sim_ttft_ms = 100, sim_tpot_ms = 20 } }

[steps.load]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 4, calibration = "none", telemetry_interval = "100ms", telemetry_series = ["sglang:time_to_first_token_seconds"] }

[steps.unread]
use = "load.test"
after = ["load"]
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 4, calibration = "none", telemetry = "none" }

[steps.drawn]
use = "plot.telemetry"
with = { data = "${steps.load.all}" }

[steps.report]
use = "report.page"
with = { data = ["${steps.load.all}", "${steps.unread.all}"] }
"#;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

#[test]
fn a_server_is_read_during_a_load_and_drawn_beside_the_client() {
    let world = World::new();
    let plan = world.plan(PLAN);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    world.assert_nothing_left();
    let results = world.out().join("latest/results");
    let load = json(&results.join("load/0/result.json"));
    let value = |name: &str| load["rows"][0]["values"][name].as_f64();
    // 24 requests of half a second, four at a time: three seconds, ten readings each.
    assert!(value("server_readings") > Some(5.0), "{load}");
    assert!(value("server_readings_missed") < value("server_readings"));
    assert!(value("server_running_mean") > Some(0.0));
    assert!(value("server_running_max") <= Some(4.0), "{load}");
    assert!(value("telemetry_cpu_ms") > Some(0.0));
    assert_eq!(value("server_output_tokens"), Some(480.0));
    assert_eq!(load["details"]["telemetry"]["server"], "/metrics");
    for name in ["server", "gpus", "series"] {
        let path = results.join(format!("load/0/telemetry/{name}.parquet"));
        assert!(path.exists(), "{}", path.display());
    }
    let unread = json(&results.join("unread/0/result.json"));
    assert!(unread["details"].get("telemetry").is_none(), "{unread}");
    assert!(unread["rows"][0]["values"].get("server_readings").is_none());

    let csv = fs::read_to_string(results.join("drawn/chart/points.csv")).expect("points");
    for what in ["client_in_flight", "server_running", "server_output_tokens"] {
        assert!(csv.contains(what), "{what}: {csv:.300}");
    }
    let page = fs::read_to_string(results.join("report/page/report.html")).expect("a page");
    assert!(page.contains("During the loads") && page.contains("server, waiting"));
    again(&world, &load);
}

/// What was read is as it was when the load is computed anew.
fn again(world: &World, then: &Value) {
    let to = world.path("again");
    let finished = world.run(&[
        "report",
        "latest",
        "--recompute",
        to.to_str().expect("a path"),
    ]);
    assert_eq!(finished.code(), 0, "{}", finished.said());
    let mut runs = fs::read_dir(&to).expect("a folder").flatten();
    let run = runs.next().expect("a run").path();
    let now = json(&run.join("load/0/result.json"));
    let telemetry = |result: &Value| result["details"]["telemetry"].clone();
    assert_eq!(telemetry(&now), telemetry(then));
    for name in ["server_running_mean", "server_readings", "telemetry_cpu_ms"] {
        let value = |result: &Value| result["rows"][0]["values"][name].as_f64();
        assert_eq!(value(&now), value(then), "{name}");
    }
}
