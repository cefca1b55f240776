//! What is kept between requests, and what clients are told of it.

use embedded_server::{ExecutorKind, ServerOptions, WritePolicy};
use serde_json::{Value, json};
use std::sync::mpsc::sync_channel;

use crate::client::{get, post, send};
use crate::fixture::{Server, poll};

const COMPLETIONS: &str = "/v1/completions";

/// `n` tokens that begin like no other `seed`'s.
fn prompt(seed: u32, n: u32) -> Vec<u32> {
    (0..n).map(|i| 7 + (seed * 97 + i * 5) % 400).collect()
}

fn body(prompt: &[u32], max_tokens: usize) -> Value {
    json!({ "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true })
}

/// The text of an answer, and the prompt tokens that were found in the cache.
async fn ask(server: &Server, body: &Value) -> (String, u64) {
    let answer = post(server.at, COMPLETIONS, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    let text = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    (text, cached.as_u64().unwrap())
}

#[tokio::test]
async fn usage_and_metrics_tell_what_was_cached() {
    let server = Server::start(|_| {}).await;
    let asked = body(&prompt(1, 40), 5);
    let (text, cached) = ask(&server, &asked).await;
    assert_eq!(cached, 0);
    // Whole blocks of 16 of all tokens but the last.
    assert_eq!(ask(&server, &asked).await, (text.clone(), 32));
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({ "include_usage": true });
    let events = post(server.at, COMPLETIONS, &streamed).await.events();
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 32);
    assert_eq!(server.metric("prompt_tokens_total").await, 120.0);
    assert_eq!(server.metric("cached_tokens_total").await, 64.0);
    assert!((server.metric("cache_hit_rate").await - 64.0 / 120.0).abs() < 1e-9);
    assert_eq!(server.metric("num_used_tokens").await, 0.0);
    // 40 prompt tokens and the four of five outputs that were computed.
    assert_eq!(server.metric("evictable_tokens").await, 32.0);
    let steps = get(server.at, "/forward_steps").await.json();
    let steps = steps["steps"].as_array().unwrap();
    let prefills = steps.iter().filter(|step| step["phase"] == "prefill");
    let n_computed: Vec<_> = prefills.map(|step| step["n_tokens"].as_u64()).collect();
    assert_eq!(n_computed, [Some(40), Some(8), Some(8)]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn sglang_s_own_route_tells_what_was_cached_of_each() {
    let server = Server::start(|_| {}).await;
    let first = prompt(1, 40);
    let (text, _) = ask(&server, &body(&first, 5)).await;
    let sampling = json!({ "max_new_tokens": 5, "temperature": 0, "ignore_eos": true });
    let one = json!({ "input_ids": first, "sampling_params": sampling });
    let answer = post(server.at, "/generate", &one).await.json();
    assert_eq!(answer["text"], text);
    let meta = &answer["meta_info"];
    assert_eq!(
        (&meta["prompt_tokens"], &meta["cached_tokens"]),
        (&json!(40), &json!(32))
    );
    let two = json!({ "input_ids": [first, prompt(9, 3)], "sampling_params": sampling,
                      "stream": true });
    let events = post(server.at, "/generate", &two).await.events();
    assert_eq!(events.len(), 5 + 5 + 1);
    let of = |index: u64| {
        events
            .iter()
            .rfind(|event| event["index"] == index)
            .unwrap()
    };
    assert_eq!(of(0)["text"], text);
    assert_eq!(of(0)["meta_info"]["cached_tokens"], 32);
    assert_eq!(of(1)["meta_info"]["cached_tokens"], 0);
    let reason = json!({ "type": "length", "length": 5 });
    assert_eq!(of(1)["meta_info"]["finish_reason"], reason);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_is_the_beginning_of_the_next_turn() {
    let server = Server::start(|_| {}).await;
    let first = prompt(2, 30);
    let (text, _) = ask(&server, &body(&first, 20)).await;
    let answer = server.tokenizer.encode(&text).unwrap();
    let turn = [first, answer, prompt(3, 5)].concat();
    // Of 30 and 20 tokens all but the last output were computed: three whole blocks.
    assert_eq!(ask(&server, &body(&turn, 3)).await.1, 48);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_flush_empties_the_cache() {
    let server = Server::start(|_| {}).await;
    let asked = body(&prompt(1, 40), 1);
    // By SGLang's name and by vLLM's.
    for path in ["/flush_cache", "/reset_prefix_cache"] {
        ask(&server, &asked).await;
        assert_eq!(post(server.at, path, &json!({})).await.status, 200);
        assert_eq!(server.metric("evictable_tokens").await, 0.0, "{path}");
        assert_eq!(ask(&server, &asked).await.1, 0, "{path}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_flush_with_patience_waits_for_the_last_request() {
    let (permit, permits) = sync_channel(256);
    let server = Server::start_gated(|_| {}, permits).await;
    let mut asked = body(&prompt(1, 40), 20);
    asked["stream"] = json!(true);
    let running = send(server.at, "POST", COMPLETIONS, &asked.to_string()).await;
    poll(async || server.metric("num_running_reqs").await == 1.0).await;
    let at = server.at;
    let flush = tokio::spawn(async move { get(at, "/flush_cache?timeout=60").await });
    drop(permit);
    assert_eq!(running.finish().await.events().last().unwrap(), "[DONE]");
    assert_eq!(flush.await.unwrap().status, 200);
    assert_eq!(server.metric("evictable_tokens").await, 0.0);
    let wrong = get(server.at, "/flush_cache?timeout=soon").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.error_message().contains("`timeout`: found `soon`"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_cache_that_is_off_keeps_nothing() {
    let server = Server::start(|options| options.disable_radix_cache = true).await;
    let asked = body(&prompt(1, 40), 5);
    let first = ask(&server, &asked).await;
    assert_eq!(ask(&server, &asked).await, first);
    assert_eq!(first.1, 0);
    let info = get(server.at, "/server_info").await.json();
    assert_eq!(info["cache"]["is_prefix_cached"], false);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_device_evicts_comes_back_from_the_host() {
    for policy in [WritePolicy::WriteThrough, WritePolicy::WriteBack] {
        let change = |options: &mut ServerOptions| {
            options.max_total_tokens = Some(96);
            options.enable_hierarchical_cache = true;
            options.hicache_write_policy = policy;
            options.hicache_bandwidth = Some(1e9);
        };
        let server = Server::start(change).await;
        let asked = body(&prompt(1, 60), 8);
        let (text, cached) = ask(&server, &asked).await;
        assert_eq!(cached, 0);
        ask(&server, &body(&prompt(2, 80), 8)).await;
        assert_eq!(ask(&server, &asked).await, (text, 48), "{policy:?}");
        assert!(server.metric("load_back_tokens_total").await > 0.0);
        assert!(server.metric("host_cached_tokens_total").await > 0.0);
        assert!(server.metric("evicted_tokens_total").await >= 64.0);
        assert_eq!(server.metric("hicache_host_total_tokens").await, 192.0);
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_ended_is_backed_up_before_the_next_request_comes() {
    let change = |options: &mut ServerOptions| options.enable_hierarchical_cache = true;
    let server = Server::start(change).await;
    let asked = body(&prompt(1, 40), 5);
    ask(&server, &asked).await;
    // Nothing runs, and no copy holds blocks any more.
    poll(async || server.metric("num_used_tokens").await == 0.0).await;
    assert_eq!(server.metric("backed_up_tokens_total").await, 32.0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_that_is_too_small_is_refused_by_name() {
    let folder = crate::fixture::model_folder();
    let options = ServerOptions {
        device_memory_bytes: Some(100_000),
        ..crate::fixture::options(folder.path())
    };
    let never = std::future::pending::<()>();
    let error = embedded_server::serve(options, never, |_| {}).await;
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("`device_memory_bytes`: 100000 does not hold"),
        "{message}"
    );
}

#[tokio::test]
async fn a_simulated_model_is_cached_and_loading_is_charged_to_its_step() {
    let change = |options: &mut ServerOptions| {
        options.executor = ExecutorKind::Sim;
        options.sim_steps = true;
        options.sim_bytes_per_token = Some(131_072);
        (options.sim_prefill_us, options.sim_tpot_ms) = (1.0, 0.01);
        options.max_total_tokens = Some(96);
        options.enable_hierarchical_cache = true;
        options.hicache_bandwidth = Some(1e9);
    };
    let server = Server::start(change).await;
    let asked = body(&prompt(1, 60), 8);
    let (text, _) = ask(&server, &asked).await;
    ask(&server, &body(&prompt(2, 80), 8)).await;
    assert_eq!(ask(&server, &asked).await, (text, 48));
    assert_eq!(server.metric("load_back_tokens_total").await, 48.0);
    let info = get(server.at, "/server_info").await.json();
    assert_eq!(info["executor"], "sim-steps");
    assert_eq!(info["simulated"], "sim, stated step times");
    let steps = get(server.at, "/forward_steps").await.json();
    let steps = steps["steps"].as_array().unwrap();
    let last = steps
        .iter()
        .rfind(|step| step["phase"] == "prefill")
        .unwrap();
    assert_eq!(last["n_tokens"], 12);
    // 48 tokens of 128 KiB at 1 GB/s.
    let transfer_ns = 48 * 131_072;
    assert!(last["duration_ns"].as_u64().unwrap() >= transfer_ns);
    server.stop().await.unwrap();
}
