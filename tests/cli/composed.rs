//! Plans of several files: those that ship, and runs that go on without the files they came from.

use crate::folder::{Folder, benchwright, plans_below};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_plan_that_ships_is_sound_in_every_variant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder");
    // What is in the library are parts of plans.
    let is_whole = |plan: &&PathBuf| !plan.starts_with(root.join("plans/library"));
    let plans = plans_below(&root.join("plans"));
    assert!(plans.len() > 10, "{plans:?}");
    for plan in plans.iter().filter(is_whole) {
        let text = fs::read_to_string(plan).expect("a plan");
        let variants = text.lines().filter_map(|l| l.strip_prefix("[variant."));
        let variants = variants.filter_map(|l| l.split(['.', ']']).next());
        for variant in [None].into_iter().chain(variants.map(Some)) {
            let mut arguments = vec!["check".as_ref(), plan.as_os_str(), "--out".as_ref()];
            // Some are for machines with GPUs.
            arguments.push(out.path().as_os_str());
            arguments.extend(["--set".as_ref(), std::ffi::OsStr::new("+resources.gpus=8")]);
            if let Some(variant) = variant {
                arguments.extend(["--variant".as_ref(), std::ffi::OsStr::new(variant)]);
            }
            let said = benchwright(root, &arguments).output().expect("the binary");
            let err = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(
                said.status.code(),
                Some(0),
                "{} {variant:?}: {err}",
                plan.display()
            );
        }
    }
}

const COMPOSED: &str = r#"
include = ["parts.toml"]

[secrets]
TOKEN = { file = "token" }

[axes]
size = [1, 2]

[steps.twice]
use = "library.pair"
with = { word = "${params.word}" }

[steps.left]
use = "shell.run"
axes = ["size"]
when = "${axes.size} == 2"
with = { argv = ["true", "${axes.size}"] }

[steps.last]
use = "shell.run"
after = ["twice", "left"]
with = { argv = ["sh", "-c", "cat go.txt; echo $TOKEN >&2; test -e $GO"], env = { TOKEN = "${secret.TOKEN}", GO = "${params.go}" } }
"#;

const PARTS: &str = r#"
[params]
word = { type = "string", default = "a" }
go = { type = "string", default = "/nowhere" }

[fragment.pair.params]
word = { type = "string" }

[fragment.pair.steps.one]
use = "shell.run"
with = { argv = ["echo", "${params.word}"] }

[fragment.pair.steps.two]
use = "shell.run"
with = { argv = ["cat", "${steps.one.files}/stdout.txt"] }
"#;

/// A run whose last step fails until the file `go` is there, and which names a secret.
fn failed() -> Folder {
    let folder = Folder::new();
    folder.plan("composed", COMPOSED);
    let write = |name: &str, text: &str| fs::write(folder.path(name), text).expect("a file");
    write("parts.toml", PARTS);
    write("token", "hf_not_to_be_seen\n");
    let go = format!("go={}", folder.path("go").display());
    let said = folder.run(&["run", "composed.toml", "--set", &go]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    folder
}

#[test]
fn a_run_goes_on_though_the_files_of_its_plan_are_gone() {
    let folder = failed();
    fs::remove_file(folder.path("parts.toml")).expect("removed");
    fs::write(folder.path("composed.toml"), "schema = 7").expect("changed");
    fs::write(folder.path("go"), "").expect("a file");
    let said = folder.run(&["resume"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("twice.two"), "{}", said.out);
}

#[test]
fn a_secret_is_in_nothing_that_a_run_says_of_a_failure() {
    let folder = failed();
    let said = folder.run(&["status", "latest", "--json"]);
    assert!(said.out.contains("***"), "{}", said.out);
    assert!(!said.out.contains("hf_not_to_be_seen"), "{}", said.out);
    let journal = fs::read(folder.path("outputs/latest/journal.log")).expect("a journal");
    assert!(!String::from_utf8_lossy(&journal).contains("hf_not_to_be_seen"));
}

#[test]
fn check_says_what_is_left_out_and_what_was_set() {
    let folder = failed();
    let set = "+steps.last.timeout.run=9s";
    let said = folder.run(&["check", "composed.toml", "--set", set]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let why = "left[size=1]  when: ${axes.size} == 2 is false for size=1";
    assert!(said.out.contains(why), "{}", said.out);
    let shown = said
        .out
        .lines()
        .find(|l| l.contains("+steps.last.timeout.run"));
    assert!(
        shown.is_some_and(|l| l.contains("\"9s\"") && l.ends_with("--set")),
        "{}",
        said.out
    );
}

#[test]
fn what_a_fragment_brings_can_be_set() {
    let folder = Folder::new();
    folder.plan(
        "p",
        "include = [\"parts.toml\"]\n[steps.u]\nuse = \"library.pair\"\nwith = { word = \"a\" }\n",
    );
    fs::write(folder.path("parts.toml"), PARTS).expect("a file");
    let run = folder.run(&["run", "p.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let explained = |set: &str| {
        let said = folder.run(&["explain", "p.toml", "u.one", "--set", set]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.out
    };
    let out = explained(r#"steps.u.one.with.argv=["echo","other"]"#);
    assert!(out.contains("with.argv.1: a → other"), "{out}");
    let out = explained("steps.u.with.word=b");
    assert!(out.contains("with.argv.1: a → b"), "{out}");
    // Part of no key, and possible all the same.
    explained(r#"+steps.u.one.timeout.run="3m""#);
    let said = folder.run(&["check", "p.toml", "--set", "steps.u.timeout.run=\"3m\""]);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
}

#[test]
fn the_range_of_a_fragments_parameter_holds_for_references_too() {
    let folder = Folder::new();
    let plan = |k: u32| {
        let text = format!(
            "[params]\nk = {{ type = \"int\", default = {k} }}\n\
             [fragment.few.params]\nn = {{ type = \"int\", max = 3 }}\n\
             [fragment.few.steps.one]\nuse = \"shell.run\"\nwith = {{ argv = [\"echo\", \"${{params.n}}\"] }}\n\
             [steps.u]\nuse = \"library.few\"\nwith = {{ n = \"${{params.k}}\" }}\n"
        );
        folder.plan("p", &text);
        folder.run(&["check", "p.toml"])
    };
    assert_eq!(plan(3).code, Some(0));
    let said = plan(99);
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains("n = \"${params.k}\""), "{}", said.err);
}
