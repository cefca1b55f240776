//! The shapes of answers: OpenAI's, with all of their fields in their order.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::parse::{Route, TokenIds};
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

/// What tells an answer from all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issue {
    /// Names the server.
    pub(super) server: u32,
    /// Which request of that server it answers.
    pub(super) number: u64,
    /// When it was begun, seconds.
    pub(super) created: u64,
}

impl Issue {
    /// Of this process, now, in seconds since 1970.
    pub(super) fn now(number: u64) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        Issue {
            server: std::process::id(),
            number,
            created: created.unwrap_or_default().as_secs(),
        }
    }
}

impl Envelope {
    /// The envelope of such an answer.
    pub(super) fn new(route: Route, issue: Issue, model: &str) -> Self {
        let prefix = match route {
            Route::Completion => "cmpl",
            Route::Chat => "chatcmpl",
            Route::Generate => "gen",
        };
        Envelope {
            route,
            id: format!("{prefix}-{:x}-{:x}", issue.server, issue.number),
            created: issue.created,
            model: model.to_owned(),
        }
    }

    /// The answer in one piece.
    pub(super) fn whole(&self, choices: &[Choice], is_list: bool) -> Value {
        let object = match self.route {
            Route::Completion => "text_completion",
            Route::Chat => "chat.completion",
            Route::Generate => return self.native(choices, is_list),
        };
        let usage: Usage = choices.iter().map(|choice| choice.usage).sum();
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
        let mut shown = match self.route {
            Route::Completion | Route::Generate => json!({
                "index": index, "text": choice.text, "logprobs": null,
                "finish_reason": finish_reason,
            }),
            Route::Chat => json!({
                "index": index, "message": { "role": "assistant", "content": choice.text },
                "logprobs": null, "finish_reason": finish_reason,
            }),
        };
        if let Some(ids) = &choice.ids {
            shown["token_ids"] = json!(ids);
        }
        shown
    }

    /// The answer in SGLang's own shape: an array where prompts came in one.
    fn native(&self, choices: &[Choice], is_list: bool) -> Value {
        let answers = choices.iter().enumerate();
        let mut answers: Vec<Value> = answers
            .map(|(index, choice)| self.native_choice(choice, is_list.then_some(index)))
            .collect();
        if is_list {
            Value::Array(answers)
        } else {
            answers.pop().unwrap_or_default()
        }
    }

    /// One answer so far in SGLang's own shape: the text is all of it, not what is new.
    pub(super) fn native_choice(&self, choice: &Choice, index: Option<usize>) -> Value {
        let usage = choice.usage;
        let finish_reason = choice.finish.map(|finish| match finish {
            FinishReason::Length => json!({ "type": "length", "length": usage.completion_tokens }),
            FinishReason::StopToken | FinishReason::StopString => json!({ "type": "stop" }),
        });
        let id = match index {
            None => self.id.clone(),
            Some(index) => format!("{}-{index}", self.id),
        };
        let ids = choice.ids.as_deref().unwrap_or_default();
        let mut answer = json!({ "text": choice.text, "output_ids": ids, "meta_info": {
            "id": id, "finish_reason": finish_reason, "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens, "cached_tokens": usage.cached_tokens,
        } });
        if let Some(index) = index {
            answer["index"] = json!(index);
        }
        answer
    }

    /// The beginning of every event of a stream, up to its choices.
    pub(super) fn event_head(&self) -> Vec<u8> {
        let object = match self.route {
            Route::Completion => "text_completion",
            Route::Chat => "chat.completion.chunk",
            Route::Generate => return b"data: ".to_vec(),
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
    /// The ids of its tokens, if they are told.
    pub(super) ids: Option<Vec<u32>>,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Usage,
}

impl Choice {
    /// Nothing yet, for a prompt of so many tokens.
    pub(super) fn begin(prompt_tokens: usize, ids: TokenIds) -> Self {
        Choice {
            ids: (ids == TokenIds::Told).then(Vec::new),
            usage: Usage {
                prompt_tokens,
                ..Usage::default()
            },
            ..Choice::default()
        }
    }

    /// One more token, and prompt tokens that were found cached.
    pub(super) fn count(&mut self, id: u32, cached: usize) {
        self.usage.completion_tokens += 1;
        self.usage.cached_tokens += cached;
        if let Some(ids) = &mut self.ids {
            ids.push(id);
        }
    }
}

/// Token counts of a whole request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    /// Prompt tokens that need not be computed.
    pub(super) cached_tokens: usize,
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
        usages.fold(Usage::default(), |a, b| Usage {
            prompt_tokens: a.prompt_tokens + b.prompt_tokens,
            completion_tokens: a.completion_tokens + b.completion_tokens,
            cached_tokens: a.cached_tokens + b.cached_tokens,
        })
    }
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
