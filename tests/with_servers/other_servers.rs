//! Servers that this project's own plans do not launch: any command, and one that runs already.

use crate::world::{World, wait_for};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Derives a tiny model and returns its folder.
fn tiny_model(world: &World) -> PathBuf {
    let plan = world.plan(
        r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 } }
"#,
    );
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 0, "{}", finished.said());
    fs::canonicalize(world.out().join("latest/results/model/model")).expect("a model")
}

/// A load on a server that `service` declares, and a warm-up before it.
fn load_on(service: &str, model: &str) -> String {
    format!(
        r#"
[steps.prompts]
use = "dataset.random"
with = {{ model = "{model}", requests = 8, input_tokens = 8, output_tokens = 4 }}

[services.server]
{service}

[steps.warm]
use = "load.warm"
with = {{ server = "${{services.server}}", requests = 2, protocol = "chat" }}

[steps.load]
use = "load.test"
after = ["warm"]
with = {{ server = "${{services.server}}", workload = "${{steps.prompts.workload}}", concurrency = 2, protocol = "chat", calibration = "none" }}
"#
    )
}

fn completed(world: &World) -> f64 {
    let path = world.out().join("latest/results/load/0/result.json");
    let result: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).expect("a result")).expect("JSON");
    result
        .pointer("/rows/0/values/completed")
        .and_then(serde_json::Value::as_f64)
        .expect("a count")
}

#[test]
fn any_command_that_serves_is_measured() {
    let world = World::new();
    let model = tiny_model(&world).display().to_string();
    let binary = env!("CARGO_BIN_EXE_benchwright");
    let service = format!(
        "use = \"server.command\"\nwith = {{ argv = [\"{binary}\", \"server\", \"--model-path\", \"{model}\", \"--load-format\", \"dummy\", \"--port\", \"{{port}}\"] }}"
    );
    let plan = world.plan(&load_on(&service, &model));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert!((completed(&world) - 8.0).abs() < f64::EPSILON);
    world.assert_nothing_left();
}

/// A server of somebody else, ended with the test.
pub(crate) struct Somebody(Child);

impl Somebody {
    /// Starts the embedded server with these flags, and returns where it listens.
    pub(crate) fn start(world: &World, flags: &[&str]) -> (Self, String) {
        let address = world.path("address");
        let child = Command::new(env!("CARGO_BIN_EXE_benchwright"))
            .args(["server", "--port", "0"])
            .args(["--address-file", address.to_str().expect("a path")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let somebody = Self(child);
        let url = wait_for("the server's address", || {
            fs::read_to_string(&address)
                .ok()
                .filter(|t| !t.trim().is_empty())
        });
        (somebody, url.trim().to_owned())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(asked.is_ok_and(|status| status.success()));
        wait_for("the server to end", || self.0.try_wait().expect("a child"));
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_runs_already_is_measured_and_left_running() {
    let world = World::new();
    let model = tiny_model(&world).display().to_string();
    let flags = ["--model-path", &model, "--load-format", "dummy"];
    let (mut somebody, url) = Somebody::start(&world, &flags);
    let service = format!("use = \"server.external\"\nwith = {{ url = \"{url}\" }}");
    let plan = world.plan(&load_on(&service, &model));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert!((completed(&world) - 8.0).abs() < f64::EPSILON);
    assert!(
        somebody.0.try_wait().expect("a child").is_none(),
        "the server of somebody else was ended"
    );
}
