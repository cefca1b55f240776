//! Models come and go: the routes of SGLang (release and resume), of its multi-model descendants
//! (activate and deactivate) and of vLLM (sleep and wake up), and what they did.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use super::admin::query;
use super::error::ApiError;
use super::fields::Fields;
use crate::clock::Nanos;
use crate::engine::{Come, Leave, Move, MoveError, Parts, Running};
use crate::fleet::Model;
use crate::swapping::{ModelState, Reason};

/// Bytes of a gigabyte, in which pool sizes are given.
const GB: f64 = (1_u64 << 30) as f64;

/// `POST /activate {"model_name": …, "memory_pool_size": GB}`: brings a model onto the device.
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (model, mut fields) = asked(&app, &body)?;
    one_instance(&mut fields)?;
    let expected = "gigabytes above 0";
    let pool = fields.take_number("memory_pool_size", expected, |gb: f64| gb > 0.0)?;
    let come = Come {
        parts: Parts::ALL,
        cache_bytes: pool.map(|gb| (gb * GB) as u64),
        reason: Reason::Asked,
    };
    let moved = model.engine.come(come).await;
    Ok(answer(&model, moved))
}

/// `POST /deactivate {"model_name": …, "preempt": …, "evict_waiting_requests": …}`: takes a model off
/// the device once what runs has ended, or at once with `preempt`: then it is computed again later.
pub(super) async fn deactivate(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (model, mut fields) = asked(&app, &body)?;
    one_instance(&mut fields)?;
    let mode: Option<String> = fields.take("preempt_mode", "`RECOMPUTE`")?;
    if let Some(mode) = mode.filter(|mode| mode != "RECOMPUTE") {
        let problem = format!("found `{mode}`, expected `RECOMPUTE`");
        return Err(ApiError::field("preempt_mode", problem));
    }
    let is = "`true` or `false`";
    let preempts = fields.take("preempt", is)?.unwrap_or(false);
    let leave = Leave {
        parts: Parts::ALL,
        running: match preempts {
            true => Running::Retract,
            false => Running::Finish,
        },
        evicts_waiting: fields.take("evict_waiting_requests", is)?.unwrap_or(false),
        reason: Reason::Asked,
    };
    let moved = model.engine.leave(leave).await;
    Ok(answer(&model, moved))
}

/// `POST /release_memory_occupation {"tags": […]}`: frees weights, cache or both; without any
/// request only, as SGLang. `model_name` chooses among several models.
pub(super) async fn release(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let (model, mut fields) = asked(&app, &body)?;
    let leave = Leave {
        parts: tags(fields.take("tags", TAGS)?)?,
        running: Running::Refuse,
        evicts_waiting: false,
        reason: Reason::Asked,
    };
    Ok(Json(json!(model.engine.leave(leave).await?)))
}

/// `POST /resume_memory_occupation {"tags": […]}`: the reverse of a release.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let (model, mut fields) = asked(&app, &body)?;
    let come = Come {
        parts: tags(fields.take("tags", TAGS)?)?,
        cache_bytes: None,
        reason: Reason::Asked,
    };
    Ok(Json(json!(model.engine.come(come).await?)))
}

/// `POST /sleep?level=1&mode=abort|wait|keep`: as vLLM; every model of the server.
pub(super) async fn sleep(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let level = query(&uri, "level").unwrap_or("1");
    if !matches!(level, "1" | "2") {
        // Weights that are gone cannot be made up again differently, so both levels keep them.
        return Err(ApiError::field(
            "level",
            format!("found `{level}`, expected 1 or 2"),
        ));
    }
    let (running, evicts_waiting) = match query(&uri, "mode").unwrap_or("abort") {
        "abort" => (Running::BreakOff, true),
        "wait" => (Running::Finish, false),
        "keep" => (Running::Retract, false),
        other => {
            let problem = format!("found `{other}`, expected `abort`, `wait` or `keep`");
            return Err(ApiError::field("mode", problem));
        }
    };
    let leave = Leave {
        parts: Parts::ALL,
        running,
        evicts_waiting,
        reason: Reason::Asked,
    };
    let mut moves = Vec::new();
    for model in &service.fleet.models {
        match model.engine.leave(leave).await {
            Ok(moved) => moves.push(moved),
            Err(MoveError::Already(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(json!({ "moves": moves })))
}

/// `POST /wake_up?tags=weights&tags=kv_cache`: as vLLM; every model of the server.
pub(super) async fn wake_up(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let pairs = uri.query().unwrap_or_default().split('&');
    let named = pairs.filter_map(|pair| pair.strip_prefix("tags="));
    let named: Vec<String> = named.map(str::to_owned).collect();
    let come = Come {
        parts: tags((!named.is_empty()).then_some(named))?,
        cache_bytes: None,
        reason: Reason::Asked,
    };
    let mut moves = Vec::new();
    for model in &service.fleet.models {
        match model.engine.come(come).await {
            Ok(moved) => moves.push(moved),
            Err(MoveError::Already(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(json!({ "moves": moves })))
}

/// `GET /is_sleeping`: whether no model is on the device.
pub(super) async fn is_sleeping(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let is_off = |model: &Arc<Model>| model.status.state().0 == ModelState::Off;
    let is_sleeping = service.fleet.models.iter().all(is_off);
    Ok(Json(json!({ "is_sleeping": is_sleeping })))
}

/// `/get_model_names`.
pub(super) async fn names(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    Ok(Json(json!({ "model_names": service.fleet.names() })))
}

/// `/get_memory_pool_size`: what each model holds.
pub(super) async fn pools(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let models = service.fleet.models.iter();
    let sizes: serde_json::Map<_, _> = models.map(|m| (m.name.clone(), m.memory())).collect();
    Ok(Json(
        json!({ "memory_usage": sizes, "free": service.fleet.device.free() }),
    ))
}

/// `GET /swaps?since_ns=N`: moves that ended at or after that instant of the machine's monotonic
/// clock.
pub(super) async fn swaps(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let moves = app.service()?.fleet.moves.since(since(&uri)?);
    Ok(Json(json!({ "clock": "CLOCK_MONOTONIC", "swaps": moves })))
}

/// `GET /timeline?since_ns=N`: how every model fared, four times a second.
pub(super) async fn timeline(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let fleet = &app.service()?.fleet;
    let samples = fleet.timeline.since(since(&uri)?);
    Ok(Json(json!({
        "clock": "CLOCK_MONOTONIC",
        "models": fleet.names(),
        "device_memory": fleet.device.total(),
        "samples": samples,
    })))
}

fn since(uri: &Uri) -> Result<Nanos, ApiError> {
    let text = query(uri, "since_ns").unwrap_or("0");
    let problem = || format!("found `{text}`, expected nanoseconds of the monotonic clock");
    let ns = text
        .parse()
        .map_err(|_| ApiError::field("since_ns", problem()))?;
    Ok(Nanos(ns))
}

/// The model that a body names, which may be missing, and its other fields.
fn asked(app: &App, body: &Bytes) -> Result<(Arc<Model>, Fields), ApiError> {
    let fleet = &app.service()?.fleet;
    let mut fields = match body.is_empty() {
        true => Fields::parse(b"{}"),
        false => Fields::parse(body),
    }?;
    let name: Option<String> = fields.take("model_name", "a model's name")?;
    let model = fleet.find(name.as_deref()).ok_or_else(|| match &name {
        Some(name) => ApiError::no_such_model(name, fleet.names().into_iter()),
        None => {
            let names = fleet.names().join("`, `");
            ApiError::field("model_name", format!("missing; the models are `{names}`"))
        }
    })?;
    Ok((Arc::clone(model), fields))
}

/// Refuses other instances and devices than the first: there is one of each.
fn one_instance(fields: &mut Fields) -> Result<(), ApiError> {
    for name in ["instance_idx", "gpu_id"] {
        let _ = fields.take_number(name, "0, the only one", |n: u64| n == 0)?;
    }
    Ok(())
}

const TAGS: &str = "an array of `weights`, `kv_cache` and `cuda_graph`";

fn tags(named: Option<Vec<String>>) -> Result<Parts, ApiError> {
    let Some(named) = named else {
        return Ok(Parts::ALL);
    };
    let mut parts = Parts {
        weights: false,
        cache: false,
    };
    for tag in named {
        match &*tag {
            "weights" => parts.weights = true,
            "kv_cache" => parts.cache = true,
            // There is none to free.
            "cuda_graph" => {}
            _ => {
                let problem = format!("found `{tag}`, expected {TAGS}");
                return Err(ApiError::field("tags", problem));
            }
        }
    }
    Ok(parts)
}

/// As the multi-model servers answer: what was done, and what memory is held now.
fn answer(model: &Model, moved: Result<Move, MoveError>) -> Response {
    let status = match &moved {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut body = match moved {
        Ok(moved) => json!({ "success": true, "move": moved }),
        Err(error) => json!({ "success": false, "message": error.to_string() }),
    };
    body["memory_usage"] = model.memory();
    (status, Json(body)).into_response()
}
