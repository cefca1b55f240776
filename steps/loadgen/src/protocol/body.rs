//! Request bodies.
//!
//! The prompt is written straight into the body behind a small object with everything else:
//! a prompt of 100,000 token ids is not turned into as many JSON values first.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{OutputLength, Prompt, Protocol, Request, Target};

/// Keys of a body that the load generator decides.
pub(crate) const RESERVED: [&str; 4] = ["messages", "model", "prompt", "stream"];

/// The body that asks `request` of `target`, streaming and with usage at the end.
pub(crate) fn render(target: &Target, request: &Request) -> Bytes {
    let mut body = match target.protocol {
        Protocol::Completions => Vec::from(b"{\"prompt\":"),
        Protocol::Chat => Vec::from(b"{\"messages\":"),
    };
    match (&request.prompt, target.protocol) {
        (Prompt::Text(text), Protocol::Chat) => {
            append(&mut body, &[json!({ "role": "user", "content": text })]);
        }
        (Prompt::Text(text), Protocol::Completions) => append(&mut body, text),
        (Prompt::Tokens(ids), _) => append(&mut body, ids),
        (Prompt::Messages(messages), _) => append(&mut body, messages),
    }
    // The other fields are never none: `stream` cannot be removed. So `{` makes way for `,`.
    let rest = body.len();
    append(&mut body, &fields(target, request));
    body[rest] = b',';
    Bytes::from(body)
}

/// Writing JSON to memory fails for maps with keys that are no strings; there are none here.
fn append(body: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(body, value);
    debug_assert!(written.is_ok());
}

fn fields(target: &Target, request: &Request) -> Map<String, Value> {
    let mut fields = Map::new();
    let model = request.model.as_ref().unwrap_or(&target.model);
    fields.insert("model".into(), model.as_str().into());
    fields.insert("stream".into(), true.into());
    fields.insert("stream_options".into(), json!({ "include_usage": true }));
    fields.insert("max_tokens".into(), request.output_tokens.get().into());
    fields.insert("temperature".into(), target.generation.temperature.into());
    if target.generation.length == OutputLength::Exact {
        fields.insert("ignore_eos".into(), true.into());
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
    use crate::Generation;

    fn rendered(protocol: Protocol, prompt: Prompt, extra: Value) -> Value {
        let target = Target {
            address: "http://h".parse().unwrap(),
            model: "m".into(),
            protocol,
            api_key: None,
            generation: Generation::default(),
            extra: extra.as_object().unwrap().clone(),
        };
        let line = json!({ "id": "a", "text": "x", "input_tokens": 1, "output_tokens": 7 });
        let mut request: Request = serde_json::from_value(line).unwrap();
        request.prompt = prompt;
        serde_json::from_slice(&render(&target, &request)).unwrap()
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
