//! The text that is to be continued: a prompt in its four spellings, or a conversation.

use serde::Deserialize;

use super::super::error::ApiError;
use super::super::fields::Fields;
use super::Served;
use crate::chat::{Message, Role};

/// The four spellings of a prompt.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

pub(super) fn prompts(fields: &mut Fields, served: &Served) -> Result<Vec<Vec<u32>>, ApiError> {
    let expected = "a string, an array of token ids, or an array of either";
    let missing = || ApiError::field("prompt", format!("missing, expected {expected}"));
    let prompts = match fields.take("prompt", expected)?.ok_or_else(missing)? {
        Prompts::Text(text) => vec![served.tokenizer.encode(&text)?],
        Prompts::Ids(ids) => vec![ids],
        Prompts::Texts(texts) => {
            let ids = texts.iter().map(|text| served.tokenizer.encode(text));
            ids.collect::<Result<_, _>>()?
        }
        Prompts::IdLists(lists) => lists,
    };
    let mut ids = prompts.iter().flatten();
    if let Some(id) = ids.find(|id| **id as usize >= served.vocab_size) {
        let n = served.vocab_size;
        let problem = format!("token id {id} is outside the vocabulary of {n} ids");
        return Err(ApiError::field("prompt", problem));
    }
    Ok(prompts)
}

#[derive(Deserialize)]
struct AskedMessage {
    role: Role,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// Only text has a meaning here: other kinds of parts are refused.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
}

pub(super) fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let expected = "an array of messages, each with a `role` (system, user, assistant or tool) and \
                    text as `content`";
    let asked: Option<Vec<AskedMessage>> = fields.take("messages", expected)?;
    let missing = || ApiError::field("messages", format!("missing, expected {expected}"));
    let asked = asked
        .filter(|messages| !messages.is_empty())
        .ok_or_else(missing)?;
    let text = |content| match content {
        Content::Text(text) => text,
        Content::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
    };
    let message = |asked: AskedMessage| Message {
        role: asked.role,
        content: text(asked.content),
    };
    Ok(asked.into_iter().map(message).collect())
}
