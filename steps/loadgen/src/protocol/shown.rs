//! A prompt with the images that it shows, and how chat messages are written that show some.
//!
//! Images are texts that were encoded before the run, and are copied into a body as they are: what is kept
//! of a conversation only points at them.

use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::workload::shown_in;
use crate::{Images, Prompt, Protocol, Request, Target};

/// An image as it is sent, and which message of a chat shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) message: usize,
    pub(crate) address: Arc<str>,
}

/// What is said to a server, in the form in which it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) prompt: Prompt,
    pub(crate) images: Vec<Shown>,
}

impl Said {
    /// What a request says itself: in chat a text is a message, and in SGLang's own protocol each image
    /// has a mark before the text.
    pub(crate) fn of(target: &Target, request: &Request, images: &Images) -> Self {
        let prompt = match (&request.prompt, target.protocol) {
            (Prompt::Text(text), Protocol::Chat) => {
                Prompt::Messages(vec![json!({ "role": "user", "content": text })])
            }
            (Prompt::Text(text), Protocol::Sglang) if !request.images.is_empty() => {
                Prompt::Text(target.image_token.repeat(request.images.len()) + text)
            }
            (prompt, _) => prompt.clone(),
        };
        let message = match &prompt {
            Prompt::Messages(messages) => shown_in(messages).unwrap_or(0),
            Prompt::Text(_) | Prompt::Tokens(_) => 0,
        };
        let shown = |address| Shown { message, address };
        Self {
            images: images.of(request).into_iter().map(shown).collect(),
            prompt,
        }
    }

    /// Puts `next` behind it; both are of one form, which the workload has made sure of.
    pub(crate) fn push(&mut self, next: Self) {
        let before = match &self.prompt {
            Prompt::Messages(messages) => messages.len(),
            Prompt::Text(_) | Prompt::Tokens(_) => 0,
        };
        self.images
            .extend(next.images.into_iter().map(|shown| Shown {
                message: shown.message + before,
                ..shown
            }));
        match (&mut self.prompt, next.prompt) {
            (Prompt::Text(before), Prompt::Text(text)) => before.push_str(&text),
            (Prompt::Tokens(before), Prompt::Tokens(ids)) => before.extend(ids),
            (Prompt::Messages(before), Prompt::Messages(messages)) => before.extend(messages),
            (said, prompt) => *said = prompt,
        }
    }
}

/// Messages of a chat as they are sent.
pub(super) struct Messages<'a> {
    pub(super) messages: &'a [Value],
    pub(super) images: &'a [Shown],
}

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.messages.len()))?;
        for (at, message) in self.messages.iter().enumerate() {
            match (message, self.images.iter().any(|shown| shown.message == at)) {
                (Value::Object(_), true) => list.serialize_element(&WithImages {
                    message,
                    images: self.images,
                    at,
                })?,
                _ => list.serialize_element(message)?,
            }
        }
        list.end()
    }
}

/// A message that shows those of the images that are meant for it.
struct WithImages<'a> {
    message: &'a Value,
    images: &'a [Shown],
    at: usize,
}

impl Serialize for WithImages<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (key, value) in self.message.as_object().into_iter().flatten() {
            if key != "content" {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("content", &Parts(self))?;
        map.end()
    }
}

/// The content of a message: its images, and then what it says.
struct Parts<'a>(&'a WithImages<'a>);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Address<'a> {
            url: &'a str,
        }
        #[derive(Serialize)]
        struct Image<'a> {
            r#type: &'static str,
            image_url: Address<'a>,
        }
        let WithImages {
            message,
            images,
            at,
        } = self.0;
        let mut list = to.serialize_seq(None)?;
        for shown in images.iter().filter(|shown| shown.message == *at) {
            list.serialize_element(&Image {
                r#type: "image_url",
                image_url: Address {
                    url: &shown.address,
                },
            })?;
        }
        match &message["content"] {
            Value::Null => {}
            Value::Array(parts) => {
                for part in parts {
                    list.serialize_element(part)?;
                }
            }
            text => list.serialize_element(&json!({ "type": "text", "text": text }))?,
        }
        list.end()
    }
}
