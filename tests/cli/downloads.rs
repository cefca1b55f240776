//! Data sets and models that are brought from elsewhere: once, whole, and with tokens that nobody sees.

use crate::folder::{Folder, Said, benchwright, wait_until};
use crate::hostile::{Luck, Reply, Server, ranged};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn record(folder: &Folder, step: &str) -> Value {
    let path = folder.path(&format!("outputs/latest/results/{step}/fetch.json"));
    serde_json::from_str(&fs::read_to_string(path).expect("a record")).expect("JSON")
}

fn ran(said: &Said) -> &str {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    &said.out
}

#[test]
fn a_data_set_is_brought_once_and_used_by_the_next_step() {
    let line = r#"{"id":"a","input_ids":[1,2,3],"input_tokens":3,"output_tokens":4}"#;
    let server =
        Server::start(move |asked, _| ranged(format!("{line}\n").as_bytes(), "\"1\"", asked));
    let folder = Folder::new();
    let text = format!(
        r#"
[steps.fetch]
use = "dataset.fetch"
with = {{ source = "{}" }}

[steps.requests]
use = "dataset.file"
with = {{ path = "${{steps.fetch.data}}" }}
"#,
        server.url("/trace.jsonl")
    );
    folder.plan("fetched", &text);
    let said = folder.run(&["run", "fetched.toml"]);
    let out = ran(&said);
    assert!(
        out.contains("1 file, 66 B; not pinned: write `sha256 = \""),
        "{out}"
    );
    assert!(
        out.contains("1 requests of 3 tokens") || out.contains("1 requests of 3"),
        "{out}"
    );
    let record = record(&folder, "fetch");
    assert_eq!(record["bytes"], 66);
    assert_eq!(record["files"][0]["path"], "trace.jsonl");
    let asked = server.asked().len();
    ran(&folder.run(&["run", "fetched.toml"]));
    assert_eq!(
        server.asked().len(),
        asked,
        "what is there is not asked for"
    );
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let whole = Luck(1).bytes(1 << 20);
    let served = whole.clone();
    let stalls = Arc::new(AtomicBool::new(true));
    let seen = stalls.clone();
    let server = Server::start(move |asked, n| {
        let reply = ranged(&served, "\"1\"", asked);
        match n > 0 && seen.load(Ordering::SeqCst) {
            true => reply.stalls_after(400_000),
            false => reply,
        }
    });
    let folder = Folder::new();
    let text = format!(
        "[steps.fetch]\nuse = \"dataset.fetch\"\nwith = {{ source = \"{}\" }}\n",
        server.url("/data.bin")
    );
    folder.plan("killed", &text);
    let running = folder.start(&["run", "killed.toml", "--json"]);
    let noted = || {
        let files = fs::read_dir(folder.path(".cache/downloads"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .into_iter()
            .any(|file| file.path().extension().is_some_and(|kind| kind == "json"))
    };
    wait_until("the download to note what came", noted);
    running.signal(Signal::KILL);
    running.finish();
    stalls.store(false, Ordering::SeqCst);
    let said = folder.run(&["run", "killed.toml"]);
    assert!(ran(&said).contains("of it from before"), "{}", said.out);
    let record = record(&folder, "fetch");
    let resumed = record["files"][0]["resumed_bytes"].as_u64();
    assert!(resumed.is_some_and(|bytes| bytes > 0), "{record}");
    let data = fs::read(folder.path("outputs/latest/results/fetch/data")).expect("a file");
    assert!(data == whole);
}

#[test]
fn a_model_comes_from_the_hub_and_its_token_is_nowhere() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let hub = Server::start(move |asked, _| {
        if asked.header("authorization") != Some("Bearer hf_verysecret") {
            return Reply::new(401, "");
        }
        let below = format!("/o/n/resolve/{commit}/");
        match asked.target.strip_prefix(&below) {
            Some("config.json") => ranged(b"{\"vocab_size\":9}", "\"1\"", asked),
            Some(_) => Reply::new(404, ""),
            None => Reply::new(
                200,
                serde_json::json!({ "sha": commit, "tags": ["license:apache-2.0"],
                    "siblings": [{ "rfilename": "config.json", "size": 16 }, { "rfilename": "a.bin", "size": 1 }] })
                .to_string(),
            ),
        }
    });
    let folder = Folder::new();
    let text = r#"
[steps.model]
use = "model.download"
with = { source = "hf:o/n", leave = ["*.bin"], token = "${secret.HF_TOKEN}" }
"#;
    folder.plan("model", text);
    let run = |token: &str| -> Said {
        let mut command = benchwright(&folder.path(""), &["run", "model.toml"]);
        command
            .env("HF_ENDPOINT", hub.url(""))
            .env("HF_TOKEN", token);
        command.output().expect("the binary").into()
    };
    let refused = run("hf_another");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("secret.HF_TOKEN") || refused.out.contains("secret.HF_TOKEN"),
        "{}{}",
        refused.out,
        refused.err
    );
    let said = run("hf_verysecret");
    let out = ran(&said);
    assert!(
        out.contains(&format!("not pinned: write `revision = \"{commit}\"`")),
        "{out}"
    );
    assert_eq!(record(&folder, "model")["licence"], "apache-2.0");
    assert_eq!(record(&folder, "model")["revision"], commit);
    let config = folder.path("outputs/latest/results/model/model/config.json");
    assert_eq!(
        fs::read_to_string(config).expect("a file"),
        "{\"vocab_size\":9}"
    );
    for secret in ["hf_verysecret", "hf_another"] {
        let found = Folder::containing(&folder.path(""), secret);
        assert!(found.is_empty(), "{found:?}");
        assert!(!said.out.contains(secret) && !refused.err.contains(secret));
    }
}

#[test]
fn archives_are_taken_apart_and_dangerous_ones_refused() {
    // An archive of one file that leads out of its folder, and one that does not.
    let tape = |name: &str| {
        let mut block = vec![0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(b"00000000003\0");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend(b"one");
        block.resize(512 * 4, 0);
        block
    };
    let (good, evil) = (tape("a/b.txt"), tape("../../escaped"));
    let server = Server::start(move |asked, _| match asked.target.as_str() {
        "/good.tar" => ranged(&good, "\"1\"", asked),
        _ => ranged(&evil, "\"2\"", asked),
    });
    let folder = Folder::new();
    for name in ["good", "evil"] {
        let text = format!(
            "[steps.{name}]\nuse = \"dataset.fetch\"\nwith = {{ source = \"{}\" }}\n",
            server.url(&format!("/{name}.tar"))
        );
        folder.plan(name, &text);
    }
    ran(&folder.run(&["run", "good.toml"]));
    let taken = folder.path("outputs/latest/results/good/data/a/b.txt");
    assert_eq!(fs::read_to_string(taken).expect("a file"), "one");
    assert_eq!(record(&folder, "good")["unpacked_files"], 1);
    let said = folder.run(&["run", "evil.toml"]);
    assert_eq!(said.code, Some(1));
    let told = format!("{}{}", said.out, said.err);
    assert!(told.contains("leads out of its folder by `..`"), "{told}");
    // What it holds is its own: a file that got out would be known by its name.
    assert_eq!(called(&folder.path(""), "escaped"), Vec::<PathBuf>::new());
    assert_eq!(
        called(&folder.path(""), "b.txt").len(),
        1,
        "it is looked for"
    );
}

/// Files and folders of a name, wherever they are below a folder.
fn called(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            found.push(path.clone());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(called(&path, name));
        }
    }
    found
}

#[test]
fn a_signed_address_stands_in_the_plan_and_nowhere_else() {
    let server = Server::start(move |asked, _| ranged(b"text", "\"1\"", asked));
    let folder = Folder::new();
    let text = format!(
        "[steps.fetch]\nuse = \"dataset.fetch\"\nwith = {{ source = \"{}\" }}\n",
        server.url("/data.txt?X-Amz-Signature=verysecret")
    );
    folder.plan("signed", &text);
    ran(&folder.run(&["run", "signed.toml"]));
    assert!(server.asked()[0].target.ends_with("verysecret"));
    let found = Folder::containing(&folder.path(""), "verysecret");
    let plans = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "toml");
    let others: Vec<_> = found.iter().filter(|path| !plans(path)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!found.is_empty(), "the plan itself");
}

#[test]
fn an_archive_that_cannot_be_taken_apart_does_not_cost_its_download() {
    let whole = Luck(2).bytes(200_000);
    let server = Server::start(move |asked, _| ranged(&whole, "\"1\"", asked));
    let folder = Folder::new();
    let plan = |name: &str, more: &str| {
        let text = format!(
            "[steps.fetch]\nuse = \"dataset.fetch\"\nwith = {{ source = \"{}\"{more} }}\n",
            server.url("/data.zip")
        );
        folder.plan(name, &text);
    };
    plan("apart", "");
    plan("whole", ", unpack = false");
    assert_eq!(folder.run(&["run", "apart.toml"]).code, Some(1));
    let asked = server.asked().len();
    ran(&folder.run(&["run", "whole.toml"]));
    assert_eq!(server.asked().len(), asked + 1, "whether it is the same");
    assert_eq!(
        record(&folder, "fetch")["files"][0]["resumed_bytes"],
        200_000
    );
}

#[test]
fn short_names_are_listed_with_licence_size_and_digest() {
    let folder = Folder::new();
    let said = folder.run(&["steps", "dataset"]);
    let out = ran(&said);
    for name in [
        "sharegpt",
        "ultrachat",
        "loogle_longdep_qa",
        "longbench_v2",
        "nextqa",
        "mooncake_conversation",
        "azure_2023_conv",
        "burstgpt_1",
    ] {
        assert!(
            out.lines().any(|line| line.trim_start().starts_with(name)),
            "{name}: {out}"
        );
    }
    let line = out
        .lines()
        .find(|line| line.trim_start().starts_with("sharegpt "))
        .expect("a line");
    for cell in ["apache-2.0", "641.6 MiB", "35f0e213ce09"] {
        assert!(line.contains(cell), "{cell}: {line}");
    }
    let said = folder.run(&["steps", "dataset.fetch", "--json"]);
    let entries: Value = serde_json::from_str(ran(&said)).expect("JSON");
    let names = entries[0]["names"].as_array().expect("names");
    assert!(
        names
            .iter()
            .any(|n| n["name"] == "sharegpt" && n["bytes"] == 672_837_942)
    );
}
