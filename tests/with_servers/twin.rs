//! Servers that are not there: what is simulated says so wherever it is shown, and a twin is made
//! of what was measured.

use crate::world::World;
use std::fs;
use std::path::{Path, PathBuf};

const SIMULATED: &str = "sim, device l4, illustrative";

const ON_L4: &str = r#"
[axes]
concurrency = [1, 2]

[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 2, vocab_size = 8192 } }

[steps.prompts]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 6, input_tokens = 16, output_tokens = 8 }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}", device_profile = "l4", args = { executor = "sim" } }

[steps.load]
use = "load.test"
axes = ["concurrency"]
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = "${axes.concurrency}", calibration = "none" }

[steps.chart]
use = "plot.lines"
with = { data = "${steps.load.all}", x = "concurrency", y = ["tpot_p50_ms"] }

[steps.report]
use = "report.page"
with = { charts = ["${steps.chart.chart}"], data = ["${steps.load.all}"] }
"#;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The folder of a sample of the step `load` with this in its name.
fn sample(world: &World, wanted: &str) -> PathBuf {
    let results = fs::read_dir(world.out().join("latest/results")).expect("results");
    let folders = results.flatten().map(|entry| entry.path());
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let is_wanted = |path: &PathBuf| {
        name(path).is_some_and(|name| name.starts_with("load[") && name.contains(wanted))
    };
    folders.filter(is_wanted).min().expect("a sample").join("0")
}

#[test]
fn what_is_simulated_says_so_in_results_records_charts_and_reports() {
    let world = World::new();
    let plan = world.plan(ON_L4);
    let finished = world.run(&["run", &plan.display().to_string()]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let sample = sample(&world, "concurrency=2");
    let result: serde_json::Value =
        serde_json::from_str(&text(&sample.join("result.json"))).expect("JSON");
    assert_eq!(result["target"]["server.simulated"], SIMULATED);
    for view in ["views/vllm.json", "views/sglang.json"] {
        assert!(text(&sample.join(view)).contains(SIMULATED), "{view}");
    }
    // Metadata stand at the end of a Parquet file as they are.
    for file in ["records/part-00000.parquet", "breakdown.parquet"] {
        let bytes = fs::read(sample.join(file)).expect("a file");
        let mut places = bytes.windows(SIMULATED.len());
        assert!(places.any(|at| at == SIMULATED.as_bytes()), "{file}");
    }
    let results = world.out().join("latest/results");
    let stamp = format!("simulated ({SIMULATED})");
    let chart = results.join("chart/chart");
    assert!(text(&chart.join("chart.json")).contains(&stamp));
    assert!(text(&chart.join("chart.svg")).contains(&stamp));
    assert!(text(&chart.join("points.csv")).contains(SIMULATED));
    let page = text(&results.join("report/page/report.html"));
    assert!(
        page.contains(&format!("load: {stamp}")),
        "the report's table"
    );
    world.assert_nothing_left();
}

#[test]
fn a_twin_is_fitted_to_a_server_and_answers_its_loads() {
    let world = World::new();
    let finished = world.run(&["run", "plans/twin/cpu.toml", "--variant", "smoke"]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    for arm in ["cpu", "sim"] {
        let path = sample(&world, &format!("arm={arm}")).join("result.json");
        let result: serde_json::Value = serde_json::from_str(&text(&path)).expect("JSON");
        assert_eq!(result["rows"][0]["values"]["failed"], 0.0, "{arm}");
        let said = &result["target"]["server.simulated"];
        match arm {
            "sim" => assert_eq!(said, "sim, device this-cpu, fitted"),
            _ => assert!(said.is_null(), "{said}"),
        }
    }
    let results = world.out().join("latest/results");
    let chart = text(&results.join("first_token/chart/chart.json"));
    let stamp = "partly simulated (sim, device this-cpu, fitted)";
    assert!(chart.contains(stamp), "{chart}");
    let profile = text(&results.join("fit/profile.toml"));
    assert!(profile.contains("n_observations"), "{profile}");
    world.assert_nothing_left();
}
