//! Errors in OpenAI's shape, with the status that fits.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::{Failure, MoveError, SubmitError};
use crate::faults::FaultKind;
use crate::scheduler::Refusal;
use crate::tokenizer::TokenizerError;
use crate::trace::AnswerOutcome;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_S: &str = "1";

/// A request that is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    message: String,
    /// The field that is wrong.
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that holds something wrong.
    pub(super) fn field(name: &'static str, problem: impl std::fmt::Display) -> Self {
        let mut error = Self::bad_request(format!("field `{name}`: {problem}"));
        error.param = Some(name);
        error
    }

    pub(super) fn not_ready() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the model is still loading",
        )
        .code("loading")
    }

    pub(super) fn no_such_model<'a>(asked: &str, served: impl Iterator<Item = &'a str>) -> Self {
        let served: Vec<_> = served.collect();
        let are = match served.len() {
            1 => "the model is",
            _ => "the models are",
        };
        let served = served.join("`, `");
        let message = format!("model `{asked}` is not served here; {are} `{served}`");
        let mut error = Self::new(StatusCode::NOT_FOUND, message).code("model_not_found");
        error.param = Some("model");
        error
    }

    /// A size that can never be served.
    pub(super) fn refused(refusal: Refusal, field: &'static str) -> Self {
        let error = Self::field(field, refusal);
        match refusal {
            Refusal::EmptyPrompt => error,
            Refusal::ContextLength { .. } => error.code("context_length_exceeded"),
            Refusal::CacheTokens { .. } => error.code("cache_size_exceeded"),
        }
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// A refusal that was asked for.
    pub(super) fn injected(fault: FaultKind) -> Self {
        let (status, message) = match fault {
            FaultKind::TooManyRequests => (
                StatusCode::TOO_MANY_REQUESTS,
                "the request is refused by `--fault 429`",
            ),
            FaultKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the request is refused by `--fault 503`",
            ),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer is broken off by `--fault error`",
            ),
        };
        Self::new(status, message).code("injected")
    }

    /// What an answer came to that this broke off within its stream.
    pub(super) fn outcome(&self) -> AnswerOutcome {
        AnswerOutcome::Failed(self.code.unwrap_or_default().to_owned())
    }

    /// The body, for a response or for an event inside a stream.
    pub(super) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        } })
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let (status, code) = match error {
            SubmitError::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            SubmitError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, code) = match failure {
            Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Failure::Late => (StatusCode::REQUEST_TIMEOUT, "aborted"),
            Failure::Evicted => (StatusCode::SERVICE_UNAVAILABLE, "evicted"),
            Failure::TooLarge => (StatusCode::BAD_REQUEST, "cache_size_exceeded"),
            Failure::Step(_) => (StatusCode::INTERNAL_SERVER_ERROR, "step_failed"),
        };
        Self::new(status, failure.to_string()).code(code)
    }
}

impl From<MoveError> for ApiError {
    fn from(error: MoveError) -> Self {
        let (status, code) = match error {
            MoveError::Busy { .. } => (StatusCode::BAD_REQUEST, "busy"),
            MoveError::InTransit => (StatusCode::CONFLICT, "in_transit"),
            MoveError::Already(_) => (StatusCode::BAD_REQUEST, "already"),
            MoveError::Shortage(_) => (StatusCode::INSUFFICIENT_STORAGE, "no_memory"),
            MoveError::Unmovable => (StatusCode::BAD_REQUEST, "unmovable"),
            MoveError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}

impl From<TokenizerError> for ApiError {
    fn from(error: TokenizerError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let is_temporary = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT
        );
        if is_temporary {
            let value = axum::http::HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}
