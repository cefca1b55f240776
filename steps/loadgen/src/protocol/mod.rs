//! The wire protocols: how a request is put into a body, and what an event of the answer says.
//!
//! Both are pure: bodies and events are bytes in memory. Knows no connection and no clock.

mod answer;
mod body;
mod chunk;
mod decoder;
mod shown;
mod template;

use serde::{Deserialize, Serialize};

use crate::{PlanError, Prompt, Request};

pub(crate) use answer::Answer;
pub(crate) use body::{RESERVED, render, render_turn};
pub(crate) use decoder::{Decoder, Fault, excerpt};
pub(crate) use shown::Said;

/// How to talk to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OpenAI's completions: a prompt of text or of token ids.
    Completions,
    /// OpenAI's chat completions: messages, also with images; a text prompt becomes one user message.
    Chat,
    /// SGLang's own `/generate`: a prompt of text, also with images, or of token ids; it counts the
    /// tokens of every event.
    Sglang,
    /// The `generate_stream` of TensorRT-LLM behind Triton: a prompt of text. It tells no counts
    /// and no reason why an answer ended.
    Triton,
}

impl Protocol {
    /// The name as plans spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
            Self::Sglang => "sglang",
            Self::Triton => "triton",
        }
    }

    /// The path below the root of a server of `model`.
    pub(crate) fn path(self, model: &str) -> String {
        match self {
            Self::Completions => "v1/completions".to_owned(),
            Self::Chat => "v1/chat/completions".to_owned(),
            Self::Sglang => "generate".to_owned(),
            Self::Triton => format!("v2/models/{model}/generate_stream"),
        }
    }

    /// Whether the server says why an answer ended.
    pub(crate) fn tells_finish(self) -> bool {
        self != Self::Triton
    }

    /// Whether a body says which model is asked. SGLang's own protocol has no word for it, and
    /// Triton's has it in the path, which is one for all requests of a run.
    fn names_model(self) -> bool {
        matches!(self, Self::Completions | Self::Chat)
    }

    /// Whether a prompt can have images.
    fn shows_images(self) -> bool {
        matches!(self, Self::Chat | Self::Sglang)
    }

    /// Whether `request` can be sent to a server of `model`.
    pub(crate) fn accepts(self, request: &Request, model: &str) -> Result<(), PlanError> {
        if let Some(asked) = &request.model
            && asked != model
            && !self.names_model()
        {
            return Err(PlanError::OtherModel {
                id: request.id.clone(),
                model: asked.clone(),
                protocol: self.name(),
            });
        }
        if !request.images.is_empty() && !self.shows_images() {
            return Err(PlanError::Unsendable {
                id: request.id.clone(),
                prompt: "text with images",
                protocol: self.name(),
                help: "use the chat or the sglang protocol",
            });
        }
        let (prompt, help) = match (self, &request.prompt) {
            (Self::Completions, Prompt::Messages(_)) => (
                "messages",
                "use the chat protocol, or a workload of text or token ids",
            ),
            (Self::Sglang, Prompt::Messages(_)) => (
                "messages",
                "use the chat protocol, or a workload of text or token ids",
            ),
            (Self::Triton, Prompt::Messages(_) | Prompt::Tokens(_)) => (
                "messages or token ids",
                "use TensorRT-LLM's OpenAI server, or a workload of text",
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
