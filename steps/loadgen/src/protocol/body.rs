//! Request bodies.
//!
//! The prompt is written straight into the body behind a small object with everything else:
//! a prompt of 100,000 token ids is not turned into as many JSON values first.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::shown::{Messages, Said, Shown};
use crate::{Images, OutputLength, Prompt, Protocol, Request, Target};

/// Keys of a body that the load generator decides.
pub(crate) const RESERVED: [&str; 8] = [
    "image_data",
    "input_ids",
    "messages",
    "model",
    "prompt",
    "stream",
    "text",
    "text_input",
];

/// Asks for the token ids of an answer beside its text, of servers that know it: vLLM's name for it.
const RETURN_TOKEN_IDS: &str = "return_token_ids";

/// The body that asks `request` of `target`, streaming and with usage at the end.
pub(crate) fn render(target: &Target, request: &Request, images: &Images) -> Bytes {
    // Most have none: their prompts need not be copied.
    let is_as_it_is = request.images.is_empty()
        && !matches!(
            (&request.prompt, target.protocol),
            (Prompt::Text(_), Protocol::Chat)
        );
    Bytes::from(match is_as_it_is {
        true => with_prompt(target, request, &request.prompt, &[]),
        false => {
            let said = Said::of(target, request, images);
            with_prompt(target, request, &said.prompt, &said.images)
        }
    })
}

/// The same for a turn whose prompt stands behind what was said before, or to which the turns that
/// follow will: its answer is wanted in the form of the prompt.
pub(crate) fn render_turn(target: &Target, request: &Request, said: &Said) -> Bytes {
    let mut body = with_prompt(target, request, &said.prompt, &said.images);
    let asks_for_ids = target.protocol == Protocol::Completions
        && matches!(said.prompt, Prompt::Tokens(_))
        && !target.extra.contains_key(RETURN_TOKEN_IDS);
    if asks_for_ids {
        // Behind the other fields: the body is an object that has some.
        body.pop();
        body.extend_from_slice(format!(",\"{RETURN_TOKEN_IDS}\":true}}").as_bytes());
    }
    Bytes::from(body)
}

fn with_prompt(target: &Target, request: &Request, prompt: &Prompt, images: &[Shown]) -> Vec<u8> {
    let key = match (target.protocol, prompt) {
        (Protocol::Completions, _) => "prompt",
        (Protocol::Chat, _) => "messages",
        (Protocol::Sglang, Prompt::Tokens(_)) => "input_ids",
        (Protocol::Sglang, _) => "text",
        (Protocol::Triton, _) => "text_input",
    };
    let mut body = format!("{{\"{key}\":").into_bytes();
    body.reserve(images.iter().map(|shown| shown.address.len() + 64).sum());
    match prompt {
        Prompt::Text(text) => append(&mut body, text),
        Prompt::Tokens(ids) => append(&mut body, ids),
        Prompt::Messages(messages) => append(&mut body, &Messages { messages, images }),
    }
    if target.protocol == Protocol::Sglang && !images.is_empty() {
        body.extend_from_slice(b",\"image_data\":");
        let addresses: Vec<&str> = images.iter().map(|shown| &*shown.address).collect();
        append(&mut body, &addresses);
    }
    // The other fields are never none: `stream` cannot be removed. So `{` makes way for `,`.
    let rest = body.len();
    append(&mut body, &fields(target, request));
    body[rest] = b',';
    body
}

/// Writing JSON to memory fails for maps with keys that are no strings; there are none here.
fn append(body: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(body, value);
    debug_assert!(written.is_ok());
}

fn fields(target: &Target, request: &Request) -> Map<String, Value> {
    let model = request.model.as_ref().unwrap_or(&target.model);
    let tokens = request.output_tokens.get();
    let temperature = target.generation.temperature;
    let exact = target.generation.length == OutputLength::Exact;
    let fields = match target.protocol {
        Protocol::Completions | Protocol::Chat => json!({
            "model": model,
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": tokens,
            "temperature": temperature,
        }),
        Protocol::Sglang => json!({
            "stream": true,
            "sampling_params": {
                "max_new_tokens": tokens,
                "temperature": temperature,
                "ignore_eos": exact,
            },
        }),
        Protocol::Triton => json!({
            "stream": true,
            "max_tokens": tokens,
            "temperature": temperature,
        }),
    };
    let Value::Object(mut fields) = fields else {
        return Map::new();
    };
    match target.protocol {
        Protocol::Completions | Protocol::Chat if exact => {
            fields.insert("ignore_eos".into(), true.into());
        }
        // It has no such switch, but a least length.
        Protocol::Triton if exact => {
            fields.insert("min_length".into(), tokens.into());
        }
        _ => {}
    }
    if let (true, Some(objective)) = (target.tells_objectives, request.slo.and_then(|s| s.e2el)) {
        fields.insert("slo".into(), objective.as_secs_f64().into());
    }
    merge(&mut fields, &target.extra);
    fields
}

/// Tables merge, null removes, anything else replaces.
fn merge(into: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (key, value) in extra {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.remove(key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(protocol: Protocol, prompt: Prompt, extra: Value) -> Value {
        let (target, request) = asked(protocol, prompt, extra);
        serde_json::from_slice(&render(&target, &request, &Images::default())).unwrap()
    }

    fn asked(protocol: Protocol, prompt: Prompt, extra: Value) -> (Target, Request) {
        let target = Target {
            extra: extra.as_object().unwrap().clone(),
            ..Target::new("http://h".parse().unwrap(), "m", protocol)
        };
        let line = json!({ "id": "a", "text": "x", "input_tokens": 1, "output_tokens": 7 });
        let mut request: Request = serde_json::from_value(line).unwrap();
        request.prompt = prompt;
        (target, request)
    }

    #[test]
    fn a_turn_of_token_ids_asks_for_those_of_its_answer() {
        let body = |protocol, prompt: Prompt, extra| -> Value {
            let (target, request) = asked(protocol, Prompt::Text("x".into()), extra);
            let said = Said {
                prompt,
                images: Vec::new(),
            };
            serde_json::from_slice(&render_turn(&target, &request, &said)).unwrap()
        };
        let ids = Prompt::Tokens(vec![1, 2, 3]);
        let asks = body(Protocol::Completions, ids.clone(), json!({}));
        assert_eq!(
            (&asks["prompt"], &asks["return_token_ids"]),
            (&json!([1, 2, 3]), &json!(true))
        );
        let left_out = body(
            Protocol::Completions,
            ids.clone(),
            json!({ "return_token_ids": null }),
        );
        assert!(left_out.get("return_token_ids").is_none());
        let own = body(Protocol::Sglang, ids, json!({}));
        assert!(own.get("return_token_ids").is_none());
        let text = body(Protocol::Completions, Prompt::Text("y".into()), json!({}));
        assert_eq!(
            (&text["prompt"], text.get("return_token_ids")),
            (&json!("y"), None)
        );
    }

    #[test]
    fn an_objective_is_told_where_that_is_asked() {
        let (mut target, mut request) =
            asked(Protocol::Completions, Prompt::Text("x".into()), json!({}));
        request.slo = Some(crate::Slo {
            e2el: Some(std::time::Duration::from_millis(2500)),
            ..crate::Slo::default()
        });
        let told = |target: &Target| {
            let body: Value =
                serde_json::from_slice(&render(target, &request, &Images::default())).unwrap();
            body.get("slo").cloned()
        };
        assert_eq!(told(&target), None);
        target.tells_objectives = true;
        assert_eq!(told(&target), Some(json!(2.5)));
    }

    #[test]
    fn token_ids_go_out_as_numbers() {
        let body = rendered(Protocol::Completions, Prompt::Tokens(vec![3, 1]), json!({}));
        let expected = json!({
            "prompt": [3, 1], "model": "m", "stream": true, "max_tokens": 7, "temperature": 0.0,
            "stream_options": { "include_usage": true }, "ignore_eos": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn text_becomes_a_message_in_chat_and_is_escaped() {
        let body = rendered(Protocol::Chat, Prompt::Text("a \"b\"\n".into()), json!({}));
        assert_eq!(
            body["messages"],
            json!([{ "role": "user", "content": "a \"b\"\n" }])
        );
    }

    /// A body, with what stands for its images.
    fn showing(protocol: Protocol, prompt: Prompt) -> String {
        let (target, mut request) = asked(protocol, prompt, json!({}));
        request.images = vec![
            "https://h/a.png".into(),
            "data:image/png;base64,AA==".into(),
        ];
        let workload = crate::Workload::new(vec![request.clone()]).unwrap();
        let images = workload.images(1 << 10).unwrap();
        String::from_utf8(render(&target, &request, &images).to_vec()).unwrap()
    }

    #[test]
    fn a_chat_message_shows_images_before_it_says_something() {
        let parts = concat!(
            r#"{"type":"image_url","image_url":{"url":"https://h/a.png"}},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},"#,
        );
        let rest = concat!(
            r#","model":"m","stream":true,"stream_options":{"include_usage":true},"#,
            r#""max_tokens":7,"temperature":0.0,"ignore_eos":true}"#
        );
        let body = showing(Protocol::Chat, Prompt::Text("who?".into()));
        let text = r#"{"type":"text","text":"who?"}"#;
        let message = format!(r#"{{"role":"user","content":[{parts}{text}]}}"#);
        assert_eq!(body, format!(r#"{{"messages":[{message}]{rest}"#));
        // Among messages it is the last of the user's, and what it says may be parts already.
        let messages = vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "user", "content": [{"type": "text", "text": "who?"}]}),
            json!({"role": "assistant", "content": "b"}),
        ];
        let body = showing(Protocol::Chat, Prompt::Messages(messages));
        let expected = format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{message},{{"role":"assistant","content":"b"}}]{rest}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn sglang_s_own_protocol_has_marks_in_the_text_and_images_beside_it() {
        let body = showing(Protocol::Sglang, Prompt::Text("who?".into()));
        let expected = concat!(
            r#"{"text":"<image><image>who?","image_data":["https://h/a.png","data:image/png;base64,AA=="],"#,
            r#""stream":true,"sampling_params":{"max_new_tokens":7,"temperature":0.0,"ignore_eos":true}}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn other_protocols_refuse_images_and_say_which_take_them() {
        for protocol in [Protocol::Completions, Protocol::Triton] {
            let (_, mut request) = asked(protocol, Prompt::Text("x".into()), json!({}));
            assert!(protocol.accepts(&request, "m").is_ok());
            request.images = vec!["data:x".into()];
            let error = protocol.accepts(&request, "m").unwrap_err().to_string();
            let expected = format!(
                "request `a` has a prompt of text with images, which the {} protocol cannot send; help: use the chat or the sglang protocol",
                protocol.name()
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn extra_merges_replaces_and_removes() {
        let extra = json!({
            "stream_options": { "continuous_usage_stats": true }, "temperature": 0.7,
            "ignore_eos": null, "top_k": 5,
        });
        let body = rendered(Protocol::Completions, Prompt::Text("x".into()), extra);
        let options = json!({ "include_usage": true, "continuous_usage_stats": true });
        assert_eq!(body["stream_options"], options);
        assert_eq!(
            (&body["temperature"], &body["top_k"]),
            (&json!(0.7), &json!(5))
        );
        assert!(body.get("ignore_eos").is_none());
    }
}
