//! The executor `sim` as the twin of a device that is not there.

use std::path::PathBuf;

use embedded_server::{ExecutorKind, ServerOptions, serve};
use serde_json::json;

use crate::client::{get, post};
use crate::fixture::{Server, model_folder, options};

/// A server on a device, of the tiny model unless `change` says otherwise.
fn on(device: &str, change: impl FnOnce(&mut ServerOptions)) -> impl FnOnce(&mut ServerOptions) {
    let device = device.to_owned();
    move |options| {
        options.executor = ExecutorKind::Sim;
        options.device_profile = Some(device);
        change(options);
    }
}

/// What such a server is refused with.
async fn refusal(change: impl FnOnce(&mut ServerOptions)) -> String {
    let folder = model_folder();
    let mut options = options(folder.path());
    change(&mut options);
    let never = std::future::pending::<()>();
    let refused = serve(options, never, |_| {}).await;
    refused.unwrap_err().to_string()
}

#[tokio::test]
async fn memory_is_the_device_s_less_the_weights_and_sizes_are_the_model_s() {
    let weights = 9_600_000_000;
    let change = on("l4", |options| options.sim_weight_bytes = Some(weights));
    let server = Server::start(change).await;
    let info = get(server.at, "/server_info").await.json();
    assert_eq!(info["executor"], "sim-steps");
    assert_eq!(info["simulated"], "sim, device l4, illustrative");
    // Keys and values of two layers of two heads of 16, two bytes each.
    assert_eq!(info["cache"]["bytes_per_token"], 256);
    // Nine tenths of 24 GB less the weights, in whole blocks of 16 tokens.
    let tokens = (21_600_000_000_u64 - weights) / 256 / 16 * 16;
    assert_eq!(info["max_total_num_tokens"], tokens);
    assert_eq!(info["context_length"], crate::fixture::CONTEXT);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn steps_take_no_less_than_the_device_s_overhead() {
    let server = Server::start(on("h100", |_| {})).await;
    let body = json!({ "prompt": vec![20; 40], "max_tokens": 6, "ignore_eos": true });
    let answer = post(server.at, "/v1/completions", &body).await;
    assert_eq!(answer.json()["usage"]["completion_tokens"], 6);
    let steps = get(server.at, "/forward_steps").await.json();
    let steps = steps["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    let of = |step: &serde_json::Value, name: &str| step[name].as_u64().unwrap();
    // What scheduling takes between two of them is part of the second one's time.
    let (first, last) = (&steps[0], &steps[5]);
    let took = of(last, "start_ns") + of(last, "duration_ns") - of(first, "start_ns");
    assert!(took >= 5 * 300_000, "{steps:?}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn how_late_steps_and_tokens_are_is_told() {
    let count = |metrics: &str| {
        let name = "sglang:step_lateness_seconds_count{model_name=\"tiny\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.parse().ok())
    };
    let body = json!({ "prompt": vec![20; 40], "max_tokens": 6, "ignore_eos": true });
    let with_steps = Server::start(on("h100", |_| {})).await;
    let paced = Server::start(|options| {
        options.executor = ExecutorKind::Sim;
        (options.sim_ttft_ms, options.sim_tpot_ms) = (1.0, 1.0);
    })
    .await;
    for server in [with_steps, paced] {
        assert_eq!(post(server.at, "/v1/completions", &body).await.status, 200);
        let metrics = get(server.at, "/metrics").await;
        assert_eq!(count(metrics.text()), Some(6), "{}", metrics.text());
        let steps = get(server.at, "/forward_steps").await.json();
        for step in steps["steps"].as_array().unwrap() {
            assert!(step["late_ns"].is_u64(), "{step}");
        }
        server.stop().await.unwrap();
    }
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[tokio::test]
async fn a_large_model_on_a_large_device_is_ready_without_their_memory() {
    let change = on("h200", |options| {
        options.sim_weight_bytes = Some(100_000_000_000);
        options.sim_bytes_per_token = Some(64);
    });
    let server = Server::start(change).await;
    assert!(resident() < 2 << 30, "{}", resident());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_simulated_is_refused_with_what_to_change() {
    let unknown = refusal(on("h300", |_| {})).await;
    assert!(
        unknown.contains("option `device_profile`: there is no device profile and no file `h300`"),
        "{unknown}"
    );
    let modelless = on("l4", |options| options.model_path = PathBuf::new());
    let modelless = refusal(modelless).await;
    assert!(modelless.contains("give `model_path`"), "{modelless}");
    let too_large = on("l4", |options| {
        options.sim_weight_bytes = Some(30_000_000_000);
    });
    let too_large = refusal(too_large).await;
    assert!(
        too_large.contains("`device_memory_bytes`: 24000000000 does not hold"),
        "{too_large}"
    );
}
