//! Servers that exit, hang, die or cannot start: a clear message, the documented exit code, no
//! process left behind, nothing half-written.

use crate::world::{Running, World, wait_for};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// A model, prompts and a load on a server that `service` declares.
pub(crate) fn plan_with(service: &str, load: &str) -> String {
    format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 }} }}

[steps.prompts]
use = "dataset.random"
with = {{ model = "${{steps.model.dir}}", requests = 8, input_tokens = 8, output_tokens = 4 }}

[services.server]
{service}

[steps.load]
use = "load.test"
with = {{ server = "${{services.server}}", workload = "${{steps.prompts.workload}}", {load} }}
"#
    )
}

pub(crate) const EMBEDDED: &str =
    "use = \"server.embedded\"\nwith = { model = \"${steps.model.dir}\" }";
pub(crate) const FEW: &str = "concurrency = 2, calibration = \"none\"";
/// Goes on until somebody ends it.
pub(crate) const ENDLESS: &str =
    "concurrency = 2, reuse = \"cycle\", duration = \"10m\", calibration = \"none\"";

/// Runs a plan that must fail, and returns what it said.
pub(crate) fn failing(world: &World, plan: &str) -> String {
    let plan = world.plan(plan);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 1, "{}", finished.said());
    world.assert_nothing_left();
    finished.said()
}

pub(crate) fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "nothing says `{part}`:\n{said}");
    }
}

#[test]
fn a_server_that_exits_during_its_start_is_quoted() {
    let world = World::new();
    let service = "use = \"server.command\"\nwith = { argv = [\"sh\", \"-c\", \"echo no memory left >&2; exit 7\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(
        &said,
        &[
            "server",
            "died before it was healthy",
            "exited with status 7",
            "no memory left",
            "stderr.log",
        ],
    );
}

#[test]
fn a_server_that_is_never_ready_is_ended() {
    let world = World::new();
    let service = "use = \"server.command\"\nready = { timeout = \"1s\" }\nwith = { argv = [\"sleep\", \"600\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(
        &said,
        &[
            "never became ready within 1s",
            "nothing answers at",
            "ready = { timeout",
        ],
    );
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let world = World::new();
    let service = "use = \"server.command\"\nwith = { argv = [\"no-such-server\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(&said, &["no-such-server"]);
}

#[test]
fn a_port_in_use_is_named() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let service = format!(
        "use = \"server.embedded\"\nwith = {{ model = \"${{steps.model.dir}}\", port = {port} }}"
    );
    let said = failing(&world, &plan_with(&service, FEW));
    let taken =
        format!("port {port}, which the plan gives to service `server`, is in use by another");
    assert_says(&said, &[&taken, "remove `port`"]);
}

#[test]
fn a_missing_model_folder_is_found_before_anything_runs() {
    let world = World::new();
    let plan = world.plan(&plan_with(EMBEDDED, FEW).replace("qwen2.5-0.5b", "qwen2.5-0.6b"));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 2, "{}", finished.said());
    assert_says(
        &finished.said(),
        &["there is no file or folder", "qwen2.5-0.6b", "plan.toml:6"],
    );
    assert!(!world.out().join("runs").exists(), "a run was begun");
}

/// Finds the embedded server that a run has launched.
pub(crate) fn server_of(world: &World) -> u32 {
    let is_server =
        |(_, line): &(u32, String)| line.contains("--address-file") && !line.contains("__guardian");
    let mut all = world.processes().into_iter();
    all.find(is_server).expect("the server's process").0
}

/// Runs a plan until a load is under way, and kills the server under it.
fn start_and_kill_server(world: &World, plan: &Path) -> Running {
    let mut running = world.start(&["run", "--json", plan.to_str().expect("a path")]);
    wait_for("the load to begin", || {
        assert!(!running.is_done(), "it ended early: {}", running.stdout());
        let said = running.stdout();
        let begun = said.lines().any(|l| {
            l.contains("\"progressed\"") && l.contains("in flight") && l.contains("tokens")
        });
        begun.then_some(())
    });
    let killed = Command::new("kill")
        .args(["-9", &server_of(world).to_string()])
        .status()
        .expect("kill");
    assert!(killed.success());
    running
}

#[test]
fn a_server_that_dies_under_load_fails_the_step_and_keeps_no_sample() {
    let world = World::new();
    let plan = world.plan(&plan_with(EMBEDDED, ENDLESS));
    let running = start_and_kill_server(&world, &plan);
    let finished = running.finish();
    assert_eq!(finished.code(), 1, "{}", finished.said());
    assert_says(
        &finished.stdout,
        &[
            "service_died",
            "killed by signal 9",
            "its service `server` died while it ran",
        ],
    );
    world.assert_nothing_left();
    assert!(
        !world.out().join("store/records/samples").exists(),
        "a sample of a dead server was kept"
    );
    let work: Vec<_> = fs::read_dir(world.out().join("runs"))
        .expect("runs")
        .flatten()
        .map(|r| r.path().join("work"))
        .collect();
    assert!(
        work.iter().all(|w| !w.exists()),
        "half-written outputs were left"
    );
}

#[test]
fn a_server_that_dies_is_launched_again_for_a_step_that_is_tried_again() {
    let world = World::new();
    let load = "concurrency = 2, reuse = \"cycle\", duration = \"3s\" }\n\
        retry = { max = 1, on = [\"infrastructure\"], backoff = \"10ms\"";
    let plan = world.plan(&plan_with(EMBEDDED, load));
    let finished = start_and_kill_server(&world, &plan).finish();
    // Beside other tests a measurement may well be invalid.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let events = finished.stdout.lines();
    let events: Vec<serde_json::Value> = events.flat_map(serde_json::from_str).collect();
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!((count("service_launching"), count("service_died")), (2, 1));
    let failure = events.iter().find(|e| e["event"] == "failed");
    let failure = failure.expect("the failure of the first try");
    assert_eq!(failure["class"], "infrastructure");
    assert_eq!(failure["retry_ms"], 10);
    world.assert_nothing_left();
}

#[test]
fn a_relative_output_folder_is_the_same_for_every_process() {
    let world = World::new();
    let plan = world.plan(&plan_with(EMBEDDED, FEW));
    let mut command = Command::new(env!("CARGO_BIN_EXE_benchwright"));
    command.args(["run", plan.to_str().expect("a path")]);
    command.current_dir(world.path("")).stdin(Stdio::null());
    let output = command.output().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let result = world.path("outputs/latest/results/load/0/result.json");
    assert!(result.exists(), "{said}");
    world.assert_nothing_left();
}

#[test]
fn another_load_does_not_hide_that_a_server_died() {
    let world = World::new();
    let two = plan_with(EMBEDDED, ENDLESS)
        + "\n[steps.other]\nuse = \"load.test\"\nwith = { server = \"${services.server}\", workload = \"${steps.prompts.workload}\", concurrency = 1, calibration = \"none\", reuse = \"cycle\", duration = \"9m\" }\n";
    let plan = world.plan(&two);
    let running = start_and_kill_server(&world, &plan);
    let finished = running.finish();
    assert_eq!(finished.code(), 1, "{}", finished.said());
    assert_says(
        &finished.stdout,
        &["its service `server` died while it ran"],
    );
    world.assert_nothing_left();
}
