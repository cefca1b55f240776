//! Servers of several ranks: real processes that find each other at an address, as those of SGLang and vLLM do.
//! All are ended when one of them ends, and what is told names it.

use crate::misbehaving::{ENDLESS, FEW, assert_says, plan_with};
use crate::replayed::{has_python, replayed};
use crate::world::{World, wait_for};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

/// The folder of the launch of `server`.
fn launch_of(world: &World) -> PathBuf {
    let all = fs::read_dir(world.out().join("latest/logs/server")).expect("launches");
    all.flatten().next().expect("a launch").path()
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

/// Four GPUs that nobody looks at.
const GPUS: &str = "\n[resources]\ngpus = [\"0\", \"1\", \"2\", \"3\"]\n";

#[test]
fn all_ranks_of_a_machine_are_launched_share_its_gpus_and_go() {
    if !has_python() {
        return;
    }
    for (uses, options, answers) in [
        (
            "server.sglang",
            "tp_size = 4, nodes = 2",
            "--dist-init-addr 127.0.0.1:",
        ),
        (
            "server.vllm",
            "tensor_parallel_size = 2, nodes = 2, args = { pipeline_parallel_size = 2 }",
            "--headless",
        ),
        (
            "server.lmdeploy",
            "tp = 4, args = { nnodes = 2 }",
            "--nnodes 2 --node-rank 1",
        ),
    ] {
        let world = World::new();
        let how = match uses {
            "server.lmdeploy" => "lmdeploy",
            _ => "serves",
        };
        let plan = plan_with(&replayed(uses, how, options), FEW) + GPUS;
        let plan = world.plan(&plan);
        let finished = world.run(&["run", plan.to_str().expect("a path")]);
        assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
        world.assert_nothing_left();
        let launch = launch_of(&world);
        let first = json(launch.join("environment.json"));
        let second = json(launch.join("rank-1/environment.json"));
        assert_eq!(first["CUDA_VISIBLE_DEVICES"], "0,1", "{uses}");
        assert_eq!(second["CUDA_VISIBLE_DEVICES"], "2,3", "{uses}");
        let command = json(launch.join("rank-1/command.json"));
        assert_eq!(command["label"], "server rank 1");
        let words = command["argv"].as_array().expect("words").iter();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        assert!(words.join(" ").contains(answers), "{words:?}");
    }
}

#[test]
fn a_rank_that_dies_under_load_ends_all_and_is_named_with_its_log() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let now = world.path("now");
    let options = format!(
        "nodes = 2, args = {{ outlive = true, dies_as = 1, dies_when = \"{}\", last_words = \"torch.OutOfMemoryError: CUDA out of memory.\" }}",
        now.display()
    );
    let service = replayed("server.sglang", "serves", &options) + "\nrestarts = 0";
    let plan = world.plan(&plan_with(&service, ENDLESS));
    let mut running = world.start(&["run", "--json", plan.to_str().expect("a path")]);
    wait_for("the load to begin", || {
        assert!(!running.is_done(), "it ended early: {}", running.stdout());
        running.stdout().contains("in flight").then_some(())
    });
    fs::write(&now, "").expect("a file");
    wait_for("the death", || {
        running.stdout().contains("service_died").then_some(())
    });
    let finished = running.finish();
    assert_eq!(finished.code(), 1, "{}", finished.said());
    world.assert_nothing_left();
    assert_says(
        &finished.stdout,
        &[
            "lost `server rank 1`, which exited with status 3: out of GPU memory: `torch.OutOfMemoryError: CUDA out of memory.`",
            "rank-1/stderr.log",
        ],
    );
    // The other one did not end by itself.
    let end = json(launch_of(&world).join("exit.json"));
    assert_eq!(end["what"], "was killed by signal 15", "{end}");
}

#[test]
fn of_ranks_that_die_together_the_first_is_blamed_and_the_other_is_told() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let now = world.path("now");
    // The first rank ends as soon as nothing is left of the second.
    let options = format!(
        "nodes = 2, args = {{ dies_as = 1, dies_when = \"{}\", last_words = \"torch.OutOfMemoryError: CUDA out of memory.\" }}",
        now.display()
    );
    let service = replayed("server.sglang", "serves", &options) + "\nrestarts = 0";
    let plan = world.plan(&plan_with(&service, ENDLESS));
    let mut running = world.start(&["run", "--json", plan.to_str().expect("a path")]);
    wait_for("the load to begin", || {
        assert!(!running.is_done(), "it ended early: {}", running.stdout());
        running.stdout().contains("in flight").then_some(())
    });
    fs::write(&now, "").expect("a file");
    let finished = running.finish();
    assert_eq!(finished.code(), 1, "{}", finished.said());
    world.assert_nothing_left();
    assert_says(
        &finished.stdout,
        &[
            "lost `server rank 1`, which exited with status 3: out of GPU memory: `torch.OutOfMemoryError: CUDA out of memory.`",
            " ms later, `server rank 0` exited with status 1",
            "rank-1/stderr.log",
        ],
    );
}

#[test]
fn a_rank_that_dies_before_the_service_is_up_fails_the_launch() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let options = "nodes = 3, args = { outlive = true, dies_as = 2, last_words = \"ModuleNotFoundError: No module named 'deep_ep'\" }";
    // Nobody gets a token of it.
    let service = replayed("server.sglang", "deaf", options);
    let plan = world.plan(&plan_with(&service, FEW));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 1, "{}", finished.said());
    world.assert_nothing_left();
    assert_says(
        &finished.said(),
        &[
            "it died before it was healthy: it lost `server rank 2`, which exited with status 3: a Python module is missing",
            "rank-2/stderr.log",
        ],
    );
}

/// A plan that has one rank of two: the first is measured, the second is there.
fn one_rank(uses: &str, rank: u32, master: &str) -> String {
    let options = format!("nodes = 2, node_rank = {rank}, master = \"{master}\"");
    let service = replayed(uses, "serves", &options) + "\nrestarts = 0";
    let plan = plan_with(&service, FEW);
    match rank {
        0 => plan,
        _ => {
            let (model_and_server, _) = plan.split_once("[steps.load]").expect("a load");
            format!(
                "{model_and_server}[steps.follow]\nuse = \"shell.run\"\nwith = {{ argv = [\"sleep\", \"infinity\"], env = {{ SERVER = \"${{services.server.url}}\" }} }}\n"
            )
        }
    }
}

#[test]
fn ranks_of_two_machines_meet_and_the_second_goes_with_the_first() {
    if !has_python() {
        return;
    }
    for uses in ["server.sglang", "server.vllm"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let master = taken.local_addr().expect("an address").to_string();
        drop(taken);
        let (here, there) = (World::new(), World::new());
        let plan = there.plan(&one_rank(uses, 1, &master));
        let second = there.start(&["run", "--json", plan.to_str().expect("a path")]);
        let plan = here.plan(&one_rank(uses, 0, &master));
        let first = here.run(&["run", plan.to_str().expect("a path")]);
        assert!(matches!(first.code(), 0 | 3), "{}", first.said());
        here.assert_nothing_left();
        let second = second.finish();
        assert_eq!(second.code(), 1, "{}", second.said());
        there.assert_nothing_left();
        // It was up, by its own sign, until the first was gone.
        assert_says(&second.stdout, &["service_ready", "service_died"]);
    }
}
