//! An answer as server-sent events, as the engine brings its tokens.
//!
//! The body is polled by the connection itself, so a token goes from the engine's channel to the
//! socket without a task in between, and a client that goes away drops the channel, which is
//! how the engine hears of it. What events look like is written elsewhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::error::ApiError;
use super::events::{EventWriter, Piece, in_band};
use crate::engine::{Event, EventKind, Failure};
use crate::trace::{AnswerOutcome, Tracing};

/// The body of a streamed answer.
pub(super) struct EventStream {
    answers: mpsc::Receiver<Event>,
    /// One that was received already.
    first: Option<Event>,
    writer: EventWriter,
    n_open: usize,
    is_over: bool,
    /// What has become of it, once it is over.
    outcome: AnswerOutcome,
    tracing: Option<Tracing>,
}

impl EventStream {
    pub(super) fn new(
        answers: mpsc::Receiver<Event>,
        first: Option<Event>,
        writer: EventWriter,
        tracing: Option<Tracing>,
    ) -> Self {
        EventStream {
            answers,
            first,
            tracing,
            n_open: writer.n_choices(),
            writer,
            is_over: false,
            outcome: AnswerOutcome::Finished,
        }
    }

    pub(super) fn into_response(self) -> Response {
        streamed(Body::new(self))
    }

    /// The next piece; `None` after the last one.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        while !self.is_over {
            let event = match self.first.take() {
                Some(event) => Some(event),
                None => ready!(self.answers.poll_recv(context)),
            };
            if let Some(piece) = self.piece(event) {
                return Poll::Ready(Some(piece));
            }
        }
        Poll::Ready(None)
    }

    /// The next piece, if it is there already; `None` after the last one.
    pub(super) fn try_piece(&mut self) -> Poll<Option<Piece>> {
        while !self.is_over {
            let event = match self.first.take() {
                Some(event) => Some(event),
                None => match self.answers.try_recv() {
                    Ok(event) => Some(event),
                    Err(TryRecvError::Empty) => return Poll::Pending,
                    Err(TryRecvError::Disconnected) => None,
                },
            };
            if let Some(piece) = self.piece(event) {
                return Poll::Ready(Some(piece));
            }
        }
        Poll::Ready(None)
    }

    /// Whether there is no further piece.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Breaks the answer off: the engine hears of it as of a client that has gone away.
    pub(super) fn cancel(&mut self, outcome: AnswerOutcome) {
        self.answers.close();
        self.is_over = true;
        self.outcome = outcome;
    }

    /// What is traced of it.
    pub(super) fn tracing(&mut self) -> Option<&mut Tracing> {
        self.tracing.as_mut()
    }

    /// All of it is handed over now.
    pub(super) fn end(&mut self) {
        if let Some(tracing) = &mut self.tracing {
            tracing.end(self.outcome.clone());
        }
    }

    /// What one event of the engine becomes on the wire; `None` if that waits for more.
    fn piece(&mut self, event: Option<Event>) -> Option<Piece> {
        let failure = match event.map(|event| (event.index, event.kind)) {
            Some((
                index,
                EventKind::Token {
                    id,
                    finish,
                    cached,
                    origin,
                },
            )) => {
                if let Some(tracing) = &mut self.tracing {
                    tracing.token(index, origin, finish);
                }
                let mut piece = self.writer.token(index, id, finish, cached)?;
                self.n_open -= usize::from(finish.is_some());
                if self.n_open == 0 {
                    self.is_over = true;
                    self.writer.end(&mut piece.bytes);
                }
                return Some(piece);
            }
            Some((_, EventKind::Failed(failure))) => failure,
            // The engine went away without a word.
            None => Failure::Stopping,
        };
        // A stream that ends without `[DONE]` is a broken one, and the error says why.
        let error = ApiError::from(failure);
        self.is_over = true;
        self.outcome = error.outcome();
        Some(in_band(&error))
    }
}

/// The response that a body of events is.
pub(super) fn streamed(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

impl hyper::body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = ready!(self.poll_piece(context)) else {
            return Poll::Ready(None);
        };
        if let Some(tracing) = &mut self.tracing
            && piece.tokens > 0
        {
            tracing.sent(piece.tokens, piece.is_silent);
        }
        if self.is_over {
            self.end();
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece.bytes)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FinishReason, Origin};
    use crate::http::parse::{Route, TokenIds, UsageEvents};
    use crate::http::reply::{Choice, Envelope, Issue};
    use crate::tokenizer::tests::word_tokenizer;
    use crate::tokenizer::{Detokenizer, StopStrings, TextStream};
    use serde_json::{Value, json};
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    fn stream(route: Route, usage_events: UsageEvents, n: usize) -> EventStream {
        telling(route, usage_events, n, TokenIds::Untold)
    }

    fn telling(route: Route, usage_events: UsageEvents, n: usize, ids: TokenIds) -> EventStream {
        let text = TextStream::new(
            Detokenizer::fresh(Arc::new(word_tokenizer(300))),
            StopStrings::default(),
        );
        let envelope = Envelope::new(route, Issue::now(3), "tiny \"q\"");
        let choices = vec![Choice::begin(4, ids); n];
        let writer = EventWriter::new(envelope, choices, vec![text; n], usage_events, n > 1);
        EventStream::new(mpsc::channel(1).1, None, writer, None)
    }

    fn token(index: usize, id: u32, finish: Option<FinishReason>) -> Option<Event> {
        Some(Event {
            index,
            kind: EventKind::Token {
                id,
                finish,
                cached: 0,
                origin: Origin::default(),
            },
        })
    }

    impl EventStream {
        /// What one event of the engine becomes on the wire.
        fn frame(&mut self, event: Option<Event>) -> Vec<u8> {
            self.piece(event)
                .map(|piece| piece.bytes)
                .unwrap_or_default()
        }
    }

    fn events(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let data = text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
            .collect()
    }

    #[test]
    fn a_completion_is_one_event_per_token_then_usage_then_done() {
        let mut stream = stream(Route::Completion, UsageEvents::AtEnd, 2);
        let first = events(&stream.frame(token(1, 7, None)));
        assert_eq!(first.len(), 1);
        assert_eq!(
            first[0]["choices"][0],
            json!({
            "index": 1, "text": "baba", "logprobs": null, "finish_reason": null })
        );
        assert_eq!(
            (&first[0]["model"], &first[0]["usage"]),
            (&json!("tiny \"q\""), &json!(null))
        );
        stream.frame(token(1, 8, Some(FinishReason::Length)));
        assert!(!stream.is_over);
        let last = events(&stream.frame(token(0, 1, Some(FinishReason::StopToken))));
        assert_eq!(last[0]["choices"][0]["text"], "");
        assert_eq!(last[0]["choices"][0]["finish_reason"], "stop");
        assert_eq!(last[1]["choices"], json!([]));
        assert_eq!(last[1]["usage"]["completion_tokens"], 3);
        assert_eq!(last[1]["usage"]["total_tokens"], 2 * 4 + 3);
        assert_eq!(last[2], "[DONE]");
        assert!(stream.is_over);
    }

    #[test]
    fn a_chat_begins_with_its_role_and_ends_with_its_reason() {
        let mut stream = stream(Route::Chat, UsageEvents::Always, 1);
        let first = events(&stream.frame(token(0, 7, None)));
        assert_eq!(
            first[0]["choices"][0]["delta"],
            json!({ "role": "assistant", "content": "" })
        );
        assert_eq!(
            first[1]["choices"][0]["delta"],
            json!({ "content": "baba" })
        );
        assert_eq!(first[1]["usage"]["completion_tokens"], 1);
        let last = events(&stream.frame(token(0, 8, Some(FinishReason::Length))));
        assert_eq!(
            last[0]["choices"][0]["delta"],
            json!({ "content": " babe" })
        );
        assert_eq!(last[0]["choices"][0]["finish_reason"], json!(null));
        assert_eq!(last[1]["choices"][0]["delta"], json!({}));
        assert_eq!(last[1]["choices"][0]["finish_reason"], "length");
        assert_eq!((last.len(), &last[3]), (4, &json!("[DONE]")));
    }

    #[test]
    fn sglang_s_own_events_tell_the_whole_text_and_what_was_cached() {
        let mut stream = stream(Route::Generate, UsageEvents::Never, 2);
        stream.frame(token(1, 7, None));
        let second = events(&stream.frame(token(1, 8, Some(FinishReason::Length))));
        assert_eq!(second[0]["text"], "baba babe");
        assert_eq!(second[0]["index"], 1);
        let meta = &second[0]["meta_info"];
        assert_eq!(
            meta["finish_reason"],
            json!({ "type": "length", "length": 2 })
        );
        assert_eq!(
            (&meta["prompt_tokens"], &meta["cached_tokens"]),
            (&json!(4), &json!(0))
        );
        let last = events(&stream.frame(token(0, 1, Some(FinishReason::StopToken))));
        assert_eq!(last[0]["meta_info"]["finish_reason"]["type"], "stop");
        assert_eq!((last.len(), &last[1]), (2, &json!("[DONE]")));
    }

    #[test]
    fn ids_are_told_once_for_each_token_where_asked_for() {
        for route in [Route::Completion, Route::Chat] {
            let mut stream = telling(route, UsageEvents::Never, 1, TokenIds::Told);
            let mut told = Vec::new();
            for (id, finish) in [(7, None), (8, None), (1, Some(FinishReason::StopToken))] {
                for event in events(&stream.frame(token(0, id, finish))) {
                    if let Some(ids) = event["choices"][0]["token_ids"].as_array() {
                        told.extend(ids.clone());
                    }
                }
            }
            assert_eq!(json!(told), json!([7, 8, 1]));
        }
        let mut native = telling(Route::Generate, UsageEvents::Never, 1, TokenIds::Told);
        native.frame(token(0, 7, None));
        let second = events(&native.frame(token(0, 8, Some(FinishReason::Length))));
        assert_eq!(second[0]["output_ids"], json!([7, 8]));
    }

    #[test]
    fn a_failure_is_told_in_band_and_nothing_is_done() {
        let mut stream = stream(Route::Chat, UsageEvents::AtEnd, 1);
        let failed = Event {
            index: 0,
            kind: EventKind::Failed(Failure::Stopping),
        };
        let told = events(&stream.frame(Some(failed)));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["error"]["code"], "stopping");
        assert!(stream.is_over);
    }

    #[test]
    fn tokens_that_share_an_event_lose_nothing() {
        for (route, at) in [
            (Route::Completion, "/choices/0/text"),
            (Route::Chat, "/choices/0/delta/content"),
        ] {
            let said = |group: usize| {
                let mut stream = telling(route, UsageEvents::Always, 1, TokenIds::Told);
                stream.writer = stream.writer.grouping(NonZeroUsize::new(group).unwrap());
                let (mut text, mut ids, mut carried) = (String::new(), Vec::new(), Vec::new());
                for n in 7..12 {
                    let finish = (n == 11).then_some(FinishReason::Length);
                    let Some(piece) = stream.piece(token(0, n, finish)) else {
                        continue;
                    };
                    carried.push(piece.tokens);
                    for event in events(&piece.bytes) {
                        text += event.pointer(at).and_then(Value::as_str).unwrap_or("");
                        let told = event["choices"][0]["token_ids"].as_array().cloned();
                        ids.extend(told.unwrap_or_default());
                    }
                    let told = std::str::from_utf8(&piece.bytes[..piece.said]).unwrap();
                    assert!(told.ends_with("\n\n") && !told.contains("[DONE]"));
                }
                (text, ids, carried)
            };
            let (alone, grouped) = (said(1), said(2));
            assert_eq!((&alone.0, &alone.1), (&grouped.0, &grouped.1));
            assert_eq!((alone.2, grouped.2), (vec![1; 5], vec![2, 2, 1]));
        }
    }

    #[test]
    fn what_an_event_says_of_its_tokens_ends_before_the_end_of_the_stream() {
        let mut stream = stream(Route::Chat, UsageEvents::AtEnd, 1);
        let piece = stream
            .piece(token(0, 7, Some(FinishReason::Length)))
            .unwrap();
        let (said, rest) = piece.bytes.split_at(piece.said);
        assert_eq!(events(said)[1]["choices"][0]["delta"]["content"], "baba");
        assert_eq!(events(rest)[0]["choices"][0]["finish_reason"], "length");
        assert_eq!(events(rest)[2], "[DONE]");
    }
}
