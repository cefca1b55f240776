//! Checkpoints: made, converted, replicated and loaded by the real binary, on whatever disk tests have.

use crate::folder::{Folder, Said, benchwright};
use serde_json::Value;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// The result of a step's only sample. Beside other tests a page may stay where it should be evicted: such a load
/// is rejected, and told with its reason.
fn result(folder: &Folder, step: &str) -> Value {
    json(&folder.path(&format!("outputs/latest/results/{step}/0/result.json")))
}

fn n_loads(result: &Value) -> usize {
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    count(&result["rows"]) + count(&result["details"]["rejected"])
}

fn run(folder: &Folder, plan: &str, variant: &[&str]) {
    let mut arguments = vec!["run", plan];
    arguments.extend(variant);
    let said = folder.run(&arguments);
    assert!(matches!(said.code, Some(0 | 3)), "{}{}", said.out, said.err);
}

#[test]
fn the_quick_plan_loads_both_formats_and_shows_the_ceiling_beside() {
    let folder = Folder::new();
    let plan = root().join("plans/loading/quick.toml");
    run(
        &folder,
        &plan.display().to_string(),
        &["--variant", "smoke"],
    );
    let cold = result(&folder, "cold");
    assert_eq!(n_loads(&cold), 3 * 2 * 3, "{cold}");
    assert_eq!(cold["target"]["state"], "guest_cold");
    for row in cold["rows"].as_array().expect("rows") {
        let values = &row["values"];
        let value = |name: &str| {
            values[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name}: {row}"))
        };
        assert!(value("resident_before") <= 0.001, "{row}");
        assert!(value("total_ms") >= value("read_ms"), "{row}");
        assert!(value("total_ms") >= value("first_tensor_ms"), "{row}");
        assert!(
            value("ceiling") > 0.0 && value("tensor_data") > 0.03,
            "{row}"
        );
    }
    let warm = result(&folder, "warm");
    assert_eq!(n_loads(&warm), 3 * 2, "{warm}");
    for chart in ["latency", "distribution", "rate", "warm_rate", "stages"] {
        let path = folder.path(&format!("outputs/latest/results/{chart}/chart/chart.svg"));
        assert!(path.exists(), "{}", path.display());
    }
    let same = folder.path("outputs/latest/results/same/digests.json");
    assert!(
        json(&same)
            .as_object()
            .is_some_and(|tensors| tensors.len() > 20)
    );
}

#[test]
fn replicas_are_loaded_in_turn_into_every_kind_of_memory() {
    let folder = Folder::new();
    let base = root().join("model_conf/qwen2.5-0.5b");
    let replicas = folder.path("replicas");
    let (base, replicas) = (base.display(), replicas.display());
    let load = |name: &str, options: &str| {
        format!(
            "[steps.{name}]\nuse = \"checkpoint.load\"\nwith = {{ replicas = [\"${{steps.three.replicas}}\"], rounds = 3, {options} }}\n"
        )
    };
    let text = format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "{base}", set = {{ num_hidden_layers = 1, vocab_size = 512, hidden_size = 448, intermediate_size = 512 }} }}

[steps.checkpoint]
use = "model.weights"
with = {{ model = "${{steps.model.dir}}", shard_size = 0.001 }}

[steps.three]
use = "checkpoint.replicate"
with = {{ checkpoint = "${{steps.checkpoint.dir}}", folder = "{replicas}", count = 3 }}

{}{}{}{}"#,
        load(
            "ring",
            r#"loaders = ["buffered", "direct", "io_uring"], mode = "ring", block = 1, ring = 8"#
        ),
        load(
            "fresh",
            r#"loaders = ["mmap", "direct"], memory = "first_touch""#
        ),
        load(
            "pool",
            r#"loaders = ["direct"], state = "host_pool", pool = 0.01"#
        ),
        load(
            "warm",
            r#"loaders = ["buffered"], state = "page_cache", order = "cached", baseline = "buffered""#
        ),
    );
    folder.plan("loads", &text);
    run(&folder, "loads.toml", &[]);
    for (step, loads) in [("ring", 9), ("fresh", 6), ("pool", 3), ("warm", 3)] {
        let result = result(&folder, step);
        assert_eq!(n_loads(&result), loads, "{step}: {result}");
    }
    let pool = result(&folder, "pool");
    let first = &pool["rows"][0]["values"];
    assert_eq!(first["read_ms"], 0.0, "{pool}");
    assert!(
        first["copy_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{pool}"
    );
    assert_eq!(result(&folder, "warm")["rows"][0]["values"]["speedup"], 1.0);
    // The replicas are gone, and the loads are drawn anew: they are made again.
    std::fs::remove_dir_all(folder.path("replicas")).expect("the replicas");
    run(&folder, "loads.toml", &["--fresh"]);
    assert!(
        folder
            .path("replicas/replica-2/model.safetensors.index.json")
            .exists()
    );
}

#[test]
fn a_load_to_a_gpu_ends_before_anything_is_loaded_where_no_driver_is() {
    let folder = Folder::new();
    let model = folder.path("model");
    std::fs::create_dir(&model).expect("a folder");
    // No checkpoint at all, which would be told of if anybody looked.
    std::fs::write(model.join("model.safetensors"), b"nothing").expect("a file");
    let plan = "[steps.load]\nuse = \"checkpoint.load\"\nwith = { checkpoints = [\"model\"], loaders = [\"direct\"], to = \"cuda:0\" }\n";
    folder.plan("gpu", plan);
    let said = benchwright(&folder.path("."), &["run", "gpu.toml"]).output();
    let said: Said = said.expect("the binary").into();
    assert_eq!(said.code, Some(1), "{}", said.out);
    let all = said.out + &said.err;
    // A machine with a driver looks at the checkpoint.
    let expected = ["no CUDA driver here", "has only 7 bytes"];
    assert!(expected.iter().any(|text| all.contains(text)), "{all}");
    assert_eq!(
        all.contains(expected[0]),
        all.contains("or write `to = \"host\"`"),
        "{all}"
    );
}

#[test]
fn folders_of_others_are_not_touched_and_damaged_checkpoints_are_told_of() {
    let folder = Folder::new();
    let theirs = folder.path("theirs");
    let model = folder.path("model");
    for path in [&theirs, &model] {
        std::fs::create_dir(path).expect("a folder");
    }
    std::fs::write(theirs.join("thesis.txt"), "all of it").expect("a file");
    let header = r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([1, 2, 3, 4]);
    std::fs::write(model.join("model.safetensors"), &bytes).expect("a checkpoint");
    let replicate = format!(
        "[steps.two]\nuse = \"checkpoint.replicate\"\nwith = {{ checkpoint = \"model\", folder = \"{}\", count = 2 }}\n",
        theirs.display()
    );
    folder.plan("replicate", &replicate);
    let refused = |plan: &str| -> Said {
        let said = benchwright(&folder.path("."), &["run", plan]).output();
        said.expect("the binary").into()
    };
    let said = refused("replicate.toml");
    assert_eq!(said.code, Some(1), "{}", said.out);
    let all = said.out + &said.err;
    assert!(all.contains("nothing is written to it"), "{all}");
    assert_eq!(std::fs::read_dir(&theirs).expect("the folder").count(), 1);
    bytes.pop();
    std::fs::write(model.join("model.safetensors"), &bytes).expect("a checkpoint");
    let load = "[steps.load]\nuse = \"checkpoint.load\"\nwith = { checkpoints = [\"model\"], loaders = [\"buffered\"] }\n";
    folder.plan("load", load);
    let said = refused("load.toml");
    assert_eq!(said.code, Some(1), "{}", said.out);
    let all = said.out + &said.err;
    let problem = "has 3 bytes of data, and its header asks for 4";
    assert!(all.contains(problem), "{all}");
}

/// The words that a list of the Job's file has, which is also JSON.
fn words(text: &str, key: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    let list = line.unwrap_or_else(|| panic!("no `{key}`"));
    serde_json::from_str(list).expect("a list of words")
}

#[test]
fn the_job_of_kubernetes_runs_a_plan_that_is_sound() {
    let job = std::fs::read_to_string(root().join("plans/loading/kubernetes.yaml"));
    let job = job.expect("a file that ships");
    let arguments = words(&job, "args: ");
    // `sh -c SCRIPT NAME ARGUMENT…`: the script hands all of them on.
    assert!(arguments[0].starts_with("benchwright \"$@\";"), "{job}");
    let (verb, rest) = arguments[2..].split_first().expect("arguments");
    assert_eq!(verb, "run");
    let plan = root().join(&rest[0]).display().to_string();
    let folder = Folder::new();
    let mut check = vec!["check", &plan];
    check.extend(rest[1..].iter().map(String::as_str));
    let said = folder.run(&check);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let storage = rest.iter().find_map(|word| word.strip_prefix("storage="));
    let below = storage.expect("where replicas are made");
    let mounted = job.lines().any(|line| {
        let path = line.trim().strip_prefix("- { name: models, mountPath: ");
        path.is_some_and(|path| below.starts_with(path.trim_end_matches(" }")))
    });
    assert!(mounted, "{below} is on no volume of the Job");
}

#[test]
fn smoke_variants_sum_up_what_was_loaded() {
    for (plan, summaries) in [
        ("random", &["summary"][..]),
        ("cached", &["summary", "pool_summary"]),
    ] {
        let folder = Folder::new();
        let path = root().join(format!("plans/loading/{plan}.toml"));
        let path = path.display().to_string();
        let storage = format!("storage={}", folder.path("replicas").display());
        let mut variant = vec!["--variant", "smoke"];
        if plan == "random" {
            variant.extend(["--set", &storage]);
        }
        let said = folder.run(&[&["run", &path][..], &variant].concat());
        // Beside other tests a page may stay where it should be evicted; a summary of no load fails.
        if said.code == Some(3) {
            continue;
        }
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        for name in summaries {
            let at = folder.path(&format!("outputs/latest/results/{name}"));
            let text = std::fs::read_to_string(at.join("summary.txt")).expect("a text");
            assert!(text.starts_with("qwen2.5-0.5b\n"), "{text}");
            let summary = json(&at.join("summary.json"));
            assert!(summary[0]["mean_s"].as_f64().is_some_and(|s| s > 0.0));
            let loads = json(&at.join("loads.json"));
            let is_told = |load: &Value| load["loading_time"].as_f64() > Some(0.0);
            let loads = loads.as_array().expect("a list");
            assert!(loads.len() >= 3 && loads.iter().all(is_told), "{loads:?}");
        }
    }
}

#[test]
fn a_store_folder_whose_tail_was_lost_is_refused() {
    let folder = Folder::new();
    let store = folder.path("store");
    std::fs::create_dir(&store).expect("a folder");
    // As the store's own writer leaves it on some file systems: the index is whole, and a file ends before.
    let index = r#"{"a":[0,4096,[4096],[1],"torch.int8"],"b":[4096,904,[904],[1],"torch.int8"]}"#;
    std::fs::write(store.join("tensor_index.json"), index).expect("an index");
    let plan = |loaders: &str| {
        format!(
            "[steps.load]\nuse = \"checkpoint.load\"\nwith = {{ checkpoints = [\"{}\"], loaders = [{loaders}], rounds = 1 }}\n",
            store.display()
        )
    };
    folder.plan("tail", &plan(r#""buffered", "direct""#));
    for bytes in [0, 4096, 4992] {
        std::fs::write(store.join("tensor.data_0"), vec![7; bytes]).expect("a file");
        let said = folder.run(&["run", "tail.toml"]);
        assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
        let text = format!("where its partitions have {bytes}: they were cut off");
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(&text), "{all}");
    }
    std::fs::write(store.join("tensor.data_0"), vec![7; 5000]).expect("a file");
    run(&folder, "tail.toml", &[]);
    assert_eq!(n_loads(&result(&folder, "load")), 2);
}
