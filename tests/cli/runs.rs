//! Runs of small plans: what is reused and why not, what a failure shows, how a run is stopped.

use crate::folder::{Folder, Said, benchwright, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

const TWO_STEPS: &str = r#"
[params]
word = { type = "string", default = "a" }

[steps.write]
use = "shell.run"
with = { argv = ["echo", "${params.word}"] }

[steps.read]
use = "shell.run"
with = { argv = ["cat", "{inputs.text}/stdout.txt"], inputs = { text = "${steps.write.files}" } }
"#;

/// A plan whose second step runs until it is stopped; `mark` finds its process.
fn endless(folder: &Folder, mark: &str) {
    let text = format!(
        r#"
[steps.first]
use = "shell.run"
with = {{ argv = ["echo", "1"] }}

[steps.endless]
use = "shell.run"
after = ["first"]
with = {{ argv = ["sh", "-c", "sleep {mark} & wait"] }}
"#
    );
    folder.plan("endless", &text);
}

/// Seconds that nobody else sleeps, so that the process is known by them.
fn mark(test: u32) -> String {
    format!("{}.{test}", 100_000 + std::process::id())
}

fn is_gone(mark: &str) -> bool {
    Folder::processes(&format!("sleep {mark}")).is_empty()
}

fn status(folder: &Folder) -> Value {
    serde_json::from_str(&folder.run(&["status", "latest", "--json"]).out).expect("JSON")
}

#[test]
fn a_second_run_reuses_everything_and_a_change_is_explained() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let first = folder.run(&["run", "two.toml"]);
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    assert!(
        first.out.contains("write: will run: never ran"),
        "{}",
        first.out
    );
    let second = folder.run(&["run", "two.toml"]);
    assert_eq!(second.code, Some(0));
    assert!(
        second.out.contains("everything is reused: nothing ran\n"),
        "{}",
        second.out
    );
    let check = folder.run(&["check", "two.toml"]);
    assert!(
        check
            .out
            .ends_with("nothing would run: the results of 2 steps are there\n"),
        "{}",
        check.out
    );
    let third = folder.run(&["run", "two.toml", "--set", "word=b"]);
    assert_eq!(third.code, Some(0));
    assert!(
        third
            .out
            .contains("write: will run: `with.argv.1` changed from a to b"),
        "{}",
        third.out
    );
    assert!(!third.out.contains("everything is reused"), "{}", third.out);
}

#[test]
fn a_dry_run_runs_nothing() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&["run", "two.toml", "--dry-run"]);
    assert_eq!(said.code, Some(0));
    assert!(said.out.contains("1 of 2 steps would run"), "{}", said.out);
    assert!(!folder.path("outputs").exists());
}

#[test]
fn json_is_events_and_nothing_else() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&["run", "two.toml", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let events: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events.first().expect("events")["event"], "run_started");
    assert_eq!(events.last().expect("events")["outcome"], "done");
    assert_eq!(
        events.iter().filter(|e| e["event"] == "finished").count(),
        2
    );
    assert!(events.iter().all(|e| e["at_ms"].is_u64()));
}

#[test]
fn quiet_is_quiet_and_colours_come_when_asked_for() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&["run", "two.toml", "--quiet"]);
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (Some(0), "", "")
    );
    let said = folder.run(&["run", "two.toml"]);
    assert!(!said.out.contains('\x1b'), "{}", said.out);
    let said = folder.run(&["run", "two.toml", "--color", "always"]);
    assert!(said.out.contains("\x1b[1mwrite\x1b[0m"), "{}", said.out);
}

#[test]
fn a_failure_shows_the_step_its_log_and_how_to_go_on() {
    let folder = Folder::new();
    folder.plan(
        "fail",
        "[steps.bad]\nuse = \"shell.run\"\nwith = { argv = [\"sh\", \"-c\", \"echo one; echo two >&2; exit 3\"] }\n\
         [steps.later]\nuse = \"shell.run\"\nwith = { argv = [\"cat\", \"${steps.bad.files}\"] }\n",
    );
    let said = folder.run(&["run", "fail.toml"]);
    assert_eq!(said.code, Some(1));
    let run = status(&folder)["run"].as_str().expect("a name").to_owned();
    let wanted = format!(
        "\nerror: step `bad` failed: the command exited with status 3\n  --> outputs/runs/{run}/logs/bad/0/stderr.log\n   | two\n\
         the run failed; what is done is kept, and `benchwright resume {run}` goes on\n"
    );
    assert_eq!(said.err, wanted);
    let graph = folder.run(&["graph", "--run", "latest"]).out;
    assert!(
        graph.contains(r#""bad" [label="bad\nshell.run (pure)\nfailed""#),
        "{graph}"
    );
    assert!(
        graph.contains(r#""later" [label="later\nshell.run (pure)\nskipped""#),
        "{graph}"
    );
    assert!(
        said.out.contains("later: skipped: `bad` did not end well"),
        "{}",
        said.out
    );
    assert_eq!(status(&folder)["outcome"], "failed");
    let shown = folder.run(&["status", "latest"]);
    assert!(
        shown.out.contains("error: step `bad` failed"),
        "{}",
        shown.out
    );
}

#[test]
fn an_interrupted_run_tears_down_and_is_resumed_in_its_folder() {
    let (folder, mark) = (Folder::new(), mark(1));
    endless(&folder, &mark);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    wait_until("the command to run", || !is_gone(&mark));
    let busy = folder.run(&["resume"]);
    assert_eq!(busy.code, Some(1));
    assert!(
        busy.err.contains("is in use by another process"),
        "{}",
        busy.err
    );
    assert_eq!(status(&folder)["live"], true);
    run.signal(Signal::INT);
    let said = run.finish();
    assert_eq!(said.code, Some(130), "{}", said.err);
    assert!(is_gone(&mark), "{:?}", Folder::processes(&mark));
    assert!(
        said.err
            .starts_with("the run was interrupted; what is done is kept, and `benchwright resume "),
        "{}",
        said.err
    );

    // The plan is taken as it was: that of now would not even be sound.
    fs::write(folder.path("endless.toml"), "broken").expect("written");
    let again = folder.start(&["resume", "--json"]);
    again.wait_for("started", "endless");
    assert_eq!(status(&folder)["nodes"][0]["state"], "reused");
    again.signal(Signal::TERM);
    assert_eq!(again.finish().code, Some(130));
    assert!(is_gone(&mark));
    assert_eq!(
        fs::read_dir(folder.path("outputs/runs"))
            .expect("runs")
            .count(),
        1
    );
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let (folder, mark) = (Folder::new(), mark(2));
    // It does not heed the first request to end.
    let text = format!(
        "[steps.endless]\nuse = \"shell.run\"\nwith = {{ argv = [\"sh\", \"-c\", \"trap '' TERM; sleep {mark}; sleep {mark}\"] }}\n"
    );
    folder.plan("endless", &text);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    wait_until("the command to run", || !is_gone(&mark));
    run.signal(Signal::INT);
    let interrupted = || {
        fs::read_to_string(folder.path("events")).is_ok_and(|text| text.contains("\"interrupted\""))
    };
    wait_until("the first interrupt", interrupted);
    run.signal(Signal::INT);
    let said = run.finish();
    assert_eq!(said.code, Some(130), "{}", said.err);
    wait_until("every process to be gone", || is_gone(&mark));
    assert_eq!(status(&folder)["outcome"], "interrupted");
}

#[test]
fn an_engine_that_is_killed_leaves_no_process_and_a_run_to_resume() {
    let (folder, mark) = (Folder::new(), mark(3));
    endless(&folder, &mark);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    wait_until("the command to run", || !is_gone(&mark));
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code, None);
    wait_until("every process to be gone", || is_gone(&mark));
    let status = status(&folder);
    assert_eq!(
        (&status["live"], &status["outcome"]),
        (&Value::Bool(false), &Value::Null)
    );
    let shown = folder.run(&["status"]);
    assert!(shown.out.contains("cut off"), "{}", shown.out);
}

/// Starts a run whose command leaves a daemon, and kills the command and its guardian both.
fn kill_twice(folder: &Folder, mark: &str) {
    let text = format!(
        "[steps.endless]\nuse = \"shell.run\"\nwith = {{ argv = [\"sh\", \"-c\", \"setsid sleep {mark} & wait\"] }}\n"
    );
    folder.plan("endless", &text);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    // The daemon itself, not only the shell that names it.
    wait_until("the daemon to run", || {
        let named = Folder::processes(&format!("sleep {mark}"));
        named.iter().any(|line| line.starts_with("sleep"))
    });
    // Stopped, it can do nothing when its guardian dies.
    run.signal(Signal::STOP);
    let register = folder.path("outputs/latest/processes.log");
    let register = fs::read_to_string(register).expect("a register");
    let first: Value =
        serde_json::from_str(register.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["role"], &first["label"]),
        (&"guardian".into(), &"endless".into())
    );
    let guardian = first["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    kill_process(
        guardian.and_then(Pid::from_raw).expect("a pid"),
        Signal::KILL,
    )
    .expect("killed");
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code, None);
    wait_until("the command to be gone and its daemon to be left", || {
        Folder::processes(&format!("sleep {mark}")).len() == 1
    });
}

#[test]
fn what_a_double_kill_leaves_is_listed_and_ended() {
    let (folder, mark) = (Folder::new(), mark(4));
    kill_twice(&folder, &mark);
    let listed = folder.run(&["reap", "--dry-run"]);
    assert_eq!(listed.code, Some(1), "{}", listed.err);
    assert!(listed.out.contains("has left 1 process"), "{}", listed.out);
    assert!(
        listed.out.contains(&format!("sleep {mark}")),
        "{}",
        listed.out
    );
    assert!(!is_gone(&mark), "a dry run ended something");
    let ended: Value = serde_json::from_str(&folder.run(&["reap", "--json"]).out).expect("JSON");
    assert_eq!(
        ended[0]["found"].as_array().map(Vec::len),
        Some(1),
        "{ended}"
    );
    assert_eq!(
        ended[0]["left"].as_array().map(Vec::len),
        Some(0),
        "{ended}"
    );
    assert!(is_gone(&mark));
    let nothing = folder.run(&["reap"]);
    assert_eq!(nothing.code, Some(0));
    assert!(
        nothing.out.contains("has left a process behind"),
        "{}",
        nothing.out
    );
}

#[test]
fn a_run_that_goes_on_first_ends_what_it_had_left() {
    let (folder, mark) = (Folder::new(), mark(5));
    kill_twice(&folder, &mark);
    let again = folder.start(&["resume", "--json"]);
    again.wait_for("started", "endless");
    let busy = folder.run(&["reap"]);
    assert_eq!(busy.code, Some(0), "the run is live: {}", busy.out);
    again.signal(Signal::INT);
    let said = again.finish();
    assert_eq!(said.code, Some(130));
    assert!(
        said.err
            .contains("ended 1 process that the run had left behind"),
        "{}",
        said.err
    );
    assert!(is_gone(&mark));
}

#[test]
fn secrets_reach_the_command_and_no_file() {
    let folder = Folder::new();
    let text = "[steps.a]\nuse = \"shell.run\"\nwith = { argv = [\"sh\", \"-c\", \"test -n $CODE && test $CODE = $1\", \"sh\", \"${secret.BENCH_CODE}\"], env = { CODE = \"${secret.BENCH_CODE}\" } }\n";
    folder.plan("secret", text);
    let mut command = crate::folder::benchwright(&folder.path(""), &["run", "secret.toml"]);
    let output = command
        .env("BENCH_CODE", "sesame-open")
        .output()
        .expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let logs = folder.path("outputs/latest/logs/a/0");
    let read = |name: &str| fs::read_to_string(logs.join(name)).expect(name);
    assert!(read("environment.json").contains("\"CODE\": \"***\""));
    assert!(read("command.json").contains("***"));
    let said = Folder::containing(&folder.path("outputs"), "sesame-open");
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_finished_run_is_not_resumed_and_has_no_report_of_its_own() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    assert_eq!(folder.run(&["run", "two.toml"]).code, Some(0));
    let said = folder.run(&["resume"]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.out
            .ends_with("is finished: there is nothing to resume\n"),
        "{}",
        said.out
    );
    let said = folder.run(&["report"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("help: a report is made by a step that uses `report.page`"),
        "{}",
        said.err
    );
    let said = folder.run(&["report", "--recompute", "anew"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("error: no records of requests in "),
        "{}",
        said.err
    );
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named_with_the_mend() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    fs::write(folder.path("file"), "").expect("a file");
    let said = folder.run(&["run", "two.toml", "--out", "file"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .starts_with("error: cannot write to the output folder `file`: "),
        "{}",
        said.err
    );
    assert!(
        said.err
            .contains("help: choose another folder with `--out DIR`"),
        "{}",
        said.err
    );
    assert_eq!(fs::read(folder.path("file")).expect("still a file"), b"");
}

#[test]
fn another_output_folder_is_part_of_the_advice() {
    let folder = Folder::new();
    folder.plan(
        "fail",
        "[steps.bad]\nuse = \"shell.run\"\nwith = { argv = [\"false\"] }\n",
    );
    let said = folder.run(&["run", "fail.toml", "--out", "else where"]);
    assert!(
        said.err.contains("--out 'else where'` goes on"),
        "{}",
        said.err
    );
}

#[test]
fn a_reader_that_goes_away_does_not_stop_a_run() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let mut command = crate::folder::benchwright(&folder.path(""), &["run", "two.toml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    assert_eq!(status(&folder)["outcome"], "done");
}

#[test]
fn a_run_becomes_a_trace_while_it_goes_on_and_when_it_is_over() {
    let folder = Folder::new();
    let mark = mark(9);
    endless(&folder, &mark);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    let living = folder.run(&["trace", "-o", "-"]);
    assert_eq!((living.code, living.err.as_str()), (Some(0), ""));
    let step = |text: &str| {
        let trace: Value = serde_json::from_str(text).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events").clone();
        let found = events
            .into_iter()
            .find(|e| e["name"] == "endless" && e["ph"] == "X");
        found.expect("the step")["args"].clone()
    };
    assert_eq!(step(&living.out)["ended"], "goes on");
    run.signal(Signal::INT);
    run.finish();
    let said = folder.run(&["trace"]);
    let path = said.out.trim_end();
    assert!(
        path.starts_with("outputs/runs/") && path.ends_with("/trace.json"),
        "{path}"
    );
    let written = fs::read_to_string(folder.path(path)).expect("a trace");
    assert_eq!(step(&written)["class"], "interrupted");
}

#[test]
fn a_living_run_is_seen_from_elsewhere_until_it_ends() {
    let folder = Folder::new();
    let mark = mark(10);
    endless(&folder, &mark);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    let log = folder.path("outputs/latest/logs/endless/0/stderr.log");
    wait_until("the command's log", || log.exists());
    let seen = status(&folder);
    assert_eq!(seen["live"], true);
    assert_eq!(seen["nodes"][1]["state"], "running");
    assert!(seen["nodes"][1]["since_ms"].as_u64() <= seen["now_ms"].as_u64());
    assert_eq!(seen["waiting"], serde_json::json!([]));
    let said = folder.run(&["status", "latest"]).out;
    assert!(said.contains("\nnow\n  endless  for "), "{said}");
    // Of its two logs, the one that was written to last.
    assert!(said.contains("/logs/endless/0/std"), "{said}");
    let watch = benchwright(&folder.path(""), &["status", "--watch=1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary");
    run.signal(Signal::INT);
    run.finish();
    let watched = Said::from(watch.wait_with_output().expect("its end"));
    assert_eq!(watched.code, Some(0));
    assert!(
        watched.out.contains(" of plan endless: interrupted\n"),
        "{}",
        watched.out
    );
    assert!(!watched.out.contains('\x1b'), "{}", watched.out);
    assert!(folder.run(&["status"]).out.contains("interrupted"));
}

#[test]
fn a_run_that_was_killed_is_not_taken_for_living() {
    let folder = Folder::new();
    let mark = mark(11);
    endless(&folder, &mark);
    let run = folder.start(&["run", "endless.toml", "--json"]);
    run.wait_for("started", "endless");
    run.signal(Signal::KILL);
    run.finish();
    wait_until("the guardian to clean up", || is_gone(&mark));
    assert_eq!(status(&folder)["live"], false);
    let said = folder.run(&["status", "--watch", "--quiet"]);
    assert!(
        said.out.contains(" of plan endless: cut off\n"),
        "{}",
        said.out
    );
    let trace = folder.run(&["trace", "-o", "-"]).out;
    assert!(trace.contains("\"ended\":\"cut off\""), "{trace}");
}

#[test]
fn a_run_waits_for_another_that_has_the_machine_and_says_so() {
    let folder = Folder::new();
    let wait =
        "i=0; touch begun; while [ ! -e go ] && [ $i -lt 1000 ]; do sleep 0.05; i=$((i+1)); done";
    let step = |script: &str| {
        let here = folder.path("");
        let script = format!("cd {}; {script}", here.display());
        format!(
            "[steps.alone]\nuse = \"shell.run\"\nresources = {{ machine = \"exclusive\" }}\n\
             with = {{ argv = [\"sh\", \"-c\", '{script}'] }}\n"
        )
    };
    folder.plan("first", &step(wait));
    folder.plan("second", &step("test -e go && touch after"));
    let first = folder.start(&["run", "first.toml", "--json", "--out", "one"]);
    wait_until("the first to work", || folder.path("begun").exists());
    let second = folder.start(&["run", "second.toml", "--json", "--out", "two"]);
    wait_until("the second to say what it waits for", || {
        let said = fs::read_to_string(folder.path("events")).unwrap_or_default();
        said.contains("waiting for the machine: run ") && said.contains("first (process ")
    });
    fs::write(folder.path("go"), "").expect("a file");
    for running in [first, second] {
        assert_eq!(running.finish().code, Some(0));
    }
    assert!(folder.path("after").exists(), "the second ran too early");
}

#[test]
fn a_port_that_is_taken_is_found_before_anything_runs() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let served = folder.path("served");
    fs::create_dir_all(served.join("v1")).expect("a folder");
    fs::write(served.join("v1/models"), r#"{"data": [{"id": "m"}]}"#).expect("a file");
    let serve = format!(
        r#"["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", {served:?}, "{port}"]"#
    );
    folder.plan(
        "ports",
        &format!(
            r#"
[steps.first]
use = "shell.run"
with = {{ argv = ["echo", "first"] }}

[services.server]
use = "server.command"
with = {{ argv = {serve}, port = {port}, health = "/" }}
ready = {{ timeout = "60s" }}

[steps.later]
use = "shell.run"
after = ["first"]
with = {{ argv = ["echo", "${{services.server.url}}"] }}
"#
        ),
    );
    let said = folder.run(&["run", "ports.toml"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    let message = format!(
        "error: port {port}, which the plan gives to service `server`, is in use by another process"
    );
    assert!(said.err.starts_with(&message), "{}", said.err);
    assert!(said.err.contains("help: end what uses it"), "{}", said.err);
    assert_eq!(status(&folder)["nodes"][0]["state"], "waiting");

    drop(taken);
    let said = folder.run(&["resume"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}
