//! The text that is to be continued: a prompt in its four spellings, or a conversation.

use serde::Deserialize;

use super::super::error::ApiError;
use super::super::fields::Fields;
use super::Served;
use crate::chat::{Message, Role};

/// Prompts as token ids.
#[derive(Debug)]
pub(super) struct Prompts {
    pub(super) ids: Vec<Vec<u32>>,
    pub(super) is_list: bool,
}

/// The four spellings of a prompt.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// The prompts in the first of the fields `names` that is there.
pub(super) fn prompts(
    fields: &mut Fields,
    names: &[&'static str],
    served: &Served,
) -> Result<Prompts, ApiError> {
    let expected = "a string, an array of token ids, or an array of either";
    let name = names.iter().find(|name| fields.has(name));
    let Some(name) = name.or(names.last()).copied() else {
        return Err(ApiError::bad_request("no prompt"));
    };
    let missing = || ApiError::field(name, format!("missing, expected {expected}"));
    let spelling = fields.take(name, expected)?.ok_or_else(missing)?;
    let is_list = matches!(spelling, Spelling::Texts(_) | Spelling::IdLists(_));
    let prompts = match spelling {
        Spelling::Text(text) => vec![served.tokenizer.encode(&text)?],
        Spelling::Ids(ids) => vec![ids],
        Spelling::Texts(texts) => {
            let ids = texts.iter().map(|text| served.tokenizer.encode(text));
            ids.collect::<Result<_, _>>()?
        }
        Spelling::IdLists(lists) => lists,
    };
    let mut ids = prompts.iter().flatten();
    if let Some(id) = ids.find(|id| **id as usize >= served.vocab_size) {
        let n = served.vocab_size;
        let problem = format!("token id {id} is outside the vocabulary of {n} ids");
        return Err(ApiError::field(name, problem));
    }
    Ok(Prompts {
        ids: prompts,
        is_list,
    })
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
