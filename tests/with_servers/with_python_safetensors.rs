//! Python's safetensors, each version that is measured, beside our own readers: the same bits for every type and
//! length, and loads in the same rounds.

use crate::with_real_servers::foreign;
use crate::world::{Finished, LIMIT, World};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERSIONS: [&str; 2] = ["0.8.0", "0.9.0rc1"];
/// What numpy has a type for, by itself or through `ml_dtypes`: name and bytes of an element.
const TYPES: [(&str, usize); 16] = [
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("I64", 8),
    ("U64", 8),
    ("I32", 4),
    ("U32", 4),
    ("I16", 2),
    ("U16", 2),
    ("I8", 1),
    ("U8", 1),
    ("BOOL", 1),
    ("C64", 8),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
];
/// Lengths that meet the ends of pages in every way: 0, 8, 256 and 4095 beyond one.
const LENGTHS: [usize; 4] = [4096, 4104, 4352, 8191];

/// The folder of the wheels, if they can be used here; `cargo xtask test` fetches them, or says that this is
/// skipped.
fn wheels() -> Option<PathBuf> {
    let mut check = Command::new("python3");
    check.arg("-B").arg(foreign("safetensors_wheels.py"));
    let said = check.arg("--check").stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    said.status.success().then(|| PathBuf::from(folder))
}

/// Writes a file of safetensors with these tensors: name, type, shape, bytes.
fn write(path: &Path, metadata: Value, tensors: &[(String, &str, Vec<usize>, usize)]) {
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut at = 0;
    for (name, dtype, shape, bytes) in tensors {
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes] });
        header.insert(name.clone(), entry);
        at += bytes;
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    // Bytes that are 0 or 1 are sound for every type, BOOL among them; no two tensors are alike.
    let bit = |i: usize| u8::from((i.wrapping_mul(2_654_435_761) >> 13) & 1 == 1);
    file.extend((0..at).map(bit));
    fs::write(path, file).expect("a checkpoint");
}

/// A checkpoint of two shards with tensors of every length and type, an empty one, one without dimensions, and
/// a tied one.
fn checkpoint(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    let bytes = |n: usize| (format!("u8_{n}"), "U8", vec![n], n);
    let mut first: Vec<_> = LENGTHS.into_iter().map(bytes).collect();
    first.insert(0, ("empty".to_owned(), "F32", vec![0, 4], 0));
    let tied = json!({ "tied": "u8_8191" });
    write(
        &folder.join("model-00001-of-00002.safetensors"),
        tied,
        &first,
    );
    let typed =
        |(name, size): (&'static str, usize)| (name.to_lowercase(), name, vec![3, 5], 15 * size);
    // From the widest, so that each begins at a multiple of its size.
    let mut second: Vec<_> = TYPES.into_iter().map(typed).collect();
    second.sort_by_key(|(_, _, _, bytes)| std::cmp::Reverse(*bytes));
    second.insert(0, ("scalar".to_owned(), "F64", vec![], 8));
    write(
        &folder.join("model-00002-of-00002.safetensors"),
        json!({}),
        &second,
    );
    let of = |file: &str, tensors: &[(String, &str, Vec<usize>, usize)]| {
        let names: Vec<_> = tensors.iter().map(|t| (t.0.clone(), json!(file))).collect();
        names
    };
    let mut map = Map::from_iter(of("model-00001-of-00002.safetensors", &first));
    map.insert("tied".to_owned(), json!("model-00001-of-00002.safetensors"));
    map.extend(of("model-00002-of-00002.safetensors", &second));
    let index = json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).expect("an index");
}

/// A step that builds an environment from the wheels alone.
fn environment(world: &World, wheels: &Path, name: &str, requirements: &str) -> String {
    let index = world.path("index");
    fs::create_dir_all(&index).expect("a folder");
    let (index, wheels) = (index.display(), wheels.display());
    format!(
        "[steps.{name}]\nuse = \"env.python\"\nwith = {{ requirements = [{requirements}], installer = \"pip\", index = \"file://{index}\", find_links = [\"{wheels}\"] }}\n\n"
    )
}

fn environments(world: &World, wheels: &Path) -> String {
    let one = |(at, version): (usize, &&str)| {
        let requirements =
            format!("\"safetensors=={version}\", \"numpy\", \"ml_dtypes\", \"blake3\"");
        environment(world, wheels, &format!("python_{at}"), &requirements)
    };
    VERSIONS.iter().enumerate().map(one).collect()
}

fn run(world: &World, plan: &str) -> Finished {
    let plan = world.plan(plan);
    let command = world.command(&["run", plan.to_str().expect("a path")]);
    world.run_within(LIMIT, command)
}

fn read(world: &World, path: &str) -> Value {
    let path = world.out().join("latest/results").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Digests of what Python loads, by an environment of the last run.
fn loaded_by_python(world: &World, step: &str, folder: &Path, backend: &str) -> Value {
    let told = read(world, &format!("{step}/environment/environment.json"));
    let id = told["id"].as_str().expect("an id");
    let python = cache().join("environments").join(id).join("bin/python");
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("steps/src/checkpoint/safetensors_loads.py");
    let mut command = Command::new(python);
    command.arg("-B").arg(foreign("loaded_digests.py"));
    let said = command.arg(program).arg(folder).arg(backend).output();
    let said = said.expect("its Python");
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{step} {backend}: {errors}");
    serde_json::from_slice(&said.stdout).expect("JSON")
}

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    var("BENCHWRIGHT_CACHE_DIR")
        .or_else(|| Some(var("XDG_CACHE_HOME")?.join("benchwright")))
        .or_else(|| Some(var("HOME")?.join(".cache/benchwright")))
        .expect("a home")
}

#[test]
fn every_tensor_has_the_same_bits_and_loads_in_the_same_rounds() {
    let Some(wheels) = wheels() else { return };
    let world = World::new();
    let model = world.path("model");
    checkpoint(&model);
    let environments = environments(&world, &wheels);
    let folder = model.display();
    let plan = format!(
        r#"{environments}
[steps.store]
use = "checkpoint.convert"
with = {{ checkpoint = "{folder}", to = "store" }}

[steps.digests]
use = "checkpoint.verify"
with = {{ checkpoint = "{folder}" }}

[steps.load]
use = "checkpoint.load"
with = {{ checkpoints = ["{folder}", "${{steps.store.dir}}"], loaders = ["buffered", "safetensors"], python = ["${{steps.python_0.environment}}", "${{steps.python_1.environment}}"], rounds = 3, state = "page_cache", order = "cached", baseline = "safetensors 0.8.0" }}
"#
    );
    let finished = run(&world, &plan);
    // Beside other tests a page may be gone: such a load is rejected.
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let ours = read(&world, "digests/digests.json");
    for step in ["python_0", "python_1"] {
        for backend in ["", "mmap", "pread"] {
            let theirs = loaded_by_python(&world, step, &model, backend);
            let theirs = theirs.as_object().expect("tensors");
            assert_eq!(theirs.len(), 2 + LENGTHS.len() + TYPES.len(), "{step}");
            for (name, digest) in theirs {
                assert_eq!(*digest, ours[name]["blake3"], "{name} by {step} {backend}");
            }
        }
    }
    // Python has a tied tensor under one of its names, we under both.
    assert_eq!(ours["tied"]["blake3"], ours["u8_8191"]["blake3"]);
    let result = read(&world, "load/0/result.json");
    assert_rounds(&result);
    world.assert_nothing_left();
}

fn assert_rounds(result: &Value) {
    let n_rejected = result["details"]["rejected"].as_array().map_or(0, Vec::len);
    let rows = result["rows"].as_array().expect("rows");
    // Three rounds of two formats by one, and of safetensors by two.
    assert_eq!(rows.len() + n_rejected, 3 * (2 + 2), "{result}");
    for row in rows {
        let values = &row["values"];
        let loader = row["labels"]["loader"].as_str().expect("a loader");
        let is_python = loader.starts_with("safetensors 0.");
        assert_eq!(values["read_ms"].is_null(), is_python, "{row}");
        assert!(
            values["total_ms"].as_f64().is_some_and(|ms| ms > 0.0),
            "{row}"
        );
        if loader == "safetensors 0.8.0" {
            assert_eq!(values["speedup"], 1.0, "{row}");
            // An interpreter with numpy, not this process.
            assert!(
                values["peak_memory"].as_f64().is_some_and(|gb| gb > 0.01),
                "{row}"
            );
        }
    }
    let notes = result["notes"].to_string();
    for version in VERSIONS {
        let left_out = format!("`safetensors {version}` reads no store and was left out of");
        assert!(notes.contains(&left_out), "{notes}");
    }
}

#[test]
fn an_environment_without_the_package_is_told_of_by_what_its_python_said() {
    let Some(wheels) = wheels() else { return };
    let world = World::new();
    let model = world.path("model");
    checkpoint(&model);
    let environment = environment(&world, &wheels, "python", "\"numpy\"");
    let folder = model.display();
    let plan = format!(
        r#"{environment}
[steps.load]
use = "checkpoint.load"
with = {{ checkpoints = ["{folder}"], loaders = ["safetensors"], python = ["${{steps.python.environment}}"] }}
"#
    );
    let finished = run(&world, &plan);
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    assert!(said.contains("No module named 'safetensors'"), "{said}");
    assert!(
        said.contains("the environment needs `safetensors` and `numpy`"),
        "{said}"
    );
    world.assert_nothing_left();
}
