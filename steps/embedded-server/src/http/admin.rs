//! Everything but generation: health, what is served, counters, the step log, the cache.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use crate::engine::{Ending, EventKind, Flushed, Request, SamplingParams, SubmitError};

/// How long a health check waits for its token.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a flush waits for the step in progress.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Steps over which the last throughput is taken.
const THROUGHPUT_STEPS: usize = 64;

/// `GET /health`: whether requests are taken.
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    if service.engine.is_alive() {
        Ok(Json(json!({ "status": "ok" })))
    } else {
        Err(SubmitError::Stopping.into())
    }
}

/// `GET /health_generate`: whether a token comes out.
pub(super) async fn health_generate(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let request = Request {
        prompt: vec![0],
        sampling: SamplingParams {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            seed: 0,
        },
        ending: Ending {
            max_tokens: 1,
            min_tokens: 0,
            ignores_eos: true,
            stop_ids: Vec::new(),
        },
        watched: None,
    };
    let mut answers = service.engine.submit(vec![request])?;
    match tokio::time::timeout(HEALTH_TIMEOUT, answers.recv()).await {
        Ok(Some(event)) => match event.kind {
            EventKind::Token { .. } => Ok(Json(json!({ "status": "ok" }))),
            EventKind::Failed(failure) => Err(failure.into()),
        },
        Ok(None) => Err(SubmitError::Stopping.into()),
        Err(_) => {
            let message = format!("no token within {} s", HEALTH_TIMEOUT.as_secs());
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("unhealthy"))
        }
    }
}

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    Ok(Json(json!({ "object": "list", "data": [{
        "id": service.served.model_name,
        "object": "model",
        "owned_by": "benchwright",
        "root": service.info["model_path"],
        "max_model_len": service.served.door.context_length,
    }] })))
}

/// `GET /model_info`.
pub(super) async fn model_info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let path = &service.info["model_path"];
    Ok(Json(
        json!({ "model_path": path, "tokenizer_path": path, "is_generation": true }),
    ))
}

/// `GET /server_info`: what was asked for, what came of it, and how it fares.
pub(super) async fn server_info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let mut info = service.info.clone();
    let metrics = &service.metrics;
    info["internal_states"] = json!([{
        "last_gen_throughput": service.steps.decode_throughput(THROUGHPUT_STEPS),
        "num_running_reqs": metrics.n_running.get(),
        "num_queue_reqs": metrics.n_queued.get(),
        "token_usage": metrics.cache_usage(),
    }]);
    Ok(Json(info))
}

/// `GET` or `POST /flush_cache?timeout=SECONDS`: 400 while requests use the cache, at once or, with
/// a timeout, when that has passed.
pub(super) async fn flush_cache(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let patience = query(&uri, "timeout").map_or(Ok(Duration::ZERO), |text| {
        let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
        seconds.map(Duration::from_secs_f64).ok_or_else(|| {
            let problem = format!("found `{text}`, expected seconds from 0 to 3600");
            ApiError::field("timeout", problem)
        })
    })?;
    let flush = service.engine.flush(patience);
    match tokio::time::timeout(patience + FLUSH_TIMEOUT, flush).await {
        Ok(Ok(Flushed::Done)) => Ok(Json(json!({ "status": "flushed" }))),
        Ok(Ok(Flushed::Busy { n_requests })) => {
            let message = format!("the cache is in use by {n_requests} requests; wait for them");
            Err(ApiError::bad_request(message).code("busy"))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            let message = format!(
                "the step in progress took over {} s",
                FLUSH_TIMEOUT.as_secs()
            );
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// The last value that a query has for `name`.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(key, _)| *key == name);
    named.map(|(_, value)| value).next_back()
}

/// `GET /metrics`: Prometheus' text format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let service = app.service()?;
    let text = service.metrics.render(&service.served.model_name);
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}

/// `GET /forward_steps?since=ID`: the step log from that id on, from its beginning without one.
pub(super) async fn forward_steps(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let since = query(&uri, "since");
    let since = since.map_or(Ok(0), str::parse).map_err(|_| {
        ApiError::field(
            "since",
            format!("found `{}`, expected a step id", since.unwrap_or_default()),
        )
    })?;
    Ok(Json(service.steps.since(since)).into_response())
}

/// Any other path.
pub(super) async fn no_such_route(uri: Uri) -> ApiError {
    let message = format!("there is no route `{}`", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message).code("route_not_found")
}

/// A known path with another method.
pub(super) async fn wrong_method(method: axum::http::Method, uri: Uri) -> ApiError {
    let message = format!("route `{}` does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed")
}
