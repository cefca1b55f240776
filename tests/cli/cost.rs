//! What a model costs, counted by the real binary: nothing is served.

use crate::folder::Folder;
use serde_json::Value;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_plan_of_costs_counts_and_draws_what_devices_allow() {
    let folder = Folder::new();
    let plan = root().join("plans/latency/cost.toml").display().to_string();
    let said = folder.run(&["run", &plan, "--variant", "smoke"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let results = folder.path("outputs/latest/results");
    let cost = json(&results.join("h100/result.json"));
    let rows = cost["rows"].as_array().expect("rows");
    // Two phases, two batches, two formulas.
    assert_eq!(rows.len(), 8, "{cost}");
    for row in rows
        .iter()
        .filter(|r| r["labels"]["formula"] == "corrected")
    {
        let value = |name: &str| {
            let value = row["values"][name].as_f64();
            value.unwrap_or_else(|| panic!("{name}: {row}"))
        };
        assert_eq!(value("parameters"), 494_032_768.0);
        assert_eq!(value("kv_token_bytes"), 2.0 * 2.0 * 64.0 * 24.0 * 2.0);
        assert!(value("executed_flops") >= value("flops"));
        assert!(value("class_bound_ms") >= value("bound_ms"));
        assert_eq!(row["values"]["mfu"], Value::Null, "nothing was measured");
    }
    let cpu = json(&results.join("cpu/result.json"));
    let roof = &cpu["details"]["roof"];
    assert!(
        roof["flops_per_s"].as_f64().is_some_and(|rate| rate > 0.0),
        "{roof}"
    );
    assert_eq!(roof["precisions"], serde_json::json!(["f32", "f32"]));
    let chart = json(&results.join("gpus/chart/chart.json"));
    let names: Vec<&str> = chart["series"]
        .as_array()
        .expect("series")
        .iter()
        .filter_map(|series| series["name"].as_str())
        .collect();
    assert!(names.contains(&"NVIDIA H200 allows"), "{names:?}");
    assert!(names.contains(&"decode, NVIDIA H200, allowed"), "{names:?}");
}
