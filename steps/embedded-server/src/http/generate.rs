//! The routes that generate: read, submit, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::events::EventWriter;
use super::faulty::FaultyStream;
use super::listen::{Connection, ResetSwitch};
use super::parse::{Delivery, Generation, Route, parse};
use super::reply::{Choice, Envelope, Issue, next_text};
use super::stream::EventStream;
use super::{App, Service};
use crate::engine::{Event, EventKind, Failure};
use crate::tokenizer::TextStream;
use crate::trace::{AnswerOutcome, Tracing};

/// Bodies beyond this size are read by a thread of their own: tokenizing them would hold up the
/// streams that share the connection threads.
const LARGE_BODY_BYTES: usize = 32 * 1024;

/// A request body within the server's limit.
pub(super) struct LimitedBody(Bytes);

impl LimitedBody {
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

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
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Completion, connection, &headers, body?.0).await
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Chat, connection, &headers, body?.0).await
}

/// `POST /generate`, SGLang's own.
pub(super) async fn generate_native(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Result<LimitedBody, ApiError>,
) -> Result<Response, ApiError> {
    generate(&app, Route::Generate, connection, &headers, body?.0).await
}

/// What was asked.
struct Asked {
    route: Route,
    /// Which request of the server it is.
    number: u64,
    reset: ResetSwitch,
    body: Bytes,
}

async fn generate(
    app: &App,
    route: Route,
    connection: Connection,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let number = service.n_requests.fetch_add(1, Relaxed);
    let mut tracing = service.trace.clone().map(|trace| {
        let name = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Tracing::begin(trace, name.unwrap_or_default(), number, connection.accepted)
    });
    let asked = Asked {
        route,
        number,
        reset: connection.reset,
        body,
    };
    let answered = answer(&service, asked, &mut tracing).await;
    if let (Err(error), Some(tracing)) = (&answered, &mut tracing) {
        tracing.end(AnswerOutcome::Refused(error.status.as_u16()));
    }
    answered
}

/// Answers; what is traced goes with an answer that is streamed.
async fn answer(
    service: &Arc<Service>,
    asked: Asked,
    tracing: &mut Option<Tracing>,
) -> Result<Response, ApiError> {
    let (route, number) = (asked.route, asked.number);
    refuse_on_purpose(service, number, tracing)?;
    let generation = read(service, route, asked.body, number).await?;
    let model = &service.fleet.models[generation.model];
    let envelope = Envelope::new(route, Issue::now(number), &model.name);
    let choices = choices(&generation);
    let Generation {
        requests,
        texts,
        delivery,
        is_list,
        ..
    } = generation;
    if let Some(tracing) = tracing {
        tracing.parsed();
        tracing.enqueued(&model.name, requests.len());
    }
    let has_objective = requests.iter().any(|request| request.objective.is_some());
    let n_tokens = requests.iter().map(|request| request.ending.max_tokens);
    let n_tokens = n_tokens.fold(0, usize::saturating_add);
    let mut answers = model.engine.submit(requests)?;
    match delivery {
        Delivery::Stream(usage_events) => {
            let first = match has_objective {
                true => Some(first_event(&mut answers).await?),
                false => None,
            };
            let writer = EventWriter::new(envelope, choices, texts, usage_events, is_list);
            let tracing = tracing.take();
            let Some(faults) = &service.faults else {
                return Ok(EventStream::new(answers, first, writer, tracing).into_response());
            };
            let plan = faults.plan(number, n_tokens);
            let writer = writer.grouping(plan.tokens);
            let stream = EventStream::new(answers, first, writer, tracing);
            Ok(FaultyStream::new(stream, plan, asked.reset).into_response())
        }
        Delivery::Whole => {
            let choices = collect(answers, texts, choices, tracing.as_mut()).await?;
            if let Some(tracing) = tracing {
                tracing.end(AnswerOutcome::Finished);
            }
            Ok(Json(envelope.whole(&choices, is_list)).into_response())
        }
    }
}

/// The choices of an answer, before their first tokens.
pub(super) fn choices(generation: &Generation) -> Vec<Choice> {
    let requests = generation.requests.iter();
    requests
        .map(|request| Choice::begin(request.prompt.len(), generation.ids))
        .collect()
}

/// The seed of a request that names none: they differ from each other, and repeat with the server's seed.
pub(super) fn fallback_seed(service: &Service, number: u64) -> u64 {
    service
        .seed
        .wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Refuses the requests that are to be.
fn refuse_on_purpose(
    service: &Service,
    number: u64,
    tracing: &mut Option<Tracing>,
) -> Result<(), ApiError> {
    let faults = service.faults.as_ref();
    let Some(fault) = faults.and_then(|faults| faults.refusal(number)) else {
        return Ok(());
    };
    if let Some(tracing) = tracing {
        tracing.fault(fault, None);
    }
    Err(ApiError::injected(fault))
}

/// The first event of requests that may be broken off while they wait: then the answer's status
/// says so.
async fn first_event(answers: &mut mpsc::Receiver<Event>) -> Result<Event, ApiError> {
    match answers.recv().await {
        Some(Event {
            kind: EventKind::Failed(failure),
            ..
        }) => Err(failure.into()),
        Some(event) => Ok(event),
        None => Err(Failure::Stopping.into()),
    }
}

async fn read(
    service: &Arc<Service>,
    route: Route,
    body: Bytes,
    number: u64,
) -> Result<Generation, ApiError> {
    let seed = fallback_seed(service, number);
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
    mut tracing: Option<&mut Tracing>,
) -> Result<Vec<Choice>, ApiError> {
    let mut n_open = choices.len();
    while n_open > 0 {
        let Some(Event { index, kind }) = answers.recv().await else {
            return Err(Failure::Stopping.into());
        };
        match kind {
            EventKind::Token {
                id,
                finish,
                cached,
                origin,
            } => {
                if let Some(tracing) = &mut tracing {
                    tracing.token(index, origin, finish);
                }
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
