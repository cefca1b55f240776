//! Plans composed from the library, by flags and by answers at a terminal.

use crate::folder::{Folder, Said, benchwright, wait_until};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::thread::JoinHandle;

fn sound(folder: &Folder, file: &str) -> String {
    let said = folder.run(&["check", file]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    fs::read_to_string(folder.path(file)).expect("a plan")
}

fn has_model(folder: &Folder) {
    fs::create_dir_all(folder.path("tiny")).expect("a folder");
    let from = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/model_conf/qwen2.5-0.5b/config_full.json"
    );
    fs::copy(from, folder.path("tiny/config_full.json")).expect("a configuration");
}

#[test]
fn what_is_written_passes_check_and_names_its_schema() {
    let folder = Folder::new();
    let said = folder.run(&[
        "new",
        "mine",
        "--step",
        "shell.run",
        "--param",
        "argv=[\"true\"]",
    ]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let wrote = "wrote mine.toml and plan.schema.json, its schema for editors\n\
                 `benchwright check mine.toml` shows what it would run\n";
    assert_eq!(said.out, wrote);
    let text = sound(&folder, "mine.toml");
    assert!(text.starts_with("#:schema ./plan.schema.json\n"), "{text}");
    let schema = fs::read_to_string(folder.path("plan.schema.json")).expect("a schema");
    assert_eq!(schema, folder.run(&["schema"]).out);
    let again = folder.run(&["new", "mine", "--step", "shell.run"]);
    assert_eq!(again.code, Some(1));
    assert!(
        again
            .err
            .starts_with("error: `mine.toml` is there already\n"),
        "{}",
        again.err
    );
}

/// Puts the fragments that ship beside the plans of `folder`.
fn has_library(folder: &Folder) {
    fs::create_dir_all(folder.path("library")).expect("a folder");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/library");
    for file in ["model.toml", "serving.toml"] {
        let to = folder.path("library").join(file);
        fs::copy(format!("{shipped}/{file}"), to).expect("fragments");
    }
}

#[test]
fn fragments_are_wired_to_steps_and_steps_to_what_fragments_bring() {
    let folder = Folder::new();
    has_model(&folder);
    has_library(&folder);
    let said = folder.run(&[
        "new",
        "curves",
        "--step",
        "report.page",
        "--fragment",
        "open_loop",
        "--fragment",
        "library.model",
        "--server",
        "server.embedded",
        "--param",
        "model.base=tiny",
        "--param",
        "rates=[2, 4]",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = sound(&folder, "curves.toml");
    for line in [
        "[steps.open_loop]",
        "use = \"library.open_loop\"",
        "server = \"${services.server}\"",
        "workload = \"${steps.model.prompts.workload}\"",
        "model = \"${steps.model.config.dir}\"",
        "base = \"tiny\"",
        "rates = [2, 4]",
        "# limit = \"15m\"",
        "data = [\"${steps.open_loop.load.all}\"]",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    let charts = "${steps.open_loop.latency.chart}\", \"${steps.open_loop.token_time.chart}\"";
    assert!(text.contains(charts), "{text}");
}

#[test]
fn what_a_fragment_lacks_is_named_as_for_a_step() {
    let folder = Folder::new();
    has_library(&folder);
    let said = folder.run(&["new", "mine", "--fragment", "open_lop"]);
    assert_eq!(said.code, Some(1));
    let help = "no fragment `library.open_lop`\nhelp: did you mean `library.open_loop`?";
    assert!(said.err.contains(help), "{}", said.err);
    let said = folder.run(&["new", "mine", "--fragment", "open_loop"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    let flag = "--server server.embedded|server.sglang|server.vllm|server.lmdeploy|server.trtllm|server.transformers|server.llama_cpp|server.external|server.command|multimodel.controller  ";
    assert!(said.err.contains(flag), "{}", said.err);
    assert!(!folder.path("mine.toml").exists());
}

#[test]
fn a_whole_benchmark_is_wired_from_flags_alone() {
    let folder = Folder::new();
    has_model(&folder);
    let said = folder.run(&[
        "new",
        "rates",
        "--step",
        "load.warm",
        "--step",
        "load.test",
        "--step",
        "report.page",
        "--server",
        "server.embedded",
        "--param",
        "model.base=tiny",
        "--param",
        "dataset.requests=8",
        "--param",
        "input_tokens=16",
        "--param",
        "output_tokens=4",
        "--param",
        "load.request_rate=4",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = sound(&folder, "rates.toml");
    for line in [
        "after = [\"warm\"]",
        "server = \"${services.server}\"",
        "workload = \"${steps.dataset.workload}\"",
        "data = [\"${steps.load.all}\"]",
        "# Open loop: mean arrivals per second. In requests/s.",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
}

#[test]
fn without_a_terminal_nothing_is_asked_and_what_is_missing_is_named() {
    let folder = Folder::new();
    let said = folder.run(&["new", "mine"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("`--step load.test`"), "{}", said.err);
    let said = folder.run(&["new", "mine", "--step", "load.test"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    for flag in [
        "--server server.embedded|server.sglang|server.vllm|server.lmdeploy|server.trtllm|server.transformers|server.llama_cpp|server.external|server.command|multimodel.controller  ",
        "--param model.base=…  ",
        "--param dataset.requests=…  int >= 1, in requests: ",
    ] {
        assert!(
            said.err.contains(&format!("\n  {flag}")),
            "{flag}: {}",
            said.err
        );
    }
    assert!(!folder.path("mine.toml").exists());
}

#[test]
fn what_is_wrong_is_told_as_check_tells_it_and_nothing_is_written() {
    let folder = Folder::new();
    let wrong = ["--param", "argv=true", "--param", "env=4"];
    let said = folder.run(&[&["new", "mine", "--step", "shell.run"], &wrong[..]].concat());
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("--> mine.toml:"), "{}", said.err);
    assert!(!folder.path("mine.toml").exists());
    let said = folder.run(&[
        "new",
        "mine",
        "--step",
        "shell.run",
        "--param",
        "argv=[]",
        "--param",
        "arv=1",
    ]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("nothing takes the value of `arv`"),
        "{}",
        said.err
    );
    let said = folder.run(&["new", "mine", "--step", "load.tst"]);
    assert!(
        said.err.contains("did you mean `load.test`?"),
        "{}",
        said.err
    );
}

#[test]
fn a_template_is_a_plan_of_ones_own() {
    let folder = Folder::new();
    let to = folder.path("model_conf/qwen2.5-0.5b");
    fs::create_dir_all(&to).expect("a folder");
    let from = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/model_conf/qwen2.5-0.5b/config_full.json"
    );
    fs::copy(from, to.join("config_full.json")).expect("a configuration");
    let said = folder.run(&["new", "mine", "--template", "quickstart"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = sound(&folder, "mine.toml");
    assert!(
        text.contains("\nname = \"mine\"\n") && !text.contains("plans/quickstart"),
        "{text}"
    );
}

/// A terminal, at which a test sits.
struct Seat {
    person: File,
    path: PathBuf,
}

impl Seat {
    fn new() -> Self {
        // Only the test may hold this end: a command that had it too would never see it hang up.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).expect("a terminal");
        grantpt(&person)
            .and_then(|()| unlockpt(&person))
            .expect("a terminal");
        let name = ptsname(&person, Vec::new()).expect("its name");
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let person = File::from(person);
        Self { person, path }
    }

    /// The end that a command has.
    fn other_end(&self) -> File {
        let noctty = i32::try_from(OFlags::NOCTTY.bits()).expect("a flag");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(noctty);
        options.open(&self.path).expect("its other end")
    }

    fn types(&mut self, answers: &str) {
        self.person.write_all(answers.as_bytes()).expect("typed");
    }

    /// Reads what is to be seen until it ends so.
    fn waits_for(&mut self, words: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(words.as_bytes()) {
            self.person.read_exact(&mut byte).expect("the question");
            seen.extend(byte);
        }
    }

    /// Reads all that is to be seen, until the terminal is gone: once its commands have ended.
    fn sees(&self) -> JoinHandle<String> {
        let mut reader = self.person.try_clone().expect("the terminal");
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            let _ = reader.read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).replace('\r', "")
        })
    }
}

/// A command that ends with the test, however that ends.
struct Seated(Child);

impl Seated {
    fn start(folder: &Folder, arguments: &[&str], stdin: &Seat, others: &Seat) -> Self {
        let mut command = benchwright(&folder.path(""), arguments);
        let command = command
            .stdin(stdin.other_end())
            .stdout(others.other_end())
            .stderr(others.other_end());
        Self(command.spawn().expect("the binary"))
    }

    fn code(&mut self) -> Option<i32> {
        wait_until("the command to end", || {
            self.0.try_wait().expect("a child").is_some()
        });
        self.0.wait().expect("its end").code()
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // Only a failing test leaves it running.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command with its streams on a terminal, at which `answers` are typed; returns its exit
/// code and all that was to be seen.
fn at_terminal(folder: &Folder, arguments: &[&str], answers: &str) -> (Option<i32>, String) {
    let mut seat = Seat::new();
    let mut command = Seated::start(folder, arguments, &seat, &seat);
    seat.types(answers);
    let seen = seat.sees();
    let code = command.code();
    (code, seen.join().expect("what was seen"))
}

#[test]
fn a_person_is_asked_for_what_is_missing_and_may_mend_it() {
    let folder = Folder::new();
    has_model(&folder);
    let answers =
        "nonsense\nload.test load.warm\n1\na path\ntiny\n1\n8\n16\n4\nload.concurrency=2\n";
    let (code, seen) = at_terminal(&folder, &["new", "mine"], answers);
    assert_eq!(code, Some(0), "{seen}");
    for part in [
        "`nonsense` is none of them",
        "which? [1]: ",
        "the load is not stated",
        "wrote mine.toml",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    let text = sound(&folder, "mine.toml");
    assert!(text.contains("\nconcurrency = 2\n"), "{text}");
    assert_eq!(text.matches("\nmodel = \"tiny\"\n").count(), 2, "{text}");
}

#[test]
fn a_person_is_offered_fragments_too() {
    let folder = Folder::new();
    has_model(&folder);
    has_library(&folder);
    let answers = "library.open_loop\nserver.embedded\nlibrary.model\n";
    let arguments = ["new", "mine", "--param", "base=tiny"];
    let (code, seen) = at_terminal(&folder, &arguments, answers);
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("which steps and fragments should"), "{seen}");
    assert!(seen.contains("library.closed_loop"), "{seen}");
    let text = sound(&folder, "mine.toml");
    let workload = "\nworkload = \"${steps.model.prompts.workload}\"\n";
    assert!(text.contains(workload), "{text}");
}

#[test]
fn a_person_who_leaves_ends_it() {
    let folder = Folder::new();
    let (code, seen) = at_terminal(
        &folder,
        &["new", "mine", "--step", "load.test"],
        "1\n\u{4}\u{4}",
    );
    assert_eq!(code, Some(2), "{seen}");
    assert!(!folder.path("mine.toml").exists());
}

#[test]
fn a_terminal_that_hangs_up_ends_it_and_that_is_said() {
    let folder = Folder::new();
    let (answers, mut errors) = (Seat::new(), Seat::new());
    let arguments = ["new", "mine", "--step", "load.test"];
    let mut command = Seated::start(&folder, &arguments, &answers, &errors);
    errors.waits_for("which? [1]: ");
    let seen = errors.sees();
    drop(answers);
    assert_eq!(command.code(), Some(2));
    let seen = seen.join().expect("what was seen");
    assert!(seen.contains("error: the terminal has hung up"), "{seen}");
    assert!(!folder.path("mine.toml").exists());
}

#[test]
fn a_plan_for_a_pipe_is_written_there() {
    let folder = Folder::new();
    let said: Said = folder.run(&[
        "new",
        "mine",
        "--step",
        "shell.run",
        "--param",
        "argv=true",
        "-o",
        "-",
    ]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(said.out.contains("\nargv = [\"true\"]\n"), "{}", said.out);
    assert!(
        fs::read_dir(folder.path(""))
            .expect("a folder")
            .next()
            .is_none()
    );
}
