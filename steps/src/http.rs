//! Control calls to servers: health, names, statistics. Never on a measured path.

use engine::service::Probe;
use engine::step::{FailureClass, StepError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

/// What a control call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What no call may exceed, whatever its caller says.
const LONGEST: Duration = Duration::from_secs(600);
/// The largest answer that is read, bytes.
const LARGEST: usize = 64 << 20;

fn client() -> Result<&'static reqwest::Client, StepError> {
    static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        // Control calls go to the server itself, whatever proxy the environment names.
        let builder = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .pool_max_idle_per_host(0);
        builder.build().map_err(|e| e.to_string())
    });
    made.as_ref()
        .map_err(|e| StepError::because("could not make an HTTP client", e))
}

/// An answer: its status and its body as JSON, or null if it is none.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Asks with GET.
pub(crate) async fn get(url: &str, path: &str) -> Result<Answer, StepError> {
    ask(client()?.get(join(url, path)), url, path).await
}

/// Asks with GET; a key is sent as a bearer token.
pub(crate) async fn get_as(
    url: &str,
    path: &str,
    api_key: Option<&str>,
) -> Result<Answer, StepError> {
    ask(with_key(client()?.get(join(url, path)), api_key), url, path).await
}

/// Asks with POST and no body.
pub(crate) async fn post(url: &str, path: &str) -> Result<Answer, StepError> {
    ask(client()?.post(join(url, path)), url, path).await
}

/// Posts a body and returns the status and the text of the answer.
pub(crate) async fn post_text(
    url: &str,
    path: &str,
    body: String,
    limit: Duration,
    api_key: Option<&str>,
) -> Result<(u16, String), StepError> {
    let request = client()?
        .post(join(url, path))
        .timeout(limit.min(LONGEST))
        .header("content-type", "application/json")
        .body(body);
    let (status, bytes) = send(with_key(request, api_key), url, path).await?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Asks with GET and returns the status alone; the caller says how long that may take.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn status(url: &str, path: &str) -> Result<u16, String> {
    let client = client().map_err(|error| error.message)?;
    // Longer than any caller waits: one limit, and it is the caller's.
    let request = client.get(join(url, path)).timeout(LONGEST);
    match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(format!(
            "nothing answers at `{path}`: {}",
            root_cause(&error)
        )),
    }
}

fn with_key(request: reqwest::RequestBuilder, api_key: Option<&str>) -> reqwest::RequestBuilder {
    match api_key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

fn join(url: &str, path: &str) -> String {
    let root = url.trim_end_matches('/');
    root.strip_suffix("/v1").unwrap_or(root).to_owned() + path
}

async fn ask(request: reqwest::RequestBuilder, url: &str, path: &str) -> Result<Answer, StepError> {
    let (status, body) = send(request, url, path).await?;
    Ok(Answer {
        status,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

async fn send(
    request: reqwest::RequestBuilder,
    url: &str,
    path: &str,
) -> Result<(u16, Vec<u8>), StepError> {
    let failed = |e: reqwest::Error| {
        StepError::because(
            format!("the server at `{url}` did not answer `{path}`"),
            root_cause(&e),
        )
        .class(FailureClass::Infrastructure)
    };
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(StepError::new(format!(
                "the answer to `{path}` is larger than {LARGEST} bytes"
            )));
        }
    }
    Ok((status, body))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Asks a server that speaks the OpenAI protocol whether it serves, and which model.
pub(crate) async fn probe(url: &str, health: &str) -> Probe {
    match get(url, health).await {
        Ok(answer) if answer.status == 200 => {}
        Ok(answer) => {
            return Probe::Unhealthy(format!("{} at `{health}`", answer.status));
        }
        Err(_) => return Probe::NotYet(format!("nothing answers at `{url}` yet")),
    }
    match get(url, "/v1/models").await {
        Ok(answer) => match answer.body.pointer("/data/0/id").and_then(Value::as_str) {
            Some(model) => Probe::Ready(BTreeMap::from([("model".to_owned(), model.to_owned())])),
            None => Probe::Unhealthy("`/v1/models` names no model".to_owned()),
        },
        Err(error) => Probe::NotYet(error.message),
    }
}
