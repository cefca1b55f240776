//! Loads in made-up time: the same every time, and ended when that is asked.

use crate::folder::Folder;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A load of this kind on two models of one device.
fn plan(folder: &Folder, load: &str) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    let base = base.display();
    let text = format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "{base}", set = {{ num_hidden_layers = 2, vocab_size = 8192 }} }}

[steps.prompts]
use = "dataset.random"
with = {{ model = "${{steps.model.dir}}", requests = 60, input_tokens = 16, output_tokens = 8 }}

[steps.load.with]
server = {{ model = [{{ name = "a", model = "${{steps.model.dir}}" }}, {{ name = "b", model = "${{steps.model.dir}}" }}], device_profile = "l4", args = {{ executor = "sim" }} }}
workload = "${{steps.prompts.workload}}"
concurrency = 3
{load}

[steps.load]
use = "load.simulate"
"#
    );
    folder.plan("load", &text);
}

/// Everything that a new sample of the load leaves, by its place.
fn sample(folder: &Folder) -> BTreeMap<String, Vec<u8>> {
    let said = folder.run(&["run", "load.toml", "--fresh"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.path("outputs/latest/results/load/0")];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => {
                    let bytes = fs::read(&path).expect("a file");
                    files.insert(path.display().to_string(), bytes);
                }
            }
        }
    }
    files
}

#[test]
fn samples_of_one_load_are_equal_to_the_byte() {
    let folder = Folder::new();
    plan(&folder, "");
    let (once, again) = (sample(&folder), sample(&folder));
    assert!(once.len() >= 6, "{:?}", once.keys());
    let names: Vec<&String> = once.keys().collect();
    assert_eq!(names, again.keys().collect::<Vec<_>>());
    let other: Vec<&String> = names
        .into_iter()
        .filter(|n| once[*n] != again[*n])
        .collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn a_load_that_is_interrupted_ends() {
    let folder = Folder::new();
    // Of so much time nobody waits for the end.
    plan(&folder, "duration = \"10000h\"\nreuse = \"cycle\"");
    let run = folder.start(&["run", "load.toml", "--json"]);
    run.wait_for("started", "load");
    run.signal(Signal::INT);
    let said = run.finish();
    assert_eq!(said.code, Some(130), "{}{}", said.out, said.err);
}
