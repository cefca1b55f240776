//! Engine, guardians, server and client killed at random moments: nobody survives, nothing that was
//! finished is lost, and the run comes to its right end.

#![expect(
    clippy::print_stdout,
    reason = "seeds, so that a failure can be repeated"
)]

use crate::world::{Finished, World, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How often a run may be resumed before it has to be at its end: the server may be given up once.
const RESUMES: usize = 4;

/// A model and prompts, a server, a client of it, and a measurement of two samples.
const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 } }

[steps.prompts]
use = "dataset.random"
with = { model = "${steps.model.dir}", requests = 8, input_tokens = 8, output_tokens = 4 }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}" }

[steps.client]
use = "shell.run"
with = { argv = ["sh", "-c", "sleep 0.2; echo served > answer", "${services.server.url}"], outputs = ["answer"] }

[steps.load]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 2, calibration = "none" }
samples = { target = 2, replacements = 0 }
"#;

/// Steps whose outputs are the same in every run.
const SAME: [&str; 3] = ["model", "prompts", "client"];

/// `SplitMix64`: enough to choose moments and victims.
struct Luck(u64);

impl Luck {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine,
    Guardians,
    Server,
    Client,
}

const VICTIMS: [Victim; 4] = [
    Victim::Engine,
    Victim::Guardians,
    Victim::Server,
    Victim::Client,
];

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// What the outputs of a finished run are, by their path in its results.
fn outputs(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for step in SAME {
        let folder = world.out().join("latest/results").join(step);
        collect(&folder, &folder, step, &mut found);
    }
    found
}

fn collect(root: &Path, at: &Path, step: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(at).expect("a folder of results").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, step, found);
            continue;
        }
        let name = path
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        found.insert(format!("{step}/{name}"), fs::read(&path).expect("a result"));
    }
}

/// Processes of a world, told apart by what they are.
fn victims(world: &World, victim: Victim, engine: u32) -> Vec<u32> {
    let all = world.processes();
    let is = |line: &str| match victim {
        Victim::Engine => false,
        Victim::Guardians => line.contains("__guardian"),
        Victim::Server => line.contains("--model-path") && !line.contains("__guardian"),
        Victim::Client => line.contains("sleep 0.2") && !line.contains("__guardian"),
    };
    if victim == Victim::Engine {
        return vec![engine];
    }
    all.into_iter()
        .filter(|(pid, line)| *pid != engine && is(line))
        .map(|(pid, _)| pid)
        .collect()
}

fn kill(pid: u32) {
    // It may have ended by itself meanwhile.
    let _ = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .stderr(std::process::Stdio::null())
        .status();
}

/// What the journal says is finished: steps by name, and samples by name and number.
fn finished(world: &World) -> (BTreeSet<String>, usize) {
    let status = world.run(&["status", "latest", "--json"]);
    let Ok(status) = serde_json::from_str::<Value>(&status.stdout) else {
        return (BTreeSet::new(), 0);
    };
    let mut done = BTreeSet::new();
    let mut n_samples = 0;
    for node in status["nodes"].as_array().into_iter().flatten() {
        let name = node["node"].as_str().unwrap_or_default();
        let times = usize::try_from(node["finished"].as_u64().unwrap_or(0)).unwrap_or(0);
        match node["kind"].as_str() {
            Some("measure") => n_samples += times,
            Some("pure") if times > 0 => drop(done.insert(name.to_owned())),
            _ => {}
        }
    }
    (done, n_samples)
}

/// How often each step was started, as the events of a run say.
fn started(finished: &Finished) -> BTreeMap<String, usize> {
    let mut starts = BTreeMap::new();
    for line in finished.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["event"] == "started" {
            let node = event["node"].as_str().unwrap_or_default();
            *starts.entry(node.to_owned()).or_default() += 1;
        }
    }
    starts
}

/// Kills some of those that take part at some moment of a run, and brings it to its end.
fn round(luck: &mut Luck, whole: Duration, wanted: &BTreeMap<String, Vec<u8>>) {
    let world = World::new();
    let plan = world.plan(PLAN);
    let mut running = world.start(&["run", plan.to_str().expect("a path"), "--json"]);
    let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX).max(1);
    std::thread::sleep(Duration::from_micros(luck.below(micros)));
    let first = usize::try_from(luck.below(4)).unwrap_or(0);
    let second = usize::try_from(luck.below(8)).unwrap_or(0);
    let mut chosen = vec![VICTIMS[first]];
    chosen.extend(VICTIMS.get(second).filter(|v| **v != VICTIMS[first]));
    // All are looked for before the first falls, so that both really are hit.
    let pids: Vec<u32> = chosen
        .iter()
        .flat_map(|victim| victims(&world, *victim, running.id()))
        .collect();
    pids.iter().for_each(|pid| kill(*pid));
    if chosen.contains(&Victim::Engine) {
        wait_for("the engine to be dead", || running.is_done().then_some(()));
    }
    let _ = running.finish();
    if chosen.contains(&Victim::Engine) && chosen.contains(&Victim::Guardians) {
        let reaped = world.run(&["reap"]);
        assert_eq!(reaped.code(), 0, "{chosen:?}: {}", reaped.said());
    }
    world.assert_nothing_left();
    come_to_the_end(&world, &plan, &chosen);
    assert_eq!(&outputs(&world), wanted, "{chosen:?}");
    let (_, n_samples) = finished(&world);
    assert!(n_samples <= 2, "{chosen:?}: {n_samples} samples were drawn");
    world.assert_nothing_left();
}

/// Resumes a run until it is done, and asserts that nothing is done twice.
fn come_to_the_end(world: &World, plan: &Path, chosen: &[Victim]) {
    for _ in 0..RESUMES {
        let (done, n_samples) = finished(world);
        let mut resumed = world.run(&["resume", "--json"]);
        if !world.out().join("latest").exists() {
            // It fell before there was anything to resume.
            resumed = world.run(&["run", plan.to_str().expect("a path"), "--json"]);
        }
        let starts = started(&resumed);
        for node in &done {
            assert_eq!(starts.get(node), None, "{chosen:?}: {node} was finished");
        }
        let drawn = starts.get("load").copied().unwrap_or(0);
        assert!(
            drawn + n_samples <= 2,
            "{chosen:?}: samples are drawn again"
        );
        // On a busy machine a sample may be suspect, which is an end too.
        if [0, 3].contains(&resumed.code()) {
            return;
        }
    }
    let last = world.run(&["status", "latest"]);
    panic!(
        "{chosen:?}: not at its end after {RESUMES} tries: {}",
        last.said()
    );
}

fn rounds(n: u64, seed: u64) {
    println!("{n} rounds from seed {seed}");
    let world = World::new();
    let plan = world.plan(PLAN);
    let began = Instant::now();
    let clean = world.run(&["run", plan.to_str().expect("a path")]);
    assert!([0, 3].contains(&clean.code()), "{}", clean.said());
    let (whole, wanted) = (began.elapsed(), outputs(&world));
    for round_number in 0..n {
        println!("round {round_number}: seed {}", seed + round_number);
        round(&mut Luck(seed + round_number), whole, &wanted);
    }
}

#[test]
fn whoever_is_killed_nobody_survives_and_nothing_is_lost() {
    rounds(2, 11);
}

#[test]
#[ignore = "a soak test: `cargo xtask soak kills`"]
fn soak_kills() {
    rounds(
        number("BENCHWRIGHT_SOAK_ROUNDS", 5),
        number("BENCHWRIGHT_SOAK_SEED", 1),
    );
}
