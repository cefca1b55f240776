//! Emptying a server's prefix cache, by whichever route it has for that.

use crate::http::{self, Peer};
use engine::step::{FailureClass, StepError};
use std::time::Duration;

/// Where servers empty their caches: SGLang and the embedded one, vLLM.
pub(crate) const ROUTES: [&str; 2] = ["/flush_cache", "/reset_prefix_cache"];

/// Empties the cache by the first of the routes that the server knows; which, or none.
pub(crate) async fn flush(
    server: Peer<'_>,
    limit: Duration,
    key: Option<&str>,
) -> Result<Option<&'static str>, StepError> {
    for route in ROUTES {
        let (status, said) = http::post_text(server, route, String::new(), limit, key).await?;
        match status {
            // vLLM answers so, too, where something holds blocks.
            200 if is_refused(&said) => {
                let message = format!("the server could not empty its cache by `{route}`: {said}");
                return Err(StepError::new(message)
                    .help("nothing may run on it meanwhile")
                    .class(FailureClass::Infrastructure));
            }
            200 => return Ok(Some(route)),
            404 | 405 => {}
            401 | 403 => {
                let message = format!("the server refuses `{route}`: status {status}");
                return Err(StepError::new(message).help(
                    "give the key that it asks for (`api_key` of `server.reset`); a service that is not to empty its cache says `flush_cache = false`",
                ));
            }
            status => {
                let message = format!("the server answered {status} to `{route}`");
                return Err(StepError::new(message)
                    .help("nothing may run on it meanwhile")
                    .class(FailureClass::Infrastructure));
            }
        }
    }
    Ok(None)
}

/// Whether an answer says of itself that nothing was done.
fn is_refused(said: &str) -> bool {
    let said: serde_json::Value = serde_json::from_str(said).unwrap_or_default();
    said.get("success").and_then(serde_json::Value::as_bool) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_that_nothing_was_emptied() {
        assert!(is_refused(r#"{"success":false}"#));
        for said in [r#"{"success":true}"#, "Cache flushed.\n", ""] {
            assert!(!is_refused(said), "{said}");
        }
    }
}
