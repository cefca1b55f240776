//! Requests and answers without a connection: what would be posted goes in, what would be sent comes out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::events::EventWriter;
use super::generate::{choices, fallback_seed};
use super::parse::{Delivery, Generation, Route, parse};
use super::reply::{Envelope, Issue};
use super::stream::EventStream;
use super::{Service, ServiceParts};
use crate::clock::Nanos;
use crate::engine::{Event, EventKind, Failure};
use crate::fleet::Fleet;

/// Takes requests.
pub(crate) struct Counter(Service);

/// An answer on its way.
pub(crate) struct Saying(State);

enum State {
    /// Its status is known with its first event: until then it may be broken off.
    Undecided(Undecided),
    /// It is streamed.
    Streamed(Box<EventStream>),
    /// It is refused, in these words until they are said.
    Refused(Option<Vec<u8>>),
}

/// An answer whose status is not known yet.
struct Undecided {
    answers: mpsc::Receiver<Event>,
    writer: EventWriter,
}

/// What comes next of an answer.
pub(crate) enum Said {
    /// The status, and whether a stream of events follows.
    Head(u16, bool),
    /// Bytes of the body.
    Body(Vec<u8>),
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Counter {
    pub(crate) fn new(parts: ServiceParts) -> Self {
        Counter(Service::new(parts))
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.0.fleet
    }

    /// Takes a request for `path` that arrives at `at`; and the head of its answer, if that is known at once.
    pub(crate) fn ask(&self, path: &str, body: &Bytes, at: Nanos) -> (Saying, Option<Said>) {
        match self.begin(path, body, at) {
            Ok(State::Undecided(undecided)) => (Saying(State::Undecided(undecided)), None),
            Ok(state) => {
                let head = Said::Head(StatusCode::OK.as_u16(), true);
                (Saying(state), Some(head))
            }
            Err(error) => {
                let (state, head) = refused(&error);
                (Saying(state), Some(head))
            }
        }
    }

    fn begin(&self, path: &str, body: &Bytes, at: Nanos) -> Result<State, ApiError> {
        let service = &self.0;
        let route = match path {
            "/v1/completions" => Route::Completion,
            "/v1/chat/completions" => Route::Chat,
            "/generate" => Route::Generate,
            _ => {
                let message = format!("there is no route `{path}`");
                return Err(ApiError::new(StatusCode::NOT_FOUND, message));
            }
        };
        let number = service.n_requests.fetch_add(1, Relaxed);
        let seed = fallback_seed(service, number);
        let generation = parse(body, route, &service.served, seed)?;
        let model = &service.fleet.models[generation.model];
        let choices = choices(&generation);
        let Generation {
            requests,
            texts,
            delivery,
            is_list,
            ..
        } = generation;
        let Delivery::Stream(usage_events) = delivery else {
            let problem = "only streams are answered in made-up time; send `true`";
            return Err(ApiError::field("stream", problem));
        };
        let has_objective = requests.iter().any(|request| request.objective.is_some());
        let answers = model.engine.submit(requests)?;
        // There is one server, and its time begins at 0.
        let issue = Issue {
            server: 0,
            number,
            created: at.0 / 1_000_000_000,
        };
        let envelope = Envelope::new(route, issue, &model.name);
        let writer = EventWriter::new(envelope, choices, texts, usage_events, is_list);
        Ok(match has_objective {
            true => State::Undecided(Undecided { answers, writer }),
            false => State::Streamed(Box::new(EventStream::new(answers, None, writer, None))),
        })
    }
}

impl Saying {
    /// What is said next; the answer as it goes on.
    pub(crate) fn next(self) -> (Self, Said) {
        let (state, said) = self.0.next();
        (Saying(state), said)
    }
}

impl State {
    fn next(self) -> (Self, Said) {
        match self {
            State::Undecided(undecided) => undecided.next(),
            State::Streamed(mut stream) => {
                let said = match stream.try_piece() {
                    Poll::Ready(Some(piece)) => Said::Body(piece.bytes),
                    Poll::Ready(None) => Said::End,
                    Poll::Pending => Said::Nothing,
                };
                (State::Streamed(stream), said)
            }
            State::Refused(words) => (State::Refused(None), words.map_or(Said::End, Said::Body)),
        }
    }
}

/// A refusal, and the head of its answer.
fn refused(error: &ApiError) -> (State, Said) {
    let words = error.body().to_string().into_bytes();
    let head = Said::Head(error.status.as_u16(), false);
    (State::Refused(Some(words)), head)
}

impl Undecided {
    fn next(mut self) -> (State, Said) {
        let failure = match self.answers.try_recv() {
            Err(mpsc::error::TryRecvError::Empty) => {
                return (State::Undecided(self), Said::Nothing);
            }
            Err(mpsc::error::TryRecvError::Disconnected) => Failure::Stopping,
            Ok(Event {
                kind: EventKind::Failed(failure),
                ..
            }) => failure,
            Ok(event) => {
                let stream = EventStream::new(self.answers, Some(event), self.writer, None);
                let head = Said::Head(StatusCode::OK.as_u16(), true);
                return (State::Streamed(Box::new(stream)), head);
            }
        };
        refused(&ApiError::from(failure))
    }
}
