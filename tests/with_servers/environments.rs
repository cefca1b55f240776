//! `env.python` with packages that are made here, so that no index is asked: locked, built once, built again
//! where it is gone, and what is said where there is nothing to build.

use crate::world::{Finished, World};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes a wheel of a package of one module.
const WHEEL: &str = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/tiny-1.0-py3-none-any.whl', 'w') as wheel:
    info = 'tiny-1.0.dist-info/'
    wheel.writestr('tiny.py', 'WORD = \"built\"\\n')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', 'tiny.py,,\\n')
";

/// Whether there is a Python that can make environments by itself.
fn has_python() -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", "import ensurepip, venv"]);
    let asked = command.stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// A step that builds an environment of `requirements`, from an index that is empty.
fn engine(world: &World, requirements: &str) -> String {
    let index = world.path("index");
    fs::create_dir_all(&index).expect("a folder");
    format!(
        "[steps.engine]\nuse = \"env.python\"\nwith = {{ requirements = [{requirements}], installer = \"pip\", index = \"file://{}\" }}\n",
        index.display()
    )
}

/// The same of a package that is made here.
fn tiny(world: &World) -> String {
    let folder = world.path("");
    let made = Command::new("python3")
        .args(["-c", WHEEL])
        .arg(&folder)
        .status();
    assert!(made.expect("Python").success());
    let wheel = folder.join("tiny-1.0-py3-none-any.whl");
    engine(world, &format!("\"tiny @ file://{}\"", wheel.display()))
}

fn run(world: &World, plan: &str) -> Finished {
    let plan = world.plan(plan);
    let mut command = world.command(&["run", plan.to_str().expect("a path")]);
    command.env("BENCHWRIGHT_CACHE_DIR", world.path("cache"));
    world.run_within(crate::world::LIMIT, command)
}

/// Where the environment of the last run lies.
fn folder(world: &World) -> PathBuf {
    let told = world
        .out()
        .join("latest/results/engine/environment/environment.json");
    let told: Value = serde_json::from_str(&fs::read_to_string(told).expect("told")).expect("JSON");
    let id = told["id"].as_str().expect("an id");
    world.path("cache").join("environments").join(id)
}

/// What the package says in the environment.
fn word(environment: &Path) -> String {
    let mut python = Command::new(environment.join("bin/python"));
    let said = python
        .args(["-c", "import tiny; print(tiny.WORD)"])
        .output();
    String::from_utf8_lossy(&said.expect("its Python").stdout)
        .trim()
        .to_owned()
}

#[test]
fn an_environment_is_locked_and_built_once() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let plan = tiny(&world);
    let finished = run(&world, &plan);
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    assert!(
        said.contains("1 package, lock ") && said.contains("built by pip"),
        "{said}"
    );
    assert_eq!(word(&folder(&world)), "built");
    let lock = fs::read_to_string(world.out().join("latest/results/engine/requirements.lock"));
    let lock = lock.expect("a lock");
    assert!(
        lock.starts_with("tiny @ file://") && lock.contains("--hash=sha256:"),
        "{lock}"
    );
    // Another step whose lock is the same finds it.
    let other = plan.replace("installer", "constraints = [\"unrelated==2\"], installer");
    let again = run(&world, &other);
    assert!(again.said().contains("there already"), "{}", again.said());
    world.assert_nothing_left();
}

#[test]
fn what_a_launch_misses_of_an_environment_is_built_again_from_its_lock() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_servers/foreign/replay.py");
    let plan = tiny(&world)
        + &format!(
            r#"
[steps.model]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 }} }}

[services.server]
use = "server.sglang"
with = {{ model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", command = ["python", "-B", "{}", "serves"] }}

[steps.warm]
use = "load.warm"
with = {{ server = "${{services.server}}", requests = 2 }}
"#,
            script.display()
        );
    let finished = run(&world, &plan);
    assert_eq!(finished.code(), 0, "{}", finished.said());
    let environment = folder(&world);
    fs::remove_dir_all(environment.join("lib")).expect("removed");
    let finished = run(&world, &plan);
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    assert!(
        !said.contains("built by pip"),
        "its step was done already: {said}"
    );
    assert_eq!(word(&environment), "built");
    world.assert_nothing_left();
}

#[test]
fn what_cannot_be_resolved_is_told_with_its_mend() {
    if !has_python() {
        return;
    }
    let world = World::new();
    let finished = run(&world, &engine(&world, "\"absent-from-here==1.0\""));
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    assert!(said.contains("could not lock the requirements"), "{said}");
    assert!(said.contains("absent-from-here==1.0"), "{said}");
    assert!(
        said.contains("`extra_index` names further indexes"),
        "{said}"
    );
    let left = fs::read_dir(world.path("cache/environments"));
    let left = left.map_or(0, |entries| {
        entries.flatten().filter(|e| e.path().is_dir()).count()
    });
    assert_eq!(left, 0, "no half environment is left");
}
