//! A request on its way to its model's server, and the answer on its way back.
//!
//! The answer's body is polled by the client's own connection, frame by frame: nothing is gathered,
//! and a client that reads slowly slows the server down. A client that goes away drops everything
//! here, which closes the connection to the server and gives the place in the queue back; so does one
//! that stops reading, after a while, since its model could never leave otherwise.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::error::ApiError;
use crate::fleet::{Fleet, Model};
use crate::queue::{Entry, Patience, Ticket};

/// The longest objective that is believed, seconds.
const LONGEST_OBJECTIVE: f64 = 1e9;

/// Headers that are about one connection (RFC 9110, section 7.6.1), and those that are made anew.
const NOT_PASSED: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What the gateway reads of a request's body.
#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    /// By when it has to be answered, seconds.
    slo: Option<f64>,
}

/// A request for a model: to its server at once, or when the model has come onto the device.
pub(super) async fn pass(
    State(fleet): State<Arc<Fleet>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("malformed JSON: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, message).code("invalid_json")
    })?;
    let model = chosen(&fleet, asked.model.as_deref())?;
    let ticket = match model.queue.enter(objective(asked.slo)?)? {
        Entry::Goes(ticket) => ticket,
        Entry::Waits(place) => {
            let patience = Patience {
                limit: fleet.config.wait_timeout,
                aborts_late: fleet.config.aborts_late,
            };
            place.admitted(patience).await?
        }
    };
    let body = named(model, body)?;
    let silence = fleet.config.answer_timeout;
    let request = request(&uri, &headers, body);
    let (parts, body) = model.backend.forward(request, silence).await?.into_parts();
    let passing = Passing::new(body, ticket, [silence, fleet.config.reading_timeout]);
    let mut response = Response::new(Body::new(passing));
    *response.status_mut() = parts.status;
    *response.headers_mut() = passed(&parts.headers);
    Ok(response)
}

fn chosen<'a>(fleet: &'a Fleet, name: Option<&str>) -> Result<&'a Model, ApiError> {
    fleet.find(name).ok_or_else(|| match name {
        Some(name) => ApiError::no_such_model(name, &fleet.names()),
        None => {
            let names = fleet.names().join("`, `");
            ApiError::field("model", format!("missing; the models are `{names}`"))
        }
    })
}

fn objective(slo: Option<f64>) -> Result<Option<Duration>, ApiError> {
    let Some(slo) = slo else { return Ok(None) };
    if slo > 0.0 && slo <= LONGEST_OBJECTIVE {
        return Ok(Some(Duration::from_secs_f64(slo)));
    }
    let problem = format!("found {slo}, expected seconds above 0");
    Err(ApiError::field("slo", problem))
}

/// The body with the name that the server has for the model.
fn named(model: &Model, body: Bytes) -> Result<Bytes, ApiError> {
    let Some(alias) = model.alias() else {
        return Ok(body);
    };
    let renamed = serde_json::from_slice::<Map<String, Value>>(&body).and_then(|mut fields| {
        fields.insert("model".to_owned(), alias.into());
        serde_json::to_vec(&fields)
    });
    renamed.map(Bytes::from).map_err(|error| {
        let message = format!("the body is no JSON object: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, message)
    })
}

fn request(uri: &Uri, headers: &HeaderMap, body: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = passed(headers);
    // Its length may be another, and is known.
    request.headers_mut().remove(header::CONTENT_LENGTH);
    request.headers_mut().remove(header::EXPECT);
    request
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in &NOT_PASSED {
        passed.remove(name);
    }
    // What a connection names is about it alone too.
    let named = headers.get_all(header::CONNECTION).iter();
    for names in named.filter_map(|value| value.to_str().ok()) {
        for name in names.split(',') {
            passed.remove(name.trim());
        }
    }
    passed
}

/// The body of an answer on its way back. The model stays as long as it comes.
struct Passing {
    rest: Arc<Mutex<Rest>>,
    /// How long the server may say nothing.
    silence: Duration,
    patience: Pin<Box<Sleep>>,
    /// How long the client may take nothing.
    reading: Duration,
    /// Ends with this; nobody polls a body whose client does not read.
    _watch: JoinSet<()>,
}

/// What is to come of an answer.
enum Rest {
    Comes {
        body: Incoming,
        _ticket: Ticket,
        /// Since when the client has something to take; `None`: it waits for more.
        given: Option<Instant>,
    },
    /// Nothing, whether all came or the server broke off.
    Over,
    /// Nothing, because the client did not take what was there.
    Unread,
}

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("the server broke its answer off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the server said nothing for {} s in the middle of an answer", .0.as_secs_f64())]
    Silent(Duration),
    #[error("the client took nothing of its answer for {} s", .0.as_secs_f64())]
    Unread(Duration),
}

impl Passing {
    fn new(body: Incoming, ticket: Ticket, [silence, reading]: [Duration; 2]) -> Self {
        let rest = Arc::new(Mutex::new(Rest::Comes {
            body,
            _ticket: ticket,
            given: None,
        }));
        let mut watch = JoinSet::new();
        watch.spawn(until_unread(Arc::downgrade(&rest), reading));
        Passing {
            rest,
            silence,
            patience: Box::pin(tokio::time::sleep(silence)),
            reading,
            _watch: watch,
        }
    }
}

/// Lets go of an answer once its client has taken nothing for `limit`; at the latest after twice that.
async fn until_unread(rest: Weak<Mutex<Rest>>, limit: Duration) {
    let mut until = Instant::now() + limit;
    loop {
        tokio::time::sleep_until(until).await;
        let Some(rest) = rest.upgrade() else { return };
        let mut rest = lock(&rest);
        let now = Instant::now();
        let Rest::Comes { given, .. } = &*rest else {
            return;
        };
        until = given.unwrap_or(now) + limit;
        if until <= now {
            *rest = Rest::Unread;
            return;
        }
    }
}

fn lock(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    // It is changed by one statement each time.
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = PassError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PassError>>> {
        let this = self.get_mut();
        let mut rest = lock(&this.rest);
        let (body, given) = match &mut *rest {
            Rest::Comes { body, given, .. } => (body, given),
            Rest::Over => return Poll::Ready(None),
            Rest::Unread => return Poll::Ready(Some(Err(PassError::Unread(this.reading)))),
        };
        if given.take().is_some() {
            // The server has as long as before, from when more is asked for.
            this.patience.as_mut().reset(Instant::now() + this.silence);
        }
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            std::task::ready!(this.patience.as_mut().poll(context));
            *rest = Rest::Over;
            return Poll::Ready(Some(Err(PassError::Silent(this.silence))));
        };
        *given = Some(Instant::now());
        let goes_on = matches!(frame, Some(Ok(_))) && !body.is_end_stream();
        if !goes_on {
            // Gives the ticket back.
            *rest = Rest::Over;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(PassError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.rest) {
            Rest::Comes { body, .. } => body.is_end_stream(),
            Rest::Over => true,
            Rest::Unread => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.rest) {
            Rest::Comes { body, .. } => body.size_hint(),
            Rest::Over | Rest::Unread => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_a_time_to_come() {
        assert_eq!(objective(None).unwrap(), None);
        let half = Some(Duration::from_millis(500));
        assert_eq!(objective(Some(0.5)).unwrap(), half);
        for wrong in [0.0, -1.0, f64::NAN, 1e300] {
            assert!(objective(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_about_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for name in ["keep-alive", "host", "authorization", "x-own", "x-hop"] {
            headers.insert(HeaderName::from_static(name), "x".parse().unwrap());
        }
        for names in ["close, X-Hop", ", x y,\u{e9}"] {
            let names = axum::http::HeaderValue::from_bytes(names.as_bytes()).unwrap();
            headers.append(header::CONNECTION, names);
        }
        let passed = passed(&headers);
        let mut left: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-own"]);
    }
}
