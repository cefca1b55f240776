//! The events of a streamed answer: one per token, or one per group of them.
//!
//! They are written by hand around a prepared head, because this runs for every token of every
//! request. Knows no channel and no connection.

use std::num::NonZeroUsize;

use super::error::ApiError;
use super::parse::{Route, UsageEvents};
use super::reply::{Choice, Envelope, Usage, next_text};
use crate::engine::FinishReason;
use crate::tokenizer::TextStream;

/// Room for what stands around an event's text.
const EVENT_BYTES: usize = 192;

/// What is written at once: the events that become of one event of the engine.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Where what it says of its tokens ends: the counts and the end of the stream may follow.
    pub(super) said: usize,
    /// How many tokens it carries.
    pub(super) tokens: u32,
    /// Whether it has no text.
    pub(super) is_silent: bool,
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
    /// Tokens that an event carries; the last one of a choice may carry fewer.
    group: usize,
    /// What each choice's next event has so far.
    news: Vec<News>,
}

/// What an event is to tell.
#[derive(Clone, Default)]
struct News {
    text: String,
    /// The ids, if they are told one by one.
    ids: Vec<u32>,
    tokens: u32,
}

impl News {
    fn add(&mut self, text: String, id: Option<u32>) {
        match self.text.is_empty() {
            true => self.text = text,
            false => self.text.push_str(&text),
        }
        self.ids.extend(id);
        self.tokens += 1;
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ids.clear();
        self.tokens = 0;
    }
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
            news: vec![News::default(); texts.len()],
            texts,
            choices,
            usage_events,
            is_list,
            group: 1,
        }
    }

    /// How many continuations it tells.
    pub(super) fn n_choices(&self) -> usize {
        self.choices.len()
    }

    /// The same writer, which puts so many tokens into an event.
    pub(super) fn grouping(mut self, tokens: NonZeroUsize) -> Self {
        self.group = tokens.get();
        self
    }

    /// Takes a token, and writes its event unless that has room for more.
    pub(super) fn token(
        &mut self,
        index: usize,
        id: u32,
        finish: Option<FinishReason>,
        cached: usize,
    ) -> Option<Piece> {
        let choice = &mut self.choices[index];
        choice.count(id, cached);
        let text = next_text(&mut self.texts[index], id, finish);
        // SGLang's own protocol repeats all of them anyway.
        let is_told = choice.ids.is_some() && self.envelope.route != Route::Generate;
        self.news[index].add(text, is_told.then_some(id));
        if (self.news[index].tokens as usize) < self.group && finish.is_none() {
            return None;
        }
        let mut news = std::mem::take(&mut self.news[index]);
        let piece = self.events(index, &news, finish);
        news.clear();
        self.news[index] = news;
        Some(piece)
    }

    /// The events of some tokens: the role before a chat's first, the text, the end after its last.
    fn events(&mut self, index: usize, news: &News, finish: Option<FinishReason>) -> Piece {
        let is_first = self.choices[index].usage.completion_tokens == news.tokens as usize;
        let tail = Tail {
            ids: &news.ids,
            finish,
        };
        let mut out = Vec::with_capacity(self.head.len() + news.text.len() + EVENT_BYTES);
        let said = match self.envelope.route {
            Route::Completion => {
                self.event(&mut out, index, Part::Text(&news.text), tail);
                out.len()
            }
            Route::Chat => self.chat_events(&mut out, index, is_first, &news.text, tail),
            Route::Generate => {
                self.native_event(&mut out, index, &news.text, finish);
                out.len()
            }
        };
        Piece {
            bytes: out,
            said,
            tokens: news.tokens,
            is_silent: news.text.is_empty(),
        }
    }

    /// Writes a chat's events, and says where what tells of its tokens ends.
    fn chat_events(
        &self,
        out: &mut Vec<u8>,
        index: usize,
        is_first: bool,
        text: &str,
        tail: Tail<'_>,
    ) -> usize {
        if is_first {
            self.event(out, index, Part::Role, Tail::default());
        }
        // The token that ends a text has none of its own.
        let is_silent = text.is_empty() && tail.finish == Some(FinishReason::StopToken);
        if !is_silent {
            let finish = None;
            self.event(out, index, Part::Delta(text), Tail { finish, ..tail });
        }
        let said = out.len();
        if tail.finish.is_some() {
            let ids = if is_silent { tail.ids } else { &[] };
            self.event(out, index, Part::Nothing, Tail { ids, ..tail });
        }
        if is_silent { out.len() } else { said }
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

    fn event(&self, out: &mut Vec<u8>, index: usize, part: Part<'_>, tail: Tail<'_>) {
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
        if !tail.ids.is_empty() {
            out.extend_from_slice(br#","token_ids":"#);
            json(out, tail.ids);
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
    pub(super) fn end(&self, out: &mut Vec<u8>) {
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

/// What stands behind that: the ids of the tokens, if they are told, and why the text ends.
#[derive(Clone, Copy, Default)]
struct Tail<'a> {
    ids: &'a [u32],
    finish: Option<FinishReason>,
}

/// An error as the last event of a stream.
pub(super) fn in_band(error: &ApiError) -> Piece {
    let bytes = format!("data: {}\n\n", error.body()).into_bytes();
    Piece {
        said: bytes.len(),
        bytes,
        tokens: 0,
        is_silent: true,
    }
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Numbers, strings and plain objects always serialise, and a vector takes them all.
    let _ = serde_json::to_writer(out, value);
}
