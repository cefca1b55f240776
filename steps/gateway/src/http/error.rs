//! Errors in OpenAI's shape, with the status that fits.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::backend::BackendError;
use crate::queue::Refusal;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_S: &str = "1";

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
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

    /// A field that is missing or holds something wrong.
    pub(super) fn field(name: &'static str, problem: impl std::fmt::Display) -> Self {
        let message = format!("field `{name}`: {problem}");
        ApiError {
            param: Some(name),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    pub(super) fn no_such_model(asked: &str, served: &[&str]) -> Self {
        let served = served.join("`, `");
        let message = format!("model `{asked}` is not served here; the models are `{served}`");
        ApiError {
            param: Some("model"),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn body(&self) -> Value {
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

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::Full { .. } => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Refusal::Late => (StatusCode::REQUEST_TIMEOUT, "aborted"),
            Refusal::Waited { .. } => (StatusCode::SERVICE_UNAVAILABLE, "waited"),
            Refusal::Broken { .. } => (StatusCode::BAD_GATEWAY, "model_broken"),
            Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, refusal.to_string()).code(code)
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, error.to_string()).code("server_failed")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let is_temporary = self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status == StatusCode::SERVICE_UNAVAILABLE;
        if is_temporary {
            let value = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}
