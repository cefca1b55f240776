//! Servers that are not ready, not healthy or hang: what is said of them while it lasts and at the
//! end.

use crate::misbehaving::{EMBEDDED, ENDLESS, FEW, assert_says, failing, plan_with, server_of};
use crate::world::{World, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

#[test]
fn every_condition_that_does_not_hold_is_named() {
    let world = World::new();
    let service = "use = \"server.command\"\n\
        ready = { timeout = \"2s\", http = \"/up\", tcp = true, log = \"/Uvicorn .*running/\", command = [\"false\"] }\n\
        with = { argv = [\"sh\", \"-c\", \"echo Uvicorn is not; sleep 600\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(
        &said,
        &[
            "never became ready within 2s: process alive; nothing answers at",
            "does not accept yet",
            "log line `/Uvicorn .*running/` not seen",
            "`false` was not asked yet",
            "stdout.log",
        ],
    );
}

#[test]
fn a_server_that_dies_silently_is_told_from_one_that_said_why() {
    let world = World::new();
    let service = "use = \"server.command\"\nwith = { argv = [\"sh\", \"-c\", \"exit 7\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(
        &said,
        &["died before it wrote a log: it exited with status 7"],
    );
    let service = "use = \"server.command\"\nwith = { argv = [\"sh\", \"-c\", \"echo 'vllm: error: unrecognized arguments: --foo' >&2; exit 2\"] }";
    let said = failing(&world, &plan_with(service, FEW));
    assert_says(
        &said,
        &[
            "died before it was healthy: it exited with status 2: unrecognised argument: `vllm: error: unrecognized arguments: --foo`",
            "help: see the server's `--help`",
        ],
    );
}

/// Answers every request with status 503, until the test ends.
fn never_healthy() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            // A client that goes away is no business of this server.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 503 Loading\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    port
}

#[test]
fn a_server_that_answers_without_serving_is_alive_and_not_healthy() {
    let world = World::new();
    let port = never_healthy();
    let service = format!(
        "use = \"server.external\"\nready = {{ timeout = \"1500ms\" }}\nwith = {{ url = \"http://127.0.0.1:{port}\", health = \"/health\" }}"
    );
    let said = failing(&world, &plan_with(&service, FEW));
    assert_says(
        &said,
        &["alive but not healthy after 1500ms: not healthy: 503 at `/health` for "],
    );
}

#[test]
fn a_flag_that_the_server_has_already_is_refused_before_anything_runs() {
    let world = World::new();
    let service = EMBEDDED.replace(
        " }",
        ", page_size = 8, args = { page-size = 8, port = 1 } }",
    );
    let plan = world.plan(&plan_with(&service, FEW));
    let finished = world.run(&["check", plan.to_str().expect("a path")]);
    assert_eq!(finished.code(), 2, "{}", finished.said());
    let wanted = [
        "`page-size` is given to the server already",
        "`port` is given",
    ];
    assert_says(&finished.said(), &wanted);
}

#[test]
fn a_server_that_hangs_under_load_is_killed_and_counts_as_dead() {
    let world = World::new();
    let service =
        format!("{EMBEDDED}\nliveness = {{ every = \"200ms\", timeout = \"4s\", failures = 2 }}");
    let plan = world.plan(&plan_with(&service, ENDLESS));
    let mut running = world.start(&["run", "--json", plan.to_str().expect("a path")]);
    wait_for("the load to begin", || {
        assert!(!running.is_done(), "it ended early: {}", running.stdout());
        running.stdout().contains("in flight").then_some(())
    });
    let stopped = Command::new("kill")
        .args(["-STOP", &server_of(&world).to_string()])
        .status();
    assert!(stopped.expect("kill").success());
    wait_for("the death", || {
        running.stdout().contains("service_died").then_some(())
    });
    let finished = running.finish();
    assert_eq!(finished.code(), 1, "{}", finished.said());
    assert_says(
        &finished.stdout,
        &[
            "hung: `/health` failed 2 times in a row",
            "no answer within 4s",
            "its service `server` died while it ran",
        ],
    );
    world.assert_nothing_left();
}

#[test]
fn a_sample_names_the_launch_that_it_was_drawn_on_and_the_launch_is_recorded() {
    let world = World::new();
    let service = EMBEDDED.replace(
        " }",
        ", args = { max_queued_requests = 9, log_level = false } }",
    );
    let plan = world.plan(&plan_with(&service, FEW));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let records = world.out().join("store/records/samples");
    let record = files_below(&records)
        .into_iter()
        .map(|path| fs::read_to_string(path).expect("a record"))
        .find(|text| text.contains("\"incarnations\""))
        .expect("a sample");
    let launch = world.out().join("latest/logs/server/1");
    let read = |name: &str| fs::read_to_string(launch.join(name)).expect(name);
    let command: serde_json::Value = serde_json::from_str(&read("command.json")).expect("JSON");
    assert_eq!(command["argv"][1], "server");
    let argv = command["argv"].to_string();
    assert!(argv.ends_with("\"--max-queued-requests\",\"9\"]"), "{argv}");
    let run = fs::read_link(world.out().join("latest")).expect("a link");
    let run = run.file_name().expect("a name").to_string_lossy();
    assert!(record.contains(&format!("{run}/server/1/")), "{record}");
    let exit: serde_json::Value = serde_json::from_str(&read("exit.json")).expect("JSON");
    assert!(exit["took_ms"].as_u64().is_some(), "{exit}");
    for name in ["command.sh", "environment.json", "stdout.log", "stderr.log"] {
        assert!(launch.join(name).exists(), "{name}");
    }
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let below = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path)
        } else {
            vec![path]
        }
    };
    entries.flat_map(below).collect()
}
