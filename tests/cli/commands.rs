//! Everything but running: help, the library, graphs, completions, checks of sound plans.

use crate::folder::{Folder, Said, benchwright};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

const TWO_STEPS: &str = r#"
description = "one after the other"

[params]
word = { type = "string", default = "a" }
count = { type = "int", default = 1 }

[variant.many]
params.count = 7

[axes]
size = [1, 2]

[steps.write]
use = "shell.run"
with = { argv = ["echo", "${params.word}", "${params.count}"] }

[steps.read]
use = "shell.run"
axes = ["size"]
with = { argv = ["cat", "${steps.write.files}/stdout.txt"], env = { SIZE = "${axes.size}" } }
"#;

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

#[test]
fn the_version_is_one_line() {
    let said = Folder::new().run(&["--version"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (
            Some(0),
            concat!("benchwright ", env!("CARGO_PKG_VERSION"), "\n")
        )
    );
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let said = Folder::new().run(&["--help"]);
    assert_eq!(said.code, Some(0));
    for command in [
        "run",
        "resume",
        "check",
        "new",
        "lock",
        "graph",
        "steps",
        "schema",
        "status",
        "trace",
        "report",
        "server",
        "completions",
    ] {
        assert!(
            said.out.contains(&format!("\n  {command} ")),
            "{command}: {}",
            said.out
        );
        let help = Folder::new().run(&[command, "--help"]);
        assert!(
            help.out
                .contains(&format!("Examples:\n  benchwright {command}")),
            "{}",
            help.out
        );
    }
    assert!(
        said.out
            .contains("  130  interrupted; `benchwright resume` goes on\n"),
        "{}",
        said.out
    );
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_is_meant() {
    let said = Folder::new().run(&["chek"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("check"), "{}", said.err);
    let said = Folder::new().run(&["run", "p.toml", "--set", "layers"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("expected NAME=VALUE, such as `layers=4`"),
        "{}",
        said.err
    );
}

#[test]
fn a_plan_that_is_not_there_is_named() {
    let said = Folder::new().run(&["check", "nope.toml"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err
            .starts_with("error: could not read the plan `nope.toml`: "),
        "{}",
        said.err
    );
    assert!(said.err.contains("\nhelp: "), "{}", said.err);
}

#[test]
fn a_sound_plan_is_expanded_with_the_origin_of_every_value() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&[
        "check",
        "two.toml",
        "--set",
        "word=b",
        "--variant",
        "many",
        "--json",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let value = json(&said);
    assert_eq!(
        value["params"][0],
        serde_json::json!({ "name": "word", "value": "\"b\"", "origin": "--set" })
    );
    assert_eq!(value["params"][1]["origin"], "variant many");
    let nodes: Vec<&str> = value["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|n| n["node"].as_str().expect("a name"))
        .collect();
    assert_eq!(nodes, ["write", "read[size=1]", "read[size=2]"]);
    assert_eq!(value["nodes"][0]["will"], "run");
    assert_eq!(value["nodes"][1]["will"], "perhaps");
    assert_eq!(value["nodes"][1]["needs"], serde_json::json!(["write"]));
    assert!(!folder.path("outputs").exists(), "a check leaves nothing");
}

#[test]
fn a_sound_plan_for_people_says_what_would_run_and_why() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&["check", "two.toml"]);
    assert!(
        said.out
            .starts_with("plan two: one after the other\n  word   \"a\"  default\n"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("runs or is reused after `write`"),
        "{}",
        said.out
    );
    assert!(
        said.out.ends_with(
            "\n1 of 3 steps would run, 2 more depending on their results\n\
                       nobody knows yet how long that takes: none of it ever ran\n"
        ),
        "{}",
        said.out
    );
}

#[test]
fn a_graph_comes_in_three_forms_and_by_the_name_of_its_file() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let dot = folder.run(&["graph", "two.toml"]).out;
    assert!(
        dot.starts_with("digraph \"two\" {") && dot.contains("\"write\" -> \"read[size=2]\";"),
        "{dot}"
    );
    let mermaid = folder
        .run(&["graph", "two.toml", "--format", "mermaid"])
        .out;
    assert!(
        mermaid.starts_with("flowchart LR\n") && mermaid.contains("n0 --> n1\n"),
        "{mermaid}"
    );
    let said = folder.run(&["graph", "two.toml", "-o", "two.svg"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    let svg = fs::read_to_string(folder.path("two.svg")).expect("a picture");
    assert!(
        svg.starts_with("<svg ") && svg.contains("read[size=1]") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
}

#[test]
fn a_graph_says_what_would_run_and_a_bare_one_does_not() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let dot = folder.run(&["graph", "two.toml"]).out;
    assert!(dot.contains("\\nwill run\", style=\"filled\""), "{dot}");
    assert!(
        dot.contains("\\nmay run\", style=\"filled,dashed\""),
        "{dot}"
    );
    let bare = folder.run(&["graph", "two.toml", "--bare"]).out;
    assert!(!bare.contains("run\", style"), "{bare}");
    assert!(!folder.path("outputs").exists(), "a graph leaves nothing");
}

#[test]
fn many_instances_are_drawn_as_one_box_unless_all_are_asked_for() {
    let folder = Folder::new();
    let sizes: Vec<String> = (0..70).map(|n| n.to_string()).collect();
    let text = TWO_STEPS.replace("[1, 2]", &format!("[{}]", sizes.join(", ")));
    folder.plan("many", &text);
    let small = folder.run(&["graph", "many.toml"]).out;
    assert!(small.contains("\"write\" -> \"read × 70\";"), "{small}");
    assert_eq!(small.matches(" -> ").count(), 1);
    let all = folder.run(&["graph", "many.toml", "--expand"]).out;
    assert_eq!(all.matches(" -> ").count(), 70);
}

#[test]
fn a_graph_needs_a_plan_or_a_run() {
    let folder = Folder::new();
    let said = folder.run(&["graph"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("<PLAN>"), "{}", said.err);
    let said = folder.run(&["graph", "--run", "latest"]);
    assert_eq!(said.err, "error: there are no runs in `outputs`\n");
}

#[test]
fn a_graph_that_cannot_be_written_is_a_failure() {
    let folder = Folder::new();
    folder.plan("two", TWO_STEPS);
    let said = folder.run(&["graph", "two.toml", "-o", "no/such/folder.svg"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .starts_with("error: could not write `no/such/folder.svg`: "),
        "{}",
        said.err
    );
}

#[test]
fn the_library_is_listed_for_people_for_machines_and_as_a_document() {
    let folder = Folder::new();
    let entries = json(&folder.run(&["steps", "--json"]));
    let entries = entries.as_array().expect("entries");
    let list = folder.run(&["steps"]).out;
    let document = folder.run(&["steps", "--markdown"]).out;
    assert!(entries.len() > 5);
    for entry in entries {
        let (name, summary) = (
            entry["name"].as_str().expect("a name"),
            entry["summary"].as_str().expect("a summary"),
        );
        assert!(
            list.lines()
                .any(|line| line.starts_with(name) && line.ends_with(summary)),
            "{name}: {list}"
        );
        assert!(
            document.contains(&format!("\n### `{name}`\n\n{summary}\n")),
            "{name}"
        );
        let shown = folder.run(&["steps", name]);
        assert_eq!(shown.code, Some(0));
        for option in entry["options"].as_array().expect("options") {
            let option = option["name"].as_str().expect("a name");
            assert!(
                shown.out.contains(&format!("\n  {option}: ")),
                "{name}.{option}: {}",
                shown.out
            );
        }
    }
}

#[test]
fn fragments_are_listed_with_their_parameters_and_parts() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("library")).expect("a folder");
    fs::create_dir_all(folder.path("below")).expect("a folder");
    let shipped = include_str!("../../plans/library/serving.toml");
    fs::write(folder.path("library/serving.toml"), shipped).expect("fragments");
    let list = folder.run(&["steps"]).out;
    let last = list.lines().rfind(|l| l.starts_with("library."));
    assert!(
        last.is_some_and(|l| l.starts_with("library.open_loop")),
        "{list}"
    );
    let shown = folder.run(&["steps", "library.open_loop"]).out;
    for line in [
        "A fragment, declared in `library/serving.toml`.",
        "Parameters",
        "  server: service, required",
        "  rates: list<float>, default [1, 2, 4], in requests/s",
        "      request rates",
        "  by: string, optional",
        "  step  load        load.test",
        "  # rates         = [1, 2, 4]",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}: {shown}");
    }
    let entries = json(&folder.run(&["steps", "library", "--json"]));
    assert_eq!(entries[1]["name"], "library.open_loop");
    assert_eq!(entries[1]["file"], "library/serving.toml");
    assert_eq!(entries[1]["parts"][1]["uses"], "load.test");
    assert_eq!(entries[1]["options"][5]["default"], "none");
    let heading = "\n### `library.open_loop`\n";
    assert!(folder.run(&["steps", "--markdown"]).out.contains(heading));
    let below = |arguments: &[&str]| -> Said {
        let command = benchwright(&folder.path("below"), arguments).output();
        command.expect("the binary").into()
    };
    assert!(below(&["steps"]).out.contains("library.open_loop"));
    assert!(
        !below(&["steps", "--markdown"])
            .out
            .contains("library.open_loop")
    );
}

#[test]
fn a_family_is_listed_and_an_unknown_name_has_a_nearest_one() {
    let folder = Folder::new();
    let plots = folder.run(&["steps", "plot"]);
    assert_eq!(plots.code, Some(0));
    assert!(
        plots.out.contains("plot.lines") && !plots.out.contains("load.test"),
        "{}",
        plots.out
    );
    let said = folder.run(&["steps", "shel.run"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.err,
        "error: the library has no step, service or fragment `shel.run`\nhelp: did you mean `shell.run`?\n"
    );
}

#[test]
fn completions_know_the_commands() {
    for (shell, mark) in [
        ("bash", "complete -F _benchwright"),
        ("zsh", "#compdef benchwright"),
        ("fish", "complete -c benchwright"),
    ] {
        let said = Folder::new().run(&["completions", shell]);
        assert_eq!(said.code, Some(0));
        assert!(
            said.out.contains(mark) && said.out.contains("resume"),
            "{shell}"
        );
    }
}

#[test]
fn without_runs_the_status_says_how_to_make_one_and_a_resume_fails() {
    let folder = Folder::new();
    let said = folder.run(&["status"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (
            Some(0),
            "no runs in `outputs`; `benchwright run PLAN` makes one\n"
        )
    );
    assert_eq!(
        json(&folder.run(&["status", "--json"])),
        serde_json::json!([])
    );
    for command in ["resume", "report"] {
        let said = folder.run(&[command]);
        assert_eq!(
            (said.code, said.err.as_str()),
            (Some(1), "error: there are no runs in `outputs`\n"),
            "{command}"
        );
    }
    assert!(!folder.path("outputs").exists());
}

#[test]
fn a_server_without_a_model_or_a_port_says_so() {
    let folder = Folder::new();
    let said = folder.run(&["server", "--model-path", "nowhere", "--port", "0"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("`nowhere`"), "{}", said.err);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let said = folder.run(&["server", "--model-path", "nowhere", "--port", &port]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .starts_with(&format!("error: address 127.0.0.1:{port} is in use")),
        "{}",
        said.err
    );
}

#[test]
fn a_reader_that_goes_away_ends_nothing_badly() {
    let folder = Folder::new();
    let mut child = benchwright(&folder.path(""), &["steps", "--markdown"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().expect("its end"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn of_many_instances_that_are_left_out_a_few_are_shown_with_the_reason() {
    let folder = Folder::new();
    let text = r#"
[axes]
size = [1, 2, 3, 4, 5, 6]

[steps.echo]
use = "shell.run"
axes = ["size"]
when = "${axes.size} == 1"
with = { argv = ["echo"] }
"#;
    folder.plan("few", text);
    let said = folder.run(&["check", "few.toml"]);
    assert!(said.out.contains("echo[size=4]"), "{}", said.out);
    assert!(!said.out.contains("echo[size=5]"), "{}", said.out);
    assert!(said.out.contains("2 more of echo"), "{}", said.out);
    let said = folder.run(&["check", "few.toml", "--verbose"]);
    assert!(said.out.contains("echo[size=6]"), "{}", said.out);
    assert!(!said.out.contains("more of"), "{}", said.out);
}
