//! What the plans of `plans/hicache` show, in made-up time: a cache that suffices finds what can be
//! found, longest prefix first is early for most and late for some, and a host tier beats eviction.

use crate::folder::Folder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What loads of servers measured that differ in their caches; `arms` are rows of name,
/// policy, host tier and tokens of the cache.
fn loads(
    workload: &str,
    load: &str,
    arms: &[(&str, &str, bool, u32)],
) -> Vec<BTreeMap<String, f64>> {
    let folder = Folder::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    let base = base.display();
    let mut text = format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "{base}", set = {{ num_hidden_layers = 2, vocab_size = 8192 }} }}

[steps.requests]
{workload}
"#
    );
    for (name, policy, host, capacity) in arms {
        text += &format!(
            r#"
[steps.{name}.with]
server = {{ model = "${{steps.model.dir}}", schedule_policy = "{policy}", enable_hierarchical_cache = {host}, page_size = 1, hicache_ratio = 2, hicache_bandwidth = 25, max_total_tokens = {capacity}, max_running_requests = 32, args = {{ executor = "sim", sim_steps = true, sim_prefill_us = 200, sim_tpot_ms = 8, sim_bytes_per_token = 131072 }} }}
workload = "${{steps.requests.workload}}"
{load}

[steps.{name}]
use = "load.simulate"
"#
        );
    }
    folder.plan("loads", &text);
    let said = folder.run(&["run", "loads.toml"]);
    // A crowd has no steady state; that is degraded, and no failure.
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let values = |(name, ..): &(&str, &str, bool, u32)| {
        let path = folder.path(&format!("outputs/latest/results/{name}/0/result.json"));
        let result = std::fs::read_to_string(path).expect("a result");
        let result: Value = serde_json::from_str(&result).expect("JSON");
        let values = result["rows"][0]["values"].as_object().expect("values");
        let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
        values.iter().filter_map(number).collect()
    };
    arms.iter().map(values).collect()
}

#[test]
fn a_cache_that_suffices_finds_what_can_be_found() {
    let workload = r#"use = "workload.multi_turn"
with = { model = "${steps.model.dir}", conversations = 48, rounds = 5, input_tokens = 128, output_tokens = 16 }"#;
    let load = "request_rate = 16\nready_queue = \"random\"";
    let arms = [
        ("fcfs", "fcfs", false, 69_120),
        ("host", "lpm", true, 13_824),
    ];
    for found in loads(workload, load, &arms) {
        let (hits, ideal) = (found["cache_hit_rate"], found["cache_hit_rate_ideal"]);
        assert!((hits - ideal).abs() < 0.02, "{hits} of {ideal}");
    }
}

#[test]
fn longest_prefix_first_is_early_for_most_and_late_for_some() {
    let workload = r#"use = "workload.shared_prefix"
with = { model = "${steps.model.dir}", groups = 24, requests_per_group = 24, alpha = 0.1, system_tokens = 512, question_tokens = 32, output_tokens = 16 }"#;
    // A client of a server that listens is never back in no time.
    let load = "concurrency = 96\nthink_time = \"2ms\"\nthink = \"exponential\"";
    let capacity = 4915;
    let arms = [
        ("fcfs", "fcfs", false, capacity),
        ("lpm", "lpm", false, capacity),
        ("host", "lpm", true, capacity),
    ];
    let found = loads(workload, load, &arms);
    let [fcfs, lpm, host] = &found[..] else {
        panic!("{found:?}")
    };
    for name in ["ttft_mean_ms", "ttft_p50_ms"] {
        assert!(lpm[name] < fcfs[name] && host[name] < lpm[name], "{name}");
    }
    assert!(lpm["ttft_p99_ms"] > fcfs["ttft_p99_ms"]);
    let throughput = "request_throughput_whole";
    assert!(host[throughput] > lpm[throughput]);
}
