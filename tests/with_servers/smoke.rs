//! The `smoke` variant of every plan that ships: it runs here, without a network, to a report.

use crate::world::World;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Plans whose smoke variant another test runs.
const ELSEWHERE: [&str; 12] = [
    "hicache/multiturn.toml",
    "hicache/shared_prefix.toml",
    "hicache/video.toml",
    "latency/cost.toml",
    "loading/cached.toml",
    "loading/quick.toml",
    "loading/random.toml",
    "multimodel/collocate.toml",
    "multimodel/max_rate.toml",
    "multimodel/single.toml",
    "multimodel/swap.toml",
    "twin/cpu.toml",
];

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let within = |path: PathBuf| match path.is_dir() {
        true => below(&path),
        false => vec![path],
    };
    paths.into_iter().flat_map(within).collect()
}

/// Plans with a smoke variant that no other test runs, by their paths below `plans`.
fn plans() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let has_smoke = |path: &PathBuf| {
        let is_plan = path.extension().is_some_and(|e| e == "toml");
        is_plan && {
            let text = fs::read_to_string(path).expect("a text");
            text.contains("\n[variant.smoke")
        }
    };
    let name = |path: PathBuf| {
        let below = path.strip_prefix(&root).expect("a plan of ours");
        below.display().to_string()
    };
    let all: Vec<String> = below(&root)
        .into_iter()
        .filter(has_smoke)
        .map(name)
        .collect();
    for plan in ELSEWHERE {
        assert!(all.iter().any(|own| own == plan), "{plan} is no plan");
    }
    let is_new = |plan: &String| !ELSEWHERE.contains(&plan.as_str());
    all.into_iter().filter(is_new).collect()
}

/// What the loads of a run measured.
fn loads(world: &World) -> Vec<Value> {
    let results = fs::read_dir(world.out().join("latest/results")).expect("results");
    let files = results
        .flatten()
        .map(|entry| entry.path().join("0/result.json"));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let values = texts.map(|text| {
        let result: Value = serde_json::from_str(&text).expect("JSON");
        result["rows"][0]["values"].clone()
    });
    values
        .filter(|values| values["completed"].is_number())
        .collect()
}

fn runs_to_a_report(plan: &str) {
    let world = World::new();
    let path = format!("plans/{plan}");
    let finished = world.run(&["run", &path, "--variant", "smoke"]);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let loads = loads(&world);
    assert!(!loads.is_empty(), "{plan}");
    for values in loads {
        assert!(values["completed"].as_f64() > Some(0.0), "{plan}: {values}");
        assert_eq!(values["failed"], 0.0, "{plan}: {values}");
    }
    let results = fs::read_dir(world.out().join("latest/results")).expect("results");
    let mut pages = results.flatten().filter(|entry| {
        let is_report = entry.file_name().to_string_lossy().starts_with("report");
        is_report && entry.path().join("page/report.html").exists()
    });
    assert!(pages.next().is_some(), "{plan} left no report");
    world.assert_nothing_left();
}

#[test]
fn every_smoke_variant_runs_to_a_report() {
    let plans = plans();
    assert!(plans.len() >= 6, "{plans:?}");
    // They wait more than they compute.
    std::thread::scope(|scope| {
        for plan in &plans {
            scope.spawn(|| runs_to_a_report(plan));
        }
    });
}
