//! Everything but requests for models: health, names, moves, the time line, caches.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use embedded_server::clock::Nanos;
use embedded_server::swapping::ModelState;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::error::ApiError;
use crate::backend::BackendError;
use crate::fleet::{Fleet, Model};

/// The clock of all instants that are told.
const CLOCK: &str = "CLOCK_MONOTONIC";

/// `GET /health`: whether every model is served or waited for, and every server is there.
pub(super) async fn health(State(fleet): State<Arc<Fleet>>) -> Response {
    let looks = looks(&fleet).await;
    let told = fleet.models.iter().zip(looks).map(|(model, look)| {
        let broken = model.broken().map(|broken| broken.reason.clone());
        let given_up = broken.is_some();
        let trouble = broken.or_else(|| look.err().map(|error| error.to_string()));
        let state = model.queue.figures().state;
        json!({ "model": model.name, "state": state, "trouble": trouble, "given_up": given_up })
    });
    let models: Vec<Value> = told.collect();
    let is_well = models.iter().all(|model| model["trouble"].is_null());
    let (status, word) = match (is_well, fleet.is_ready()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        (true, true) => (StatusCode::OK, "ok"),
    };
    (status, Json(json!({ "status": word, "models": models }))).into_response()
}

/// Looks for all servers at once; in the order of the models.
async fn looks(fleet: &Fleet) -> Vec<Result<(), BackendError>> {
    let mut looks = JoinSet::new();
    for (at, model) in fleet.models.iter().enumerate() {
        let backend = model.backend.clone();
        looks.spawn(async move { (at, backend.look().await) });
    }
    let mut all = looks.join_all().await;
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, look)| look).collect()
}

/// `GET /v1/models`.
pub(super) async fn models(State(fleet): State<Arc<Fleet>>) -> Json<Value> {
    let entry = |model: &Model| {
        json!({
            "id": model.name,
            "object": "model",
            "owned_by": "benchwright",
            "state": model.queue.figures().state,
        })
    };
    let data: Vec<Value> = fleet.models.iter().map(entry).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /server_info`: what each server said of itself when it was met. Answers that are made up are
/// said to be (`simulated`), whoever passes them on.
pub(super) async fn server_info(State(fleet): State<Arc<Fleet>>) -> Json<Value> {
    let models = fleet.models.iter();
    let infos = models.map(|model| json!({ "name": model.name, "info": model.info() }));
    Json(json!({ "simulated": simulated(&fleet), "models": infos.collect::<Vec<_>>() }))
}

/// How answers are made up, each way once; `None` where none are.
fn simulated(fleet: &Fleet) -> Option<String> {
    let how = |model: &Model| Some(model.info()?["simulated"].as_str()?.to_owned());
    let each: Vec<Option<String>> = fleet.models.iter().map(how).collect();
    let mut ways: Vec<&str> = each.iter().flatten().map(|how| &**how).collect();
    ways.sort_unstable();
    ways.dedup();
    let all = ways.join("; ");
    match each.contains(&None) {
        _ if ways.is_empty() => None,
        true => Some(format!("{all}; not every model")),
        false => Some(all),
    }
}

/// `GET` or `POST /flush_cache`: empties the caches of the models that are on the device; the others
/// have none.
pub(super) async fn flush_cache(State(fleet): State<Arc<Fleet>>) -> Result<Json<Value>, ApiError> {
    let is_there = |model: &&Model| model.queue.figures().state == ModelState::Active;
    for model in fleet.models.iter().filter(is_there) {
        match model.backend.flush().await {
            Ok(()) => {}
            Err(error @ BackendError::Refused { status: 400, .. }) => {
                let error = ApiError::new(StatusCode::BAD_REQUEST, error.to_string());
                return Err(error.code("busy"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(json!({ "status": "flushed" })))
}

/// `POST /reset`: brings every model to where it begins, and empties the caches of those that are there
/// then. What still runs on a model that leaves ends first.
pub(super) async fn reset(State(fleet): State<Arc<Fleet>>) -> Result<Json<Value>, ApiError> {
    if let Some(trouble) = fleet.reset().await? {
        return Err(ApiError::new(StatusCode::BAD_GATEWAY, trouble).code("not_reset"));
    }
    flush_cache(State(fleet)).await
}

/// `GET /swaps?since_ns=N`: moves that ended at or after that instant, and those that failed.
pub(super) async fn swaps(
    State(fleet): State<Arc<Fleet>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let since = since(&uri)?;
    Ok(Json(json!({
        "clock": CLOCK,
        "swaps": fleet.moves_since(since),
        "failures": fleet.failures_since(since),
    })))
}

/// `GET /timeline?since_ns=N`: how every model fared, four times a second. What only servers know is
/// left out, and how much memory the device has is not known.
pub(super) async fn timeline(
    State(fleet): State<Arc<Fleet>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({
        "clock": CLOCK,
        "models": fleet.names(),
        "device_memory": null,
        "samples": fleet.samples_since(since(&uri)?),
    })))
}

fn since(uri: &Uri) -> Result<Nanos, ApiError> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut given = pairs.filter_map(|pair| pair.strip_prefix("since_ns="));
    let text = given.next_back().unwrap_or("0");
    let ns = text.parse().map_err(|_| {
        let problem = format!("found `{text}`, expected nanoseconds of the monotonic clock");
        ApiError::field("since_ns", problem)
    })?;
    Ok(Nanos(ns))
}

/// Any other path.
pub(super) async fn no_such_route(uri: Uri) -> ApiError {
    let message = format!("there is no route `{}` before several servers", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message).code("route_not_found")
}

/// A known path with another method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("route `{}` does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed")
}
