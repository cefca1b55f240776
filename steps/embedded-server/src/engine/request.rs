//! What the engine is asked, and what it answers token by token.

use std::time::Duration;

use crate::cache::Matched;
use crate::clock::Nanos;
use crate::tokenizer::TextStream;

use super::sampler::SamplingParams;

/// One prompt to be continued.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids, at least one, each within the vocabulary.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// When the text ends.
    pub ending: Ending,
    /// The text so far, where stop strings have to be watched.
    pub watched: Option<TextStream>,
    /// How long after its arrival it has to be answered, if anyone says so.
    pub objective: Option<Duration>,
}

/// When a text ends, beside at a stop string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Most tokens, at least one.
    pub max_tokens: usize,
    /// No end before so many tokens; ids that would end it are not sampled until then.
    pub min_tokens: usize,
    /// Whether the model's end-of-sequence ids count for nothing: they are never sampled then.
    pub ignores_eos: bool,
    /// Further ids that end the text.
    pub stop_ids: Vec<u32>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop id did: the last token has no text.
    StopToken,
    /// A stop string was completed.
    StopString,
    /// The most tokens were reached.
    Length,
}

impl FinishReason {
    /// OpenAI's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::StopToken | FinishReason::StopString => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// What comes back for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which of the requests that were submitted together.
    pub index: usize,
    /// What happened to it.
    pub kind: EventKind,
}

/// What happened to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A token was sampled; with a reason, it was the last.
    Token {
        /// Its id.
        id: u32,
        /// Why it was the last, if it was.
        finish: Option<FinishReason>,
        /// Prompt tokens found in the cache, told with the first token; 0 with the others.
        cached: usize,
        /// How it came about.
        origin: Origin,
    },
    /// The request was broken off. Nothing follows.
    Failed(Failure),
}

/// How a token came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The step that ended with it, as the step log numbers it; `None` where nothing computes.
    pub step: Option<u64>,
    /// When that step had ended.
    pub ready: Nanos,
    /// When its request was first scheduled.
    pub scheduled: Nanos,
    /// What its request found in the cache then.
    pub cached: Matched,
    /// How often its request has given its place back and come again.
    pub retractions: u32,
}

/// Why a request was broken off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// It waited so long that it would miss its objective.
    #[error("the request would miss its objective and was broken off while it waited")]
    Late,
    /// Its model left the device, and it was not to wait for it.
    #[error("the model was taken off the device, and the request was broken off")]
    Evicted,
    /// The model has come back with a cache that is too small for it.
    #[error("the model's key-value cache is smaller than it was, too small for this request")]
    TooLarge,
    /// The executor refused a step.
    #[error("a forward step failed: {0}")]
    Step(#[from] crate::executor::StepError),
}
