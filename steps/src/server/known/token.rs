//! Whether a server really generates: one token of it. A server that answers at `/health` may be far from
//! that.

use crate::http::{self, Peer};
use engine::service::Probe;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the first token may take: kernels are compiled for it.
const LIMIT: Duration = Duration::from_secs(300);
/// Statuses that pass: not loaded yet, too busy.
const NOT_YET: [u16; 3] = [429, 502, 503];
/// How much of a refusal is shown, characters.
const SHOWN: usize = 300;

/// Asks for one token; what speaks against it if none comes.
pub(super) async fn generated(server: Peer<'_>, model: &str) -> Result<(), Probe> {
    let path = "/v1/completions";
    let body = json!({ "model": model, "prompt": "one", "max_tokens": 1, "temperature": 0 });
    let said = http::post_text(server, path, body.to_string(), LIMIT, None).await;
    match said {
        Ok((200, text)) => counted(&text, path),
        Ok((status, _)) if NOT_YET.contains(&status) => {
            Err(Probe::Unhealthy(format!("{status} at `{path}`")))
        }
        Ok((status, text)) => {
            let text: String = text.trim().chars().take(SHOWN).collect();
            Err(Probe::Failed(format!(
                "it serves, but answers {status} to a prompt of one word at `{path}`: {text}"
            )))
        }
        Err(error) => Err(Probe::NotYet(error.message)),
    }
}

/// An answer counts only with a token in it.
fn counted(text: &str, path: &str) -> Result<(), Probe> {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let tokens = answer.pointer("/usage/completion_tokens");
    match tokens.and_then(Value::as_u64) {
        Some(1..) => Ok(()),
        _ => Err(Probe::Unhealthy(format!(
            "an answer without a token at `{path}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_is_a_sign_of_life() {
        let answer = r#"{"choices": [{"text": " a"}], "usage": {"completion_tokens": 1}}"#;
        assert_eq!(counted(answer, "/v1/completions"), Ok(()));
        for answer in [r#"{"usage": {"completion_tokens": 0}}"#, "{}", "<html>"] {
            assert!(counted(answer, "/v1/completions").is_err(), "{answer}");
        }
    }
}
