//! Everything but generation: health, what is served, counters, the step log, the cache.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::parse::Served;
use super::{App, Service};
use crate::clock;
use crate::engine::{Ending, EventKind, Flushed, Request, SamplingParams, SubmitError};
use crate::fleet::Model;
use crate::metrics;
use crate::swapping::ModelState;

/// How long a health check waits for its token.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a flush waits for the step in progress.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the trace that are told at once, about.
const TRACE_PAGE: usize = 8 << 20;
/// Steps over which the last throughput is taken.
const THROUGHPUT_STEPS: usize = 64;

/// `GET /health`: whether requests are taken.
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    if service
        .fleet
        .models
        .iter()
        .all(|model| model.engine.is_alive())
    {
        Ok(Json(json!({ "status": "ok" })))
    } else {
        Err(SubmitError::Stopping.into())
    }
}

/// `GET /health_generate`: whether a token comes out of the first model that is on the device.
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
        objective: None,
    };
    let is_active = |model: &&Arc<Model>| model.status.state().0 == ModelState::Active;
    let Some(model) = service.fleet.models.iter().find(is_active) else {
        let message = "no model is on the device; ask one of them something, or activate it";
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
        return Err(error.code("no_active_model"));
    };
    let mut answers = model.engine.submit(vec![request])?;
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
    let models = service.fleet.models.iter().zip(&service.served);
    let entry = |(model, served): (&Arc<Model>, &Served)| {
        json!({
            "id": model.name,
            "object": "model",
            "owned_by": "benchwright",
            "root": model.info["model_path"],
            "max_model_len": served.door.context_length,
            "state": model.status.state().0,
        })
    };
    let data: Vec<_> = models.map(entry).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// `GET /model_info?model=NAME`: of the first model without a name.
pub(super) async fn model_info(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let model = named(&service, &uri)?;
    let path = &model.info["model_path"];
    Ok(Json(
        json!({ "model_path": path, "tokenizer_path": path, "is_generation": true }),
    ))
}

/// `GET /server_info`: what was asked for, what came of it, and how it fares; that of the first
/// model, and of all where there are several.
pub(super) async fn server_info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let models = &service.fleet.models;
    let mut infos = models.iter().map(|model| info(model));
    let mut first = infos.next().unwrap_or_default();
    if models.len() > 1 {
        let others: Vec<_> = std::iter::once(first.clone()).chain(infos).collect();
        first["models"] = Value::from(others);
        first["device_memory"] = json!({
            "total": service.fleet.device.total(),
            "free": service.fleet.device.free(),
        });
    }
    if let Some(faults) = &service.faults {
        first["faults"] = json!(faults.to_string());
    }
    if let Some(trace) = &service.trace {
        first["trace"] = json!({
            "route": "/trace",
            "bytes": trace.n_bytes().ok(),
            "machine": clock::machine(),
        });
    }
    Ok(Json(first))
}

fn info(model: &Model) -> Value {
    let mut info = model.info.clone();
    let metrics = &model.metrics;
    let mut memory = model.memory();
    let state = model.status.state().0;
    // A model that came back may have another cache than it began with; one at a stated pace has none.
    let n_tokens = metrics.n_blocks.get() * metrics.block_tokens.get();
    memory["token_capacity"] = match (state, n_tokens) {
        (ModelState::Active, 1..) => json!(n_tokens),
        _ => info["max_total_num_tokens"].clone(),
    };
    info["tokenizer_path"] = info["model_path"].clone();
    info["state"] = json!(state);
    info["internal_states"] = json!([{
        "last_gen_throughput": model.steps.decode_throughput(THROUGHPUT_STEPS),
        "num_running_reqs": metrics.n_running.get(),
        "num_queue_reqs": metrics.n_queued.get(),
        "token_usage": metrics.cache_usage(),
        "memory_usage": memory,
        "effective_max_running_requests_per_dp": info["options"]["max_running_requests"],
    }]);
    info
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
    for model in &service.fleet.models {
        flush(model, patience).await?;
    }
    Ok(Json(json!({ "status": "flushed" })))
}

async fn flush(model: &Model, patience: Duration) -> Result<(), ApiError> {
    let flush = model.engine.flush(patience);
    match tokio::time::timeout(patience + FLUSH_TIMEOUT, flush).await {
        Ok(Ok(Flushed::Done)) => Ok(()),
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

/// The model that a query names, or the first.
fn named<'a>(service: &'a Service, uri: &Uri) -> Result<&'a Arc<Model>, ApiError> {
    let fleet = &service.fleet;
    let name = query(uri, "model");
    let found = name.map_or(fleet.models.first(), |name| fleet.find(Some(name)));
    let unknown = || {
        let names = fleet.names();
        ApiError::no_such_model(name.unwrap_or_default(), names.into_iter())
    };
    found.ok_or_else(unknown)
}

/// The last value that a query has for `name`.
pub(super) fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(key, _)| *key == name);
    named.map(|(_, value)| value).next_back()
}

/// `GET /metrics`: Prometheus' text format.
pub(super) async fn prometheus(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let service = app.service()?;
    let models = service.fleet.models.iter();
    let models: Vec<_> = models.map(|m| (&*m.name, &*m.metrics)).collect();
    let text = metrics::render(&models);
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}

/// `GET /forward_steps?since=ID&model=NAME`: the step log from that id on, from its beginning without
/// one; that of the first model without a name.
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
    let model = named(&service, &uri)?;
    Ok(Json(model.steps.since(since)).into_response())
}

/// `GET /trace?since=BYTE`: whole lines of the trace from that byte of its file on, a few megabytes at
/// once; none where there are no more. `/server_info` says where the file ends.
pub(super) async fn trace(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let service = app.service()?;
    let Some(trace) = service.trace.clone() else {
        let message = "this server keeps no trace; start it with `--trace FILE`";
        return Err(ApiError::new(StatusCode::NOT_FOUND, message).code("no_trace"));
    };
    let since = query(&uri, "since").map_or(Ok(0), |text| {
        let problem = format!("found `{text}`, expected a count of bytes");
        text.parse().map_err(|_| ApiError::field("since", problem))
    })?;
    let read = tokio::task::spawn_blocking(move || trace.since(since, TRACE_PAGE));
    let lines = read.await.map_err(std::io::Error::other).flatten();
    let lines = lines.map_err(|error| {
        let message = format!("the trace cannot be read: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).code("trace_unreadable")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
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
