//! What results rest on: what is different has another name and another key, and what was changed
//! while a step ran is not taken for what was there before.

use crate::folder::Folder;
use std::fs;

#[test]
fn a_result_whose_input_was_changed_meanwhile_is_used_and_not_kept() {
    let folder = Folder::new();
    let script = folder.path("script.sh");
    let write = |text: &str| fs::write(&script, text).expect("a script");
    let plan = format!(
        r#"
[steps.make]
use = "shell.run"
with = {{ argv = ["sh", "{}"] }}

[steps.read]
use = "shell.run"
with = {{ argv = ["cat", "{{inputs.text}}/stdout.txt"], inputs = {{ text = "${{steps.make.files}}" }} }}
"#,
        script.display()
    );
    folder.plan("p", &plan);
    let edits_itself = "echo made; echo '# edited' >> \"$0\"\n";
    write(edits_itself);
    let said = folder.run(&["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let made = folder.path("outputs/latest/results/read/files/stdout.txt");
    assert!(
        said.err
            .contains("warning: the result of `make` is not kept for later runs: `"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(made).expect("a result"), "made\n");

    // The same text as before, of which no result is known.
    write(edits_itself);
    let said = folder.run(&["run", "p.toml", "--json"]);
    assert!(
        said.out.contains(r#""event":"finished","node":"make""#),
        "{}",
        said.out
    );

    // One that nobody changes is kept.
    write("echo made\n");
    for (finishes, word) in [(true, "first"), (false, "second")] {
        let said = folder.run(&["run", "p.toml", "--json"]);
        let found = said.out.contains(r#""event":"finished","node":"make""#);
        assert_eq!(found, finishes, "{word}: {}", said.out);
    }
}

#[test]
fn values_that_only_look_alike_have_names_of_their_own() {
    let folder = Folder::new();
    folder.plan(
        "p",
        r#"
[axes]
a = [1, "1", true, "true", "x,a=1", ""]
[steps.q]
use = "shell.run"
axes = ["a"]
with = { argv = ["echo", "v", "${axes.a}"] }
"#,
    );
    let said = folder.run(&["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    for name in [
        "q[a=1] ",
        "q[a=\"1\"] ",
        "q[a=true] ",
        "q[a=\"true\"] ",
        "q[a=\"x,a=1\"] ",
        "q[a=\"\"] ",
    ] {
        let n = said
            .out
            .lines()
            .filter(|line| line.starts_with(name))
            .count();
        assert_eq!(n, 1, "{name}: {}", said.out);
    }
    folder.plan(
        "named",
        "[axes]\n\"a b\" = [1]\n[steps.q]\nuse = \"shell.run\"\nwith = { argv = [\"true\"] }\n",
    );
    let said = folder.run(&["check", "named.toml"]);
    assert!(said.err.contains("`a b` cannot be a name"), "{}", said.err);
}

#[test]
fn the_share_of_the_machine_and_the_names_of_secrets_are_part_of_keys() {
    let folder = Folder::new();
    fs::write(folder.path("token"), "hf_secret").expect("a file");
    let plan = |gpus: u32, more: &str| {
        let text = format!(
            "[resources]\ngpus = 2\n[secrets]\nT = {{ file = \"token\" }}\nU = {{ file = \"token\" }}\n\
             [steps.q]\nuse = \"shell.run\"\nresources = {{ gpus = {gpus} }}\n\
             with = {{ argv = [\"sh\", \"-c\", \"true\"{more}] }}\n"
        );
        folder.plan("p", &text);
    };
    plan(1, r#", "${secret.T}""#);
    let said = folder.run(&["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let explained = || folder.run(&["explain", "p.toml"]).out;
    assert!(explained().contains("reused"), "{}", explained());
    plan(2, r#", "${secret.T}""#);
    assert!(
        explained().contains("resources.gpus: 1 → 2"),
        "{}",
        explained()
    );
    plan(1, r#", "${secret.U}""#);
    assert!(
        explained().contains("secret T → secret U"),
        "{}",
        explained()
    );
    plan(1, "");
    assert!(explained().contains("will run"), "{}", explained());
    assert!(!explained().contains("hf_secret"), "{}", explained());
}

#[test]
fn a_number_that_a_step_computes_stands_in_arguments_as_a_number() {
    let folder = Folder::new();
    let plan = |alpha: f64| {
        format!(
            r#"
[steps.share]
use = "workload.memory_fraction"
with = {{ models = 2, model = 0, alpha = {alpha} }}

[steps.serve]
use = "shell.run"
with = {{ argv = ["echo", "--mem-fraction-static=${{steps.share.fraction}}"] }}
"#
        )
    };
    let text = folder.path("outputs/latest/results/serve/files/stdout.txt");
    // 0.8·(1/2)^alpha; the number is part of what the second step rests on.
    for (alpha, expected) in [(1.0, "0.400000"), (2.0, "0.200000")] {
        folder.plan("p", &plan(alpha));
        let said = folder.run(&["run", "p.toml"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let wrote = fs::read_to_string(&text).expect("a result");
        assert_eq!(wrote, format!("--mem-fraction-static={expected}\n"));
    }
    folder.plan("p", &plan(2.0).replace("model = 0", "model = 2"));
    let said = folder.run(&["check", "p.toml"]);
    assert!(said.err.contains("there are 2 models"), "{}", said.err);
}
