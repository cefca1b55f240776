//! The plans about prefix caches: what they show, and how near the hit rate is to the ideal.

use crate::world::World;
use std::collections::BTreeMap;
use std::fs;

/// What the loads of a run measured, by arm.
fn by_arm(world: &World) -> BTreeMap<String, serde_json::Value> {
    let results = world.out().join("latest/results");
    let loads = fs::read_dir(results).expect("results").flatten();
    let loads = loads.filter(|e| e.file_name().to_string_lossy().contains("load["));
    loads
        .map(|load| {
            let path = load.path().join("0/result.json");
            let text = fs::read_to_string(path).expect("a result");
            let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let name = load.file_name().to_string_lossy().replace("%20", " ");
            let arm = name.split("arm=").nth(1).and_then(|n| n.split(',').next());
            (
                arm.expect("an arm").to_owned(),
                result["rows"][0]["values"].clone(),
            )
        })
        .collect()
}

fn run(world: &World, plan: &str, more: &[&str]) -> BTreeMap<String, serde_json::Value> {
    let arguments = [&["run", plan, "--variant", "smoke"], more].concat();
    let finished = world.run(&arguments);
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let arms = by_arm(world);
    assert_eq!(arms.len(), 4, "{arms:?}");
    for values in arms.values() {
        assert_eq!(values["failed"], 0.0, "{values}");
    }
    arms
}

fn hits(arms: &BTreeMap<String, serde_json::Value>, arm: &str) -> f64 {
    arms[arm]["cache_hit_rate"].as_f64().expect("a hit rate")
}

#[test]
fn conversations_hit_the_ideal_when_memory_suffices_and_less_when_it_does_not() {
    let plan = "plans/hicache/multiturn.toml";
    let world = World::new();
    let scarce = run(&world, plan, &[]);
    let ideal = scarce["lpm"]["cache_hit_rate_ideal"].as_f64();
    let ideal = ideal.expect("an ideal");
    assert!((ideal - 0.692).abs() < 0.001, "{ideal}");
    assert!(hits(&scarce, "no prefix cache").abs() < f64::EPSILON);
    assert!(hits(&scarce, "fcfs") < ideal - 0.02);
    assert!(hits(&scarce, "host tier") > hits(&scarce, "lpm"));
    world.assert_nothing_left();

    let world = World::new();
    let ample = run(&world, plan, &["--set", "capacity=17280"]);
    for arm in ["fcfs", "lpm", "host tier"] {
        let hits = hits(&ample, arm);
        assert!((hits - ideal).abs() < 0.02, "{arm}: {hits} against {ideal}");
    }
    world.assert_nothing_left();
}

#[test]
fn longest_prefix_first_finds_again_what_a_shuffled_order_tore_apart() {
    let world = World::new();
    let arms = run(&world, "plans/hicache/shared_prefix.toml", &[]);
    assert!(hits(&arms, "no prefix cache").abs() < f64::EPSILON);
    assert!(hits(&arms, "lpm") > hits(&arms, "fcfs") + 0.1, "{arms:?}");
    assert!(hits(&arms, "host tier") >= hits(&arms, "lpm"));
    world.assert_nothing_left();
}

#[test]
fn conversations_about_videos_hit_what_was_shown_before() {
    let world = World::new();
    let arms = run(&world, "plans/hicache/video.toml", &[]);
    let ideal = arms["lpm"]["cache_hit_rate_ideal"]
        .as_f64()
        .expect("an ideal");
    // Of three turns the frames of two were there before.
    assert!((0.6..0.7).contains(&ideal), "{ideal}");
    assert!(hits(&arms, "no prefix cache").abs() < f64::EPSILON);
    assert!(hits(&arms, "fcfs") < ideal - 0.1);
    assert!(hits(&arms, "host tier") > hits(&arms, "lpm"));
    world.assert_nothing_left();

    let world = World::new();
    let ample = run(
        &world,
        "plans/hicache/video.toml",
        &["--set", "capacity=8192"],
    );
    for arm in ["fcfs", "lpm", "host tier"] {
        let hits = hits(&ample, arm);
        assert!((hits - ideal).abs() < 0.03, "{arm}: {hits} against {ideal}");
    }
    world.assert_nothing_left();
}
