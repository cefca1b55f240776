//! A request and its answer, over a pooled or a fresh connection.
//!
//! A server may close an idle connection just when it is taken from the pool. Such a request
//! is sent once more on a fresh connection, and only if not one byte of an answer came; with
//! any other failure the server may have begun to work, and the failure is the result.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Incoming;

use super::connection::{Connection, Connector};
use crate::{Class, PlanError, RunPlan, Secret, protocol::Fault};

/// Connections kept for reuse; a closed loop of more users than this reconnects.
const MOST_IDLE: usize = 16_384;

/// Sends requests to one server.
pub(crate) struct Client {
    connector: Connector,
    uri: Uri,
    headers: HeaderMap,
    /// Last in, first out, so that few connections stay warm rather than many lukewarm.
    idle: Mutex<Vec<Connection>>,
    body_limit: u64,
}

/// How an answer came about.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) connected: Option<u64>,
    pub(crate) attempts: u32,
}

/// An answer whose head was read.
pub(crate) struct Answer {
    connection: Connection,
    body: Incoming,
    status: StatusCode,
    headers: HeaderMap,
    /// Bytes of body that may still come.
    allowed: u64,
    limit: u64,
}

impl Client {
    /// # Errors
    ///
    /// [`PlanError`] for a key that no header can carry, or a host that cannot be verified.
    pub(crate) fn new(plan: &RunPlan) -> Result<Self, PlanError> {
        let target = &plan.target;
        let text = target.address.path(target.protocol.path());
        let bad = |problem| PlanError::Address {
            address: target.address.to_string(),
            problem,
        };
        let uri = text
            .parse()
            .map_err(|_| bad(format!("`{text}` is no path")))?;
        let host = HeaderValue::try_from(target.address.authority());
        let host = host.map_err(|_| bad("its host fits no header".into()))?;
        let (timeout, head) = (plan.timeouts.connect, plan.limits.head);
        let connector = Connector::new(target.address.clone(), timeout, head).map_err(bad)?;
        let headers = headers(host, target.api_key.as_ref())?;
        let body_limit = plan.limits.body;
        Ok(Self {
            connector,
            uri,
            headers,
            idle: Mutex::default(),
            body_limit,
        })
    }

    /// Posts `body` and waits for the head of the answer; `now` reads the run's clock.
    pub(crate) async fn post(
        &self,
        body: Bytes,
        trail: &mut Trail,
        now: impl Fn() -> u64,
    ) -> Result<Answer, Fault> {
        if let Some(mut connection) = self.take_idle().await {
            trail.attempts += 1;
            let before = connection.bytes_read();
            match connection.send(self.request(body.clone())).await {
                Ok(response) => return Ok(self.answer(connection, response)),
                Err(error) if connection.bytes_read() > before => return Err(fault(&error)),
                Err(_) => {}
            }
        }
        let mut connection = self.connector.connect().await?;
        trail.connected = Some(now());
        trail.attempts += 1;
        match connection.send(self.request(body)).await {
            Ok(response) => Ok(self.answer(connection, response)),
            Err(error) => Err(fault(&error)),
        }
    }

    /// Takes the connection of an answer that was read to its end.
    pub(crate) fn give_back(&self, answer: Answer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.connection.reusable() && idle.len() < MOST_IDLE {
            idle.push(answer.connection);
        }
    }

    /// The connection that was used last, unless it turns out to be closed: then the older
    /// ones most likely are, too.
    async fn take_idle(&self) -> Option<Connection> {
        let taken = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut connection = taken?;
        connection.ready().await.then_some(connection)
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn answer(&self, connection: Connection, response: Response<Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        let (status, headers, limit) = (head.status, head.headers, self.body_limit);
        Answer {
            connection,
            body,
            status,
            headers,
            allowed: limit,
            limit,
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the body claims to be an event stream.
    pub(crate) fn is_event_stream(&self) -> bool {
        let kind = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| {
            kind.trim_start()
                .to_ascii_lowercase()
                .starts_with("text/event-stream")
        })
    }

    /// The next piece of the body; `None` at its proper end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let Some(frame) = self.connection.frame(&mut self.body).await else {
                return Ok(None);
            };
            // Trailers carry nothing that is measured.
            let Ok(data) = frame.map_err(|error| fault(&error))?.into_data() else {
                continue;
            };
            let left = self.allowed.checked_sub(data.len() as u64);
            self.allowed = left.ok_or_else(|| Fault {
                class: Class::BadOutput,
                message: format!("the answer is larger than {} bytes", self.limit),
            })?;
            return Ok(Some(data));
        }
    }
}

/// The headers of every request.
fn headers(host: HeaderValue, key: Option<&Secret>) -> Result<HeaderMap, PlanError> {
    const AGENT: &str = concat!("benchwright/", env!("CARGO_PKG_VERSION"));
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(key) = key {
        let bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()));
        let mut bearer = bearer.map_err(|_| PlanError::ApiKey)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

/// Why a connection that existed did not deliver.
fn fault(error: &hyper::Error) -> Fault {
    let class = if error.is_parse() {
        Class::BadOutput
    } else {
        Class::Truncated
    };
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    Fault { class, message }
}
