//! Texts into ids and back, for clients that have no tokenizer of their own.

use serde_json::json;

use crate::client::post;
use crate::fixture::{CONTEXT, Server};

#[tokio::test]
async fn a_text_comes_back_from_its_ids() {
    let server = Server::start(|_| {}).await;
    let text = server.tokenizer.decode(&[20, 21, 22, 23]);
    let ids = server.tokenizer.encode_rendered(&text).unwrap();
    let asked = json!({ "prompt": text, "add_special_tokens": false });
    let told = post(server.at, "/tokenize", &asked).await.json();
    let expected = json!({ "tokens": ids, "count": ids.len(), "max_model_len": CONTEXT });
    assert_eq!(told, expected);
    let told = post(server.at, "/detokenize", &json!({ "tokens": ids })).await;
    assert_eq!(told.json(), json!({ "prompt": text, "text": text }));
    // Special tokens are added unless they are declined.
    let with = server.tokenizer.encode(&text).unwrap();
    let told = post(server.at, "/tokenize", &json!({ "prompt": text })).await;
    assert_eq!(told.json()["tokens"], json!(with));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_text_or_no_ids_is_refused_by_name() {
    let server = Server::start(|_| {}).await;
    for (path, body, named) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({ "prompt": [1, 2] }), "prompt"),
        (
            "/tokenize",
            json!({ "prompt": "a", "add_special_tokens": 1 }),
            "add_special_tokens",
        ),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({ "tokens": ["a"] }), "tokens"),
        ("/detokenize", json!({ "tokens": [-1] }), "tokens"),
        ("/tokenize", json!({ "prompt": "a", "model": "b" }), "b"),
    ] {
        let refused = post(server.at, path, &body).await;
        assert!((400..500).contains(&refused.status), "{path} {body}");
        let message = refused.error_message();
        assert!(
            message.contains(&format!("`{named}`")),
            "{path} {body}: {message}"
        );
    }
    server.stop().await.unwrap();
}
