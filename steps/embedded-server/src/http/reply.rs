//! The shapes of answers: OpenAI's, with all of their fields in their order.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::parse::Route;
use crate::engine::FinishReason;
use crate::tokenizer::TextStream;

/// What is the same in everything that one request is answered with.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) route: Route,
    id: String,
    created: u64,
    model: String,
}

impl Envelope {
    /// The envelope of the `number`-th request.
    pub(super) fn new(route: Route, number: u64, model: &str) -> Self {
        let prefix = match route {
            Route::Completion => "cmpl",
            Route::Chat => "chatcmpl",
        };
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Envelope {
            route,
            id: format!("{prefix}-{:x}-{number:x}", std::process::id()),
            created: created.as_secs(),
            model: model.to_owned(),
        }
    }

    /// The answer in one piece.
    pub(super) fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let object = match self.route {
            Route::Completion => "text_completion",
            Route::Chat => "chat.completion",
        };
        let choices: Vec<Value> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| self.choice(index, choice))
            .collect();
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": choices, "usage": usage,
        })
    }

    fn choice(&self, index: usize, choice: &Choice) -> Value {
        let finish_reason = choice.finish.map(FinishReason::name);
        match self.route {
            Route::Completion => json!({
                "index": index, "text": choice.text, "logprobs": null,
                "finish_reason": finish_reason,
            }),
            Route::Chat => json!({
                "index": index, "message": { "role": "assistant", "content": choice.text },
                "logprobs": null, "finish_reason": finish_reason,
            }),
        }
    }

    /// The beginning of every event of a stream, up to its choices.
    pub(super) fn event_head(&self) -> Vec<u8> {
        let object = match self.route {
            Route::Completion => "text_completion",
            Route::Chat => "chat.completion.chunk",
        };
        let model = Value::from(self.model.as_str());
        format!(
            r#"data: {{"id":"{}","object":"{object}","created":{},"model":{model},"choices":["#,
            self.id, self.created
        )
        .into_bytes()
    }
}

/// One continuation.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) finish: Option<FinishReason>,
}

/// Token counts of a whole request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    /// Prompt tokens that need not be computed.
    pub(super) cached_tokens: usize,
}

impl serde::Serialize for Usage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Details {
            cached_tokens: usize,
        }
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Usage", 4)?;
        out.serialize_field("prompt_tokens", &self.prompt_tokens)?;
        out.serialize_field("completion_tokens", &self.completion_tokens)?;
        out.serialize_field(
            "total_tokens",
            &(self.prompt_tokens + self.completion_tokens),
        )?;
        let details = Details {
            cached_tokens: self.cached_tokens,
        };
        out.serialize_field("prompt_tokens_details", &details)?;
        out.end()
    }
}

/// The text that one token adds to an answer; with a reason, the last.
pub(super) fn next_text(text: &mut TextStream, id: u32, finish: Option<FinishReason>) -> String {
    match finish {
        // The token that ends a text has none of its own.
        Some(FinishReason::StopToken) => text.finish(),
        Some(FinishReason::Length) => text.push(id).text + &text.finish(),
        // What follows a stop string is not part of the text.
        Some(FinishReason::StopString) | None => text.push(id).text,
    }
}
