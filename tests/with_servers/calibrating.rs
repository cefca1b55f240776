//! The client is calibrated without being asked, once for each shape of load on a machine.

use crate::scripted::{ANSWER, Asked, Said, Scripted};
use crate::world::World;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Slow enough that what a client adds is a small part of it.
fn answer(asked: &Asked) -> Said {
    if asked.path != "/v1/completions" {
        return (404, "application/json", String::new());
    }
    std::thread::sleep(Duration::from_millis(50));
    (200, "text/event-stream", ANSWER.to_owned())
}

/// Loads on a server, by the names of their steps.
fn plan(world: &World, server: &Scripted, loads: &[(&str, &str)]) -> String {
    let load = |(name, options): &(&str, &str)| {
        format!(
            "[steps.{name}]\nuse = \"load.test\"\nwith = {{ server = \"${{services.server}}\", workload = \"workload.jsonl\", {options} }}\n\n"
        )
    };
    let line = |n: usize| {
        format!(
            "{{\"id\":\"r{n}\",\"text\":\"word {n} of it\",\"input_tokens\":3,\"output_tokens\":1}}\n"
        )
    };
    let lines: String = (0..30).map(line).collect();
    fs::write(world.path("workload.jsonl"), lines).expect("a workload");
    let loads: String = loads.iter().map(load).collect();
    let service = server.service();
    let plan = world.plan(&format!("[services.server]\n{service}\n\n{loads}"));
    plan.display().to_string()
}

fn run(world: &World, plan: &str) {
    let finished = world.run(&["run", plan]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    world.assert_nothing_left();
}

/// The values of a step's first sample.
fn values(world: &World, step: &str) -> Value {
    let path = world
        .out()
        .join(format!("latest/results/{step}/0/result.json"));
    let text = fs::read_to_string(path).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    result["rows"][0]["values"].clone()
}

/// How many shapes are known.
fn n_known(world: &World) -> usize {
    let folder = world.out().join("store/records/notes/calibrations");
    let entries = |path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(folder)
        .map(|part| entries(part.path()).count())
        .sum()
}

#[test]
fn loads_of_one_shape_share_a_calibration_that_outlives_their_run() {
    let (world, server) = (World::new(), Scripted::start(answer));
    let loads = [
        ("one", "concurrency = 2, requests = 10"),
        ("other", "concurrency = 2, requests = 12, seed = 7"),
        (
            "blind",
            "concurrency = 3, requests = 10, calibration = \"none\"",
        ),
    ];
    run(&world, &plan(&world, &server, &loads));
    assert_eq!(n_known(&world), 1);
    let (one, other) = (values(&world, "one"), values(&world, "other"));
    for name in ["ttft_p50", "ttft_p99", "lag_p99"] {
        let name = format!("client_error_{name}_ms");
        assert!(one[&name].is_f64(), "{name}: {one}");
        assert_eq!(one[&name], other[&name]);
    }
    // A rehearsal asks a server of its own, and nothing of the one that is measured.
    let blind = values(&world, "blind");
    assert_eq!(blind["completed"], 10.0);
    assert!(blind.get("client_error_ttft_p50_ms").is_none(), "{blind}");
    let words = |a: &Asked| a.body["prompt"].as_str().unwrap_or_default().to_owned();
    let asked = server.asked("/v1/completions");
    assert!(
        asked.iter().all(|a| words(a).ends_with(" of it")),
        "{asked:?}"
    );

    let loads = [
        ("again", "concurrency = 2, requests = 11"),
        ("wider", "concurrency = 4, requests = 11"),
    ];
    run(&world, &plan(&world, &server, &loads));
    assert_eq!(n_known(&world), 2);
    let again = values(&world, "again");
    assert_eq!(
        again["client_error_ttft_p50_ms"],
        one["client_error_ttft_p50_ms"]
    );
}

#[test]
fn a_search_shows_what_the_client_adds_where_it_ended() {
    let (world, server) = (World::new(), Scripted::start(answer));
    let loads = [("one", "concurrency = 2, requests = 10")];
    let text = fs::read_to_string(plan(&world, &server, &loads)).expect("a plan");
    let text = text.replace(
        "concurrency = 2, requests = 10",
        "over = \"concurrency\", lowest = 2, highest = 2, requests = 10, repeats = 1, slo_e2el = \"10m\"",
    );
    let (_, text) = text.split_once("[services").expect("a service");
    let text = format!("[services{}", text.replace("load.test", "load.search"));
    run(&world, &world.plan(&text).display().to_string());
    let one = values(&world, "one");
    assert_eq!(one["highest_concurrency"], 2.0, "{one}");
    assert!(one["client_error_ttft_p50_ms"].is_f64(), "{one}");
    assert_eq!(n_known(&world), 1);
}
