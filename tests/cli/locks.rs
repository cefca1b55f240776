//! Lock files: what they pin, what is refused for not being pinned, and what a run leaves.

use crate::folder::{Folder, Said};
use std::fs;

const PLAN: &str = r#"
[params]
word = { type = "string", default = "a" }

[steps.write]
use = "shell.run"
with = { argv = ["echo", "${params.word}"] }

[steps.read]
use = "shell.run"
with = { argv = ["cat", "{inputs.text}/stdout.txt"], inputs = { text = "${steps.write.files}" } }
"#;

fn locked(plan: &str) -> Folder {
    let folder = Folder::new();
    folder.plan("p", plan);
    let said = folder.run(&["lock", "p.toml"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out, "wrote p.lock.toml: 2 nodes, 0 results\n");
    folder
}

fn refused(folder: &Folder, arguments: &[&str]) -> String {
    let said = folder.run(arguments);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(!folder.path("outputs/runs").exists(), "something ran");
    said.err
}

#[test]
fn what_is_locked_runs_and_is_explained_by_its_lock() {
    let folder = locked(PLAN);
    let lock = fs::read_to_string(folder.path("p.lock.toml")).expect("a lock");
    assert!(
        lock.contains("\n[node.write]\nuse = \"shell.run\"\n"),
        "{lock}"
    );
    assert!(lock.contains("\n\"with.argv.1\" = \"a\"\n"), "{lock}");
    assert!(
        lock.contains("\"with.inputs.text\" = \"${steps.write.files}\""),
        "{lock}"
    );
    let said = folder.run(&["run", "p.toml", "--locked"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let left = fs::read_to_string(folder.path("outputs/latest/plan.lock.toml")).expect("a lock");
    assert!(left.contains("\n[result.read]\nkey = \""), "{left}");
    let pins = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|l| l.starts_with("\"with."));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(pins(&left), pins(&lock));
}

#[test]
fn what_differs_is_refused_by_node_field_and_both_values() {
    let folder = locked(PLAN);
    let err = refused(&folder, &["run", "p.toml", "--locked", "--set", "word=b"]);
    assert_eq!(
        err,
        "error: the plan is not as `p.lock.toml` pins it; nothing ran\n  \
         `params.word` is locked as `\"a\"`, found `\"b\"`\n  \
         `write`: `with.argv.1` is locked as `a`, found `b`\n\
         help: `benchwright lock p.toml` pins what there is now\n"
    );
}

#[test]
fn a_changed_text_is_refused_even_if_it_means_the_same() {
    let folder = locked(PLAN);
    folder.plan("p", &format!("{PLAN}# a word more\n"));
    let err = refused(&folder, &["run", "p.toml", "--locked"]);
    assert!(err.contains("\n  `source p.toml` is locked as `"), "{err}");
    assert_eq!(err.matches(" is locked as ").count(), 1, "{err}");
}

#[test]
fn a_changed_input_is_refused() {
    let folder = Folder::new();
    folder.plan(
        "p",
        "[steps.data]\nuse = \"dataset.file\"\nwith = { path = \"input.jsonl\" }\n",
    );
    fs::write(folder.path("input.jsonl"), "one").expect("a file");
    assert_eq!(folder.run(&["lock", "p.toml"]).code, Some(0));
    assert_eq!(folder.run(&["lock", "p.toml", "--check"]).code, Some(0));
    fs::write(folder.path("input.jsonl"), "two").expect("a file");
    let err = refused(&folder, &["run", "p.toml", "--locked"]);
    assert!(err.contains("\n  `data`: `with.path"), "{err}");
    assert_eq!(err.matches(" is locked as ").count(), 1, "{err}");
}

#[test]
fn a_step_that_is_not_pinned_is_refused() {
    let folder = locked(PLAN);
    folder.plan(
        "p",
        &format!("{PLAN}\n[steps.more]\nuse = \"shell.run\"\nwith = {{ argv = [\"true\"] }}\n"),
    );
    let err = refused(&folder, &["run", "p.toml", "--locked", "--dry-run"]);
    assert!(
        err.contains("\n  `more` is not locked, found `shell.run`\n"),
        "{err}"
    );
    let said = folder.run(&["lock", "p.toml", "--check"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err
            .starts_with("error: `p.lock.toml` is not up to date\n"),
        "{}",
        said.err
    );
}

#[test]
fn a_lock_file_may_be_named_and_must_be_there() {
    let folder = locked(PLAN);
    fs::rename(folder.path("p.lock.toml"), folder.path("other.toml")).expect("a move");
    let err = refused(&folder, &["run", "p.toml", "--locked"]);
    assert!(
        err.starts_with("error: could not read the lock file `p.lock.toml`: "),
        "{err}"
    );
    assert!(
        err.contains("help: `benchwright lock p.toml` pins"),
        "{err}"
    );
    let said = folder.run(&["run", "p.toml", "--locked=other.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    fs::write(folder.path("other.toml"), "schema = 1\n").expect("a file");
    let said = folder.run(&["run", "p.toml", "--locked=other.toml"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("`other.toml` is no lock file: "),
        "{}",
        said.err
    );
}

#[test]
fn a_result_that_is_other_than_it_is_pinned_fails_the_run() {
    let folder = Folder::new();
    folder.plan(
        "p",
        "[steps.now]\nuse = \"shell.run\"\nwith = { argv = [\"date\", \"+%N\"] }\n",
    );
    let ok = |said: Said| assert_eq!(said.code, Some(0), "{}", said.err);
    ok(folder.run(&["run", "p.toml"]));
    ok(folder.run(&["lock", "p.toml"]));
    ok(folder.run(&["run", "p.toml", "--locked"]));
    fs::remove_dir_all(folder.path("outputs")).expect("gone");
    let said = folder.run(&["run", "p.toml", "--locked"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    let line = "error: the run has brought other results than `p.lock.toml` pins\n  `now`: `output files` is locked as `";
    assert!(said.err.contains(line), "{}", said.err);
}

#[test]
fn a_run_that_goes_on_leaves_the_lock_of_another_as_it_is() {
    let folder = Folder::new();
    let text = format!(
        "[steps.a]\nuse = \"shell.run\"\nwith = {{ argv = [\"test\", \"-e\", \"{}\"] }}\n",
        folder.path("go").display()
    );
    folder.plan("p", &text);
    let lock_of = |name: &str| {
        let path = folder
            .path("outputs/runs")
            .join(name)
            .join("plan.lock.toml");
        fs::read_to_string(path).expect("a lock")
    };
    for _ in 0..2 {
        assert_eq!(folder.run(&["run", "p.toml"]).code, Some(1));
    }
    let runs = fs::read_dir(folder.path("outputs/runs")).expect("runs");
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    let mut runs: Vec<String> = runs.flatten().map(name).collect();
    runs.sort();
    let [first, second] = &runs[..] else {
        panic!("{runs:?}")
    };
    let before = lock_of(first);
    assert_eq!(lock_of(second), before);
    fs::write(folder.path("go"), "").expect("a file");
    assert_eq!(folder.run(&["resume", second]).code, Some(0));
    assert!(
        lock_of(second).contains("[result.a]"),
        "{}",
        lock_of(second)
    );
    assert_eq!(lock_of(first), before);
}

#[test]
fn a_run_that_was_begun_locked_is_resumed_locked() {
    let folder = Folder::new();
    let plan = r#"
[steps.write]
use = "shell.run"
with = { argv = ["cat", "{inputs.gate}"], inputs = { gate = "gate" } }

[steps.fail]
use = "shell.run"
after = ["write"]
with = { argv = ["false"] }
"#;
    folder.plan("p", plan);
    fs::write(folder.path("gate"), "one").expect("a file");
    assert_eq!(folder.run(&["lock", "p.toml"]).code, Some(0));
    assert_eq!(folder.run(&["run", "p.toml", "--locked"]).code, Some(1));
    fs::write(folder.path("gate"), "two").expect("a file");
    let said = folder.run(&["resume"]);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(
        said.err
            .contains("`write`: `with.inputs.gate` is locked as "),
        "{}",
        said.err
    );
}
