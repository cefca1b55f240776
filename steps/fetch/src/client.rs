//! One request: over TLS and proxies, along redirects, with every wait limited, and with tokens that only
//! ever go to those who may know them.

use crate::error::FetchError;
use crate::patience::{Failure, Patience, retry_after};
use crate::remote::Validator;
use crate::source::shown;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often a request is sent elsewhere.
const MOST_REDIRECTS: u32 = 10;
/// The largest answer that is read into memory, bytes: lists of files, never files.
const LARGEST: usize = 64 << 20;
/// How the library of TLS says that a certificate is not accepted.
const NOT_TRUSTED: &str = "invalid peer certificate";

/// How long something may take, and how often it is tried.
#[derive(Debug, Clone)]
pub struct Limits {
    /// To connect.
    pub connect: Duration,
    /// Without a byte, of the answer's head or of its body.
    pub idle: Duration,
    /// Tries in a row without a byte of progress.
    pub tries: u32,
    /// Rest after the first failure; it doubles with each.
    pub first_pause: Duration,
    /// Longest rest.
    pub longest_pause: Duration,
    /// Longest rest that a server may ask for.
    pub longest_wait: Duration,
    /// For another process that brings the same.
    pub busy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            tries: 8,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            longest_wait: Duration::from_secs(300),
            busy: Duration::from_secs(6 * 60 * 60),
        }
    }
}

/// A secret for one host: it is sent nowhere else, and never told.
#[derive(Clone)]
pub struct Token(Bound);

impl Token {
    /// Binds a bearer token to the host of `url`, by its scheme, name and port.
    ///
    /// # Errors
    /// If it cannot be sent: it holds characters that no token has.
    pub fn bearer(token: &str, url: &Url) -> Result<Self, FetchError> {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let value = value.map_err(|_| {
            FetchError::Request("the token holds characters that no token has".to_owned())
        })?;
        Ok(Self(Bound::new(url, header::AUTHORIZATION, value)))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// A header for one host.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    origin: String,
    name: HeaderName,
    value: HeaderValue,
}

impl Bound {
    pub(crate) fn new(url: &Url, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self {
            origin: url.origin().ascii_serialization(),
            name,
            value,
        }
    }
}

/// What is asked for besides an address.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    /// A part of it.
    pub(crate) range: Option<&'a Range<u64>>,
    /// The part only if it is still the same.
    pub(crate) same: Option<&'a Validator>,
    /// In what form.
    pub(crate) accept: Option<&'static str>,
    /// Sent instead of asking only.
    pub(crate) post: Option<&'a Value>,
    /// Headers for some hosts.
    pub(crate) bound: &'a [Bound],
}

/// Sends requests. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    token: Option<Token>,
    pub(crate) limits: Arc<Limits>,
}

impl Client {
    /// Makes a client that trusts the system's certificates, or those that `SSL_CERT_FILE` names, and
    /// uses the proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
    ///
    /// # Errors
    /// If one of those makes no sense.
    pub fn new(limits: Limits, token: Option<Token>) -> Result<Self, FetchError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .user_agent(concat!("benchwright/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits.connect)
            .build();
        let http = http.map_err(|e| {
            FetchError::Request(format!("could not make an HTTP client: {}", root_cause(&e)))
        })?;
        Ok(Self {
            http,
            token,
            limits: Arc::new(limits),
        })
    }

    /// Sends a request and follows where it is sent; the answer's status is one of success.
    pub(crate) async fn ask(&self, url: &Url, ask: Ask<'_>) -> Result<Response, Failure> {
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.once(&at, ask).await?;
            let status = response.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(refusal(&at, &response));
            }
            let location = response.headers().get(header::LOCATION);
            at = next(&at, location.and_then(|l| l.to_str().ok()))?;
        }
        Err(Failure::Never(FetchError::Answer {
            url: shown(url),
            why: format!("it was sent elsewhere more than {MOST_REDIRECTS} times"),
        }))
    }

    async fn once(&self, url: &Url, ask: Ask<'_>) -> Result<Response, Failure> {
        let method = if ask.post.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = self
            .http
            .request(method, url.clone())
            .headers(headers(ask)?);
        if let Some(body) = ask.post {
            request = request.body(body.to_string());
        }
        let origin = url.origin().ascii_serialization();
        let own = self.token.iter().map(|token| &token.0);
        for bound in own.chain(ask.bound).filter(|bound| bound.origin == origin) {
            request = request.header(bound.name.clone(), bound.value.clone());
        }
        let limit = self.limits.connect + self.limits.idle;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(url, &error)),
            Err(_) => Err(Failure::again(format!(
                "no answer within {} s",
                limit.as_secs()
            ))),
        }
    }

    /// Asks for JSON, as often as it takes.
    ///
    /// # Errors
    /// [`FetchError::Refused`], [`FetchError::GivenUp`], [`FetchError::Answer`].
    pub(crate) async fn json(&self, url: &Url, ask: Ask<'_>) -> Result<Value, FetchError> {
        let mut patience = Patience::new(&self.limits);
        loop {
            match self.json_once(url, ask).await {
                Ok(value) => return Ok(value),
                Err(Failure::Never(error)) => return Err(error),
                Err(Failure::Again { why, after }) => {
                    patience.rest(&shown(url), why, after).await?
                }
                Err(Failure::Changed) => {
                    patience
                        .rest(&shown(url), "it changed".into(), None)
                        .await?
                }
            }
        }
    }

    async fn json_once(&self, url: &Url, ask: Ask<'_>) -> Result<Value, Failure> {
        let mut response = self.ask(url, ask).await?;
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            body.extend_from_slice(chunk.as_ref());
            if body.len() > LARGEST {
                return Err(Failure::Never(FetchError::Answer {
                    url: shown(url),
                    why: format!("it has more than {LARGEST} bytes"),
                }));
            }
        }
        serde_json::from_slice(&body).map_err(|e| {
            Failure::Never(FetchError::Answer {
                url: shown(url),
                why: format!("no JSON: {e}"),
            })
        })
    }

    /// The next bytes of an answer; `None` at its end.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        match tokio::time::timeout(self.limits.idle, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Failure::again(root_cause(&error))),
            Err(_) => {
                let limit = self.limits.idle.as_secs_f64();
                Err(Failure::again(format!("nothing came for {limit} s")))
            }
        }
    }
}

/// Certificates of the system and of Mozilla: containers often have none of their own.
fn tls() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // One that cannot be read is one that nobody is trusted by.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn headers(ask: Ask<'_>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    // Ranges count the bytes of what is sent: what was compressed on the way would have others.
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    if let Some(range) = ask.range {
        let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        headers.insert(header::RANGE, value(&text)?);
    }
    if let Some(validator) = ask.same {
        headers.insert(header::IF_RANGE, value(validator.text())?);
    }
    if let Some(accept) = ask.accept {
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    }
    if let (Some(_), accept) = (ask.post, ask.accept) {
        let kind = HeaderValue::from_static(accept.unwrap_or("application/json"));
        headers.insert(header::CONTENT_TYPE, kind);
    }
    Ok(headers)
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text)
        .map_err(|_| Failure::Never(FetchError::Request(format!("`{text}` cannot be sent"))))
}

/// Where an answer sends the request, if that may be followed.
fn next(from: &Url, location: Option<&str>) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Failure::Never(FetchError::Answer {
            url: shown(from),
            why: why.to_owned(),
        })
    };
    let Some(location) = location else {
        return Err(wrong("it sends elsewhere and does not say where"));
    };
    let to = from
        .join(location)
        .map_err(|_| wrong("it sends to what is no address"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(wrong("it sends to where nothing is encrypted")),
    }
}

/// What a status means that is not one of success.
fn refusal(url: &Url, response: &Response) -> Failure {
    let status = response.status();
    if !matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) {
        return Failure::Never(FetchError::Refused {
            url: shown(url),
            status: status.as_u16(),
        });
    }
    let after = response.headers().get(header::RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok());
    Failure::Again {
        why: format!("it answered {status}"),
        after: after.and_then(|text| retry_after(text, SystemTime::now())),
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> Failure {
    let why = root_cause(error);
    if error.is_builder() || why.contains(NOT_TRUSTED) {
        return Failure::Never(FetchError::Answer {
            url: shown(url),
            why,
        });
    }
    Failure::again(why)
}

/// The innermost reason, which names no address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_never_left() {
        let followed = |from: &str, location: Option<&str>| {
            let from = Url::parse(from).expect("an address");
            next(&from, location).ok().map(|url| url.to_string())
        };
        for (from, location, expected) in [
            ("https://h/a", Some("http://h/b"), None),
            ("https://h/a", Some("ftp://h/b"), None),
            ("http://h/a", Some("file:///etc/passwd"), None),
            ("https://h/a", Some("//other/b"), Some("https://other/b")),
            ("http://h/a/b", Some("c"), Some("http://h/a/c")),
            ("http://h/a", Some("https://h/b"), Some("https://h/b")),
            ("https://h/a", Some("https://["), None),
            ("https://h/a", None, None),
        ] {
            let found = followed(from, location);
            assert_eq!(found.as_deref(), expected, "{from} {location:?}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let url = Url::parse("https://hub.example").expect("an address");
        let token = Token::bearer("hf_verysecret", &url).expect("a token");
        let client = Client::new(Limits::default(), Some(token)).expect("a client");
        assert!(!format!("{client:?}").contains("verysecret"));
        let error = Token::bearer("a\nb", &url)
            .expect_err("no token")
            .to_string();
        assert!(!error.contains("a\nb"), "{error}");
    }
}
