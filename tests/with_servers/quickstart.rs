//! The quickstart as a newcomer runs it: once, again, and with another parameter.

use crate::in_browser;
use crate::world::World;
use std::fs;
use std::path::{Path, PathBuf};

const PLAN: &str = "plans/quickstart.toml";
/// What the whole job may take of memory at any moment, bytes.
const MEMORY: u64 = 2 << 30;

/// The report that a run of the quickstart left.
fn report(world: &World) -> PathBuf {
    world.out().join("latest/results/report/page/report.html")
}

/// Sums the resident memory of a process and all its descendants.
fn tree_memory(root: u32) -> u64 {
    let stats: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut tree = vec![root];
    let mut at = 0;
    while at < tree.len() {
        let here = tree[at];
        tree.extend(
            stats
                .iter()
                .filter(|(_, parent)| *parent == here)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    tree.iter().map(|pid| resident(*pid)).sum()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[test]
fn the_quickstart_runs_whole_then_reuses_everything_then_explains_a_change() {
    let world = World::new();
    let mut running = world.start(&["run", PLAN]);
    let mut peak = 0;
    while !running.is_done() {
        peak = peak.max(tree_memory(running.id()));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let first = running.finish();
    // On a machine that is busy with other things a sample may be invalid, which is exit code 3.
    assert!(
        matches!(first.code(), 0 | 3),
        "exit {}: {}",
        first.code(),
        first.said()
    );
    assert!(peak < MEMORY, "{peak} bytes");
    world.assert_nothing_left();
    assert!(report(&world).exists(), "{}", first.said());
    assert!(first.stdout.contains("report.html"), "{}", first.stdout);
    check_results(&world);

    let second = world.run(&["run", PLAN]);
    assert_eq!(second.code(), first.code(), "{}", second.said());
    assert!(
        second.stdout.contains("everything is reused"),
        "{}",
        second.said()
    );
    assert!(
        !second.said().contains("launching"),
        "the server was launched: {}",
        second.said()
    );

    let third = world.run(&["check", PLAN, "--set", "layers=4"]);
    assert_eq!(third.code(), 0, "{}", third.said());
    assert!(
        third
            .stdout
            .replace('`', "")
            .contains("num_hidden_layers changed from 2 to 4"),
        "{}",
        third.said()
    );

    in_browser::check_report(&report(&world));
}

/// Six samples whose charts exist in every form.
fn check_results(world: &World) {
    let results = world.out().join("latest/results");
    for rate in ["2", "4", "8"] {
        for sample in ["0", "1"] {
            let folder = results
                .join(format!("load[request_rate={rate}]"))
                .join(sample);
            let text = fs::read_to_string(folder.join("result.json")).expect("a result");
            let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let completed = result
                .pointer("/rows/0/values/completed")
                .and_then(serde_json::Value::as_f64);
            assert_eq!(completed, Some(32.0), "{text}");
            assert!(folder.join("records/part-00000.parquet").exists());
        }
    }
    for name in [
        "chart.json",
        "chart.svg",
        "chart-dark.svg",
        "chart.png",
        "points.csv",
    ] {
        assert!(
            is_filled(&results.join("latency/chart").join(name)),
            "{name}"
        );
    }
    for name in ["01.svg", "01-dark.svg", "01.png", "04.png"] {
        assert!(
            is_filled(&results.join("report/page/charts").join(name)),
            "{name}"
        );
    }
}

fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.len() > 100)
}
