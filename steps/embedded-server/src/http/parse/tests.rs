//! Requests as clients spell them, and refusals as clients see them.

use super::*;
use crate::engine::SamplingParams;
use crate::executor::CacheShape;
use crate::tokenizer::tests::word_tokenizer;
use serde_json::{Value, json};

fn served() -> Served {
    let shape = CacheShape {
        n_blocks: 8,
        block_tokens: 16,
        bytes_per_token: 1,
    };
    Served {
        model_name: "tiny".into(),
        tokenizer: Arc::new(word_tokenizer(300)),
        door: Door::new(100, shape),
        vocab_size: 300,
        image_tokens: None,
    }
}

fn completion(body: &Value) -> Result<Generation, ApiError> {
    parse(
        body.to_string().as_bytes(),
        Route::Completion,
        &[served()],
        5,
    )
}

#[test]
fn all_spellings_of_a_prompt_are_the_same_tokens() {
    let text = served().tokenizer.decode(&[20, 21]);
    for prompt in [
        json!(text),
        json!([20, 21]),
        json!([text]),
        json!([[20, 21]]),
    ] {
        let generation = completion(&json!({ "prompt": prompt })).unwrap();
        assert_eq!(generation.requests.len(), 1);
        assert_eq!(generation.requests[0].prompt, [20, 21]);
    }
    let two = completion(&json!({ "prompt": [[20], [21, 22]] })).unwrap();
    assert_eq!(two.requests[1].prompt, [21, 22]);
}

#[test]
fn what_is_not_said_has_openai_s_default() {
    let generation = completion(&json!({ "prompt": [20], "stream": null })).unwrap();
    let request = &generation.requests[0];
    assert_eq!(request.ending.max_tokens, 16);
    let expected = SamplingParams {
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        seed: 5,
    };
    assert_eq!(request.sampling, expected);
    assert_eq!(generation.delivery, Delivery::Whole);
    assert!(request.watched.is_none());
}

#[test]
fn a_chat_may_fill_the_context() {
    let body = json!({ "messages": [{ "role": "user", "content": [
        { "type": "text", "text": "baba " }, { "type": "text", "text": "babe" } ] }] });
    let generation = parse(body.to_string().as_bytes(), Route::Chat, &[served()], 0).unwrap();
    assert_eq!(generation.requests[0].prompt, [4, 7, 8, 1, 5]);
    assert_eq!(generation.requests[0].ending.max_tokens, 95);
}

#[test]
fn usage_events_follow_the_stream_options() {
    for (options, expected) in [
        (json!(null), UsageEvents::Never),
        (json!({}), UsageEvents::Never),
        (json!({ "include_usage": true }), UsageEvents::AtEnd),
        (
            json!({ "include_usage": true, "continuous_usage_stats": true }),
            UsageEvents::Always,
        ),
    ] {
        let body = json!({ "prompt": [20], "stream": true, "stream_options": options });
        assert_eq!(
            completion(&body).unwrap().delivery,
            Delivery::Stream(expected)
        );
    }
}

#[test]
fn sglang_s_own_spelling_is_read_in_its_own_names() {
    let generate = |body: Value| {
        let body = body.to_string();
        parse(body.as_bytes(), Route::Generate, &[served()], 5)
    };
    let asked = generate(json!({
        "input_ids": [[20, 21], [22]], "stream": true,
        "sampling_params": { "max_new_tokens": 9, "temperature": 0, "ignore_eos": true },
    }))
    .unwrap();
    assert_eq!((asked.requests.len(), asked.is_list), (2, true));
    assert_eq!(asked.requests[1].prompt, [22]);
    assert_eq!(asked.requests[0].ending.max_tokens, 9);
    assert!(asked.requests[0].ending.ignores_eos);
    let one = generate(json!({ "text": "baba", "sampling_params": { "max_new_tokens": 1 } }));
    assert!(!one.unwrap().is_list);
    for (body, words) in [
        (json!({}), "field `text`: missing"),
        (
            json!({ "text": "baba", "sampling_params": 3 }),
            "field `sampling_params`",
        ),
        (
            json!({ "text": "baba", "sampling_params": { "max_new_tokens": 0 } }),
            "field `max_new_tokens`: found `0`",
        ),
        (
            json!({ "input_ids": [300] }),
            "field `input_ids`: token id 300",
        ),
    ] {
        let error = generate(body).unwrap_err().body();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn values_that_ask_for_nothing_are_accepted() {
    let body = json!({
        "prompt": [20], "n": 1, "best_of": 1.0, "echo": false, "logprobs": null, "tools": [],
        "logit_bias": {}, "frequency_penalty": 0.0, "user": "someone", "top_k": -1,
    });
    assert!(completion(&body).is_ok());
}

#[test]
fn refusals_name_the_field_and_what_was_expected() {
    for (field, value, words) in [
        (
            "temperature",
            json!("hot"),
            "found `\"hot\"`, expected a number from 0 to 100",
        ),
        (
            "temperature",
            json!(-1),
            "found `-1`, expected a number from 0 to 100",
        ),
        ("top_p", json!(0), "expected a number above 0"),
        ("max_tokens", json!(0), "expected a count of at least 1"),
        (
            "max_tokens",
            json!(100),
            "exceed the context length of 100 tokens",
        ),
        (
            "min_tokens",
            json!(17),
            "17 is more than the 16 that are allowed at most",
        ),
        ("stop", json!([""]), "an empty string"),
        ("stop", json!(vec!["x"; 17]), "found 17 strings"),
        (
            "stream_options",
            json!({ "include_usage": true }),
            "only allowed with",
        ),
        (
            "n",
            json!(2),
            "not supported by this server; leave it out or send 1",
        ),
        ("echo", json!(true), "not supported"),
        ("logprobs", json!(1), "not supported"),
        ("model", json!("other"), "the model is `tiny`"),
    ] {
        let mut body = json!({ "prompt": [20] });
        body[field] = value;
        let error = completion(&body).unwrap_err().body()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{field}: {message}");
        let param = if field == "max_tokens" && message.contains("exceed") {
            "prompt"
        } else {
            field
        };
        assert_eq!(error["param"], param, "{message}");
    }
}

#[test]
fn prompts_that_are_none_are_refused() {
    for (prompt, words) in [
        (json!(null), "missing, expected a string"),
        (json!(7), "found `7`, expected a string"),
        (json!(""), "the prompt has no tokens"),
        (
            json!([300]),
            "token id 300 is outside the vocabulary of 300 ids",
        ),
        (json!(vec![20; 100]), "exceed the context length"),
    ] {
        let error = completion(&json!({ "prompt": prompt })).unwrap_err();
        let message = error.body()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(words), "{prompt}: {message}");
    }
}
