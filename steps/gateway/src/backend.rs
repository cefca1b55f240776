//! One inference server: requests go to it as they are, and it is asked to give its memory back and
//! to take it again.
//!
//! What servers offer for that: SGLang `/release_memory_occupation` and `/resume_memory_occupation`,
//! which break its scheduler where a request is left, so that its cache is flushed before, which only
//! an idle one does; vLLM `/sleep?level=1` and `/wake_up`, whose answers older versions give before
//! they are done, so that `/is_sleeping` is asked; the embedded server both, and it tells what was
//! copied. Every call has a limit.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;

use crate::config::ConfigError;

/// What a question may take that asks for nothing to be done.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For how long a connection that nobody uses is kept: servers close theirs after 5 s, and what is sent
/// into one that is being closed is lost.
const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// Where an address that names no port is.
const HTTP_PORT: u16 = 80;
/// How long a look at whether somebody listens may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Between two questions about the same.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Where SGLang says what it is, now and in older versions.
const INFO: [&str; 2] = ["/server_info", "/get_server_info"];
/// The largest answer to a control call that is read, bytes.
const LARGEST_ANSWER: usize = 1 << 20;
/// Of what a server says to explain itself so much is told, characters.
const LONGEST_WORDS: usize = 300;

/// How a server gives its memory back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// As it turns out to.
    #[default]
    Auto,
    /// As SGLang.
    Sglang,
    /// As vLLM.
    Vllm,
}

/// How a server gives its memory back, once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sglang,
    Vllm,
}

/// One inference server.
#[derive(Debug, Clone)]
pub struct Backend {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    release: Release,
    /// Found out once.
    dialect: Arc<OnceLock<Dialect>>,
}

/// A server that came onto the device or left it. Of its parts only the embedded server tells.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Moved {
    /// Until it was idle, seconds.
    pub drain_s: f64,
    /// To copy weights, where the server tells, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_s: Option<f64>,
    /// To make or give back the cache, where the server tells, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_s: Option<f64>,
    /// Bytes of weights, where the server tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes of the cache, where the server tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_bytes: Option<u64>,
}

/// By when something has to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    until: Instant,
    /// How long it may take altogether.
    whole: Duration,
}

impl Limit {
    /// So long from now.
    pub(crate) fn new(whole: Duration) -> Self {
        let until = Instant::now() + whole;
        Limit { until, whole }
    }

    pub(crate) fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// A server that did not do as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Nobody answers there.
    #[error("no server answers at `http://{authority}`: {why}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What the system says.
        why: String,
    },
    /// It takes too long.
    #[error("`http://{authority}{path}` did not answer within {} s", limit.as_secs_f64())]
    Late {
        /// Host and port.
        authority: String,
        /// What was asked.
        path: String,
        /// How long it had, with everything that was asked before for the same end.
        limit: Duration,
    },
    /// It says no.
    #[error("`http://{authority}{path}` answered with status {status}: {said}")]
    Refused {
        /// Host and port.
        authority: String,
        /// What was asked.
        path: String,
        /// The answer's status.
        status: u16,
        /// The beginning of its body.
        said: String,
    },
    /// It answers that it is not done, until there is no time left.
    #[error("the server at `http://{authority}` is not done in time, as `{path}` says")]
    Unfinished {
        /// Host and port.
        authority: String,
        /// What was asked.
        path: String,
    },
    /// It cannot give memory back.
    #[error(
        "the server at `http://{authority}` gives no memory back; start SGLang with \
         `--enable-memory-saver --enable-weights-cpu-backup`, vLLM with `--enable-sleep-mode` and \
         VLLM_SERVER_DEV_MODE=1"
    )]
    Unable {
        /// Host and port.
        authority: String,
    },
}

impl Backend {
    /// A server at `url`, such as `http://127.0.0.1:30000`, with or without `/v1`. Nothing is asked
    /// of it yet.
    ///
    /// # Errors
    /// [`ConfigError::Address`].
    pub fn new(url: &str, release: Release) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Address {
            url: url.to_owned(),
        };
        let root = url.trim_end_matches('/').trim_end_matches("/v1");
        let authority = root.strip_prefix("http://").ok_or_else(wrong)?;
        let authority: Authority = authority.parse().map_err(|_| wrong())?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Ok(Backend {
            client,
            authority,
            release,
            dialect: Arc::default(),
        })
    }

    /// Sends a client's request on. The answer's head has come; its body comes as it is read.
    ///
    /// # Errors
    /// [`BackendError::Unreachable`], [`BackendError::Late`].
    pub(crate) async fn forward(
        &self,
        mut request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, BackendError> {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = self.uri(&path);
        match tokio::time::timeout(limit, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.late(&path, limit)),
        }
    }

    /// Takes the server off the device, within `limit`. One that is off already stays so, as far as it
    /// can be asked.
    ///
    /// # Errors
    /// [`BackendError`]; where the server is then is not known.
    pub async fn release(&self, limit: Duration) -> Result<Moved, BackendError> {
        let (began, limit) = (Instant::now(), Limit::new(limit));
        if !self.come_to_rest(limit).await? {
            return Ok(Moved::default());
        }
        let waited = began.elapsed();
        let mut moved = self.give_back(limit).await?;
        moved.drain_s += waited.as_secs_f64();
        Ok(moved)
    }

    /// Waits until the server can give its memory back, which it has not been asked to then; false if it gave
    /// it back before.
    ///
    /// # Errors
    /// [`BackendError`]; after [`BackendError::Unfinished`] the server is as it was.
    pub(crate) async fn come_to_rest(&self, limit: Limit) -> Result<bool, BackendError> {
        let dialect = self.dialect(limit).await?;
        if self.is_sleeping(limit).await? == Some(true) {
            return Ok(false);
        }
        if dialect == Dialect::Sglang {
            self.flush_once_idle(limit).await?;
        }
        Ok(true)
    }

    /// Asks a server that came to rest for its memory.
    pub(crate) async fn give_back(&self, limit: Limit) -> Result<Moved, BackendError> {
        let told = match self.dialect(limit).await? {
            Dialect::Sglang => self.act("/release_memory_occupation", limit).await?,
            // What its own clients left behind ends first.
            Dialect::Vllm => self.act("/sleep?level=1&mode=wait", limit).await?,
        };
        self.become_sleeping(true, limit).await?;
        Ok(Moved::of(&told))
    }

    /// Brings the server back onto the device, within `limit`.
    ///
    /// # Errors
    /// [`BackendError`]; where the server is then is not known.
    pub async fn resume(&self, limit: Duration) -> Result<Moved, BackendError> {
        let limit = Limit::new(limit);
        let path = match self.dialect(limit).await? {
            Dialect::Sglang => "/resume_memory_occupation",
            Dialect::Vllm => "/wake_up",
        };
        let told = self.act(path, limit).await?;
        self.become_sleeping(false, limit).await?;
        Ok(Moved::of(&told))
    }

    /// Empties the prefix cache.
    ///
    /// # Errors
    /// [`BackendError`], also where the server has no such route.
    pub(crate) async fn flush(&self) -> Result<(), BackendError> {
        let mut refused = None;
        for path in ["/flush_cache", "/reset_prefix_cache"] {
            match self.post(path, Limit::new(QUESTION_LIMIT)).await? {
                (StatusCode::OK, _) => return Ok(()),
                answer @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                    refused = Some(self.refused(path, &answer));
                }
                answer => return Err(self.refused(path, &answer)),
            }
        }
        Err(refused.unwrap_or_else(|| self.unable()))
    }

    /// The names under which the server has models.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(crate) async fn models(&self) -> Result<Vec<String>, BackendError> {
        let answer = self.get("/v1/models", Limit::new(QUESTION_LIMIT)).await?;
        if answer.0 != StatusCode::OK {
            return Err(self.refused("/v1/models", &answer));
        }
        let list: Value = serde_json::from_slice(&answer.1).unwrap_or_default();
        let models = list["data"].as_array().into_iter().flatten();
        let names = models.filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// What the server says of itself; null where it says nothing. vLLM's answer lists the packages of its
    /// machine, which takes seconds and may fail, and says nothing about the server being well.
    pub(crate) async fn info(&self) -> Value {
        for path in INFO {
            if let Ok((StatusCode::OK, body)) = self.get(path, Limit::new(QUESTION_LIMIT)).await {
                return serde_json::from_slice(&body).unwrap_or_default();
            }
        }
        Value::Null
    }

    /// Whether somebody listens at its address.
    ///
    /// # Errors
    /// [`BackendError::Unreachable`], [`BackendError::Late`].
    pub(crate) async fn look(&self) -> Result<(), BackendError> {
        match self.connect().await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.late("", LOOK_LIMIT)),
        }
    }

    /// Whether the server is gone, and with it what it held of the device: nobody listens at its
    /// address. A connection that broke or that does not come about says nothing of that.
    pub(crate) async fn is_gone(&self) -> bool {
        let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        matches!(self.connect().await, Ok(Err(error)) if is_refused(&error))
    }

    async fn connect(&self) -> Result<io::Result<TcpStream>, Elapsed> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(HTTP_PORT);
        tokio::time::timeout(LOOK_LIMIT, TcpStream::connect((host, port))).await
    }

    async fn dialect(&self, limit: Limit) -> Result<Dialect, BackendError> {
        match self.release {
            Release::Sglang => return Ok(Dialect::Sglang),
            Release::Vllm => return Ok(Dialect::Vllm),
            Release::Auto => {}
        }
        if let Some(known) = self.dialect.get() {
            return Ok(*known);
        }
        let found = self.find_dialect(limit).await?;
        Ok(*self.dialect.get_or_init(|| found))
    }

    async fn find_dialect(&self, limit: Limit) -> Result<Dialect, BackendError> {
        // vLLM knows this route only where it can sleep.
        if self.is_sleeping(limit).await?.is_some() {
            return Ok(Dialect::Vllm);
        }
        for path in INFO {
            if self.get(path, limit).await?.0 == StatusCode::OK {
                return Ok(Dialect::Sglang);
            }
        }
        Err(self.unable())
    }

    /// Whether it is off the device; `None`: it does not say.
    async fn is_sleeping(&self, limit: Limit) -> Result<Option<bool>, BackendError> {
        let (status, body) = self.get("/is_sleeping", limit).await?;
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = told["is_sleeping"].as_bool();
        Ok(told.filter(|_| status == StatusCode::OK))
    }

    /// Waits until the server says that it is off the device or on it; one that does not say is.
    async fn become_sleeping(&self, wanted: bool, limit: Limit) -> Result<(), BackendError> {
        loop {
            match self.is_sleeping(limit).await? {
                Some(is) if is != wanted => self.pause("/is_sleeping", limit).await?,
                _ => return Ok(()),
            }
        }
    }

    /// Flushes the cache, which a server with requests does not do; what its clients left behind ends
    /// meanwhile.
    async fn flush_once_idle(&self, limit: Limit) -> Result<(), BackendError> {
        let path = "/flush_cache";
        let mut is_busy = false;
        loop {
            let answer = match self.post(path, limit).await {
                // It did answer, that it is busy.
                Err(BackendError::Late { .. }) if is_busy => return Err(self.unfinished(path)),
                answer => answer?,
            };
            match answer {
                (StatusCode::BAD_REQUEST, _) => {
                    is_busy = true;
                    self.pause(path, limit).await?;
                }
                // One without a cache has nothing to flush.
                (StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                    return Ok(());
                }
                answer => return Err(self.refused(path, &answer)),
            }
        }
    }

    async fn pause(&self, path: &str, limit: Limit) -> Result<(), BackendError> {
        if limit.left().is_zero() {
            return Err(self.unfinished(path));
        }
        tokio::time::sleep(ASK_AGAIN).await;
        Ok(())
    }

    fn unfinished(&self, path: &str) -> BackendError {
        BackendError::Unfinished {
            authority: self.authority.to_string(),
            path: path.to_owned(),
        }
    }

    /// Asks for something to be done, and returns what the server tells of it.
    async fn act(&self, path: &str, limit: Limit) -> Result<Value, BackendError> {
        match self.post(path, limit).await? {
            (StatusCode::OK, body) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => Err(self.unable()),
            answer => Err(self.refused(path, &answer)),
        }
    }

    async fn get(&self, path: &str, limit: Limit) -> Result<(StatusCode, Bytes), BackendError> {
        self.call(Method::GET, path, Body::empty(), limit).await
    }

    async fn post(&self, path: &str, limit: Limit) -> Result<(StatusCode, Bytes), BackendError> {
        // SGLang reads a body where it needs none.
        self.call(Method::POST, path, Body::from("{}"), limit).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
        limit: Limit,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(path);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        // A server that fails closes the connection, and the next question would be lost with it.
        let close = HeaderValue::from_static("close");
        request.headers_mut().insert(header::CONNECTION, close);
        let answer = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|e| self.unreachable(&e))?;
            let status = response.status();
            let body = axum::body::to_bytes(Body::new(response.into_body()), LARGEST_ANSWER).await;
            Ok((status, body.map_err(|e| self.unreachable(&e))?))
        };
        let answer = tokio::time::timeout(limit.left(), answer).await;
        answer.unwrap_or_else(|_| Err(self.late(path, limit.whole)))
    }

    fn uri(&self, path: &str) -> Uri {
        let built = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build();
        // Paths are this crate's own, or were read from a request's line.
        built.unwrap_or_default()
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> BackendError {
        let mut cause = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        BackendError::Unreachable {
            authority: self.authority.to_string(),
            why: cause.to_string(),
        }
    }

    fn late(&self, path: &str, limit: Duration) -> BackendError {
        BackendError::Late {
            authority: self.authority.to_string(),
            path: path.to_owned(),
            limit,
        }
    }

    fn refused(&self, path: &str, (status, body): &(StatusCode, Bytes)) -> BackendError {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = String::from_utf8_lossy(body);
        let said = told.pointer("/error/message").and_then(Value::as_str);
        let said = said.unwrap_or(text.trim());
        BackendError::Refused {
            authority: self.authority.to_string(),
            path: path.to_owned(),
            status: status.as_u16(),
            said: said.chars().take(LONGEST_WORDS).collect(),
        }
    }

    fn unable(&self) -> BackendError {
        BackendError::Unable {
            authority: self.authority.to_string(),
        }
    }
}

impl Moved {
    /// What the embedded server tells of itself; others tell nothing.
    fn of(told: &Value) -> Self {
        let told = told.pointer("/moves/0").unwrap_or(told);
        Moved::deserialize(told).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_is_plain_http_with_or_without_its_version() {
        for url in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/v1",
            "http://h:1/v1/",
        ] {
            let backend = Backend::new(url, Release::Auto).unwrap();
            assert_eq!(
                backend.uri("/sleep?level=1").to_string(),
                "http://h:1/sleep?level=1"
            );
        }
        for url in ["h:1", "https://h:1", "http://", "http://h:1/a b"] {
            assert!(Backend::new(url, Release::Auto).is_err(), "{url}");
        }
    }

    #[test]
    fn what_a_server_tells_of_its_move_counts_and_else_nothing_is_said_of_it() {
        let told = json!({ "model": "a", "drain_s": 0.5, "copy_s": 0.25, "pool_s": 0.125,
                           "bytes": 7, "pool_bytes": 8 });
        let moved = Moved {
            drain_s: 0.5,
            copy_s: Some(0.25),
            pool_s: Some(0.125),
            bytes: Some(7),
            pool_bytes: Some(8),
        };
        assert_eq!(Moved::of(&told), moved);
        assert_eq!(Moved::of(&json!({ "moves": [told] })), moved);
        for untold in [json!(null), json!({}), json!({ "moves": [] })] {
            let moved = Moved::of(&untold);
            assert_eq!(moved, Moved::default());
            assert_eq!(json!(moved), json!({ "drain_s": 0.0 }));
        }
    }

    #[tokio::test]
    async fn a_server_is_gone_only_where_nobody_listens() {
        let bound = tokio::net::TcpSocket::new_v4().unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let at = bound.local_addr().unwrap();
        let backend = Backend::new(&format!("http://{at}"), Release::Auto).unwrap();
        assert!(backend.is_gone().await);
        assert!(backend.look().await.is_err());
        let listener = bound.listen(1).unwrap();
        assert!(!backend.is_gone().await);
        drop(listener);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_told_with_the_whole_limit() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let backend = Backend::new(&url, Release::Auto).unwrap();
        let limit = Duration::from_millis(20);
        let late = backend.release(limit).await.unwrap_err();
        assert!(matches!(&late, BackendError::Late { limit: told, .. } if *told == limit));
        assert!(late.to_string().ends_with("within 0.02 s"), "{late}");
    }
}
