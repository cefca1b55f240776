//! One inference server: requests go to it as they are, and it is asked to give its memory back and
//! to take it again.
//!
//! What servers offer for that: SGLang `/release_memory_occupation` and `/resume_memory_occupation`,
//! which break its scheduler where a request is left, so that its cache is flushed before, which only
//! an idle one does; vLLM `/sleep?level=1` and `/wake_up`, whose answers older versions give before
//! they are done, so that `/is_sleeping` is asked; the embedded server both, and it tells what was
//! copied. Every call has a limit.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::ConfigError;

/// What a question may take that asks for nothing to be done.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a look at whether somebody listens may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Between two questions about the same.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Where SGLang says what it is, now and in older versions.
const INFO: [&str; 2] = ["/server_info", "/get_server_info"];
/// Of a control call's answer so much is read, bytes.
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

/// A server that came onto the device or left it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moved {
    /// Until it was idle, seconds.
    pub drain_s: f64,
    /// To copy weights; all that the server took, where it does not tell its parts; seconds.
    pub copy_s: f64,
    /// To make or give back the cache, where the server tells, seconds.
    pub pool_s: f64,
    /// Bytes of weights, where the server tells.
    pub bytes: u64,
    /// Bytes of the cache, where the server tells.
    pub pool_bytes: u64,
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
    #[error("`http://{authority}{path}` did not answer within {} s", limit.as_secs())]
    Late {
        /// Host and port.
        authority: String,
        /// What was asked.
        path: String,
        /// How long it had.
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
        Ok(Backend {
            client: Client::builder(TokioExecutor::new()).build(connector),
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
        let path = request.uri().path().to_owned();
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
        let until = Instant::now() + limit;
        let dialect = self.dialect().await?;
        if self.is_sleeping().await? == Some(true) {
            return Ok(Moved::default());
        }
        let began = Instant::now();
        if dialect == Dialect::Sglang {
            self.flush_once_idle(until).await?;
        }
        let idle = Instant::now();
        let told = match dialect {
            Dialect::Sglang => self.act("/release_memory_occupation", until).await?,
            // What its own clients left behind ends first.
            Dialect::Vllm => self.act("/sleep?level=1&mode=wait", until).await?,
        };
        self.become_sleeping(true, until).await?;
        let waited = idle - began;
        let mut moved = Moved::of(&told, idle.elapsed());
        moved.drain_s += waited.as_secs_f64();
        Ok(moved)
    }

    /// Brings the server back onto the device, within `limit`.
    ///
    /// # Errors
    /// [`BackendError`]; where the server is then is not known.
    pub async fn resume(&self, limit: Duration) -> Result<Moved, BackendError> {
        let until = Instant::now() + limit;
        let path = match self.dialect().await? {
            Dialect::Sglang => "/resume_memory_occupation",
            Dialect::Vllm => "/wake_up",
        };
        let began = Instant::now();
        let told = self.act(path, until).await?;
        self.become_sleeping(false, until).await?;
        Ok(Moved::of(&told, began.elapsed()))
    }

    /// Empties the prefix cache.
    ///
    /// # Errors
    /// [`BackendError`], also where the server has no such route.
    pub(crate) async fn flush(&self) -> Result<(), BackendError> {
        let mut refused = None;
        for path in ["/flush_cache", "/reset_prefix_cache"] {
            match self.post(path, QUESTION_LIMIT).await? {
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
        let answer = self.get("/v1/models").await?;
        if answer.0 != StatusCode::OK {
            return Err(self.refused("/v1/models", &answer));
        }
        let list: Value = serde_json::from_slice(&answer.1).unwrap_or_default();
        let models = list["data"].as_array().into_iter().flatten();
        let names = models.filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// What the server says of itself; null where it says nothing.
    ///
    /// # Errors
    /// [`BackendError`], where it does not answer.
    pub(crate) async fn info(&self) -> Result<Value, BackendError> {
        for path in INFO {
            let (status, body) = self.get(path).await?;
            if status == StatusCode::OK {
                return Ok(serde_json::from_slice(&body).unwrap_or_default());
            }
        }
        Ok(Value::Null)
    }

    /// Whether somebody listens at its address.
    ///
    /// # Errors
    /// [`BackendError::Unreachable`], [`BackendError::Late`].
    pub(crate) async fn look(&self) -> Result<(), BackendError> {
        let connect = tokio::net::TcpStream::connect(self.authority.as_str());
        match tokio::time::timeout(LOOK_LIMIT, connect).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.late("", LOOK_LIMIT)),
        }
    }

    async fn dialect(&self) -> Result<Dialect, BackendError> {
        match self.release {
            Release::Sglang => return Ok(Dialect::Sglang),
            Release::Vllm => return Ok(Dialect::Vllm),
            Release::Auto => {}
        }
        if let Some(known) = self.dialect.get() {
            return Ok(*known);
        }
        let found = self.find_dialect().await?;
        Ok(*self.dialect.get_or_init(|| found))
    }

    async fn find_dialect(&self) -> Result<Dialect, BackendError> {
        // vLLM knows this route only where it can sleep.
        if self.is_sleeping().await?.is_some() {
            return Ok(Dialect::Vllm);
        }
        for path in INFO {
            if self.get(path).await?.0 == StatusCode::OK {
                return Ok(Dialect::Sglang);
            }
        }
        Err(self.unable())
    }

    /// Whether it is off the device; `None`: it does not say.
    async fn is_sleeping(&self) -> Result<Option<bool>, BackendError> {
        let (status, body) = self.get("/is_sleeping").await?;
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = told["is_sleeping"].as_bool();
        Ok(told.filter(|_| status == StatusCode::OK))
    }

    /// Waits until the server says that it is off the device or on it; one that does not say is.
    async fn become_sleeping(&self, wanted: bool, until: Instant) -> Result<(), BackendError> {
        loop {
            match self.is_sleeping().await? {
                Some(is) if is != wanted => self.pause("/is_sleeping", until).await?,
                _ => return Ok(()),
            }
        }
    }

    /// Flushes the cache, which a server with requests does not do; what its clients left behind ends
    /// meanwhile.
    async fn flush_once_idle(&self, until: Instant) -> Result<(), BackendError> {
        let path = "/flush_cache";
        loop {
            match self.post(path, left(until)).await? {
                (StatusCode::BAD_REQUEST, _) => self.pause(path, until).await?,
                // One without a cache has nothing to flush.
                (StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                    return Ok(());
                }
                answer => return Err(self.refused(path, &answer)),
            }
        }
    }

    async fn pause(&self, path: &str, until: Instant) -> Result<(), BackendError> {
        if left(until).is_zero() {
            return Err(BackendError::Unfinished {
                authority: self.authority.to_string(),
                path: path.to_owned(),
            });
        }
        tokio::time::sleep(ASK_AGAIN).await;
        Ok(())
    }

    /// Asks for something to be done, and returns what the server tells of it.
    async fn act(&self, path: &str, until: Instant) -> Result<Value, BackendError> {
        match self.post(path, left(until)).await? {
            (StatusCode::OK, body) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => Err(self.unable()),
            answer => Err(self.refused(path, &answer)),
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), BackendError> {
        self.call(Method::GET, path, Body::empty(), QUESTION_LIMIT)
            .await
    }

    async fn post(&self, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), BackendError> {
        // SGLang reads a body where it needs none.
        self.call(Method::POST, path, Body::from("{}"), limit).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(path);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let answer = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|e| self.unreachable(&e))?;
            let status = response.status();
            Ok((status, self.read(response.into_body()).await?))
        };
        let answer = tokio::time::timeout(limit, answer).await;
        answer.unwrap_or_else(|_| Err(self.late(path, limit)))
    }

    /// Reads a body to its end; of one that is too long the beginning.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, BackendError> {
        let mut read = Vec::new();
        let next = |body: &mut Incoming, context: &mut std::task::Context<'_>| {
            std::pin::Pin::new(body).poll_frame(context)
        };
        while let Some(frame) = std::future::poll_fn(|context| next(&mut body, context)).await {
            let frame = frame.map_err(|e| self.unreachable(&e))?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
            if read.len() > LARGEST_ANSWER {
                break;
            }
        }
        Ok(Bytes::from(read))
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

impl BackendError {
    /// Whether the server is gone, and with it what it held of the device.
    pub(crate) fn means_gone(&self) -> bool {
        matches!(self, BackendError::Unreachable { .. })
    }
}

impl Moved {
    /// What the embedded server tells of itself; of others it is known how long they took.
    fn of(told: &Value, took: Duration) -> Self {
        #[derive(Deserialize)]
        struct Told {
            drain_s: f64,
            copy_s: f64,
            pool_s: f64,
            bytes: u64,
            pool_bytes: u64,
        }
        let told = told.pointer("/moves/0").unwrap_or(told);
        match Told::deserialize(told) {
            Ok(told) => Moved {
                drain_s: told.drain_s,
                copy_s: told.copy_s,
                pool_s: told.pool_s,
                bytes: told.bytes,
                pool_bytes: told.pool_bytes,
            },
            Err(_) => Moved {
                copy_s: took.as_secs_f64(),
                ..Moved::default()
            },
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
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
    fn what_a_server_tells_of_its_move_counts_and_else_its_duration() {
        let took = Duration::from_millis(250);
        let told = json!({ "model": "a", "drain_s": 0.5, "copy_s": 0.25, "pool_s": 0.125,
                           "bytes": 7, "pool_bytes": 8 });
        let moved = Moved {
            drain_s: 0.5,
            copy_s: 0.25,
            pool_s: 0.125,
            bytes: 7,
            pool_bytes: 8,
        };
        assert_eq!(Moved::of(&told, took), moved);
        assert_eq!(Moved::of(&json!({ "moves": [told] }), took), moved);
        let untold = Moved {
            copy_s: 0.25,
            ..Moved::default()
        };
        assert_eq!(Moved::of(&Value::Null, took), untold);
        assert_eq!(Moved::of(&json!({ "moves": [] }), took), untold);
    }
}
