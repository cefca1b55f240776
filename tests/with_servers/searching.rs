//! `load.search`: what makes a load hold, and one that is cut off in the middle, which does not ask again
//! what it had found out.

use crate::scripted::{ANSWER, Asked, Said, Scripted};
use crate::world::{Running, World, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Requests of one trial.
const REQUESTS: usize = 10;
/// The trial in which the search is cut off.
const CUT: &str = "trial 3 ";
/// Users of the trials that such a server makes a search try: the fourth holds no more.
const TRIED: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 6.0, 5.0];

fn prompt(asked: &Asked) -> &str {
    asked.body["prompt"].as_str().unwrap_or_default()
}

/// Answers what the first three trials ask and fails what others do; keeps those of [`CUT`] waiting
/// while it is `stuck`.
fn answer(asked: &Asked, stuck: &AtomicBool) -> Said {
    if asked.path != "/v1/completions" {
        return (404, "application/json", String::new());
    }
    while prompt(asked).starts_with(CUT) && stuck.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let held = ["trial 0 ", "trial 1 ", "trial 2 "];
    match held.iter().any(|trial| prompt(asked).starts_with(trial)) {
        true => (200, "text/event-stream", ANSWER.to_owned()),
        false => (500, "text/plain", "too much".to_owned()),
    }
}

struct Search {
    world: World,
    server: Scripted,
    stuck: Arc<AtomicBool>,
    plan: String,
}

impl Search {
    fn new(stuck: bool) -> Self {
        let world = World::new();
        let stuck = Arc::new(AtomicBool::new(stuck));
        let is_stuck = stuck.clone();
        let server = Scripted::start(move |asked| answer(asked, &is_stuck));
        let line = |n: usize| {
            let (trial, request) = (n / REQUESTS, n % REQUESTS);
            format!(
                "{{\"id\":\"r{n}\",\"text\":\"trial {trial} request {request}\",\"input_tokens\":3,\"output_tokens\":1}}\n"
            )
        };
        let lines: String = (0..TRIED.len() * REQUESTS).map(line).collect();
        fs::write(world.path("workload.jsonl"), lines).expect("a workload");
        let plan = world.plan(&format!(
            r#"
[services.server]
{}

[steps.most]
use = "load.search"
with = {{ server = "${{services.server}}", workload = "workload.jsonl", over = "concurrency", lowest = 1, highest = 64, requests = {REQUESTS}, repeats = 1, slo_e2el = "10m", percentile = 90, calibration = "none" }}
"#,
            server.service()
        ));
        Self {
            world,
            server,
            stuck,
            plan: plan.display().to_string(),
        }
    }

    /// Runs the plan until its search is in the middle of a trial.
    fn until_cut(&self) -> Running {
        let running = self.world.start(&["run", &self.plan]);
        wait_for("the trial in which it is cut off", || {
            (self.requests(3) > 0).then_some(())
        });
        running
    }

    /// What the server was asked in a trial.
    fn requests(&self, trial: usize) -> usize {
        let name = format!("trial {trial} ");
        let asked = self.server.asked("/v1/completions");
        asked
            .iter()
            .filter(|a| prompt(a).starts_with(&name))
            .count()
    }

    /// Lets `arguments` end the search, and looks at what it asked and found.
    fn goes_on(&self, arguments: &[&str]) {
        let ended = [0, 1, 2].map(|trial| self.requests(trial));
        assert_eq!(ended, [REQUESTS; 3]);
        let of_cut = self.requests(3);
        self.stuck.store(false, Ordering::SeqCst);
        let finished = self.world.run(arguments);
        assert_eq!(finished.code(), 0, "{}", finished.said());
        // What had ended was not asked again; what was cut off begins anew.
        let asked = [0, 1, 2, 3, 4, 5].map(|trial| self.requests(trial));
        let n = REQUESTS;
        assert_eq!(asked, [n, n, n, of_cut + n, n, n]);
        assert_eq!(self.found(), TRIED);
        self.world.assert_nothing_left();
    }

    /// The values that were tried by the result, which has to be right.
    fn found(&self) -> Vec<f64> {
        let path = self.world.out().join("latest/results/most/0/result.json");
        let text = fs::read_to_string(path).expect("a result");
        let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let values = &result["rows"][0]["values"];
        assert_eq!(values["highest_concurrency"], 4.0, "{values}");
        assert_eq!(values["lowest_failing_concurrency"], 5.0, "{values}");
        let trials = result["details"]["trials"].as_array().expect("trials");
        let tried = trials.iter().filter_map(|trial| trial["value"].as_f64());
        tried.collect()
    }
}

fn signal(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), signal).expect("sent");
}

/// Answers a prompt that begins with `fine` and fails others.
fn pick(asked: &Asked) -> Said {
    match asked.path.as_str() {
        "/v1/completions" if prompt(asked).starts_with("fine") => {
            (200, "text/event-stream", ANSWER.to_owned())
        }
        "/v1/completions" => (500, "text/plain", "too much".to_owned()),
        _ => (404, "application/json", String::new()),
    }
}

/// Whether one user holds, of ten requests of which the last three fail. Lines say `more`, and requests
/// ask for two models in halves.
fn one_user_holds(more: &str, options: &str) -> bool {
    let world = World::new();
    let server = Scripted::start(pick);
    let line = |n: usize| {
        let word = if n < 7 { "fine" } else { "worse" };
        let model = if n < 5 { "a" } else { "b" };
        format!(
            "{{\"id\":\"r{n}\",\"model\":\"{model}\",\"text\":\"{word} {n}\",\"input_tokens\":2,\"output_tokens\":1{more}}}\n"
        )
    };
    let lines: String = (0..REQUESTS).map(line).collect();
    fs::write(world.path("workload.jsonl"), lines).expect("a workload");
    let plan = world.plan(&format!(
        r#"
[services.server]
{}

[steps.most]
use = "load.search"
with = {{ server = "${{services.server}}", workload = "workload.jsonl", over = "concurrency", lowest = 1, highest = 1, requests = {REQUESTS}, repeats = 1, percentile = 60, calibration = "none"{options} }}
"#,
        server.service()
    ));
    let finished = world.run(&["run", &plan.display().to_string()]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let path = world.out().join("latest/results/most/0/result.json");
    let text = fs::read_to_string(path).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    result["rows"][0]["values"]["highest_concurrency"] == 1.0
}

#[test]
fn objectives_of_the_workload_are_kept_by_a_share_of_its_requests() {
    assert!(one_user_holds(",\"slo\":{\"e2el_ms\":600000}", ""));
    // Without any the server has to keep up, which it does not if three of ten fail.
    assert!(!one_user_holds("", ""));
}

#[test]
fn each_model_has_to_keep_objectives_by_itself_where_that_is_asked() {
    assert!(one_user_holds("", ", slo_e2el = \"10m\""));
    assert!(!one_user_holds("", ", slo_e2el = \"10m\", by_model = true"));
}

#[test]
fn a_search_that_was_killed_and_resumed_repeats_no_trial_that_had_ended() {
    let search = Search::new(true);
    let running = search.until_cut();
    signal(&running, Signal::KILL);
    drop(running);
    search.goes_on(&["resume", "latest"]);
}

#[test]
fn a_search_that_was_interrupted_is_gone_on_with_by_another_run() {
    let search = Search::new(true);
    let running = search.until_cut();
    signal(&running, Signal::INT);
    let finished = running.finish();
    assert_eq!(finished.code(), 130, "{}", finished.said());
    search.goes_on(&["run", &search.plan]);
}

#[test]
fn another_sample_of_a_search_has_trials_of_its_own() {
    let search = Search::new(false);
    for samples in 1..=2 {
        let finished = search.world.run(&["run", &search.plan, "--fresh"]);
        assert_eq!(finished.code(), 0, "{}", finished.said());
        assert_eq!(search.found(), TRIED);
        let asked = search.server.asked("/v1/completions").len();
        assert_eq!(asked, samples * TRIED.len() * REQUESTS);
    }
}
