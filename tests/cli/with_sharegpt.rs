//! The ShareGPT records that PyPI has, whose file is cut off, through the whole path: what is taken of
//! them is counted here a second time, in the simplest way there is.

use super::folder::{Folder, Said};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is known of the file.
const BYTES: u64 = 125_509_632;
const WHOLE: usize = 17_671;
const WITH_TWO: usize = 17_400;

/// Control tokens of a generated vocabulary: one token each, also in the middle of a word.
const MARKERS: [&str; 7] = [
    "<unk>",
    "<eos>",
    "<pad>",
    "<system>",
    "<user>",
    "<assistant>",
    "<tool>",
];

#[derive(Deserialize)]
struct Record {
    conversations: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    from: String,
    value: String,
}

fn python(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("python3");
    // Nothing is written beside the sources.
    command
        .arg("-B")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let said = command.output().ok()?;
    said.status
        .success()
        .then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Where the data is; `cargo xtask test` fetches it, or says in one line that these tests are skipped.
fn data() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/sharegpt/fetch.py");
    let said = python(&[&script.display().to_string(), "--check"])?;
    Some(PathBuf::from(said.trim()))
}

/// The records that are whole: the text up to the last one's end, with the list closed behind it.
fn records(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).expect("the data");
    let end = text.rfind("\n  },\n").expect("a record") + "\n  }".len();
    serde_json::from_str(&format!("{}]", &text[..end])).expect("a list")
}

/// Tokens of a text, as a vocabulary of words has them.
fn tokens(text: &str) -> usize {
    let mut text = text.to_owned();
    for marker in MARKERS {
        text = text.replace(marker, &format!(" {marker} "));
    }
    text.split_whitespace().count()
}

/// The order into which Python puts a list of so many.
fn shuffled(n: usize) -> Vec<usize> {
    let script = format!(
        "import random; random.seed(42); l = list(range({n})); random.shuffle(l); print(*l)"
    );
    let said = python(&["-c", &script]).expect("python3");
    said.split_whitespace()
        .map(|i| i.parse().expect("a number"))
        .collect()
}

const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "BASE", set = { num_hidden_layers = 2, vocab_size = 8192 } }

[steps.of_2024]
use = "workload.sharegpt"
with = { source = "DATA", model = "${steps.model.dir}", conversations = 30000, rules = "2024", damaged = "recover" }

[steps.present]
use = "workload.sharegpt"
with = { source = "DATA", model = "${steps.model.dir}", conversations = 30000, damaged = "recover" }

[steps.sample]
use = "workload.sharegpt"
with = { source = "DATA", model = "${steps.model.dir}", conversations = 300, rules = "2024", damaged = "recover" }

[steps.talks]
use = "workload.sharegpt"
with = { source = "DATA", model = "${steps.model.dir}", conversations = 200, rules = "hicache", turns = "all", damaged = "recover" }

[steps.load]
use = "load.simulate"
with = { server = { model = [{ name = "m", model = "${steps.model.dir}" }], device_profile = "l4", args = { executor = "sim" } }, workload = "${steps.sample.workload}", request_rate = 20 }

[steps.rounds]
use = "load.simulate"
with = { server = { model = [{ name = "m", model = "${steps.model.dir}" }], device_profile = "l4", args = { executor = "sim" } }, workload = "${steps.talks.workload}", request_rate = 20, ready_queue = "strict" }
"#;

/// Writes a plan with the paths of the model and of the data in it.
fn plan(folder: &Folder, name: &str, text: &str, data: &Path) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    let text = text.replace("BASE", &base.display().to_string());
    folder.plan(name, &text.replace("DATA", &data.display().to_string()));
}

/// What a step has made.
fn made(folder: &Folder, step: &str) -> Vec<Value> {
    let path = folder.path(&format!("outputs/latest/results/{step}/workload.jsonl"));
    let text = std::fs::read_to_string(path).expect("a workload");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Prompts with their lengths, as they are told.
fn told(requests: &[Value]) -> Vec<(String, usize, usize)> {
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(0);
    let one = |r: &Value| {
        let text = r["text"].as_str().unwrap_or_default().to_owned();
        (
            text,
            number(&r["input_tokens"]),
            number(&r["output_tokens"]),
        )
    };
    requests.iter().map(one).collect()
}

fn assert_ran(said: &Said, line: &str) {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let all = format!("{}{}", said.out, said.err);
    assert!(all.contains(line), "no `{line}` in {all}");
}

#[test]
fn what_is_whole_of_the_file_is_taken_by_the_rules_that_are_named() {
    let Some(data) = data() else { return };
    let folder = Folder::new();
    plan(&folder, "sharegpt", PLAN, &data);
    let said = folder.run(&["run", "sharegpt.toml"]);
    // So few requests may have no steady state; that is degraded, and no failure.
    assert_ran(&said, "17671 whole records");
    let records = records(&data);
    assert_eq!(records.len(), WHOLE);
    let two: Vec<&Record> = records
        .iter()
        .filter(|r| r.conversations.len() >= 2)
        .collect();
    assert_eq!(two.len(), WITH_TWO);
    let pairs: Vec<(String, usize, usize)> = shuffled(two.len())
        .into_iter()
        .map(|at| {
            let said = &two[at].conversations;
            (
                said[0].value.clone(),
                tokens(&said[0].value),
                tokens(&said[1].value),
            )
        })
        .collect();
    let of_2024 = |(_, input, output): &&(String, usize, usize)| {
        *input >= 4 && *output >= 4 && *input <= 1024 && input + output <= 2048
    };
    let present = |(_, input, output): &&(String, usize, usize)| *input >= 2 && *output >= 2;
    let passed = |rule: &dyn Fn(&&(String, usize, usize)) -> bool| -> Vec<_> {
        pairs.iter().filter(|pair| rule(pair)).cloned().collect()
    };
    for (step, expected) in [("of_2024", passed(&of_2024)), ("present", passed(&present))] {
        let made = made(&folder, step);
        assert!(
            told(&made) == expected,
            "{step}: {} and {}",
            made.len(),
            expected.len()
        );
        let line = format!("only {} of 30000", expected.len());
        assert_ran(&said, &line);
    }
    let sample = made(&folder, "sample");
    assert!(told(&sample) == passed(&of_2024)[..300]);
    assert_turns(&records, &made(&folder, "talks"));
    assert_loads(&folder, &sample);
}

/// Whole conversations are those that a human begins, of an even number, without what is too short; their
/// turns come round by round.
fn assert_turns(records: &[Record], made: &[Value]) {
    let is_even =
        |said: &[Told]| said.len() >= 2 && said.len().is_multiple_of(2) && said[0].from == "human";
    let even: Vec<&Record> = records
        .iter()
        .filter(|r| is_even(&r.conversations))
        .collect();
    let talks = shuffled(even.len()).into_iter().map(|at| {
        let pairs = even[at].conversations.chunks(2);
        let counted = pairs.map(|pair| {
            let [said, answered] = pair else {
                panic!("a pair")
            };
            (
                said.value.clone(),
                tokens(&said.value),
                tokens(&answered.value),
            )
        });
        let counted = counted.filter(|(_, input, output)| *input >= 4 && *output >= 4);
        counted.collect::<Vec<_>>()
    });
    let talks: Vec<Vec<_>> = talks.filter(|talk| !talk.is_empty()).take(200).collect();
    let rounds = talks.iter().map(Vec::len).max().unwrap_or(0);
    let by_round = (0..rounds).flat_map(|i| talks.iter().filter_map(move |talk| talk.get(i)));
    let expected: Vec<_> = by_round.cloned().collect();
    assert!(
        told(made) == expected,
        "{} and {}",
        made.len(),
        expected.len()
    );
}

/// What was simulated of them asked for exactly these tokens.
fn assert_loads(folder: &Folder, sample: &[Value]) {
    let result = |step: &str| -> Value {
        let path = folder.path(&format!("outputs/latest/results/{step}/0/result.json"));
        let text = std::fs::read_to_string(path).expect("a result");
        serde_json::from_str(&text).expect("JSON")
    };
    let load = result("load");
    let value = |name: &str| load["rows"][0]["values"][name].as_f64();
    assert_eq!(value("completed"), Some(300.0));
    assert!(value("cache_hit_rate_ideal").is_some() && value("cache_hit_rate").is_some());
    let input: usize = told(sample).iter().map(|(_, input, _)| input).sum();
    let counted = load["details"]["metrics"]["counts"]["input_tokens"].as_u64();
    assert_eq!(counted, Some(input as u64));
    assert!(result("rounds")["rows"][0]["values"]["completed"].as_f64() > Some(200.0));
}

#[test]
fn a_file_that_is_cut_off_is_told_with_its_record_and_its_byte() {
    let Some(data) = data() else { return };
    let folder = Folder::new();
    let plan_without = PLAN.split("\n[steps.present]").next().unwrap_or_default();
    let refusing = plan_without.replace(", damaged = \"recover\"", "");
    plan(&folder, "refusing", &refusing, &data);
    let said = folder.run(&["run", "refusing.toml"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    let all = format!("{}{}", said.out, said.err);
    for part in [
        "record 17672, which begins at byte ",
        &format!("the file ends inside a text at byte {BYTES}"),
        "17671 records before it are whole",
        "damaged = \"recover\"",
    ] {
        assert!(
            all.replace('\n', " ").contains(part),
            "no `{part}` in {all}"
        );
    }
}
