//! Images as placeholders: how many tokens they are, when they are the same, and what is said of it.

use serde_json::{Value, json};

use crate::client::{get, post};
use crate::fixture::Server;

const CHAT: &str = "/v1/chat/completions";
/// Images in base64: what they show does not matter.
const ONE: &str = "iVBORw0KGgogb25l";
const OTHER: &str = "iVBORw0KGgogdHdv";

fn image(encoded: &str) -> Value {
    let url = format!("data:image/png;base64,{encoded}");
    json!({ "type": "image_url", "image_url": { "url": url } })
}

/// A question about images.
fn about(images: &[&str]) -> Value {
    let mut parts: Vec<Value> = images.iter().map(|one| image(one)).collect();
    parts.push(json!({ "type": "text", "text": "baba babe" }));
    json!({ "role": "user", "content": parts })
}

fn body(messages: &[Value]) -> Value {
    json!({ "messages": messages, "max_tokens": 3, "temperature": 0, "ignore_eos": true })
}

/// Prompt tokens, and those of them that were found in the cache.
async fn ask(server: &Server, body: &Value) -> (u64, u64) {
    let answer = post(server.at, CHAT, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let usage = &answer.json()["usage"];
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    (
        usage["prompt_tokens"].as_u64().unwrap(),
        cached.as_u64().unwrap(),
    )
}

#[tokio::test]
async fn the_cache_finds_an_image_again_only_where_it_is_the_same() {
    let server = Server::start(|options| {
        options.image_tokens = Some(20);
        options.block_tokens = 1;
    })
    .await;
    let first = body(&[about(&[ONE, OTHER])]);
    // Who speaks, two images, two words, their end, and who speaks next.
    assert_eq!(ask(&server, &first).await, (45, 0));
    assert_eq!(ask(&server, &first).await, (45, 44));
    // The same first image, and then another.
    assert_eq!(ask(&server, &body(&[about(&[ONE, ONE])])).await, (45, 21));
    assert_eq!(ask(&server, &body(&[about(&[OTHER, ONE])])).await, (45, 1));
    // A further turn finds the images and everything that was said.
    let answer = post(server.at, CHAT, &first).await.json();
    let said = &answer["choices"][0]["message"];
    let said = json!({ "role": "assistant", "content": said["content"] });
    let next = json!({ "role": "user", "content": "bibi" });
    let turn = body(&[about(&[ONE, OTHER]), said, next]);
    // All but the last token of the answer, which was in no step.
    assert_eq!(ask(&server, &turn).await, (45 + 3 + 1 + 4, 45 + 2));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn sglang_s_own_route_puts_images_where_the_text_says() {
    let server = Server::start(|options| options.image_tokens = Some(20)).await;
    let ask = async |more: Value| {
        let mut body = json!({ "sampling_params": { "max_new_tokens": 2, "temperature": 0 } });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        post(server.at, "/generate", &body).await
    };
    for (text, images) in [
        ("baba babe", json!(ONE)),
        ("<image>baba babe", json!([ONE])),
        (
            "baba <image> babe",
            json!([format!("data:image/png;base64,{ONE}")]),
        ),
    ] {
        let answer = ask(json!({ "text": text, "image_data": images })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["meta_info"]["prompt_tokens"], 22, "{text}");
    }
    for (more, words) in [
        (
            json!({ "text": "<image>baba", "image_data": [ONE, ONE] }),
            "found 1 `<image>` for 2 images",
        ),
        (
            json!({ "input_ids": [20], "image_data": [ONE] }),
            "images stand beside one text",
        ),
        (
            json!({ "text": ["baba"], "image_data": [ONE] }),
            "images stand beside one text",
        ),
        (
            json!({ "text": "baba", "image_data": [[ONE]] }),
            "field `image_data`",
        ),
        (
            json!({ "text": "baba", "image_data": "https://h/a.png" }),
            "this server fetches nothing",
        ),
        (
            json!({ "text": "baba", "image_data": "%" }),
            "not in base64",
        ),
    ] {
        let answer = ask(more.clone()).await;
        assert_eq!(answer.status, 400, "{more}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(words), "{message}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_number_of_tokens_images_are_refused_by_the_flag_s_name() {
    let server = Server::start(|_| {}).await;
    let own = json!({ "text": "baba", "image_data": ONE });
    for (path, body) in [(CHAT, body(&[about(&[ONE])])), ("/generate", own)] {
        let answer = post(server.at, path, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = &answer.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("`--image-tokens N`"), "{message}");
        assert_eq!(error["code"], "unsupported");
    }
    assert_eq!(
        get(server.at, "/server_info").await.json()["simulated"],
        Value::Null
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_says_that_no_image_is_looked_at() {
    let server = Server::start(|options| options.image_tokens = Some(20)).await;
    let info = get(server.at, "/server_info").await.json();
    let expected = "images stand for 20 tokens each, no image was looked at";
    assert_eq!(info["simulated"], expected);
    assert_eq!(info["options"]["image_tokens"], 20);
    server.stop().await.unwrap();
}
