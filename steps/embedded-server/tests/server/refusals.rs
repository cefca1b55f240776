//! What is refused, with which status, and in which words.

use serde_json::{Value, json};

use crate::client::{get, post, send, send_raw};
use crate::fixture::Server;

#[tokio::test]
async fn bad_fields_are_refused_by_name() {
    let server = Server::start(|_| {}).await;
    let prompt = json!([20, 21]);
    for (path, body, status, words) in [
        ("/v1/completions", json!({}), 400, "field `prompt`: missing"),
        (
            "/v1/completions",
            json!({ "prompt": [] }),
            400,
            "the prompt has no tokens",
        ),
        (
            "/v1/completions",
            json!({ "prompt": [512] }),
            400,
            "token id 512 is outside",
        ),
        (
            "/v1/completions",
            json!({ "prompt": [20, "x"] }),
            400,
            "expected a string",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "echo": true }),
            400,
            "field `echo`: not",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "n": 2 }),
            400,
            "field `n`: not supported",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "max_tokens": -1 }),
            400,
            "`max_tokens`",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "max_tokens": 255 }),
            400,
            "context length",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "top_p": 2 }),
            400,
            "`2`, expected",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "stream": 1 }),
            400,
            "`true` or `false`",
        ),
        (
            "/v1/completions",
            json!({ "prompt": prompt, "model": "big" }),
            404,
            "model `big`",
        ),
        (
            "/v1/completions",
            json!([1, 2]),
            400,
            "expected a JSON object",
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": [] }),
            400,
            "field `messages`: missing",
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": [{ "role": "x" }] }),
            400,
            "a `role`",
        ),
        (
            "/v1/nothing",
            json!({}),
            404,
            "there is no route `/v1/nothing`",
        ),
        ("/v1/models", json!({}), 405, "does not take POST"),
    ] {
        let answer = post(server.at, path, &body).await;
        let message = answer.error_message();
        assert_eq!(answer.status, status, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    // None of them reached the engine.
    assert_eq!(server.metric("prompt_tokens_total").await, 0.0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn malformed_json_and_bad_queries_say_where() {
    let server = Server::start(|_| {}).await;
    for body in ["", "{", "{\"prompt\": \"x\",}", "\u{7f}"] {
        let answer = send(server.at, "POST", "/v1/completions", body)
            .await
            .finish()
            .await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.error_message().starts_with("malformed JSON: "),
            "{}",
            answer.text()
        );
        assert_eq!(answer.json()["error"]["code"], "invalid_json");
    }
    let answer = get(server.at, "/forward_steps?since=soon").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .error_message()
            .contains("found `soon`, expected a step id")
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_huge_body_is_refused_announced_or_not() {
    let server = Server::start(|options| options.max_body_bytes = 1000).await;
    let announced = "content-length: 1000000000\r\n";
    let answer = send_raw(server.at, "POST", "/v1/completions", announced, b"{")
        .await
        .finish()
        .await;
    assert_eq!(answer.status, 413);
    assert!(answer.error_message().contains("limit of 1000 bytes"));
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", " ".repeat(2000));
    let head = "transfer-encoding: chunked\r\n";
    let answer = send_raw(server.at, "POST", "/v1/completions", head, chunk.as_bytes())
        .await
        .finish()
        .await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    let fits: Value = json!({ "prompt": [20], "max_tokens": 1, "user": "x".repeat(900) });
    assert_eq!(post(server.at, "/v1/completions", &fits).await.status, 200);
    server.stop().await.unwrap();
}
