//! Single questions to a server, and its answers as they came. Never on a measured path.

use crate::http::{self, Peer};
use engine::step::StepError;
use loadgen::{SseError, SseParser};
use serde_json::Value;
use std::time::Duration;

/// The longest line and the largest event that are read, bytes.
const LARGEST_EVENT: usize = 4 << 20;

/// An answer.
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Said {
    /// The body as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The data of every event of a stream.
    pub(super) fn events(&self) -> Result<Vec<String>, SseError> {
        let mut parser = SseParser::new(LARGEST_EVENT, LARGEST_EVENT);
        let mut events = Vec::new();
        parser.push(self.text.as_bytes(), |event| {
            events.push(String::from_utf8_lossy(event.data).into_owned());
            Ok::<_, SseError>(())
        })?;
        Ok(events)
    }
}

/// Posts JSON, or whatever else `body` is.
pub(super) async fn post(
    server: Peer<'_>,
    path: &str,
    body: String,
    limit: Duration,
    api_key: Option<&str>,
) -> Result<Said, StepError> {
    let (status, text) = http::post_text(server, path, body, limit, api_key).await?;
    Ok(Said { status, text })
}

/// Counts that an answer reports.
pub(super) struct Usage {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
    pub(super) cached: Option<u64>,
}

/// Reads the `usage` of an answer or of an event.
pub(super) fn usage(answer: &Value) -> Usage {
    let count = |path: &str| answer.pointer(path).and_then(Value::as_u64);
    Usage {
        prompt: count("/usage/prompt_tokens"),
        completion: count("/usage/completion_tokens"),
        cached: count("/usage/prompt_tokens_details/cached_tokens"),
    }
}
