//! An answer as server-sent events: one per token.
//!
//! The body is polled by the connection itself, so a token goes from the engine's channel to the
//! socket without a task in between, and a client that goes away drops the channel, which is
//! how the engine hears of it. Events are written by hand around a prepared head, because this
//! runs for every token of every request.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::parse::{Route, UsageEvents};
use super::reply::{Choice, Envelope, Usage, next_text};
use crate::engine::{Event, EventKind, Failure, FinishReason};
use crate::tokenizer::TextStream;
use crate::trace::Tracing;

/// Room for what stands around an event's text.
const EVENT_BYTES: usize = 192;

/// The body of a streamed answer.
pub(super) struct EventStream {
    answers: mpsc::Receiver<Event>,
    writer: EventWriter,
    n_open: usize,
    is_over: bool,
    tracing: Option<Tracing>,
}

impl EventStream {
    pub(super) fn new(
        answers: mpsc::Receiver<Event>,
        writer: EventWriter,
        tracing: Option<Tracing>,
    ) -> Self {
        EventStream {
            answers,
            tracing,
            n_open: writer.texts.len(),
            writer,
            is_over: false,
        }
    }

    pub(super) fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, Body::new(self)).into_response()
    }

    /// What one event of the engine becomes on the wire.
    fn frame(&mut self, event: Option<Event>) -> Vec<u8> {
        let failure = match event.map(|event| (event.index, event.kind)) {
            Some((index, EventKind::Token { id, finish, cached })) => {
                if let Some(tracing) = &mut self.tracing {
                    tracing.sent();
                }
                let mut out = self.writer.token(index, id, finish, cached);
                self.n_open -= usize::from(finish.is_some());
                if self.n_open == 0 {
                    self.is_over = true;
                    self.writer.end(&mut out);
                }
                return out;
            }
            Some((_, EventKind::Failed(failure))) => failure,
            // The engine went away without a word.
            None => Failure::Stopping,
        };
        // A stream that ends without `[DONE]` is a broken one, and the error says why.
        self.is_over = true;
        format!("data: {}\n\n", ApiError::from(failure).body()).into_bytes()
    }
}

impl hyper::body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let event = ready!(self.answers.poll_recv(context));
        let bytes = self.frame(event);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }
}

/// Writes events.
pub(super) struct EventWriter {
    envelope: Envelope,
    head: Vec<u8>,
    texts: Vec<TextStream>,
    /// What is counted of each; for SGLang's own protocol its whole text too.
    choices: Vec<Choice>,
    usage_events: UsageEvents,
    is_list: bool,
}

impl EventWriter {
    pub(super) fn new(
        envelope: Envelope,
        choices: Vec<Choice>,
        texts: Vec<TextStream>,
        usage_events: UsageEvents,
        is_list: bool,
    ) -> Self {
        EventWriter {
            head: envelope.event_head(),
            envelope,
            texts,
            choices,
            usage_events,
            is_list,
        }
    }

    /// The events of one token: the role before a chat's first, the text, the end after its last.
    fn token(
        &mut self,
        index: usize,
        id: u32,
        finish: Option<FinishReason>,
        cached: usize,
    ) -> Vec<u8> {
        let choice = &mut self.choices[index];
        choice.count(id, cached);
        let text = next_text(&mut self.texts[index], id, finish);
        let is_first = choice.usage.completion_tokens == 1;
        let id = choice.ids.is_some().then_some(id);
        let mut out = Vec::with_capacity(self.head.len() + text.len() + EVENT_BYTES);
        match self.envelope.route {
            Route::Completion => {
                self.event(&mut out, index, Part::Text(&text), Tail { id, finish });
            }
            Route::Chat => self.chat_events(&mut out, index, is_first, &text, Tail { id, finish }),
            Route::Generate => self.native_event(&mut out, index, &text, finish),
        }
        out
    }

    fn chat_events(&self, out: &mut Vec<u8>, index: usize, is_first: bool, text: &str, tail: Tail) {
        if is_first {
            self.event(out, index, Part::Role, Tail::default());
        }
        // The token that ends a text has none of its own.
        let is_silent = text.is_empty() && tail.finish == Some(FinishReason::StopToken);
        if !is_silent {
            let finish = None;
            self.event(out, index, Part::Delta(text), Tail { finish, ..tail });
        }
        if tail.finish.is_some() {
            let id = tail.id.filter(|_| is_silent);
            self.event(out, index, Part::Nothing, Tail { id, ..tail });
        }
    }

    fn native_event(
        &mut self,
        out: &mut Vec<u8>,
        index: usize,
        text: &str,
        finish: Option<FinishReason>,
    ) {
        let choice = &mut self.choices[index];
        choice.text += text;
        choice.finish = finish;
        let index = self.is_list.then_some(index);
        out.extend_from_slice(&self.head);
        json(out, &self.envelope.native_choice(choice, index));
        out.extend_from_slice(b"\n\n");
    }

    fn event(&self, out: &mut Vec<u8>, index: usize, part: Part<'_>, tail: Tail) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(br#"{"index":"#);
        json(out, &index);
        match part {
            Part::Text(text) => {
                out.extend_from_slice(br#","text":"#);
                json(out, text);
            }
            Part::Role => {
                out.extend_from_slice(br#","delta":{"role":"assistant","content":""}"#);
            }
            Part::Delta(text) => {
                out.extend_from_slice(br#","delta":{"content":"#);
                json(out, text);
                out.push(b'}');
            }
            Part::Nothing => out.extend_from_slice(br#","delta":{}"#),
        }
        out.extend_from_slice(br#","logprobs":null,"finish_reason":"#);
        json(out, &tail.finish.map(FinishReason::name));
        if let Some(id) = tail.id {
            out.extend_from_slice(br#","token_ids":["#);
            json(out, &id);
            out.push(b']');
        }
        out.extend_from_slice(b"}]");
        match self.usage_events {
            UsageEvents::Never => {}
            UsageEvents::AtEnd => out.extend_from_slice(br#","usage":null"#),
            UsageEvents::Always => self.usage(out),
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn usage(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","usage":"#);
        let usage: Usage = self.choices.iter().map(|choice| choice.usage).sum();
        json(out, &usage);
    }

    /// The events after every choice has ended.
    fn end(&self, out: &mut Vec<u8>) {
        let is_native = self.envelope.route == Route::Generate;
        if self.usage_events != UsageEvents::Never && !is_native {
            out.extend_from_slice(&self.head);
            out.push(b']');
            self.usage(out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// What an event adds to its choice.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Role,
    Delta(&'a str),
    Nothing,
}

/// What stands behind that: the token's id, if that is told, and why the text ends.
#[derive(Clone, Copy, Default)]
struct Tail {
    id: Option<u32>,
    finish: Option<FinishReason>,
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Numbers, strings and plain objects always serialise, and a vector takes them all.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::TokenIds;
    use crate::tokenizer::tests::word_tokenizer;
    use crate::tokenizer::{Detokenizer, StopStrings};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn stream(route: Route, usage_events: UsageEvents, n: usize) -> EventStream {
        telling(route, usage_events, n, TokenIds::Untold)
    }

    fn telling(route: Route, usage_events: UsageEvents, n: usize, ids: TokenIds) -> EventStream {
        let text = TextStream::new(
            Detokenizer::fresh(Arc::new(word_tokenizer(300))),
            StopStrings::default(),
        );
        let envelope = Envelope::new(route, 3, "tiny \"q\"");
        let choices = vec![Choice::begin(4, ids); n];
        let writer = EventWriter::new(envelope, choices, vec![text; n], usage_events, n > 1);
        EventStream::new(mpsc::channel(1).1, writer, None)
    }

    fn token(index: usize, id: u32, finish: Option<FinishReason>) -> Option<Event> {
        Some(Event {
            index,
            kind: EventKind::Token {
                id,
                finish,
                cached: 0,
            },
        })
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
}
