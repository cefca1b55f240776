//! Launch lines of plans, as far as they say something, against those that are written down.
//!
//! `BENCHWRIGHT_BLESS=1` writes them anew; read them before committing.

use engine::expand::load;
use engine::params::Settings;
use engine::process::ProcessSpec;
use engine::service::{Launch, LaunchContext};
use engine::source::Sources;
use engine::step::Resolved;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR"));
    steps.parent().expect("the repository").to_owned()
}

/// What the service `server` of a plan would start.
///
/// # Errors
/// What is wrong with the plan.
fn processes(plan: &Path, set: &[(&str, &str)]) -> Result<Vec<ProcessSpec>, Vec<String>> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings = Settings {
        set: set.iter().map(pair).collect(),
        ..Settings::default()
    };
    let mut sources = Sources::default();
    let expanded = load(plan, &settings, &crate::library(), &mut sources);
    let messages =
        |p: Vec<engine::problem::Problem>| p.into_iter().map(|p| p.message).collect::<Vec<_>>();
    let graph = expanded.map_err(messages)?.graph;
    let named = ["server", "sglang"]
        .iter()
        .find_map(|name| graph.find(name));
    let server = named.expect("a server");
    let outputs = graph.order().iter();
    let outputs = outputs.map(|id| ((*id, "dir".to_owned()), PathBuf::from("MODEL")));
    let folder = tempfile::tempdir().expect("a folder");
    let context = LaunchContext {
        node: "server".to_owned(),
        folder: folder.path().to_owned(),
        resolved: Resolved {
            outputs: outputs.collect(),
            ..Resolved::default()
        },
        claims: BTreeMap::new(),
    };
    let service = &graph.service(server).expect("a service").service;
    match service.launch(&context).map_err(|e| vec![e.message])? {
        Launch::Process { spec, .. } => Ok(vec![spec]),
        Launch::Processes { specs, .. } => Ok(specs),
        Launch::External { .. } => Ok(Vec::new()),
    }
}

/// Flags whose value is a port.
const PORTS: [&str; 3] = ["--port", "--server-port", "--master-port"];

/// The words behind the model, numbers of ports left out.
fn words(spec: &ProcessSpec) -> String {
    let behind = spec.argv.iter().skip_while(|word| *word != "MODEL").skip(1);
    let mut is_port = false;
    let shown = behind.map(|word| {
        let was_port = std::mem::replace(&mut is_port, PORTS.contains(&word.as_str()));
        match word.strip_prefix("127.0.0.1:") {
            _ if was_port => "PORT".to_owned(),
            Some(_) => "127.0.0.1:PORT".to_owned(),
            None => word.clone(),
        }
    });
    shown.collect::<Vec<String>>().join(" ")
}

/// A plan that has what ships, on a machine with so many GPUs.
fn on_a_machine_with(n_gpus: usize, folder: &Path) -> PathBuf {
    let parts = [
        "deployments.toml",
        "library/model.toml",
        "library/serving.toml",
    ];
    let parts = parts.map(|part| root().join("plans").join(part));
    let gpus: Vec<String> = (0..n_gpus).map(|gpu| gpu.to_string()).collect();
    let text = format!(
        "schema = 1\nname = \"with-gpus\"\ninclude = {parts:?}\n[resources]\ngpus = {gpus:?}\n"
    );
    let plan = folder.join("plan.toml");
    fs::write(&plan, text).expect("a plan");
    plan
}

const DEPLOYMENTS: [&str; 5] = ["one", "tp8", "tp8ep8", "tp8ep8dp8", "tp16ep16"];

#[test]
fn every_combination_of_the_shipped_layers_has_the_launch_line_that_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = on_a_machine_with(16, folder.path());
    let mut found = String::new();
    for deploy in DEPLOYMENTS {
        for backend in ["fa3", "flashinfer", "torch_native"] {
            for optional in ["default", "nccl_all_reduce", "cpu"] {
                let set = [
                    ("deploy", deploy),
                    ("backend", backend),
                    ("optional", optional),
                ];
                for spec in processes(&plan, &set).expect("a sound plan") {
                    let (label, words) = (&spec.label, words(&spec));
                    found += &format!("{deploy} {backend} {optional}: {label}\n  {words}\n");
                }
            }
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/known/deployments.txt");
    if std::env::var_os("BENCHWRIGHT_BLESS").is_some() {
        fs::write(&golden, &found).expect("written");
    }
    let expected = fs::read_to_string(&golden).expect("launch lines");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn a_deployment_that_needs_more_gpus_than_there_are_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let needs = |n: usize, set: &[(&str, &str)]| {
        let told = processes(&on_a_machine_with(n, folder.path()), set);
        told.map(|specs| specs.len())
    };
    let refused = |message: &str| Err(vec![message.to_owned()]);
    let tp8 = [("deploy", "tp8"), ("backend", "fa3")];
    let words = "service `sglang` uses 8 GPUs, and the machine has 4";
    assert_eq!(needs(4, &tp8), refused(words));
    assert_eq!(needs(8, &tp8), Ok(1));
    let tp16 = [("deploy", "tp16ep16"), ("backend", "fa3")];
    let words = "service `sglang` uses 16 GPUs, and the machine has 8";
    assert_eq!(needs(8, &tp16), refused(words));
    assert_eq!(needs(16, &tp16), Ok(2));
    // One machine of two has half of them.
    let one_rank = [tp16[0], tp16[1], ("node_rank", "1"), ("master", "node-0")];
    assert_eq!(needs(8, &one_rank), Ok(1));
    let elsewhere = [("deploy", "tp8"), ("backend", "torch_native")];
    assert_eq!(needs(0, &elsewhere), Ok(1), "a CPU needs none");
}

/// Launch lines of a service with these options.
fn lines(uses: &str, options: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.toml");
    let text = format!(
        r#"
schema = 1
name = "t"
[resources]
gpus = ["0", "1", "2", "3"]
[steps.model]
use = "model.derive"
with = {{ base = "{}" }}
[services.server]
use = "{uses}"
with = {{ model = "${{steps.model.dir}}", {options} }}
[steps.load]
use = "load.warm"
with = {{ server = "${{services.server}}", requests = 1 }}
"#,
        root().join("model_conf/qwen2.5-0.5b").display()
    );
    fs::write(&plan, text).expect("a plan");
    let specs = processes(&plan, &[]).expect("a sound plan");
    specs.iter().map(words).collect()
}

#[test]
fn lmdeploy_is_launched_with_its_own_flags() {
    let options = r#"backend = "turbomind", served_model_name = "m", tp = 2, session_len = 4096, cache_max_entry_count = 0.5, cache_block_seq_len = 64, max_batch_size = 128, max_prefill_token_num = 8192, metrics = false, args = { quant_policy = 8, async = 0 }"#;
    assert_eq!(
        lines("server.lmdeploy", options),
        [
            "--server-name 127.0.0.1 --server-port PORT --model-name m --backend turbomind --session-len 4096 --cache-max-entry-count 0.5 --cache-block-seq-len 64 --tp 2 --max-batch-size 128 --max-prefill-token-num 8192 --disable-metrics --quant-policy 8 --async 0"
        ]
    );
    let options = "tp = 4, nodes = 2, enable_prefix_caching = true, flush_cache = false";
    let rank = |rank: u32| {
        format!(
            "--server-name 127.0.0.1 --server-port PORT --tp 4 --enable-prefix-caching --nnodes 2 --node-rank {rank} --dist-init-addr 127.0.0.1:PORT"
        )
    };
    assert_eq!(lines("server.lmdeploy", options), [rank(0), rank(1)]);
}

#[test]
fn trtllm_is_launched_with_flags_in_its_spelling_and_a_file() {
    let options = r#"backend = "pytorch", tp_size = 2, pp_size = 2, ep_size = 2, max_batch_size = 128, max_num_tokens = 8192, max_seq_len = 4096, kv_cache_free_gpu_memory_fraction = 0.8, enable_chunked_prefill = true, args = { log_level = "info", trust-remote-code = true }"#;
    let lines = lines("server.trtllm", options);
    let (line, file) = lines[0]
        .split_once(" --extra_llm_api_options ")
        .expect("a file");
    assert_eq!(
        line,
        "--host 127.0.0.1 --port PORT --backend pytorch --max_seq_len 4096 --kv_cache_free_gpu_memory_fraction 0.8 --tp_size 2 --pp_size 2 --ep_size 2 --max_batch_size 128 --max_num_tokens 8192 --enable_chunked_prefill"
    );
    assert!(
        file.ends_with("/llm_api_options.yaml --log_level info --trust_remote_code"),
        "{file}"
    );
}

#[test]
fn vllm_has_one_rank_that_serves_and_others_without_a_head() {
    let options = "tensor_parallel_size = 2, nodes = 2, args = { pipeline_parallel_size = 2 }";
    let lines = lines("server.vllm", options);
    let ranks = "--nnodes 2 --node-rank 0 --master-addr 127.0.0.1 --master-port PORT --pipeline-parallel-size 2";
    assert!(lines[0].ends_with(ranks), "{lines:?}");
    let ranks = "--nnodes 2 --node-rank 1 --master-addr 127.0.0.1 --master-port PORT --headless --pipeline-parallel-size 2";
    assert!(lines[1].ends_with(ranks), "{lines:?}");
    assert_eq!(lines.len(), 2);
}
