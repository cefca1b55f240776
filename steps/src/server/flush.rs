//! Emptying a server's prefix cache, by whichever route it has for that.

use crate::http::{self, Peer};
use engine::step::{FailureClass, StepError};
use std::time::{Duration, Instant};

/// Where servers empty their caches: SGLang and the embedded one, vLLM.
const WHOLE: [&str; 2] = ["/flush_cache", "/reset_prefix_cache"];
/// Where llama.cpp empties one of the slots that it lists at [`SLOTS`].
const ERASE: &str = "/slots/{id}?action=erase";
/// Where it lists them.
const SLOTS: &str = "/slots";
/// All of them, as they are told.
pub(crate) const ROUTES: [&str; 3] = [WHOLE[0], WHOLE[1], ERASE];

/// How long a server that is busy is asked again: what it answered last it may still be putting away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Empties the cache by the first of the routes that the server knows; which, or none. One that is busy is
/// asked again for a while.
pub(crate) async fn flush(
    server: Peer<'_>,
    limit: Duration,
    key: Option<&str>,
) -> Result<Option<&'static str>, StepError> {
    let began = Instant::now();
    loop {
        let flushed = flush_once(server, limit, key).await;
        let is_busy = matches!(&flushed, Err(Failed::Busy(_)));
        if !is_busy || began.elapsed() >= PATIENCE.min(limit) {
            return flushed.map_err(Failed::told);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a cache was not emptied.
enum Failed {
    /// Something runs on the server, as it says.
    Busy(String),
    Step(StepError),
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl Failed {
    /// As the step's own error.
    fn told(self) -> StepError {
        match self {
            Self::Busy(message) => StepError::new(message)
                .help("nothing may run on it meanwhile")
                .class(FailureClass::Infrastructure),
            Self::Step(error) => error,
        }
    }
}

async fn flush_once(
    server: Peer<'_>,
    limit: Duration,
    key: Option<&str>,
) -> Result<Option<&'static str>, Failed> {
    for route in WHOLE {
        let (status, said) = http::post_text(server, route, String::new(), limit, key).await?;
        match status {
            // vLLM answers so, too, where something holds blocks.
            200 if is_refused(&said) => {
                let message = format!("the server could not empty its cache by `{route}`: {said}");
                return Err(Failed::Busy(message));
            }
            200 => return Ok(Some(route)),
            // SGLang answers so while it has requests, ended ones that it has not put away among them.
            400 | 409 | 503 => {
                let message = format!("the server answered {status} to `{route}`");
                return Err(Failed::Busy(message));
            }
            404 | 405 => {}
            401 | 403 => {
                let message = format!("the server refuses `{route}`: status {status}");
                return Err(StepError::new(message).help(
                    "give the key that it asks for (`api_key` of `server.reset`); a service that is not to empty its cache says `flush_cache = false`",
                ).into());
            }
            status => {
                let message = format!("the server answered {status} to `{route}`");
                return Err(StepError::new(message)
                    .help("its own log says why")
                    .class(FailureClass::Infrastructure)
                    .into());
            }
        }
    }
    Ok(erase_slots(server, limit, key).await?.then_some(ERASE))
}

/// Empties every slot of a server that lists some; whether it does. One that is busy waits for its request.
async fn erase_slots(
    server: Peer<'_>,
    limit: Duration,
    key: Option<&str>,
) -> Result<bool, StepError> {
    let listed = http::get_as(server, SLOTS, key).await?;
    let slots = listed.body.as_array().filter(|_| listed.status == 200);
    let Some(slots) = slots.filter(|slots| !slots.is_empty()) else {
        return Ok(false);
    };
    for id in slots.iter().filter_map(|slot| slot.get("id")) {
        let route = ERASE.replace("{id}", &id.to_string());
        let (status, said) = http::post_text(server, &route, String::new(), limit, key).await?;
        match status {
            200 => {}
            501 => {
                let message = format!("the server does not empty its slots: {}", said.trim());
                return Err(StepError::new(message).help(
                    "start it with `--slot-save-path FOLDER/`, without which it refuses that, and with `--cache-ram 0`, since nothing empties what it keeps there",
                ));
            }
            status => {
                let message = format!("the server answered {status} to `{route}`");
                return Err(StepError::new(message)
                    .help("its own log says why")
                    .class(FailureClass::Infrastructure));
            }
        }
    }
    Ok(true)
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
