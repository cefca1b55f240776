//! What is generated, and how it is told.

use embedded_server::load;
use serde_json::{Value, json};

use crate::client::{get, post};
use crate::fixture::{Server, VOCAB, model_folder, options, reference};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

fn prompt(seed: u32, n: usize) -> Vec<u32> {
    // Ids 0 to 6 are control tokens.
    (0..n as u32)
        .map(|i| 7 + (seed * 131 + i * 29) % (VOCAB as u32 - 7))
        .collect()
}

fn greedy(prompt: &[u32], max_tokens: usize) -> Value {
    json!({ "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true })
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    body
}

/// The text of a stream's only choice.
fn joined(events: &[Value], pointer: &str) -> String {
    events
        .iter()
        .filter_map(|event| event.pointer(pointer)?.as_str())
        .collect()
}

async fn text(server: &Server, body: &Value) -> String {
    let answer = post(server.at, COMPLETIONS, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_stream_has_one_event_per_token_and_the_text_of_the_whole() {
    let server = Server::start(|_| {}).await;
    let body = greedy(&prompt(1, 20), 9);
    let whole = text(&server, &body).await;
    let answer = post(server.at, COMPLETIONS, &streamed(body)).await;
    assert!(answer.head.contains("content-type: text/event-stream"));
    let events = answer.events();
    assert_eq!(events.len(), 9 + 2, "tokens, usage, [DONE]");
    assert_eq!(joined(&events, "/choices/0/text"), whole);
    assert_eq!(whole.split_whitespace().count(), 9);
    assert_eq!(events[8]["choices"][0]["finish_reason"], "length");
    assert!(
        events[..8]
            .iter()
            .all(|event| event["choices"][0]["finish_reason"].is_null())
    );
    assert_eq!(events[9]["usage"]["completion_tokens"], 9);
    assert_eq!(events[10], "[DONE]");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_chat_streams_its_role_its_text_and_its_end() {
    let server = Server::start(|_| {}).await;
    let question = server.tokenizer.decode(&prompt(2, 6));
    let body = json!({
        "model": "tiny", "messages": [{ "role": "user", "content": question }],
        "max_completion_tokens": 5, "temperature": 0, "ignore_eos": true,
    });
    let whole = post(server.at, CHAT, &body).await.json();
    // Role, question, end, role of the reply.
    assert_eq!(whole["usage"]["prompt_tokens"], 6 + 3);
    let reply = whole["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!reply.starts_with(' '));
    let events = post(server.at, CHAT, &streamed(body)).await.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(joined(&events, "/choices/0/delta/content"), reply);
    assert_eq!(
        events.len(),
        1 + 5 + 1 + 1 + 1,
        "role, tokens, end, usage, [DONE]"
    );
    assert_eq!(events[6]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[7]["usage"], whole["usage"]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn batching_changes_no_token() {
    let folder = model_folder();
    let mut model = load(&options(folder.path())).unwrap().remove(0);
    let prompts: Vec<_> = (0..7).map(|i| prompt(i, 3 + 11 * i as usize)).collect();
    let expected: Vec<_> = prompts
        .iter()
        .map(|prompt| reference(&mut model, prompt, 24))
        .collect();
    for chunk in [None, Some(16)] {
        let server = Server::start(|options| {
            options.chunked_prefill_size = chunk;
            options.max_running_requests = 4;
        })
        .await;
        let at = server.at;
        let requests: Vec<_> = prompts
            .iter()
            .map(|prompt| streamed(greedy(prompt, 24)))
            .map(|body| tokio::spawn(async move { post(at, COMPLETIONS, &body).await.events() }))
            .collect();
        for ((request, prompt), expected) in requests.into_iter().zip(&prompts).zip(&expected) {
            let events = request.await.unwrap();
            let text = joined(&events, "/choices/0/text");
            assert_eq!(
                &server.tokenizer.encode(&text).unwrap(),
                expected,
                "chunk {chunk:?}"
            );
            assert_eq!(events[24]["usage"]["prompt_tokens"], prompt.len());
        }
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn being_retracted_changes_no_token() {
    let folder = model_folder();
    let mut model = load(&options(folder.path())).unwrap().remove(0);
    let prompts: Vec<_> = (0..7).map(|i| prompt(i, 3 + 11 * i as usize)).collect();
    // Ten blocks: the first three are admitted on the expectation that they do not write all
    // they may, and then they do, which takes eleven.
    let server = Server::start(|options| options.max_total_tokens = Some(160)).await;
    let body = json!({ "prompt": prompts, "max_tokens": 40, "min_tokens": 40, "temperature": 0 });
    let answer = post(server.at, COMPLETIONS, &body).await.json();
    for (index, prompt) in prompts.iter().enumerate() {
        let text = answer["choices"][index]["text"].as_str().unwrap();
        let tokens = server.tokenizer.encode(text).unwrap();
        assert_eq!(tokens, reference(&mut model, prompt, 40), "prompt {index}");
    }
    assert!(server.metric("num_retractions_total").await > 0.0);
    // What a retracted request finds again is no hit.
    assert_eq!(server.metric("cached_tokens_total").await, 0.0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_list_of_prompts_is_answered_by_index_with_exact_usage() {
    let server = Server::start(|_| {}).await;
    let prompts = [prompt(3, 4), prompt(4, 30), prompt(5, 1)];
    let mut each = Vec::new();
    for prompt in &prompts {
        each.push(text(&server, &greedy(prompt, 6)).await);
    }
    let mut body = greedy(&[], 6);
    body["prompt"] = json!(prompts);
    let whole = post(server.at, COMPLETIONS, &body).await.json();
    let texts: Vec<_> = whole["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["text"])
        .collect();
    assert_eq!(texts, each.iter().collect::<Vec<_>>());
    assert_eq!(whole["usage"]["prompt_tokens"], 35);
    assert_eq!(whole["usage"]["completion_tokens"], 18);
    assert_eq!(whole["usage"]["total_tokens"], 53);
    // Each was asked before; only the second has whole blocks of 16 to find.
    assert_eq!(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
    let events = post(server.at, COMPLETIONS, &streamed(body)).await.events();
    for (index, text) in each.iter().enumerate() {
        let own: Vec<Value> = events
            .iter()
            .filter(|event| event["choices"][0]["index"] == index)
            .cloned()
            .collect();
        assert_eq!(&joined(&own, "/choices/0/text"), text);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn usage_can_come_with_every_event() {
    let server = Server::start(|_| {}).await;
    let mut body = streamed(greedy(&prompt(6, 5), 4));
    body["stream_options"] = json!({ "include_usage": true, "continuous_usage_stats": true });
    let events = post(server.at, COMPLETIONS, &body).await.events();
    let counts: Vec<_> = events
        .iter()
        .map(|event| &event["usage"]["completion_tokens"])
        .collect();
    assert_eq!(
        counts,
        [
            &json!(1),
            &json!(2),
            &json!(3),
            &json!(4),
            &json!(4),
            &Value::Null
        ]
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_string_cuts_the_text_and_the_computation() {
    let server = Server::start(|_| {}).await;
    let body = greedy(&prompt(7, 12), 10);
    let whole = text(&server, &body).await;
    let words: Vec<_> = whole.split_whitespace().collect();
    // A stop that spans the end of one word and the beginning of the next.
    let stop = format!("{} {}", &words[3][2..], &words[4][..2]);
    let before = &whole[..whole.find(&stop).unwrap()];
    let mut stopped = body.clone();
    stopped["stop"] = json!([stop, "no such word"]);
    let answer = post(server.at, COMPLETIONS, &stopped).await.json();
    assert_eq!(answer["choices"][0]["text"], before);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let n_tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(n_tokens <= 5, "{n_tokens}");
    let events = post(server.at, COMPLETIONS, &streamed(stopped))
        .await
        .events();
    assert_eq!(joined(&events, "/choices/0/text"), before);
    let usage = &events[events.len() - 2]["usage"]["completion_tokens"];
    assert_eq!(usage.as_u64(), Some(n_tokens));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn text_and_ids_and_seeds_repeat_themselves() {
    let server = Server::start(|_| {}).await;
    let ids = prompt(8, 9);
    let warm = |prompt: Value, seed: u64| {
        json!({ "prompt": prompt, "max_tokens": 12, "seed": seed, "temperature": 1.5, "top_p": 0.9,
                "top_k": 200, "ignore_eos": true })
    };
    let by_ids = text(&server, &warm(json!(ids), 1)).await;
    let by_text = text(&server, &warm(json!(server.tokenizer.decode(&ids)), 1)).await;
    assert_eq!(by_ids, by_text);
    assert_ne!(by_ids, text(&server, &warm(json!(ids), 2)).await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_reply_may_fill_the_context_exactly() {
    let server = Server::start(|_| {}).await;
    let body = greedy(&prompt(9, 200), 56);
    assert_eq!(text(&server, &body).await.split_whitespace().count(), 56);
    assert_eq!(get(server.at, "/health_generate").await.status, 200);
    server.stop().await.unwrap();
}
