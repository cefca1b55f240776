//! One request, and the line of a file that it stands in.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::images;
use crate::Slo;

/// The prompt of one request; in the file, the one of the keys `text`, `input_ids` and
/// `messages` that is present.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Plain text.
    Text(String),
    /// Token ids, which leave the server nothing to tokenise.
    Tokens(Vec<u32>),
    /// Chat messages, each an object as the chat protocol wants it.
    Messages(Vec<Value>),
}

/// One request: what to ask and how long an answer to ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub struct Request {
    /// Names the request; unique in its workload.
    pub id: String,
    /// The conversation it is a turn of.
    pub conversation: Option<String>,
    /// Which turn, from 0.
    pub turn: u32,
    /// Whether its prompt stands behind everything that was said in its conversation before, the
    /// server's answers included. [`Request::input_tokens`] then counts the prompt alone.
    pub continues: bool,
    /// When it arrives after the start of the run, for [`crate::Arrivals::Listed`]; `arrival`
    /// in seconds in the file.
    pub arrival: Option<Duration>,
    /// The model asked for, where that is not the target's.
    pub model: Option<String>,
    /// What is asked.
    pub prompt: Prompt,
    /// Images that stand before the text of the prompt, or, among messages, before that of the last one
    /// of role `user`: files beside the workload by relative names, or addresses (`https:`, `data:`).
    pub images: Vec<String>,
    /// Prompt length in tokens, as the model's tokenizer counts.
    pub input_tokens: u32,
    /// How many of these a prefix cache without limits holds already when requests are sent in the
    /// workload's order, where that is known.
    pub cacheable_tokens: Option<u32>,
    /// Answer length to ask for, in tokens.
    pub output_tokens: NonZeroU32,
    /// The objectives of this request.
    pub slo: Option<Slo>,
    /// A label to split results by, such as a shared prefix or a tenant.
    pub group: Option<String>,
}

/// The line as it stands in the file, before its rules are checked.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    turn: u32,
    #[serde(skip_serializing_if = "is_false")]
    continues: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrival: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    input_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cacheable_tokens: Option<u32>,
    output_tokens: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slo: Option<Slo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

fn is_zero(turn: &u32) -> bool {
    *turn == 0
}

fn is_false(continues: &bool) -> bool {
    !continues
}

impl TryFrom<Line> for Request {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let prompt = match (line.text, line.input_ids, line.messages) {
            (Some(text), None, None) => Prompt::Text(text),
            (None, Some(ids), None) => Prompt::Tokens(ids),
            (None, None, Some(messages)) => Prompt::Messages(messages),
            _ => return Err("expected exactly one of `text`, `input_ids` and `messages`".into()),
        };
        let arrival = line.arrival.map(|seconds| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| format!("`arrival` of {seconds} s is not an instant after the start"))
        });
        let request = Self {
            id: line.id,
            conversation: line.conversation,
            turn: line.turn,
            continues: line.continues,
            arrival: arrival.transpose()?,
            model: line.model,
            prompt,
            images: line.images,
            input_tokens: line.input_tokens.ok_or("missing `input_tokens`")?,
            cacheable_tokens: line.cacheable_tokens,
            output_tokens: line.output_tokens.ok_or("missing `output_tokens`")?,
            slo: line.slo,
            group: line.group,
        };
        request.check().map(|()| request)
    }
}

impl From<Request> for Line {
    fn from(request: Request) -> Self {
        let mut line = Self {
            id: request.id,
            conversation: request.conversation,
            turn: request.turn,
            continues: request.continues,
            arrival: request.arrival.map(|arrival| arrival.as_secs_f64()),
            model: request.model,
            images: request.images,
            input_tokens: Some(request.input_tokens),
            cacheable_tokens: request.cacheable_tokens,
            output_tokens: Some(request.output_tokens),
            slo: request.slo,
            group: request.group,
            ..Self::default()
        };
        match request.prompt {
            Prompt::Text(text) => line.text = Some(text),
            Prompt::Tokens(ids) => line.input_ids = Some(ids),
            Prompt::Messages(messages) => line.messages = Some(messages),
        }
        line
    }
}

impl Request {
    /// A request by itself, of which nothing else is said.
    #[must_use]
    pub fn new(id: String, prompt: Prompt, input_tokens: u32, output_tokens: NonZeroU32) -> Self {
        Self {
            id,
            conversation: None,
            turn: 0,
            continues: false,
            arrival: None,
            model: None,
            prompt,
            images: Vec::new(),
            input_tokens,
            cacheable_tokens: None,
            output_tokens,
            slo: None,
            group: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.id.is_empty() {
            return Err("missing `id`".into());
        }
        if let Some(cacheable) = self.cacheable_tokens.filter(|n| *n > self.input_tokens) {
            return Err(format!(
                "`cacheable_tokens` is {cacheable} but the prompt has {}",
                self.input_tokens
            ));
        }
        if self.continues && self.conversation.is_none() {
            return Err("`continues` without a `conversation` to continue".into());
        }
        images::check(self)?;
        match &self.prompt {
            Prompt::Tokens(ids) if ids.len() != self.input_tokens as usize => Err(format!(
                "`input_tokens` is {} but `input_ids` has {} entries",
                self.input_tokens,
                ids.len()
            )),
            Prompt::Messages(messages) if messages.is_empty() => Err("`messages` is empty".into()),
            _ => Ok(()),
        }
    }
}
