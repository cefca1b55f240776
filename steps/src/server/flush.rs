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
        let (status, _) = http::post_text(server, route, String::new(), limit, key).await?;
        match status {
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
