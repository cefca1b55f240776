//! `docs/coming-from.md`: each line of its tables names something that is there.

use super::folder::Folder;
use serde_json::Value;
use std::path::Path;

/// A name in a list of a step or service: in its options or its outputs.
#[derive(Debug)]
struct Of {
    list: String,
    name: String,
    of: String,
}

/// What a line's right column says.
#[derive(Debug)]
enum Here {
    /// A plan and settings: it must be sound.
    Run(Vec<String>),
    /// An option or output of a step or service.
    Named(Of),
    /// A parameter of a plan.
    Param { name: String, plan: String },
    /// A measured value.
    Value(String),
    /// A flag of `benchwright server`.
    Flag(String),
    /// A file that ships.
    File(String),
    /// Nothing, and why.
    Nothing,
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn read(column: &str) -> Here {
    let names = quoted(column);
    if column.starts_with("nothing: ") {
        return Here::Nothing;
    }
    let kind = column.split(' ').next().unwrap_or_default();
    match (kind, &names[..]) {
        ("flag", [flag, of]) if of == "benchwright server" => Here::Flag(flag.clone()),
        ("file", [path]) => Here::File(path.clone()),
        ("parameter", [name, plan]) => Here::Param {
            name: name.clone(),
            plan: plan.clone(),
        },
        ("value", [name, of]) if of == "load.test" => Here::Value(name.clone()),
        ("option" | "output", [name, of]) => Here::Named(Of {
            list: format!("{kind}s"),
            name: name.clone(),
            of: of.clone(),
        }),
        (_, [command]) if command.starts_with("benchwright run ") => {
            Here::Run(command.split(' ').skip(2).map(str::to_owned).collect())
        }
        _ => panic!("no form that this test knows: `{column}`"),
    }
}

/// The names of the options or outputs of a step or service.
fn names(folder: &Folder, of: &str, what: &str) -> Vec<String> {
    let shown = said(folder, &["steps", of, "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let listed = shown[0][what].as_array().cloned().unwrap_or_default();
    let name = |one: &Value| one["name"].as_str().map(str::to_owned);
    listed.iter().filter_map(name).collect()
}

/// A load of a server of two models, in made-up time: its result has the values of `load.test`.
const LOAD: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "BASE", set = { num_hidden_layers = 2, vocab_size = 8192 } }

[steps.trace]
use = "workload.multi_model"
with = { models = [{ name = "a" }, { name = "b" }], request_rate = 2, duration = "5s", slo_e2el = "60s", input_range = [2, 9], output_range = [2, 9] }

[steps.load]
use = "load.simulate"
with = { server = { model = [{ name = "a", model = "${steps.model.dir}" }, { name = "b", model = "${steps.model.dir}" }], device_profile = "l4", args = { executor = "sim" } }, workload = "${steps.trace.workload}", arrivals = "listed" }
"#;

/// The names of what such a load measures.
fn values() -> Vec<String> {
    let folder = Folder::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    folder.plan("load", &LOAD.replace("BASE", &base.display().to_string()));
    // So few requests have no steady state; that is degraded, and no failure.
    said(&folder, &["run", "load.toml"]);
    let result = folder.path("outputs/latest/results/load/0/result.json");
    let result = std::fs::read_to_string(result).expect("a result");
    let result: Value = serde_json::from_str(&result).expect("JSON");
    let values = result["rows"][0]["values"].as_object().expect("values");
    values.keys().cloned().collect()
}

fn said(folder: &Folder, arguments: &[&str]) -> String {
    let said = folder.run(arguments);
    assert_eq!(
        said.code,
        Some(0),
        "{arguments:?}: {}{}",
        said.out,
        said.err
    );
    said.out
}

/// The cells of the lines of all tables.
fn rows(text: &str) -> Vec<[String; 2]> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let two = [cells.next(), cells.next()].map(|cell| cell.unwrap_or_default().to_owned());
        assert_eq!(cells.next(), None, "two columns: {line}");
        two
    });
    cells
        .filter(|[left, _]| left != "the script" && !left.starts_with("---"))
        .collect()
}

#[test]
fn every_line_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows(include_str!("../../docs/coming-from.md"));
    assert!(rows.len() > 40, "{}", rows.len());
    let folder = Folder::new();
    let help = said(&folder, &["server", "--help"]);
    let values = values();
    for [_, here] in &rows {
        match read(here) {
            Here::Run(words) => {
                let plan = root.join(&words[0]).display().to_string();
                let more = words[1..].iter().map(String::as_str);
                // Some are for machines with GPUs.
                let gpus = ["--set", "+resources.gpus=8"];
                let words = ["check", &plan].into_iter().chain(gpus).chain(more);
                let words: Vec<&str> = words.collect();
                said(&folder, &words);
            }
            Here::Named(Of { list, name, of }) => {
                let names = names(&folder, &of, &list);
                assert!(
                    names.contains(&name),
                    "no `{name}` in {list} of `{of}`: {names:?}"
                );
            }
            Here::Param { name, plan } => {
                let text = std::fs::read_to_string(root.join(&plan)).expect("a plan");
                assert!(
                    text.contains(&format!("\n{name} = {{ type = ")),
                    "no parameter `{name}` in `{plan}`"
                );
            }
            Here::Value(name) => {
                assert!(values.contains(&name), "no value `{name}`: {values:?}");
            }
            Here::File(path) => assert!(root.join(&path).is_file(), "no file `{path}`"),
            Here::Flag(flag) => assert!(help.contains(&flag), "no flag `{flag}`"),
            Here::Nothing => {}
        }
    }
}
