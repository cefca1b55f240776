//! The wire protocols: how a request is put into a body, and what an event of the answer says.
//!
//! Both are pure: bodies and events are bytes in memory. Knows no connection and no clock.

mod body;
mod chunk;
mod decoder;
mod template;

use serde::{Deserialize, Serialize};

use crate::{PlanError, Prompt, Request};

pub(crate) use body::{RESERVED, render};
pub(crate) use decoder::{Decoder, Fault, excerpt};

/// How to talk to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OpenAI's completions: a prompt of text or of token ids.
    Completions,
    /// OpenAI's chat completions: messages; a text prompt becomes one user message.
    Chat,
}

impl Protocol {
    /// The name as plans spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
        }
    }

    /// The path below `/v1`.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat/completions",
        }
    }

    pub(crate) fn accepts(self, request: &Request) -> Result<(), PlanError> {
        let (prompt, help) = match (self, &request.prompt) {
            (Self::Completions, Prompt::Messages(_)) => (
                "messages",
                "use the chat protocol, or a workload of text or token ids",
            ),
            (Self::Chat, Prompt::Tokens(_)) => (
                "token ids",
                "use the completions protocol, or a workload of text or messages",
            ),
            _ => return Ok(()),
        };
        Err(PlanError::Unsendable {
            id: request.id.clone(),
            prompt,
            protocol: self.name(),
            help,
        })
    }
}
