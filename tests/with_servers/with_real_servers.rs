//! Real SGLang and real vLLM on the CPU: installed, launched, warmed, reset, measured and torn down by this
//! project's own steps, and what was measured beside what they count themselves.
//!
//! The first run installs them into the user's cache, which takes minutes; each launch takes about one.

use crate::world::{Finished, World, wait_for};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than installing an engine, or four launches, takes on a busy machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(2400);

pub(crate) fn foreign(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_servers/foreign");
    folder.join(name)
}

/// The folder of uv, if `script` finds that its engines can run here; `cargo xtask test` fetches it, or says in
/// one line that these tests are skipped.
pub(crate) fn uv(script: &str) -> Option<String> {
    let mut check = Command::new("python3");
    check.arg("-B").arg(foreign(script)).arg("--check");
    let said = check.stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    said.status.success().then_some(folder)
}

pub(crate) fn run(world: &World, uv: &str, plan: &Path) -> Finished {
    let mut command = world.command(&["run", plan.to_str().expect("a path")]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{uv}:{path}"));
    world.run_within(LONGEST, command)
}

/// A step that installs an engine.
pub(crate) fn engine(lock: &str) -> String {
    let lock = foreign(lock).display().to_string();
    format!(
        "[steps.engine]\nuse = \"env.python\"\ntimeout = {{ run = \"40m\" }}\nwith = {{ lock = \"{lock}\", python = \"3.11\", installer = \"uv\" }}\n"
    )
}

/// Installs an engine, and makes what lets it run without CUDA; returns the variables for that.
pub(crate) fn installed(world: &World, uv: &str, lock: &str) -> String {
    let plan = world.plan(&engine(lock));
    let finished = run(world, uv, &plan);
    assert_eq!(finished.code(), 0, "{}", finished.said());
    let told = world
        .out()
        .join("latest/results/engine/environment/environment.json");
    let told: Value = serde_json::from_str(&fs::read_to_string(told).expect("told")).expect("JSON");
    let id = told["id"].as_str().expect("an id");
    let site = cache()
        .join("environments")
        .join(id)
        .join("lib/python3.11/site-packages");
    let to = world.path("without_cuda");
    let mut made = Command::new("python3");
    made.arg("-B")
        .arg(foreign("without_cuda.py"))
        .arg(site)
        .arg(&to);
    assert!(made.status().expect("Python").success());
    let to = to.display();
    format!("LD_LIBRARY_PATH = \"{to}/lib\", PYTHONPATH = \"{to}/python\"")
}

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    var("BENCHWRIGHT_CACHE_DIR")
        .or_else(|| Some(var("XDG_CACHE_HOME")?.join("benchwright")))
        .or_else(|| Some(var("HOME")?.join(".cache/benchwright")))
        .expect("a home")
}

/// A plan that warms, empties and measures a server of a model of two layers; `before` is its axes and
/// `service` what serves. Of each prompt 256 of 272 tokens are those of its group. The model is one of Llama:
/// transformers 5 takes its own tokenizer for `qwen2`, whatever the folder has.
fn plan(
    world: &World,
    lock: &str,
    before: &str,
    service: &str,
    (verify, profile): (&str, &str),
) -> PathBuf {
    let engine = engine(lock);
    world.plan(&format!(
        r#"
{before}
{engine}
[steps.model]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ model_type = "llama", architectures = ["LlamaForCausalLM"], num_hidden_layers = 2, vocab_size = 4096, hidden_size = 256, intermediate_size = 512, num_attention_heads = 4, num_key_value_heads = 2, bos_token_id = 0, eos_token_id = 1, max_position_embeddings = 4096 }} }}

[steps.prompts]
use = "workload.shared_prefix"
with = {{ model = "${{steps.model.dir}}", groups = 2, requests_per_group = 4, system_tokens = 256, question_tokens = 16, output_tokens = 8 }}

{service}

[steps.warm]
use = "load.warm"
with = {{ server = "${{services.server}}", requests = 2, output_tokens = 4 }}

[steps.reset]
use = "server.reset"
after = ["warm"]
with = {{ server = "${{services.server}}", verify = "{verify}" }}

[steps.load]
use = "load.test"
after = ["reset"]
with = {{ server = "${{services.server}}", workload = "${{steps.prompts.workload}}", concurrency = 2, calibration = "none" }}

[steps.profile]
use = "profile.server"
after = ["load"]
with = {{ server = "${{services.server}}", workload = "${{steps.prompts.workload}}", concurrency = 2, steps = 4, warm_requests = 2, {profile} }}
"#
    ))
}

/// The result of the one load whose instance has `part` in its name.
pub(crate) fn result(world: &World, part: &str) -> Value {
    result_of(world, "load", part)
}

/// The same of any step.
fn result_of(world: &World, step: &str, part: &str) -> Value {
    let results = fs::read_dir(world.out().join("latest/results")).expect("results");
    let names = results.flatten().map(|entry| entry.path());
    let mut loads = names.filter(|path| {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        name.starts_with(step) && name.contains(part)
    });
    let load = loads.next();
    let load = load.unwrap_or_else(|| panic!("no {step} `{part}`"));
    let text = fs::read_to_string(load.join("0/result.json")).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn value(result: &Value, name: &str) -> f64 {
    let value = result["rows"][0]["values"][name].as_f64();
    value.unwrap_or_else(|| panic!("no `{name}` in {}", result["rows"][0]["values"]))
}

/// Options of a kind of server that are no flags of its own.
const NO_FLAGS: [&str; 13] = [
    "model",
    "environment",
    "command",
    "port",
    "nodes",
    "node_rank",
    "master",
    "profiler",
    "metrics",
    "args",
    "env",
    "inherit",
    "flush_cache",
];

/// Every option of a kind is a flag that the engine, asked by `words` for its help, lists; so is each of `further`.
fn holds_flags(world: &World, uses: &str, words: &[&str], further: &[&str]) {
    let told = world
        .out()
        .join("latest/results/engine/environment/environment.json");
    let told: Value = serde_json::from_str(&fs::read_to_string(told).expect("told")).expect("JSON");
    let id = told["id"].as_str().expect("an id");
    let bin = cache().join("environments").join(id).join("bin");
    let mut help = Command::new(bin.join(words[0]));
    help.args(&words[1..]).stderr(Stdio::null());
    help.env("LD_LIBRARY_PATH", world.path("without_cuda/lib"));
    help.env("PYTHONPATH", world.path("without_cuda/python"));
    help.env("SGLANG_USE_CPU_ENGINE", "1")
        .env("HF_HUB_OFFLINE", "1");
    let help = help.output().expect("its help");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("--load-format"), "no help of {uses}: {help}");
    let mut steps = Command::new(env!("CARGO_BIN_EXE_benchwright"));
    let steps = steps
        .args(["steps", uses, "--json"])
        .output()
        .expect("options");
    let steps: Value = serde_json::from_slice(&steps.stdout).expect("JSON");
    let options = steps[0]["options"].as_array().expect("options").iter();
    let options = options.filter_map(|option| option["name"].as_str());
    let own = options.filter(|name| !NO_FLAGS.contains(name));
    for name in own.chain(further.iter().copied()) {
        let flag = format!("--{}", name.replace('_', "-"));
        let listed = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        assert!(
            help.split(listed).any(|word| word == flag),
            "{uses}: no {flag}"
        );
    }
}

/// Everything was answered as asked, and the server's own counts are those of the records.
fn holds(result: &Value) {
    assert!((value(result, "completed") - 8.0).abs() < f64::EPSILON);
    let counted = [
        ("server_prompt_tokens", 8.0 * 272.0),
        ("server_output_tokens", 8.0 * 8.0),
        ("server_cache_hit_rate", value(result, "cache_hit_rate")),
    ];
    for (name, expected) in counted {
        let found = value(result, name);
        assert!(
            (found - expected).abs() < 1e-9,
            "{name}: {found}, {expected}"
        );
    }
    let reasons = result["details"]["verdict"]["reasons"].as_array();
    let reasons = reasons.expect("reasons");
    assert!(
        reasons.iter().all(|reason| reason["check"] != "applied"),
        "{reasons:?}"
    );
}

/// A profile holds traces of one process, of each of these stages, with operators that took all of the time.
fn holds_a_profile(world: &World, part: &str, stages: &[Option<&str>]) {
    let result = result_of(world, "profile", part);
    assert_eq!(result["details"]["window"]["steps_asked"], 4, "{result}");
    assert_eq!(
        result["details"]["window"]["closed"], "by itself",
        "{result}"
    );
    let files = result["details"]["files"].as_array().expect("files");
    let found: Vec<Option<&str>> = files.iter().map(|file| file["stage"].as_str()).collect();
    assert_eq!(found, stages, "{files:?}");
    for file in files {
        assert!(file["events"].as_u64() > Some(100), "{file}");
        assert!(file["bytes"].as_u64() > Some(0), "{file}");
    }
    let rows = result["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["labels"]["name"].as_str())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("aten::")),
        "{names:?}"
    );
    let shares: f64 = rows
        .iter()
        .filter_map(|row| row["values"]["share"].as_f64())
        .sum();
    let n = stages.len() as f64;
    assert!(shares > 0.5 * n && shares < n + 1e-9, "{shares}");
}

/// No process has this world in its environment any more: servers rename themselves.
pub(crate) fn assert_nothing_left(world: &World) {
    let mine = world.path("").display().to_string();
    wait_for("every process of the server to be gone", || {
        let mut all = fs::read_dir("/proc").expect("/proc").flatten();
        let is_mine = |entry: &fs::DirEntry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&mine)
        };
        (!all.any(|entry| is_mine(&entry))).then_some(())
    });
}

#[test]
fn sglang_is_measured_and_its_cache_is_really_switched() {
    let Some(uv) = uv("engines.py") else {
        return;
    };
    let world = World::new();
    let variables = installed(&world, &uv, "sglang.lock");
    // Those of the layers that ship, and of the arms of a cache.
    let further = [
        "nnodes",
        "node_rank",
        "dist_init_addr",
        "enable_metrics",
        "enable_cache_report",
        "attention_backend",
        "device",
        "disable_chunked_prefix_cache",
        "disable_cuda_graph",
        "disable_custom_all_reduce",
        "disable_overlap_schedule",
        "dp_size",
        "enable_dp_attention",
        "enable_dp_lm_head",
        "ep_size",
        "log_level",
        "max_prefill_tokens",
        "trust_remote_code",
        "enable_torch_compile",
    ];
    let words = ["python", "-m", "sglang.launch_server", "--help"];
    holds_flags(&world, "server.sglang", &words, &further);
    let axes = "[axes]\ndisable_radix_cache = [false, true]\nschedule_policy = [\"fcfs\", \"lpm\"]\nexclude = [{ disable_radix_cache = true, schedule_policy = \"lpm\" }]";
    let service = format!(
        r#"[services.server]
use = "server.sglang"
axes = ["disable_radix_cache", "schedule_policy"]
with = {{ model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", load_format = "dummy", mem_fraction_static = 0.05, max_total_tokens = 65536, disable_radix_cache = "${{axes.disable_radix_cache}}", schedule_policy = "${{axes.schedule_policy}}", args = {{ device = "cpu", attention_backend = "torch_native", disable_overlap_schedule = true, disable_cuda_graph = true }}, env = {{ SGLANG_USE_CPU_ENGINE = "1", {variables} }} }}"#
    );
    let how = ("if_possible", "by_stage = true");
    let plan = plan(&world, "sglang.lock", axes, &service, how);
    let finished = run(&world, &uv, &plan);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_nothing_left(&world);
    for (part, disabled, policy) in [
        (
            "disable_radix_cache=false,schedule_policy=fcfs",
            "false",
            "fcfs",
        ),
        (
            "disable_radix_cache=false,schedule_policy=lpm",
            "false",
            "lpm",
        ),
        (
            "disable_radix_cache=true,schedule_policy=fcfs",
            "true",
            "fcfs",
        ),
    ] {
        let result = result(&world, part);
        holds(&result);
        holds_a_profile(&world, part, &[Some("DECODE"), Some("EXTEND")]);
        let target = &result["target"];
        assert_eq!(target["version"], "0.5.23", "{part}");
        assert_eq!(target["server.disable_radix_cache"], disabled, "{part}");
        assert_eq!(target["server.schedule_policy"], policy, "{part}");
        let cached = value(&result, "server_cached_tokens");
        // The first of each group finds nothing but what all prompts begin with, and two run at once.
        match disabled {
            "true" => assert!(cached.abs() < f64::EPSILON, "{part}: {cached}"),
            _ => assert!(cached >= 4.0 * 256.0, "{part}: {cached}"),
        }
    }
}

#[test]
fn vllm_is_measured_beside_its_own_counts() {
    let Some(uv) = uv("engines.py") else {
        return;
    };
    let world = World::new();
    let variables = installed(&world, &uv, "vllm.lock");
    let further = [
        "nnodes",
        "node_rank",
        "master_addr",
        "master_port",
        "headless",
        "enable_prompt_tokens_details",
        "profiler_config",
        "pipeline_parallel_size",
        "data_parallel_size",
        "kv_offloading_size",
        "kv_offloading_backend",
    ];
    let words = ["vllm", "serve", "--help=all"];
    holds_flags(&world, "server.vllm", &words, &further);
    let service = format!(
        r#"[services.server]
use = "server.vllm"
with = {{ model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", load_format = "dummy", max_model_len = 2048, max_num_seqs = 16, enforce_eager = true, profiler = true, env = {{ VLLM_CPU_KVCACHE_SPACE = "1", {variables} }} }}"#
    );
    let how = ("required", "by_stage = false");
    let plan = plan(&world, "vllm.lock", "", &service, how);
    let finished = run(&world, &uv, &plan);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_nothing_left(&world);
    let result = result(&world, "load");
    holds(&result);
    assert_eq!(result["target"]["version"], "0.32.0");
    holds_a_profile(&world, "profile", &[None]);
    // It keeps whole blocks of 128 tokens: two of each prefix.
    let cached = value(&result, "server_cached_tokens");
    assert!(cached >= 4.0 * 256.0, "{cached}");
}

/// A plan that launches a server of a model of two layers, with weights that are not in the page cache, once for
/// each sample.
fn cold_plan(world: &World, lock: &str, service: &str) -> PathBuf {
    let engine = engine(lock);
    world.plan(&format!(
        r#"
{engine}
[steps.shape]
use = "model.derive"
with = {{ base = "MODEL_CONF/qwen2.5-0.5b", set = {{ model_type = "llama", architectures = ["LlamaForCausalLM"], num_hidden_layers = 2, vocab_size = 4096, hidden_size = 256, intermediate_size = 512, num_attention_heads = 4, num_key_value_heads = 2, bos_token_id = 0, eos_token_id = 1, max_position_embeddings = 4096 }} }}

[steps.model]
use = "model.weights"
with = {{ model = "${{steps.shape.dir}}", dtype = "bf16" }}

{service}

[steps.cold]
use = "server.cold_start"
with = {{ server = "${{services.server}}", weights = "${{steps.model.dir}}" }}
"#
    ))
}

/// Runs such a plan; what its log says of weights is among what was seen.
fn starts_cold(world: &World, uv: &str, plan: &Path, told: &[&str]) {
    let finished = run(world, uv, plan);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    assert_nothing_left(world);
    let text = fs::read_to_string(world.out().join("latest/results/cold/0/result.json"));
    let result: Value = serde_json::from_str(&text.expect("a result")).expect("JSON");
    crate::cold_starts::assert_stages(&result, told);
}

#[test]
fn sglang_starts_from_weights_that_are_not_cached() {
    let Some(uv) = uv("engines.py") else {
        return;
    };
    let world = World::new();
    let variables = installed(&world, &uv, "sglang.lock");
    let service = format!(
        r#"[services.server]
use = "server.sglang"
with = {{ model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", load_format = "safetensors", mem_fraction_static = 0.05, max_total_tokens = 65536, args = {{ device = "cpu", attention_backend = "torch_native", disable_overlap_schedule = true, disable_cuda_graph = true }}, env = {{ SGLANG_USE_CPU_ENGINE = "1", {variables} }} }}"#
    );
    let plan = cold_plan(&world, "sglang.lock", &service);
    starts_cold(&world, &uv, &plan, &["weights_ms", "model_told_ms"]);
}

#[test]
fn vllm_starts_from_weights_that_are_not_cached() {
    let Some(uv) = uv("engines.py") else {
        return;
    };
    let world = World::new();
    let variables = installed(&world, &uv, "vllm.lock");
    let service = format!(
        r#"[services.server]
use = "server.vllm"
with = {{ model = "${{steps.model.dir}}", environment = "${{steps.engine.environment}}", load_format = "safetensors", max_model_len = 2048, max_num_seqs = 16, enforce_eager = true, env = {{ VLLM_CPU_KVCACHE_SPACE = "1", {variables} }} }}"#
    );
    let plan = cold_plan(&world, "vllm.lock", &service);
    // On processors it does not tell how long the model took, as it does on GPUs.
    let told = ["weights_ms", "weights_told_ms"];
    starts_cold(&world, &uv, &plan, &told);
}
