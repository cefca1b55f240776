//! The routes that generate: read, submit, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::parse::{Delivery, Generation, Route, parse};
use super::reply::{Choice, Envelope, next_text};
use super::stream::{EventStream, EventWriter};
use super::{App, Service};
use crate::engine::{Event, EventKind, Failure};
use crate::tokenizer::TextStream;
use crate::trace::Tracing;

/// Bodies beyond this size are read by a thread of their own: tokenizing them would hold up the
/// streams that share the connection threads.
const LARGE_BODY_BYTES: usize = 32 * 1024;

/// A request body within the server's limit.
pub(super) struct LimitedBody(Bytes);

impl FromRequest<Arc<App>> for LimitedBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let too_large = || {
            let message = format!("the body exceeds the limit of {} bytes", app.max_body_bytes);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
        };
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > app.max_body_bytes) {
            return Err(too_large());
        }
        match Bytes::from_request(request, app).await {
            Ok(body) => Ok(LimitedBody(body)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(too_large())
            }
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())),
        }
    }
}

/// `POST /v1/completions`.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Completion, &headers, body?.0).await
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat_completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Chat, &headers, body?.0).await
}

/// `POST /generate`, SGLang's own.
pub(super) async fn generate_native(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Generate, &headers, body?.0).await
}

async fn generate(
    app: &App,
    route: Route,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let tracing = service.trace.clone().map(|trace| {
        let name = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Tracing::begin(trace, name.unwrap_or_default().to_owned())
    });
    let number = service.n_requests.fetch_add(1, Relaxed);
    let generation = read(&service, route, body, number).await?;
    let envelope = Envelope::new(route, number, &service.served.model_name);
    let choices: Vec<_> = generation
        .requests
        .iter()
        .map(|request| Choice::begin(request.prompt.len(), generation.ids))
        .collect();
    let Generation {
        requests,
        texts,
        delivery,
        is_list,
        ..
    } = generation;
    let answers = service.engine.submit(requests)?;
    match delivery {
        Delivery::Stream(usage_events) => {
            let writer = EventWriter::new(envelope, choices, texts, usage_events, is_list);
            Ok(EventStream::new(answers, writer, tracing).into_response())
        }
        Delivery::Whole => {
            let choices = collect(answers, texts, choices).await?;
            Ok(Json(envelope.whole(&choices, is_list)).into_response())
        }
    }
}

async fn read(
    service: &Arc<Service>,
    route: Route,
    body: Bytes,
    number: u64,
) -> Result<Generation, ApiError> {
    // Requests that name no seed differ from each other, and repeat with the server's seed.
    let seed = service
        .seed
        .wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    if body.len() <= LARGE_BODY_BYTES {
        return parse(&body, route, &service.served, seed);
    }
    let service = Arc::clone(service);
    let task = tokio::task::spawn_blocking(move || parse(&body, route, &service.served, seed));
    task.await
        .unwrap_or_else(|_| Err(ApiError::from(Failure::Stopping)))
}

/// Waits for all the tokens. Dropping this future, as a closed connection does, cancels them.
async fn collect(
    mut answers: mpsc::Receiver<Event>,
    mut texts: Vec<TextStream>,
    mut choices: Vec<Choice>,
) -> Result<Vec<Choice>, ApiError> {
    let mut n_open = choices.len();
    while n_open > 0 {
        let Some(Event { index, kind }) = answers.recv().await else {
            return Err(Failure::Stopping.into());
        };
        match kind {
            EventKind::Token { id, finish, cached } => {
                let choice = &mut choices[index];
                choice.count(id, cached);
                choice.text += &next_text(&mut texts[index], id, finish);
                choice.finish = finish;
                n_open -= usize::from(finish.is_some());
            }
            EventKind::Failed(failure) => return Err(failure.into()),
        }
    }
    Ok(choices)
}
