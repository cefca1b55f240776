//! One exchange with the server, seen as instants.
//!
//! Knows the order of things in an answer and for how long to wait for them. What it saw
//! stays in [`Sight`] even if the exchange is cut off, so a failed request keeps its instants.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use super::dispatch::Context;
use crate::{
    Class, Event, Record, SseError, SseParser, Timeouts,
    client::{Answer, Trail},
    clock::nanoseconds,
    protocol::{Decoder, Fault, excerpt},
};

/// How long to wait, behind `[DONE]`, for the end of the body that makes a connection
/// reusable; usually it is in the same packet.
const LAST_CHUNK: Duration = Duration::from_millis(100);

/// How much of an error's body is read.
const ERROR_BODY: usize = 8192;

impl From<SseError> for Fault {
    fn from(error: SseError) -> Self {
        Self {
            class: Class::BadOutput,
            message: error.to_string(),
        }
    }
}

/// What was seen of an answer so far.
#[derive(Default)]
pub(super) struct Sight {
    trail: Trail,
    headers: Option<u64>,
    events: Vec<Event>,
    pub(super) done: Option<u64>,
    decoder: Decoder,
    text: blake3::Hasher,
}

impl Sight {
    /// Takes a piece of the stream that was read at `at`. Everything in one piece came at the
    /// same time.
    fn piece(&mut self, parser: &mut SseParser, piece: &[u8], at: u64) -> Result<u64, Fault> {
        let Self {
            events,
            decoder,
            text,
            ..
        } = self;
        let mut tokens = 0;
        parser.push(piece, |event| {
            if decoder.ended {
                return Ok(());
            }
            let content = decoder.event(event, |piece| {
                text.update(piece.as_bytes());
            });
            if let Some(carried) = content? {
                events.push(Event {
                    at,
                    tokens: carried,
                });
                tokens += u64::from(carried);
            }
            Ok::<_, Fault>(())
        })?;
        Ok(tokens)
    }

    /// Judges a stream that came to a proper end.
    fn verdict(&self) -> Result<(), Fault> {
        if self.decoder.finish.is_none() {
            let message = "the stream ended without a finish reason".to_owned();
            return Err(Fault {
                class: Class::Truncated,
                message,
            });
        }
        if self.events.is_empty() {
            let message = "the answer has no content".to_owned();
            return Err(Fault {
                class: Class::BadOutput,
                message,
            });
        }
        Ok(())
    }

    /// Fills in what was seen.
    pub(super) fn describe(self, record: &mut Record) {
        record.connected = self.trail.connected;
        record.attempts = self.trail.attempts;
        record.headers = self.headers;
        record.text_digest =
            (!self.events.is_empty()).then(|| self.text.finalize().to_hex().to_string());
        record.events = self.events;
        record.usage = self.decoder.usage;
        record.finish = self.decoder.finish;
    }
}

impl Context {
    /// Sends `body` and reads the answer up to its end.
    pub(super) async fn exchange(
        &self,
        body: Bytes,
        sight: &mut Sight,
        patience: &Patience,
    ) -> Result<Answer, Fault> {
        let clock = self.clock;
        let mut answer = self
            .client
            .post(body, &mut sight.trail, || clock.now())
            .await?;
        sight.headers = Some(clock.now());
        if !answer.status().is_success() {
            let class = Class::HttpStatus(answer.status().as_u16());
            return Err(self.complaint(answer, class, "the server answered").await);
        }
        if !answer.is_event_stream() {
            let expected = "expected an event stream but the server answered";
            return Err(self.complaint(answer, Class::BadOutput, expected).await);
        }
        let limits = self.plan.limits;
        let mut parser = SseParser::new(limits.line, limits.event);
        while let Some(piece) = answer.piece().await? {
            let at = clock.now();
            self.gauge.tokens.add(sight.piece(&mut parser, &piece, at)?);
            if !sight.events.is_empty() {
                patience.renew();
            }
            if sight.decoder.ended {
                sight.done = Some(at);
                break;
            }
        }
        sight.done.get_or_insert_with(|| clock.now());
        sight.verdict().map(|()| answer)
    }

    /// What an answer that is no stream of events has to say.
    async fn complaint(&self, mut answer: Answer, class: Class, what: &str) -> Fault {
        let status = answer.status();
        let mut body = Vec::new();
        let ended = loop {
            match answer.piece().await {
                Ok(Some(piece)) if body.len() < ERROR_BODY => body.extend_from_slice(&piece),
                Ok(None) => break true,
                // Cut or too long: what was read says enough.
                Ok(Some(_)) | Err(_) => break false,
            }
        };
        if ended {
            self.client.give_back(answer);
        }
        Fault {
            class,
            message: format!("{what} {status}: {}", excerpt(&body)),
        }
    }

    /// Pools the connection of a finished answer if the body ends soon.
    pub(super) async fn recycle(&self, mut answer: Answer) {
        let end = async { matches!(answer.piece().await, Ok(None)) };
        if timeout(LAST_CHUNK, end).await.unwrap_or(false) {
            self.client.give_back(answer);
        }
    }
}

/// How long an exchange may take, and how long its server may be silent.
pub(super) struct Patience {
    start: Instant,
    timeouts: Timeouts,
    /// When content was last read, in nanoseconds after `start`; 0 before the first.
    heard: AtomicU64,
}

impl Patience {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            start: Instant::now(),
            timeouts,
            heard: AtomicU64::new(0),
        }
    }

    /// Notes that the server said something.
    fn renew(&self) {
        self.heard
            .store(nanoseconds(self.start.elapsed()).max(1), Ordering::Relaxed);
    }

    /// Waits until patience runs out. Its timer is not moved for every event: it sleeps for
    /// the shortest time in which patience *could* run out, then looks again.
    pub(super) async fn run_out(&self) -> Fault {
        let Timeouts { request, idle, .. } = self.timeouts;
        loop {
            let heard = self.heard.load(Ordering::Relaxed);
            let now = self.start.elapsed();
            if now >= request {
                return late(format!("the answer was not complete after {request:?}"));
            }
            let silent = now.saturating_sub(Duration::from_nanos(heard));
            if heard > 0 && silent >= idle {
                return late(format!("the answer stopped: no content for {idle:?}"));
            }
            let nap = if heard > 0 { idle - silent } else { idle };
            sleep_until(self.start + request.min(now + nap)).await;
        }
    }
}

fn late(message: String) -> Fault {
    Fault {
        class: Class::Timeout,
        message,
    }
}
