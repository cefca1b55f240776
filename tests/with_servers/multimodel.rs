//! The plans of several models on one device: what they measure, and who wins where.

use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// The measured values of every load, by the axes that the name of its node has.
fn loads(world: &World) -> BTreeMap<String, Value> {
    let results = world.out().join("latest/results");
    let entries = fs::read_dir(results).expect("results").flatten();
    let loads = entries.filter(|e| e.file_name().to_string_lossy().starts_with("loads.load["));
    loads
        .map(|load| {
            let text = fs::read_to_string(load.path().join("0/result.json")).expect("a result");
            let result: Value = serde_json::from_str(&text).expect("JSON");
            let name = load.file_name().to_string_lossy().into_owned();
            (name, result["rows"][0]["values"].clone())
        })
        .collect()
}

fn run(plan: &str, more: &[&str]) -> World {
    let world = World::new();
    let finished = world.run(&[&["run", plan], more].concat());
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    world
}

fn number(values: &Value, name: &str) -> f64 {
    values[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no `{name}` in {values}"))
}

#[test]
fn models_in_turn_answer_everything_and_their_moves_are_recorded() {
    let world = run("plans/multimodel/swap.toml", &["--variant", "smoke"]);
    let loads = loads(&world);
    let values = loads.values().next().expect("a load");
    assert_eq!(
        (number(values, "failed"), number(values, "aborted")),
        (0.0, 0.0)
    );
    assert!(number(values, "swaps") >= 1.0, "{values}");
    // Weights in 16 bits, 3.5 and 3.75 thousand million of them, at least one each way.
    assert!(number(values, "swap_bytes") > 14e9, "{values}");
    assert!(number(values, "swap_copy_s") > 0.0 && number(values, "swap_drain_s") >= 0.0);
    let folder = world.out().join("latest/results");
    let chart = fs::read_to_string(folder.join("timeline/chart/chart.svg")).expect("a chart");
    assert!(chart.contains("llama") && chart.contains("mistral"));
    world.assert_nothing_left();
}

#[test]
fn models_side_by_side_and_one_alone_never_move() {
    for plan in ["collocate", "single"] {
        let plan = format!("plans/multimodel/{plan}.toml");
        let world = run(&plan, &["--variant", "smoke"]);
        let loads = loads(&world);
        let values = loads.values().next().expect("a load");
        assert_eq!(
            (number(values, "failed"), number(values, "swaps")),
            (0.0, 0.0)
        );
        world.assert_nothing_left();
    }
}

#[test]
fn every_model_of_a_server_that_swaps_answers_as_the_protocol_says() {
    let world = World::new();
    let finished = world.run(&["run", "plans/multimodel/functional.toml"]);
    assert_eq!(finished.code(), 0, "{}", finished.said());
    assert!(
        finished
            .said()
            .contains("20 of 20 checks passed on 2 models")
    );
    world.assert_nothing_left();
}

#[test]
fn the_highest_rate_is_found_for_models_side_by_side_and_in_turn() {
    let world = run("plans/multimodel/max_rate.toml", &["--variant", "smoke"]);
    let results = fs::read_dir(world.out().join("latest/results")).expect("results");
    let searches = results
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("search["));
    let highest: Vec<f64> = searches
        .map(|search| {
            let text = fs::read_to_string(search.path().join("0/result.json")).expect("a result");
            let result: Value = serde_json::from_str(&text).expect("JSON");
            number(&result["rows"][0]["values"], "highest_request_rate")
        })
        .collect();
    assert_eq!(highest.len(), 2);
    assert!(highest.iter().all(|rate| *rate >= 4.0), "{highest:?}");
    world.assert_nothing_left();
}

/// Minutes of load in made-up time: the numbers are exact, whatever else this machine does.
#[test]
fn collocation_wins_at_low_balanced_load_and_swapping_under_skew_and_pressure() {
    let settings = ["--set", "rates=[0.5, 4.0]", "--set", "alphas=[0.1, 1.0]"];
    let world = run("plans/multimodel/sweep.toml", &settings);
    let loads = loads(&world);
    assert_eq!(loads.len(), 12);
    let value = |mode: &str, alpha: &str, rate: &str, name: &str| {
        let is_it = |key: &&String| {
            let axis = |axis: String| key.contains(&axis);
            axis(format!("mode={mode},"))
                && axis(format!("alpha={alpha},"))
                && axis(format!("request_rate={rate},"))
        };
        let key = loads.keys().find(is_it).expect("a load");
        number(&loads[key], name)
    };
    let latency = |mode: &str| value(mode, "1", "0.5", "e2el_mean_ms");
    assert!(latency("collocate") < latency("swap"));
    let served = |mode: &str| value(mode, "0.1", "4", "request_throughput_whole");
    assert!(served("swap") > 1.2 * served("collocate"));
    let none_better = |mode: &str| served(mode) <= served("single");
    assert!(none_better("swap") && none_better("collocate"));
    // The same again, to the last digit.
    let again = run("plans/multimodel/sweep.toml", &settings);
    assert_eq!(self::loads(&again), loads);
    world.assert_nothing_left();
}
