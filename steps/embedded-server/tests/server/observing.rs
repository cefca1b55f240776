//! What the server says about itself agrees with what it did.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::client::{get, post};
use crate::fixture::{Server, VOCAB};

/// Two requests: 40 prompt tokens and 6 tokens, then 3 and 1.
async fn run_two(server: &Server) {
    for (n_prompt, max_tokens) in [(40, 6), (3, 1)] {
        let body = json!({ "prompt": vec![20; n_prompt], "max_tokens": max_tokens,
                           "temperature": 0, "ignore_eos": true });
        assert_eq!(post(server.at, "/v1/completions", &body).await.status, 200);
    }
}

fn sum<'a>(steps: impl Iterator<Item = &'a Value>, field: &str) -> u64 {
    steps.map(|step| step[field].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_step_log_accounts_for_every_token() {
    let server = Server::start(|options| options.chunked_prefill_size = Some(16)).await;
    run_two(&server).await;
    let page = get(server.at, "/forward_steps?since=0").await.json();
    let steps = page["steps"].as_array().unwrap();
    let of = |phase: &'static str| steps.iter().filter(move |step| step["phase"] == phase);
    // 40 tokens in chunks of 16, then 3.
    assert_eq!(of("prefill").count(), 4);
    assert_eq!(sum(of("prefill"), "n_tokens"), 43);
    assert_eq!(of("decode").count(), 5);
    assert_eq!(sum(of("decode"), "n_tokens"), 5);
    assert_eq!(sum(steps.iter(), "n_sampled"), 7);
    let contexts: Vec<_> = of("prefill").map(|step| &step["context_tokens"]).collect();
    assert_eq!(contexts, [16, 32, 40, 3]);
    assert_eq!(
        (page["next"].as_u64(), page["dropped"].as_u64()),
        (Some(9), Some(0))
    );
    for pair in steps.windows(2) {
        let end =
            ["start_ns", "duration_ns", "sampling_ns"].map(|name| pair[0][name].as_u64().unwrap());
        assert!(end.iter().sum::<u64>() <= pair[1]["start_ns"].as_u64().unwrap());
    }
    for step in steps {
        let operations = step["operations_ns"].as_object().unwrap();
        let total: u64 = operations.values().filter_map(Value::as_u64).sum();
        assert!(operations.len() == 7 && total > 0);
        assert!(total <= step["duration_ns"].as_u64().unwrap(), "{step}");
    }
    let rest = get(server.at, "/forward_steps?since=7").await.json();
    assert_eq!(rest["steps"].as_array().unwrap().len(), 2);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_add_up() {
    let server = Server::start(|_| {}).await;
    run_two(&server).await;
    let answer = get(server.at, "/metrics").await;
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    let mut values = HashMap::new();
    let mut kinds = HashMap::new();
    for line in answer.text().lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.contains("{model_name=\"tiny\""), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(
                values.insert(series.to_owned(), value).is_none(),
                "twice: {series}"
            );
        }
    }
    let value = |name: &str| values[&format!("sglang:{name}{{model_name=\"tiny\"}}")];
    assert_eq!(value("prompt_tokens_total"), 43.0);
    assert_eq!(value("generation_tokens_total"), 7.0);
    assert_eq!(value("num_requests_total"), 2.0);
    assert_eq!(value("cached_tokens_total"), 0.0);
    assert_eq!(
        value("num_running_reqs") + value("num_queue_reqs") + value("token_usage"),
        0.0
    );
    assert_eq!(value("time_to_first_token_seconds_count"), 2.0);
    assert_eq!(value("inter_token_latency_seconds_count"), 5.0);
    assert_eq!(value("e2e_request_latency_seconds_count"), 2.0);
    assert!(value("e2e_request_latency_seconds_sum") >= value("time_to_first_token_seconds_sum"));
    assert_eq!(kinds["sglang:time_to_first_token_seconds"], "histogram");
    assert_eq!(kinds["sglang:prompt_tokens_total"], "counter");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_describes_itself() {
    let server = Server::start(|options| {
        options.max_total_tokens = Some(1000);
        options.ignored_flags = vec!["--mem-fraction-static".to_owned()];
    })
    .await;
    let info = get(server.at, "/server_info").await.json();
    assert_eq!(info["executor"], "cpu");
    assert_eq!(info["vocab_size"], VOCAB);
    assert_eq!(info["max_total_num_tokens"], 992);
    assert_eq!(info["cache"]["n_blocks"], 62);
    // Two layers of keys and values, two heads of 16, four bytes each.
    assert_eq!(info["cache"]["bytes_per_token"], 2 * 2 * 2 * 16 * 4);
    assert_eq!(info["options"]["load_format"], "dummy-scaled");
    assert_eq!(info["ignored_flags"], json!(["--mem-fraction-static"]));
    assert_eq!(info["internal_states"][0]["last_gen_throughput"], 0.0);
    run_two(&server).await;
    let info = get(server.at, "/get_server_info").await.json();
    assert!(
        info["internal_states"][0]["last_gen_throughput"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    let models = get(server.at, "/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(models["data"][0]["max_model_len"], 256);
    assert_eq!(
        get(server.at, "/model_info").await.json()["is_generation"],
        true
    );
    server.stop().await.unwrap();
}
