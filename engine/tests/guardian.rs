//! Real processes under real guardians: whatever happens, nothing of them may be left.
//!
//! A program of its own rather than a libtest one, because the guardian is this same binary run
//! again with another argument, and one role more plays an engine that gets killed.

#![expect(clippy::print_stdout, reason = "it prints what a test harness prints")]

use engine::journal::RunLock;
use engine::process::{
    Exit, GUARDIAN_ARGUMENT, Identity, Process, ProcessSpec, ProgramError, StartError, Supervisor,
    guardian,
};
use engine::run::reap;
use rustix::process::{Pid, Signal, getpgid, getpgrp, getsid, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The role of an engine that starts one program and is then killed.
const ENGINE_ARGUMENT: &str = "__engine";
/// Longer than any test may take: waiting this long is a failure.
const LONG: Duration = Duration::from_secs(60);

type Test = fn(&Bench);

const TESTS: &[(&str, Test)] = &[
    (
        "exit_statuses_and_signals_are_told_apart",
        exit_statuses_and_signals_are_told_apart,
    ),
    (
        "who_ends_because_another_is_gone_ends_later",
        who_ends_because_another_is_gone_ends_later,
    ),
    (
        "the_environment_is_exactly_the_declared_one",
        the_environment_is_exactly_the_declared_one,
    ),
    (
        "arguments_folder_and_input_are_exact",
        arguments_folder_and_input_are_exact,
    ),
    (
        "output_is_appended_to_the_logs",
        output_is_appended_to_the_logs,
    ),
    ("huge_output_blocks_nobody", huge_output_blocks_nobody),
    (
        "no_terminal_can_reach_the_program",
        no_terminal_can_reach_the_program,
    ),
    (
        "stopping_lets_a_handler_finish",
        stopping_lets_a_handler_finish,
    ),
    (
        "who_ignores_sigterm_is_killed",
        who_ignores_sigterm_is_killed,
    ),
    (
        "a_stopped_program_still_gets_its_grace",
        a_stopped_program_still_gets_its_grace,
    ),
    (
        "a_second_stop_may_shorten_the_grace",
        a_second_stop_may_shorten_the_grace,
    ),
    ("stopping_reaches_daemons", stopping_reaches_daemons),
    (
        "daemons_left_behind_are_killed",
        daemons_left_behind_are_killed,
    ),
    (
        "dropping_a_process_ends_everything",
        dropping_a_process_ends_everything,
    ),
    (
        "killing_the_engine_ends_everything",
        killing_the_engine_ends_everything,
    ),
    ("a_killed_guardian_is_noticed", a_killed_guardian_is_noticed),
    (
        "killing_guardian_and_engine_still_ends_the_program",
        killing_guardian_and_engine_still_ends_the_program,
    ),
    (
        "a_guardian_ignores_the_signals_of_a_batch_system",
        a_guardian_ignores_the_signals_of_a_batch_system,
    ),
    ("guardians_leave_no_zombies", guardians_leave_no_zombies),
    ("many_may_wait_for_one_end", many_may_wait_for_one_end),
    (
        "what_a_double_kill_leaves_is_reaped_and_nothing_else",
        what_a_double_kill_leaves_is_reaped_and_nothing_else,
    ),
    (
        "every_process_is_recorded_with_its_end",
        every_process_is_recorded_with_its_end,
    ),
    (
        "what_cannot_start_is_said_exactly",
        what_cannot_start_is_said_exactly,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(GUARDIAN_ARGUMENT) => guardian::main(),
        Some(ENGINE_ARGUMENT) => doomed_engine(Path::new(&arguments[1])),
        _ => run_tests(&arguments),
    }
}

/// Understands name filters and `--list`, as `cargo test -- NAME` needs them.
fn run_tests(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let chosen = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let tests: Vec<_> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let began = Instant::now();
    let mut n_failed = 0;
    for (name, test) in &tests {
        let passed = catch_unwind(AssertUnwindSafe(|| test(&Bench::new()))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        n_failed += usize::from(!passed);
    }
    println!(
        "\ntest result: {}. {} passed; {n_failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if n_failed == 0 { "ok" } else { "FAILED" },
        tests.len() - n_failed,
        TESTS.len() - tests.len(),
        began.elapsed().as_secs_f64(),
    );
    if n_failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

/// A folder for one test and what it needs to run programs there.
struct Bench {
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        Self {
            folder: tempfile::tempdir().unwrap(),
            runtime: runtime.unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, argv: &[&str]) -> ProcessSpec {
        spec_in(self.folder.path(), argv)
    }

    fn try_start(&self, spec: ProcessSpec) -> Result<Process, StartError> {
        self.runtime.block_on(Supervisor::this_binary().start(spec))
    }

    fn shell(&self, script: &str) -> Process {
        self.try_start(self.spec(&["sh", "-c", script])).unwrap()
    }

    fn exited(&self, process: &Process) -> Exit {
        self.runtime
            .block_on(async { tokio::time::timeout(LONG, process.exited()).await })
            .unwrap()
    }

    fn stop(&self, process: &Process, grace: Duration) -> (Exit, bool) {
        let gone = self.runtime.block_on(process.stop(grace)).unwrap();
        (gone.exit, gone.forced)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str) {
        eventually(&format!("{name} is written"), || self.path(name).exists());
    }

    /// Starts an engine that starts a program with two daemons.
    fn engine(&self) -> Child {
        let program = std::env::current_exe().unwrap();
        Command::new(program)
            .arg(ENGINE_ARGUMENT)
            .arg(self.folder.path())
            .spawn()
            .unwrap()
    }

    /// Waits until a script has told its pid, and names the process.
    fn told(&self, name: &str) -> Identity {
        self.wait_for(name);
        Identity::of(self.read(name).trim().parse().unwrap()).unwrap()
    }
}

fn spec_in(folder: &Path, argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: BTreeMap::from([("PATH".into(), std::env::var("PATH").unwrap())]),
        cwd: folder.to_owned(),
        stdout: folder.join("logs/out"),
        stderr: folder.join("logs/err"),
        label: "test".into(),
        folder: None,
        secrets: Vec::new(),
    }
}

/// Waits, within bounds, for what another process does.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pid_of(identity: &Identity) -> Pid {
    Pid::from_raw(i32::try_from(identity.pid).unwrap()).unwrap()
}

/// Writes the shell's pid to a file that appears at once and whole.
fn tell(name: &str) -> String {
    format!("echo $$ > {name}.tmp; mv {name}.tmp {name}")
}

/// A script that leaves two daemons, neither of its group: one in a session of its own, one forked
/// twice; both ignore SIGTERM.
fn daemons() -> String {
    let daemon = |name| {
        format!(
            "setsid sh -c 'trap \"\" TERM HUP; {}; exec sleep 1000'",
            tell(name)
        )
    };
    format!("{} & ( {} & ) ; ", daemon("one"), daemon("two"))
}

fn exit_statuses_and_signals_are_told_apart(bench: &Bench) {
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -TERM $$", Exit::Signal(15)),
    ] {
        let process = bench.shell(script);
        assert_eq!(bench.exited(&process), exit, "{script}");
        assert_eq!(process.try_exited(), Some(exit));
        assert_eq!(bench.stop(&process, LONG), (exit, false), "{script}");
    }
}

fn who_ends_because_another_is_gone_ends_later(bench: &Bench) {
    for _ in 0..10 {
        let first = bench.shell("while ! [ -e go ]; do sleep 0.01; done; exit 3");
        // A process that has ended and was not reaped can still be signalled.
        let pid = first.identity().pid;
        let second = bench.shell(&format!("while kill -0 {pid}; do :; done; exit 1"));
        fs::write(bench.path("go"), "").unwrap();
        assert_eq!(bench.exited(&second), Exit::Code(1));
        assert_eq!(bench.exited(&first), Exit::Code(3));
        let at = |process: &Process| process.try_ended().unwrap().at;
        assert!(at(&first) < at(&second));
        fs::remove_file(bench.path("go")).unwrap();
    }
}

fn the_environment_is_exactly_the_declared_one(bench: &Bench) {
    let mut spec = bench.spec(&["env"]);
    spec.env.insert("TEXT".into(), "a b=ü\nc".into());
    spec.env.insert("EMPTY".into(), String::new());
    let wanted = format!("EMPTY=\nPATH={}\nTEXT=a b=ü\nc\n", spec.env["PATH"]);
    let process = bench.try_start(spec).unwrap();
    assert_eq!(bench.exited(&process), Exit::Code(0));
    assert_eq!(bench.read("logs/out"), wanted);
}

fn arguments_folder_and_input_are_exact(bench: &Bench) {
    let script = "pwd -P; cat; printf '[%s]' \"$0\" \"$@\"";
    let process = bench
        .try_start(bench.spec(&["sh", "-c", script, "zero", "a b", "", "*", "$PATH"]))
        .unwrap();
    assert_eq!(bench.exited(&process), Exit::Code(0));
    let folder = bench.folder.path().canonicalize().unwrap();
    assert_eq!(
        bench.read("logs/out"),
        format!("{}\n[zero][a b][][*][$PATH]", folder.display())
    );
}

fn output_is_appended_to_the_logs(bench: &Bench) {
    let mut spec = bench.spec(&["sh", "-c", "echo out; echo err >&2; echo out"]);
    spec.stderr = spec.stdout.clone();
    for _ in 0..2 {
        let process = bench.try_start(spec.clone()).unwrap();
        assert_eq!(bench.exited(&process), Exit::Code(0));
    }
    assert_eq!(bench.read("logs/out"), "out\nerr\nout\nout\nerr\nout\n");
    let process = bench.shell("echo apart >&2");
    assert_eq!(bench.exited(&process), Exit::Code(0));
    assert_eq!(bench.read("logs/err"), "apart\n");
}

fn huge_output_blocks_nobody(bench: &Bench) {
    let process = bench.shell("head -c 20000000 /dev/zero; head -c 10000000 /dev/zero >&2");
    assert_eq!(bench.exited(&process), Exit::Code(0));
    let size = |name| fs::metadata(bench.path(name)).unwrap().len();
    assert_eq!(
        (size("logs/out"), size("logs/err")),
        (20_000_000, 10_000_000)
    );
}

fn no_terminal_can_reach_the_program(bench: &Bench) {
    let process = bench.shell("exec sleep 1000");
    let child = pid_of(process.identity());
    let guardian = pid_of(process.guardian().unwrap());
    assert_eq!(
        (getsid(Some(child)), getpgid(Some(child))),
        (Ok(child), Ok(child))
    );
    assert_eq!(getpgid(Some(guardian)), Ok(guardian));
    assert_ne!(guardian, getpgrp());
    let name =
        fs::read_to_string(format!("/proc/{}/comm", process.guardian().unwrap().pid)).unwrap();
    assert_eq!(name, "bw-guardian\n");
    assert_eq!(bench.stop(&process, LONG), (Exit::Signal(15), false));
}

fn stopping_lets_a_handler_finish(bench: &Bench) {
    let process =
        bench.shell("trap 'echo bye; exit 7' TERM; touch ready; while :; do sleep 0.01; done");
    bench.wait_for("ready");
    assert_eq!(bench.stop(&process, LONG), (Exit::Code(7), false));
    assert_eq!(bench.read("logs/out"), "bye\n");
}

fn who_ignores_sigterm_is_killed(bench: &Bench) {
    let process = bench.shell("trap '' TERM; touch ready; while :; do sleep 1000; done");
    bench.wait_for("ready");
    assert_eq!(
        bench.stop(&process, Duration::from_millis(50)),
        (Exit::Signal(9), true)
    );
    assert!(!process.identity().is_alive());
}

fn a_stopped_program_still_gets_its_grace(bench: &Bench) {
    let process =
        bench.shell("trap 'exit 7' TERM; touch ready; kill -STOP $$; while :; do sleep 0.01; done");
    bench.wait_for("ready");
    assert_eq!(bench.stop(&process, LONG), (Exit::Code(7), false));
}

fn a_second_stop_may_shorten_the_grace(bench: &Bench) {
    let process = Arc::new(bench.shell("trap '' TERM; touch ready; while :; do sleep 1000; done"));
    bench.wait_for("ready");
    let patient = bench.runtime.spawn({
        let process = Arc::clone(&process);
        async move { process.stop(Duration::from_secs(3600)).await }
    });
    assert_eq!(
        bench.stop(&process, Duration::from_millis(10)),
        (Exit::Signal(9), true)
    );
    let gone = bench
        .runtime
        .block_on(async { tokio::time::timeout(LONG, patient).await });
    assert_eq!(gone.unwrap().unwrap().unwrap().exit, Exit::Signal(9));
}

fn stopping_reaches_daemons(bench: &Bench) {
    let process = bench.shell(&format!("{} exec sleep 1000", daemons()));
    let daemons = [bench.told("one"), bench.told("two")];
    assert_eq!(
        bench.stop(&process, Duration::from_millis(50)),
        (Exit::Signal(15), true)
    );
    assert!(daemons.iter().all(|daemon| !daemon.is_alive()));
}

fn daemons_left_behind_are_killed(bench: &Bench) {
    let wait = "while ! [ -e one ] || ! [ -e two ] || ! [ -e go ]; do sleep 0.01; done";
    let process = bench.shell(&format!("{} {wait}; exit 5", daemons()));
    let daemons = [bench.told("one"), bench.told("two")];
    fs::write(bench.path("go"), "").unwrap();
    assert_eq!(bench.exited(&process), Exit::Code(5));
    assert_eq!(bench.stop(&process, LONG), (Exit::Code(5), true));
    assert!(daemons.iter().all(|daemon| !daemon.is_alive()));
}

fn dropping_a_process_ends_everything(bench: &Bench) {
    let process = bench.shell(&format!("{} trap '' TERM; sleep 1000", daemons()));
    let all = [
        bench.told("one"),
        bench.told("two"),
        process.identity().clone(),
        process.guardian().unwrap().clone(),
    ];
    drop(process);
    eventually("all are gone", || all.iter().all(|one| !one.is_alive()));
}

/// Starts a program with daemons, then waits to be killed.
fn doomed_engine(folder: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let script = format!(
        "{} {}; trap '' TERM; exec sleep 1000",
        daemons(),
        tell("child")
    );
    let spec = spec_in(folder, &["sh", "-c", &script]);
    let run = folder.join("runs/doomed");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("journal.log"), "").unwrap();
    let _lock = RunLock::acquire(&run.join("lock")).unwrap();
    runtime.block_on(async {
        let supervisor = Supervisor::this_binary().of_run("doomed", &run);
        let process = supervisor.start(spec).await.unwrap();
        process.exited().await;
    });
    ExitCode::FAILURE
}

fn killing_the_engine_ends_everything(bench: &Bench) {
    let mut engine = bench.engine();
    let all = [bench.told("one"), bench.told("two"), bench.told("child")];
    assert!(all.iter().all(Identity::is_alive));
    engine.kill().unwrap();
    assert!(!engine.wait().unwrap().success());
    eventually("all are gone", || all.iter().all(|one| !one.is_alive()));
}

fn a_killed_guardian_is_noticed(bench: &Bench) {
    let member = format!(
        "sh -c 'trap \"\" TERM; {}; exec sleep 1000'",
        tell("member")
    );
    let process = bench.shell(&format!("{member} & exec sleep 1000"));
    let member = bench.told("member");
    kill_process(pid_of(process.guardian().unwrap()), Signal::KILL).unwrap();
    assert_eq!(bench.exited(&process), Exit::GuardianLost);
    eventually("the rest of the group is killed unasked", || {
        !member.is_alive()
    });
    assert_eq!(bench.stop(&process, LONG), (Exit::GuardianLost, true));
    assert!(!process.identity().is_alive());
}

fn killing_guardian_and_engine_still_ends_the_program(bench: &Bench) {
    let mut engine = bench.engine();
    let child = ["one", "two", "child"].map(|name| bench.told(name))[2].clone();
    kill_engine_and_guardian(&mut engine, &child);
    // Daemons are what such a double kill leaves to the reaper.
    assert_eq!(reap::end(bench.folder.path()).unwrap()[0].left, []);
}

/// Kills both so that neither can do anything about it; the program itself is gone then.
fn kill_engine_and_guardian(engine: &mut Child, child: &Identity) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
    let parent: i32 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    // An engine that is stopped can do nothing about it.
    let engine_pid = Pid::from_raw(i32::try_from(engine.id()).unwrap()).unwrap();
    kill_process(engine_pid, Signal::STOP).unwrap();
    kill_process(Pid::from_raw(parent).unwrap(), Signal::KILL).unwrap();
    eventually("the program is gone", || !child.is_alive());
    engine.kill().unwrap();
    engine.wait().unwrap();
}

fn a_guardian_ignores_the_signals_of_a_batch_system(bench: &Bench) {
    let process = bench.shell("trap 'exit 7' TERM; touch ready; while :; do sleep 0.01; done");
    bench.wait_for("ready");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        kill_process(pid_of(process.guardian().unwrap()), signal).unwrap();
    }
    assert_eq!(bench.stop(&process, LONG), (Exit::Code(7), false));
}

fn guardians_leave_no_zombies(bench: &Bench) {
    let process = bench.shell("exit 0");
    let guardian = process.guardian().cloned().unwrap();
    bench.exited(&process);
    let folder = format!("/proc/{}", guardian.pid);
    eventually("the guardian was waited for", || {
        !Path::new(&folder).exists()
    });
}

fn many_may_wait_for_one_end(bench: &Bench) {
    let process = Arc::new(bench.shell("while ! [ -e go ]; do sleep 0.01; done; exit 4"));
    let waiter = || {
        let process = Arc::clone(&process);
        bench.runtime.spawn(async move { process.exited().await })
    };
    let cancelled = waiter();
    let waiters = [waiter(), waiter(), waiter()];
    cancelled.abort();
    fs::write(bench.path("go"), "").unwrap();
    for waiter in waiters {
        assert_eq!(bench.runtime.block_on(waiter).unwrap(), Exit::Code(4));
    }
}

/// Ended with the test.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a program that looks like a daemon of the doomed run, but belongs to another folder.
fn stranger(bench: &Bench) -> Stranger {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM HUP; exec sleep 1000"]);
    command.env("BENCHWRIGHT_RUN", "doomed");
    command.env(
        "BENCHWRIGHT_RUN_FOLDER",
        bench.path("elsewhere/runs/doomed"),
    );
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Stranger(command.spawn().unwrap())
}

fn what_a_double_kill_leaves_is_reaped_and_nothing_else(bench: &Bench) {
    let out = bench.folder.path();
    let mut stranger = stranger(bench);
    let mut engine = bench.engine();
    let daemons = [bench.told("one"), bench.told("two")];
    let child = bench.told("child");
    assert!(reap::find(out).is_empty(), "the run is live");
    assert!(reap::end(out).unwrap().is_empty());
    assert!(daemons.iter().chain([&child]).all(Identity::is_alive));
    kill_engine_and_guardian(&mut engine, &child);
    let found = reap::find(out);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].run, "doomed");
    let mut found: Vec<_> = found[0].found.iter().map(|l| l.identity.clone()).collect();
    let mut wanted = daemons.to_vec();
    found.sort_by_key(|identity| identity.pid);
    wanted.sort_by_key(|identity| identity.pid);
    assert_eq!(found, wanted);
    let reaped = reap::end(out).unwrap();
    assert_eq!((reaped[0].found.len(), reaped[0].left.len()), (2, 0));
    assert!(daemons.iter().all(|daemon| !daemon.is_alive()));
    assert!(reap::end(out).unwrap().is_empty(), "nothing is left");
    assert!(
        stranger.0.try_wait().unwrap().is_none(),
        "a stranger was ended"
    );
}

fn every_process_is_recorded_with_its_end(bench: &Bench) {
    let folder = bench.path("logs/node/0");
    let argv = ["sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned);
    let env = bench.spec(&[]).env;
    let spec = ProcessSpec::new("node", argv.to_vec(), env, bench.folder.path(), &folder);
    let process = bench.try_start(spec).unwrap();
    assert_eq!(bench.exited(&process), Exit::Code(3));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(
        (read("stdout.log"), read("stderr.log")),
        ("out\n".into(), "err\n".into())
    );
    assert!(read("command.json").contains("exit 3"));
    assert!(read("environment.json").contains("PATH"));
    assert!(read("exit.json").contains("\"status\": 3"));
    let again = Command::new(folder.join("command.sh")).output().unwrap();
    assert_eq!(
        (again.status.code(), again.stdout),
        (Some(3), b"out\n".to_vec())
    );
}

fn what_cannot_start_is_said_exactly(bench: &Bench) {
    let refused = |change: &dyn Fn(&mut ProcessSpec)| {
        let mut spec = bench.spec(&["true"]);
        change(&mut spec);
        bench.try_start(spec).unwrap_err()
    };
    let mut path = BTreeMap::new();
    path.insert("PATH".to_owned(), "/nowhere".to_owned());
    let error = refused(&|spec| spec.env = path.clone());
    let text = "cannot start `test`: program `true` was not found in PATH (/nowhere); install it or give its path";
    assert_eq!(error.to_string(), text);
    let error = refused(&|spec| spec.argv = vec!["./none".into()]);
    assert!(
        matches!(
            error,
            StartError::Program {
                source: ProgramError::Missing { .. },
                ..
            }
        ),
        "{error}"
    );
    let error = refused(&|spec| spec.argv.clear());
    assert!(matches!(error, StartError::Empty { .. }), "{error}");
    let error = refused(&|spec| spec.cwd.push("none"));
    assert!(matches!(error, StartError::Folder { .. }), "{error}");
    fs::write(bench.path("file"), "").unwrap();
    let error = refused(&|spec| spec.cwd.push("file"));
    assert!(matches!(error, StartError::Folder { .. }), "{error}");
    let error = refused(&|spec| spec.stdout = bench.path("file/out"));
    assert!(matches!(error, StartError::Log { .. }), "{error}");
    let error = refused(&|spec| spec.argv.push("x".repeat(9 << 20)));
    assert!(matches!(error, StartError::Unpassable { .. }), "{error}");
    let error = refused(&|spec| spec.argv.push("x\0y".into()));
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    let script = bench.path("script");
    fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let error = refused(&|spec| spec.argv = vec!["./script".into()]);
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    let silent = Supervisor::new(vec!["true".into()]);
    let error = bench
        .runtime
        .block_on(silent.start(bench.spec(&["true"])))
        .unwrap_err();
    assert!(
        matches!(error, StartError::GuardianSilent { .. }),
        "{error}"
    );
    let missing = Supervisor::new(vec!["/nowhere/guardian".into()]);
    let error = bench
        .runtime
        .block_on(missing.start(bench.spec(&["true"])))
        .unwrap_err();
    assert!(matches!(error, StartError::Guardian { .. }), "{error}");
}
