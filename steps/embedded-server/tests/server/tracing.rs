//! What the server wrote down beside what clients saw.

use std::collections::HashMap;

use embedded_server::{AnswerOutcome, Trace};
use loadgen::{Causality, HttpVersion, Link, Protocol};
use serde_json::{Value, json};

use crate::client::{get, post};
use crate::fixture::Server;
use crate::played::{Play, TOKENS, play, simulated};

#[tokio::test(flavor = "multi_thread")]
async fn every_token_of_a_load_is_accounted_for_on_its_whole_way() {
    for (protocol, http) in [
        (Protocol::Completions, HttpVersion::One),
        (Protocol::Chat, HttpVersion::Two),
        (Protocol::Sglang, HttpVersion::One),
    ] {
        let played = play(&Play {
            protocol,
            http,
            ..Play::with(&[])
        })
        .await;
        let found = Causality::of(&played.run.info, &played.run.records, &played.truths());
        assert_eq!(found.reason(), None, "{found:?}");
        assert_eq!(found.requests, 24);
        assert_eq!((found.tokens, found.unread), (24 * u64::from(TOKENS), 0));
        for margin in &found.margins {
            let is_whole = margin.n == found.tokens || margin.n == found.requests;
            assert!(is_whole && margin.least_ns >= 0, "{margin:?}");
        }
        assert_eq!(found.margins.len(), Link::ALL.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_s_instants_lie_in_their_order_and_its_cached_tokens_are_told() {
    let played = play(&Play::with(&[])).await;
    let mut cached = 0;
    for (_, answer) in played.pairs() {
        let [prompt] = &answer.prompts[..] else {
            panic!("{answer:?}")
        };
        let mut instants = vec![answer.accepted_ns, answer.received_ns];
        instants.extend(answer.parsed_ns);
        instants.extend(answer.enqueued_ns);
        instants.extend(prompt.scheduled_ns);
        instants.extend(answer.tokens.iter().map(|token| token.ready_ns));
        assert!(instants.is_sorted(), "{instants:?}");
        assert_eq!(instants.len(), 5 + TOKENS as usize);
        assert!(answer.sent_ns.last() <= Some(&answer.ended_ns));
        assert_eq!(answer.outcome, AnswerOutcome::Finished);
        assert_eq!(prompt.finish.as_deref(), Some("length"));
        assert_eq!(answer.model, "tiny");
        let steps: Vec<_> = answer.tokens.iter().map(|token| token.step).collect();
        assert!(steps.is_sorted() && steps[0].is_some(), "{steps:?}");
        cached += prompt.cached_device;
    }
    assert!(cached > 0, "prompts begin alike");
    let numbers = played.answers.values().map(|answer| answer.number);
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..24).collect::<Vec<_>>());
}

/// A completion of so many tokens, streamed or in one piece.
fn asked(max_tokens: u32, is_streamed: bool) -> Value {
    json!({ "model": "tiny", "prompt": [8, 9, 10], "max_tokens": max_tokens, "ignore_eos": true,
        "stream": is_streamed, "temperature": 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_ready_when_its_step_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = path.clone();
    let server = Server::start(move |options| {
        simulated(options);
        options.trace = Some(trace);
    })
    .await;
    post(server.at, "/v1/completions", &asked(6, true)).await;
    let steps = get(server.at, "/forward_steps").await.json();
    server.stop().await.unwrap();
    let steps = steps["steps"].as_array().unwrap().iter();
    let end = |step: &Value| {
        let ns = ["start_ns", "duration_ns", "sampling_ns"].map(|key| step[key].as_u64().unwrap());
        (step["id"].as_u64().unwrap(), ns.iter().sum::<u64>())
    };
    let ends: HashMap<u64, u64> = steps.map(end).collect();
    let answers = Trace::read(&path).unwrap();
    let [answer] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(answer.tokens.len(), 6);
    for token in &answer.tokens {
        assert_eq!(ends[&token.step.unwrap()], token.ready_ns);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_is_told_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let server = Server::start(move |options| {
        simulated(options);
        options.trace = Some(path);
    })
    .await;
    let info = get(server.at, "/server_info").await.json();
    let begin = info["trace"]["bytes"].as_u64().unwrap();
    assert_eq!(
        info["trace"]["machine"].as_str(),
        embedded_server::machine().as_deref()
    );
    let since = async |offset: u64| get(server.at, &format!("/trace?since={offset}")).await;
    assert_eq!(since(begin).await.body, b"");
    post(server.at, "/v1/completions", &asked(2, false)).await;
    post(
        server.at,
        "/v1/completions",
        &json!({ "model": "other", "prompt": "x" }),
    )
    .await;
    let told = since(begin).await;
    let answers = Trace::parse(told.text()).unwrap();
    let [whole, refused] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!((whole.tokens.len(), whole.sent_ns.len()), (2, 0));
    assert_eq!(whole.outcome, AnswerOutcome::Finished);
    assert_eq!(refused.outcome, AnswerOutcome::Refused(404));
    assert_eq!((refused.parsed_ns, refused.number), (None, 1));
    assert_eq!(since(begin + told.body.len() as u64).await.body, b"");
    assert!(since(0).await.text().starts_with("{\"trace\":2,"));
    assert_eq!(get(server.at, "/trace?since=x").await.status, 400);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_trace_says_how_to_get_one() {
    let server = Server::start(simulated).await;
    let answer = get(server.at, "/trace").await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].clone()),
        (404, json!("no_trace"))
    );
    assert!(answer.error_message().contains("--trace FILE"));
    assert!(get(server.at, "/server_info").await.json()["trace"].is_null());
    server.stop().await.unwrap();
}
