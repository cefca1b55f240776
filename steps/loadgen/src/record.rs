//! What happened to one request: raw instants and the server's own words, nothing derived.
//!
//! Every instant is monotonic nanoseconds since the start of the run. Knows no metric; those
//! are functions of records, so that their definitions can change after the run.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Request, Slo};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Nobody listens at the address.
    Refused,
    /// No connection for another reason: name, route, TLS, time.
    Connect,
    /// The server answered with a status that is not a success.
    HttpStatus(u16),
    /// The stream itself reported an error.
    InBand,
    /// The answer ended before it was finished.
    Truncated,
    /// The answer took longer than allowed, altogether or between two pieces.
    Timeout,
    /// The answer is not what the protocol promises, is too large, or is empty.
    BadOutput,
}

impl Class {
    /// Whether nothing of the request was ever sent.
    pub(crate) fn is_before_sending(self) -> bool {
        matches!(self, Self::Refused | Self::Connect)
    }
}

/// How a request ended. Its text form, which is also its serialised form, is `completed`,
/// `dropped`, or the class of the failure (`refused`, `http_503`, `in_band`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Outcome {
    /// The answer was finished.
    Completed,
    /// It was not, and why.
    Failed(Class),
    /// The run was interrupted while the request waited or was in flight, or its conversation had
    /// ended before it could be asked: neither a success nor a failure of its own.
    Dropped,
}

/// A text that is no [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no outcome of a request")]
pub struct ParseOutcomeError(String);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::HttpStatus(status) => return write!(f, "http_{status}"),
            Self::InBand => "in_band",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::BadOutput => "bad_output",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Failed(class) => class.fmt(f),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

impl FromStr for Outcome {
    type Err = ParseOutcomeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let class = match text {
            "completed" => return Ok(Self::Completed),
            "dropped" => return Ok(Self::Dropped),
            "refused" => Class::Refused,
            "connect" => Class::Connect,
            "in_band" => Class::InBand,
            "truncated" => Class::Truncated,
            "timeout" => Class::Timeout,
            "bad_output" => Class::BadOutput,
            _ => {
                let status = text
                    .strip_prefix("http_")
                    .and_then(|status| status.parse().ok());
                Class::HttpStatus(status.ok_or_else(|| ParseOutcomeError(text.to_owned()))?)
            }
        };
        Ok(Self::Failed(class))
    }
}

impl TryFrom<String> for Outcome {
    type Error = ParseOutcomeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> Self {
        outcome.to_string()
    }
}

/// One piece of an answer that carried content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the client read it.
    pub at: u64,
    /// How many tokens it carried: the step of the running usage where the server sends one,
    /// else 1. May be 0 where the server sent a token in two pieces.
    pub tokens: u32,
}

/// What the server counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer, an end-of-sequence token included.
    pub completion_tokens: u32,
    /// Prompt tokens found in the prefix cache, where the server says so.
    pub cached_tokens: Option<u32>,
}

/// Everything known about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the run, from 0, in the order of arrival.
    pub index: u64,
    /// Id of the request in its workload; repeated where the workload was cycled.
    pub request: String,
    /// The conversation it is a turn of.
    pub conversation: Option<String>,
    /// Which turn.
    pub turn: u32,
    /// Its label.
    pub group: Option<String>,
    /// The model asked for.
    pub model: String,
    /// Prompt length in tokens: the workload's own, behind which a turn that continues its
    /// conversation has everything that was said before by the counts of then.
    pub input_tokens: u32,
    /// How many of these a prefix cache without limits would hold, where the workload says so.
    pub cacheable_tokens: Option<u32>,
    /// Answer length asked for, in tokens.
    pub output_tokens: NonZeroU32,
    /// Its objectives.
    pub slo: Option<Slo>,

    /// When the arrival process, or in a closed loop the user who became free, wanted it sent.
    pub scheduled: u64,
    /// When the client began to send it; a fresh connection is made after this instant, so
    /// that a cold connect is part of what is measured. Absent if it was never sent.
    pub dispatched: Option<u64>,
    /// When its connection was ready, if a fresh one was made for it.
    pub connected: Option<u64>,
    /// When the head of the answer was read.
    pub headers: Option<u64>,
    /// Every piece of content, reasoning included, in order.
    pub events: Vec<Event>,
    /// When its end was known: the end of the stream, or the failure.
    pub done: u64,

    /// How often it was sent: 2 where a pooled connection turned out to be closed.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// What the server counted.
    pub usage: Option<Usage>,
    /// Why the server stopped: `length`, `stop`, ...
    pub finish: Option<String>,
    /// BLAKE3, in hex, of all content in the order of its arrival; absent without content.
    pub text_digest: Option<String>,
}

impl Record {
    /// The record of `request` before anything happened to it; `model` is the target's.
    pub(crate) fn unsent(request: &Request, model: &str) -> Self {
        Self {
            index: 0,
            request: request.id.clone(),
            conversation: request.conversation.clone(),
            turn: request.turn,
            group: request.group.clone(),
            model: request.model.as_deref().unwrap_or(model).to_owned(),
            input_tokens: request.input_tokens,
            cacheable_tokens: request.cacheable_tokens,
            output_tokens: request.output_tokens,
            slo: request.slo,
            scheduled: 0,
            dispatched: None,
            connected: None,
            headers: None,
            events: Vec::new(),
            done: 0,
            attempts: 0,
            outcome: Outcome::Dropped,
            error: None,
            usage: None,
            finish: None,
            text_digest: None,
        }
    }

    /// When the first content was read.
    #[must_use]
    pub fn first_content(&self) -> Option<u64> {
        self.events.first().map(|event| event.at)
    }

    /// When the last content was read.
    #[must_use]
    pub fn last_content(&self) -> Option<u64> {
        self.events.last().map(|event| event.at)
    }

    /// Tokens of the events, as counted on the wire.
    #[must_use]
    pub fn event_tokens(&self) -> u64 {
        self.events
            .iter()
            .map(|event| u64::from(event.tokens))
            .sum()
    }

    /// Tokens of the answer: the server's count, else that of the events.
    #[must_use]
    pub fn answer_tokens(&self) -> u64 {
        self.usage.map_or_else(
            || self.event_tokens(),
            |usage| u64::from(usage.completion_tokens),
        )
    }

    /// Tokens of the prompt: the server's count, else that of the workload.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        u64::from(
            self.usage
                .map_or(self.input_tokens, |usage| usage.prompt_tokens),
        )
    }

    /// Whether the answer was finished.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.outcome == Outcome::Completed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_one_text_form() {
        let classes = [
            Class::Refused,
            Class::Connect,
            Class::HttpStatus(503),
            Class::InBand,
            Class::Truncated,
            Class::Timeout,
            Class::BadOutput,
        ];
        let failed = classes.into_iter().map(Outcome::Failed);
        for outcome in failed.chain([Outcome::Completed, Outcome::Dropped]) {
            assert_eq!(outcome.to_string().parse(), Ok(outcome));
        }
        assert_eq!(
            Outcome::Failed(Class::HttpStatus(503)).to_string(),
            "http_503"
        );
        assert_eq!(
            serde_json::to_string(&Outcome::Dropped).unwrap(),
            "\"dropped\""
        );
        assert!("http_".parse::<Outcome>().is_err());
        assert!("ok".parse::<Outcome>().is_err());
    }
}
