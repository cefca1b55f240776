//! Workloads out of published data and traces, from small files of their forms to what was simulated.

use super::folder::Folder;
use serde_json::{Value, json};
use std::path::Path;

const MODEL: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "BASE", set = { num_hidden_layers = 2, vocab_size = 8192 } }
"#;

/// A load of the embedded server in made-up time.
fn load(name: &str, workload: &str, how: &str) -> String {
    format!(
        r#"
[steps.{name}]
use = "load.simulate"
with = {{ server = {{ model = [{{ name = "m", model = "${{steps.model.dir}}" }}], device_profile = "l4", args = {{ executor = "sim" }} }}, workload = "${{steps.{workload}.workload}}", {how} }}
"#
    )
}

fn folder(plan: &str, files: &[(&str, String)]) -> Folder {
    let folder = Folder::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    for (name, text) in files {
        std::fs::write(folder.path(name), text).expect("a file");
    }
    let plan = format!("{MODEL}{plan}").replace("BASE", &base.display().to_string());
    folder.plan("published", &plan);
    folder
}

/// Everything that a run said; it must have gone well.
fn ran(folder: &Folder) -> String {
    let said = folder.run(&["run", "published.toml"]);
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(0), "{all}");
    all
}

fn made(folder: &Folder, step: &str) -> Vec<Value> {
    let path = folder.path(&format!("outputs/latest/results/{step}/workload.jsonl"));
    let text = std::fs::read_to_string(path).expect("a workload");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn ids(requests: &[Value]) -> Vec<&str> {
    requests.iter().filter_map(|r| r["id"].as_str()).collect()
}

/// A measured value of a load.
fn value(folder: &Folder, load: &str, name: &str) -> Option<f64> {
    let path = folder.path(&format!("outputs/latest/results/{load}/0/result.json"));
    let text = std::fs::read_to_string(path).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    result["rows"][0]["values"][name].as_f64()
}

/// A text of so many words, none of which any other text has.
fn words(first: usize, n: usize) -> String {
    let syllable = |i: usize| {
        format!(
            "{}{}",
            b"bdfghjklmnprstvz"[i / 5 % 16] as char,
            b"aeiou"[i % 5] as char
        )
    };
    let word = |i: usize| format!("{}{}", syllable(i / 80), syllable(i));
    (first..first + n).map(word).collect::<Vec<_>>().join(" ")
}

fn lines(all: &[Value]) -> String {
    all.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn conversations_are_held_turn_by_turn() {
    let said = |first: usize| {
        let talk = |at: usize| {
            let from = ["human", "gpt"][at % 2];
            json!({"from": from, "value": words(first + 10 * at, 10)})
        };
        json!({"id": "x", "conversations": (0..4).map(talk).collect::<Vec<_>>()})
    };
    let odd = json!({"conversations": [{"from": "human", "value": words(900, 9)}]});
    let chat = |first: usize| {
        let data: Vec<String> = (0..4).map(|at| words(first + 10 * at, 10)).collect();
        json!({"id": 1, "data": data})
    };
    let plan = r#"
[steps.shared]
use = "workload.sharegpt"
with = { source = "sharegpt.json", model = "${steps.model.dir}", conversations = 2, rules = "hicache", turns = "all", shuffle = false }

[steps.chats]
use = "workload.ultrachat"
with = { source = "ultrachat.json", model = "${steps.model.dir}", conversations = 3, turns = "all", shuffle = false }
"#;
    let plan = plan.to_owned()
        + &load(
            "strict",
            "shared",
            "request_rate = 50, ready_queue = \"strict\"",
        )
        + &load(
            "rounds",
            "chats",
            "request_rate = 50, ready_queue = \"fifo\", round_barrier = true",
        );
    let sharegpt = json!([said(0), odd, said(100)]).to_string();
    let ultrachat = lines(&[chat(200), chat(300), json!({"data": ["a"]})]);
    let folder = folder(
        &plan,
        &[("sharegpt.json", sharegpt), ("ultrachat.json", ultrachat)],
    );
    let all = ran(&folder);
    assert!(all.contains("only 2 pass, so 1 are there again"), "{all}");
    assert_eq!(
        ids(&made(&folder, "shared")),
        [
            "sharegpt-0-0",
            "sharegpt-2-0",
            "sharegpt-0-1",
            "sharegpt-2-1"
        ]
    );
    assert_eq!(
        ids(&made(&folder, "chats"))[..4],
        [
            "ultrachat-0-0",
            "ultrachat-1-0",
            "ultrachat-0-again-1-0",
            "ultrachat-0-1"
        ]
    );
    // Of 10 + 30 prompt tokens of a conversation 20 were said before.
    let ideal = value(&folder, "strict", "cache_hit_rate_ideal").expect("an ideal");
    assert!((ideal - 0.5).abs() < 1e-9, "{ideal}");
    assert_eq!(value(&folder, "strict", "completed"), Some(4.0));
    // Of a conversation that is there again the first prompt comes whole a second time: 10 tokens more.
    let ideal = value(&folder, "rounds", "cache_hit_rate_ideal").expect("an ideal");
    assert!((ideal - 70.0 / 120.0).abs() < 1e-9, "{ideal}");
    assert_eq!(value(&folder, "rounds", "completed"), Some(6.0));
}

#[test]
fn documents_are_shared_by_the_questions_about_them() {
    let document = |first: usize, questions: &str| json!({"title": "t", "input": words(first, 100), "qa_pairs": questions, "output": "none"});
    let a = format!(
        "[{{'Q': '{}', 'A': 'a b'}}, {{'Q': '{}', 'A': \"it's\"}}]",
        words(1000, 5),
        words(1010, 5)
    );
    let file = lines(&[document(0, &a), document(200, "none")]);
    let step = |name: &str, questions: &str| {
        format!(
            r#"
[steps.{name}]
use = "workload.loogle"
with = {{ source = "loogle.jsonl", model = "${{steps.model.dir}}", documents = 2, questions = "{questions}", shuffle = false }}
"#
        )
    };
    let plan = step("prefix", "shared_prefix")
        + &step("talk", "multi_turn")
        + &load("load", "prefix", "concurrency = 1");
    let folder = folder(&plan, &[("loogle.jsonl", file)]);
    ran(&folder);
    let prefix = made(&folder, "prefix");
    assert_eq!(ids(&prefix), ["loogle-0-0", "loogle-0-1", "loogle-1-0"]);
    // `Input:` and `Question:` are a token each; the second question shares all before it.
    let told = |name: &str| -> Vec<_> { prefix.iter().map(|r| r[name].as_u64()).collect() };
    assert_eq!(told("input_tokens"), [Some(107), Some(107), Some(107 - 1)]);
    assert_eq!(told("cacheable_tokens"), [Some(0), Some(102), Some(1)]);
    // An answer of two words, one of one, and a summary of the first 1,024 characters.
    let summary = words(200, 100).chars().take(1024).collect::<String>();
    let summary = summary.split_whitespace().count() as u64;
    assert_eq!(told("output_tokens"), [Some(2), Some(1), Some(summary)]);
    let ideal = value(&folder, "load", "cache_hit_rate_ideal").expect("an ideal");
    assert!((ideal - 103.0 / 320.0).abs() < 1e-9, "{ideal}");
    let talk = made(&folder, "talk");
    assert_eq!(ids(&talk), ["loogle-0-0", "loogle-1-0", "loogle-0-1"]);
    assert_eq!(
        (&talk[2]["continues"], &talk[2]["input_tokens"]),
        (&json!(true), &json!(5))
    );
}

#[test]
fn traces_are_replayed_with_their_instants_lengths_and_blocks() {
    let line = |at: u64, input: u64, output: u64, blocks: &[u64]| json!({"timestamp": at, "input_length": input, "output_length": output, "hash_ids": blocks});
    let mooncake = lines(&[
        line(27_000, 1000, 4, &[1, 2]),
        line(30_000, 700, 0, &[1, 3]),
        line(28_500, 1100, 4, &[1, 2, 4]),
        line(31_000, 40_000, 4, &[1]),
    ]);
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,30,4\n2023-11-16 18:15:48,20,3\n";
    let plan = r#"
[steps.mooncake]
use = "workload.trace"
with = { source = "mooncake.jsonl", model = "${steps.model.dir}", context_length = 32000 }

[steps.azure]
use = "workload.trace"
with = { source = "azure.csv", model = "${steps.model.dir}" }

[steps.ids]
use = "workload.random_ids"
with = { model = "${steps.model.dir}", requests = 4, input_tokens = 20, output_tokens = 4, range_ratio = 0.0 }
"#;
    let plan = plan.to_owned() + &load("load", "mooncake", "arrivals = \"listed\", speed = 2.0");
    let files = [
        ("mooncake.jsonl", mooncake),
        ("azure.csv", azure.to_owned()),
    ];
    let folder = folder(&plan, &files);
    let all = ran(&folder);
    assert!(
        all.contains("1 left out without a prompt or an answer; 1 left out too long"),
        "{all}"
    );
    let trace = made(&folder, "mooncake");
    let told = |name: &str| -> Vec<_> { trace.iter().map(|r| r[name].as_f64()).collect() };
    assert_eq!(told("input_tokens"), [Some(1000.0), Some(1100.0)]);
    assert_eq!(told("arrival"), [Some(0.0), Some(1.5)]);
    // The second block of the first request is cut at 1,000 tokens.
    assert_eq!(told("cacheable_tokens"), [Some(0.0), Some(1000.0)]);
    let ideal = value(&folder, "load", "cache_hit_rate_ideal").expect("an ideal");
    assert!((ideal - 1000.0 / 2100.0).abs() < 1e-9, "{ideal}");
    let azure = made(&folder, "azure");
    assert_eq!(
        (&azure[1]["arrival"], &azure[1]["input_tokens"]),
        (&json!(1.5), &json!(20))
    );
    assert_eq!(made(&folder, "ids").len(), 4);
}

#[test]
fn mixed_conversations_and_chat_bodies_are_asked() {
    let body = |question: &str| {
        let system = json!({"role": "system", "content": words(0, 20)});
        let user = json!({"role": "user", "content": question});
        json!({"model": "m", "messages": [system, user], "max_tokens": 4, "stream": true})
    };
    let file = lines(&[body(&words(100, 5)), body(&words(200, 5))]);
    let plan = r#"
[steps.mixed]
use = "workload.mix"
with = { model = "${steps.model.dir}", conversations = 6, round_ratios = [1, 1], new_tokens = [40, 10], return_tokens = [5, 5] }

[steps.bodies]
use = "workload.chat"
with = { source = "bodies.jsonl", model = "${steps.model.dir}" }
"#;
    let mixed = "concurrency = 3, sessions = true, think_time = \"2s\"";
    let plan = plan.to_owned()
        + &load("users", "mixed", mixed)
        + &load("asked", "bodies", "concurrency = 1, protocol = \"chat\"");
    let folder = folder(&plan, &[("bodies.jsonl", file)]);
    ran(&folder);
    let turns = made(&folder, "mixed");
    assert_eq!(
        value(&folder, "users", "completed"),
        Some(turns.len() as f64)
    );
    assert!(value(&folder, "users", "cache_hit_rate_ideal").is_some());
    assert_eq!(value(&folder, "asked", "completed"), Some(2.0));
    let ideal = value(&folder, "asked", "cache_hit_rate_ideal").expect("an ideal");
    // Of twice 25 tokens the second 20 were said before.
    assert!(ideal > 0.0, "{ideal}");
    let told: Vec<_> = made(&folder, "bodies")
        .iter()
        .map(|r| (r["input_tokens"].as_u64(), r["cacheable_tokens"].as_u64()))
        .collect();
    assert_eq!(told, [(Some(25), Some(0)), (Some(25), Some(20))]);
}
