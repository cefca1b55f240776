//! Whom to ask and how: the server, what is sent along, and for how long to wait.
//!
//! Plain values without behaviour; what they mean on the wire, the client and the protocol
//! know.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Address, Protocol, Trust};

/// What stands for an image in the texts of LLaVA and of models that follow it.
pub const IMAGE_TOKEN: &str = "<image>";

/// How long an answer is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputLength {
    /// Exactly the request's `output_tokens`: sends `ignore_eos`, so that every run does the
    /// same work.
    #[default]
    Exact,
    /// At most the request's `output_tokens`: the model may stop by itself.
    AtMost,
}

/// How answers are generated, the same for every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// What `output_tokens` means.
    pub length: OutputLength,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
}

/// A value that is never shown: its `Debug` is `[redacted]` and it has no serialised form.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.1: a connection for every request under way.
    #[default]
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2: many requests over one connection, as many as the server allows. With TLS the server has to
    /// choose it, without it is spoken unasked.
    #[serde(rename = "2")]
    Two,
}

/// Whom to ask and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the server listens.
    pub address: Address,
    /// Whose certificates it may have, where it speaks TLS.
    pub trust: Trust,
    /// The model asked for by requests that name none.
    pub model: String,
    /// The wire protocol.
    pub protocol: Protocol,
    /// The version of HTTP.
    pub http: HttpVersion,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// How answers are generated.
    pub generation: Generation,
    /// Whether a request says by when it has to be answered: `slo`, its longest end-to-end latency in
    /// seconds, which servers of several models know.
    pub tells_objectives: bool,
    /// What stands for each image in a text that is sent by SGLang's own protocol, before the text of its
    /// turn; servers put the image in its place.
    pub image_token: String,
    /// Merged into every request's body: tables merge, `null` removes what the protocol would
    /// send, anything else replaces it. `{"stream_options": {"continuous_usage_stats": true}}`
    /// asks servers that know it to count tokens in every chunk.
    pub extra: Map<String, Value>,
}

impl Target {
    /// A server that is asked over HTTP/1.1, without a key, for answers of their exact lengths.
    #[must_use]
    pub fn new(address: Address, model: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            address,
            trust: Trust::default(),
            model: model.into(),
            protocol,
            http: HttpVersion::default(),
            api_key: None,
            generation: Generation::default(),
            tells_objectives: false,
            image_token: IMAGE_TOKEN.to_owned(),
            extra: Map::new(),
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From dispatch to the end of the answer.
    pub request: Duration,
    /// For the next piece of an answer once content has begun; the wait for the first one is
    /// bounded by `request` alone, since under load it is a queue and no fault.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// 10 s, 10 minutes and 1 minute.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(600),
            idle: Duration::from_secs(60),
        }
    }
}

/// How much is read from a server before it is called broken, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head of an answer; at least 8 KiB are allowed.
    pub head: usize,
    /// One line of an event stream.
    pub line: usize,
    /// One event.
    pub event: usize,
    /// One whole answer.
    pub body: u64,
    /// All images of the workload, encoded as they are sent: they are held while the run lasts.
    pub images: u64,
    /// What all conversations under way have said, where turns stand behind it; one that goes beyond
    /// has its further turns dropped.
    pub histories: u64,
}

impl Default for Limits {
    /// 64 KiB, 1 MiB, 4 MiB, 256 MiB, and 4 GiB each for images and histories.
    fn default() -> Self {
        Self {
            head: 64 << 10,
            line: 1 << 20,
            event: 4 << 20,
            body: 256 << 20,
            images: 4 << 30,
            histories: 4 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let mut target = Target::new("http://h".parse().unwrap(), "m", Protocol::Chat);
        target.api_key = Some(Secret::new("hush"));
        let shown = format!("{target:?}");
        assert!(shown.contains("[redacted]") && !shown.contains("hush"));
    }
}
