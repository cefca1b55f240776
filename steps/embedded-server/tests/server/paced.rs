//! The executor `sim`: answers at stated instants, traced.

use crate::client::post;
use crate::fixture::Server;
use embedded_server::{ExecutorKind, Trace};
use serde_json::json;
use std::path::PathBuf;

#[tokio::test]
async fn tokens_come_no_earlier_than_their_deadlines_and_are_traced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = path.clone();
    let server = Server::start(move |options| {
        options.executor = ExecutorKind::Sim;
        options.model_path = PathBuf::new();
        (options.sim_ttft_ms, options.sim_tpot_ms) = (20.0, 5.0);
        options.trace = Some(trace);
    })
    .await;
    let body = json!({ "model": "tiny", "prompt": "any words", "max_tokens": 4, "stream": true,
        "stream_options": { "include_usage": true }, "ignore_eos": true });
    let answer = post(server.at, "/v1/completions", &body).await;
    let events = answer.events();
    let texts = events.iter().filter(|e| !e["choices"][0]["text"].is_null());
    assert_eq!(texts.count(), 4, "{events:?}");
    let usage = events.iter().find(|e| e["usage"].is_object()).unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], 4);
    // A whole answer is no stream, and leaves no trace.
    let whole = json!({ "model": "tiny", "prompt": "words", "max_tokens": 2 });
    assert_eq!(post(server.at, "/v1/completions", &whole).await.status, 200);
    server.stop().await.unwrap();

    let traced = Trace::read(&path).unwrap();
    let [answer] = traced
        .iter()
        .filter(|t| !t.sent_ns.is_empty())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{traced:?}")
    };
    assert_eq!(answer.sent_ns.len(), 4);
    let after: Vec<u64> = answer
        .sent_ns
        .iter()
        .map(|at| (at - answer.received_ns) / 1_000_000)
        .collect();
    for (found, least) in after.iter().zip([20, 25, 30, 35]) {
        assert!(*found >= least, "{after:?}");
    }
}

#[tokio::test]
async fn a_trace_that_cannot_be_written_is_named() {
    let server = Server::start_loading(
        |options| {
            options.executor = ExecutorKind::Sim;
            options.trace = Some(PathBuf::from("/nowhere/trace.jsonl"));
        },
        embedded_server::load,
    )
    .await;
    let error = server.ended().await.unwrap_err().to_string();
    assert!(
        error.contains("`trace`: cannot write `/nowhere/trace.jsonl`"),
        "{error}"
    );
}
