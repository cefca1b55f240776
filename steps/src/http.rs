//! Control calls to servers: health, names, statistics. Never on a measured path.

use engine::service::{Endpoint, Probe};
use engine::step::{FailureClass, StepError};
use loadgen::Trust;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// What a control call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What no call may exceed, whatever its caller says.
const LONGEST: Duration = Duration::from_secs(600);
/// The largest answer that is read, bytes.
const LARGEST: usize = 64 << 20;
/// How the library of TLS says that a certificate is not accepted.
const NOT_TRUSTED: &str = "invalid peer certificate";

/// The fact of an endpoint that names the file of the CA which has signed its certificate.
pub(crate) const CA_CERTIFICATES: &str = "ca_certificates";

/// Who is asked: an address, and whose certificates are accepted there.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    url: &'a str,
    ca_certificates: Option<&'a Path>,
}

impl<'a> Peer<'a> {
    /// A server of this machine, or one that Mozilla's roots vouch for.
    pub(crate) fn at(url: &'a str) -> Self {
        Self {
            url,
            ca_certificates: None,
        }
    }

    /// A service, by what is known of it.
    pub(crate) fn of(endpoint: &'a Endpoint) -> Self {
        Self {
            url: &endpoint.url,
            ca_certificates: endpoint.facts.get(CA_CERTIFICATES).map(Path::new),
        }
    }

    /// Whose certificates it may have.
    pub(crate) fn trust(self) -> Result<Trust, StepError> {
        let read = self.ca_certificates.map(Trust::read).transpose();
        let trust = read.map_err(|e| StepError::new(e.to_string()))?;
        Ok(trust.unwrap_or_default())
    }

    fn client(self) -> Result<reqwest::Client, StepError> {
        // One with certificates of its own is made anew: there are few such calls, none is timed,
        // and the file may have been renewed.
        if self.ca_certificates.is_some() {
            return client(&self.trust()?);
        }
        static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
        if let Some(client) = CLIENT.get() {
            return Ok(client.clone());
        }
        let made = client(&Trust::default())?;
        Ok(CLIENT.get_or_init(|| made).clone())
    }

    /// The address of a path; a whole address is one already.
    fn join(self, path: &str) -> String {
        if path.starts_with("http://") || path.starts_with("https://") {
            return path.to_owned();
        }
        let root = self.url.trim_end_matches('/');
        root.strip_suffix("/v1").unwrap_or(root).to_owned() + path
    }
}

fn client(trust: &Trust) -> Result<reqwest::Client, StepError> {
    let failed = |why: String| StepError::because("could not make an HTTP client", why);
    // Control calls go to the server itself, whatever proxy the environment names.
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config().map_err(failed)?)
        .timeout(LIMIT)
        .no_proxy()
        .pool_max_idle_per_host(0);
    builder.build().map_err(|e| failed(root_cause(&e)))
}

/// An answer: its status and its body as JSON, or null if it is none.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Asks with GET.
pub(crate) async fn get(peer: Peer<'_>, path: &str) -> Result<Answer, StepError> {
    get_as(peer, path, None).await
}

/// Asks with GET; a key is sent as a bearer token.
pub(crate) async fn get_as(
    peer: Peer<'_>,
    path: &str,
    api_key: Option<&str>,
) -> Result<Answer, StepError> {
    let request = peer.client()?.get(peer.join(path));
    ask(with_key(request, api_key), peer, path).await
}

/// Asks with GET and returns the status and the text of the answer.
pub(crate) async fn get_text(peer: Peer<'_>, path: &str) -> Result<(u16, String), StepError> {
    let request = peer.client()?.get(peer.join(path));
    let (status, bytes) = send(request, peer, path, LARGEST).await?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// The same, with limits of its own: how long it may take, and how many bytes the answer may have.
pub(crate) async fn get_text_within(
    peer: Peer<'_>,
    path: &str,
    limit: Duration,
    largest: usize,
) -> Result<(u16, String), StepError> {
    let request = peer
        .client()?
        .get(peer.join(path))
        .timeout(limit.min(LONGEST));
    let (status, bytes) = send(request, peer, path, largest).await?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Posts a body and returns the status and the text of the answer.
pub(crate) async fn post_text(
    peer: Peer<'_>,
    path: &str,
    body: String,
    limit: Duration,
    api_key: Option<&str>,
) -> Result<(u16, String), StepError> {
    let request = peer
        .client()?
        .post(peer.join(path))
        .timeout(limit.min(LONGEST))
        .header("content-type", "application/json")
        .body(body);
    let request = with_key(request, api_key);
    let (status, bytes) = send(request, peer, path, LARGEST).await?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Asks with GET and returns the status alone; the caller says how long that may take.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn status(peer: Peer<'_>, path: &str) -> Result<u16, String> {
    let client = peer.client().map_err(|error| error.message)?;
    // Longer than any caller waits: one limit, and it is the caller's.
    let request = client.get(peer.join(path)).timeout(LONGEST);
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

async fn ask(
    request: reqwest::RequestBuilder,
    peer: Peer<'_>,
    path: &str,
) -> Result<Answer, StepError> {
    let (status, body) = send(request, peer, path, LARGEST).await?;
    Ok(Answer {
        status,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

async fn send(
    request: reqwest::RequestBuilder,
    peer: Peer<'_>,
    path: &str,
    largest: usize,
) -> Result<(u16, Vec<u8>), StepError> {
    let failed = |e: reqwest::Error| {
        StepError::because(
            format!("the server at `{}` did not answer `{path}`", peer.url),
            root_cause(&e),
        )
        .class(FailureClass::Infrastructure)
    };
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > largest {
            return Err(StepError::new(format!(
                "the answer to `{path}` is larger than {largest} bytes"
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
pub(crate) async fn probe(peer: Peer<'_>, health: &str) -> Probe {
    match get(peer, health).await {
        Ok(answer) if answer.status == 200 => {}
        Ok(answer) => {
            return Probe::Unhealthy(format!("{} at `{health}`", answer.status));
        }
        Err(error) => return no_answer(peer, error),
    }
    match get(peer, "/v1/models").await {
        Ok(answer) => match answer.body.pointer("/data/0/id").and_then(Value::as_str) {
            Some(model) => Probe::Ready(BTreeMap::from([("model".to_owned(), model.to_owned())])),
            None => Probe::Unhealthy("`/v1/models` names no model".to_owned()),
        },
        Err(error) => Probe::NotYet(error.message),
    }
}

/// A certificate that is not accepted now will not be later.
fn no_answer(peer: Peer<'_>, error: StepError) -> Probe {
    match error.message.contains(NOT_TRUSTED) {
        true => Probe::Failed(format!(
            "{}; help: name the file of the CA that signed it by `ca_certificates`",
            error.message
        )),
        false => Probe::NotYet(format!("nothing answers at `{}` yet", peer.url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_end_with_its_version() {
        for url in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/v1",
            "http://h:1/v1/",
        ] {
            assert_eq!(Peer::at(url).join("/health"), "http://h:1/health");
            let elsewhere = "https://other:2/metrics";
            assert_eq!(Peer::at(url).join(elsewhere), elsewhere);
        }
    }
}
