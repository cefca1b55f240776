//! A streamed answer with faults: the body that stands between an answer and its connection.
//!
//! It carries a [`FaultPlan`] out and tells the trace what it did when. The engine knows nothing of it:
//! an answer that is broken off looks to it like a client that has gone away, and one that stalls
//! like a client that does not read. Without faults answers have no such body.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::Frame;
use tokio::time::{Sleep, sleep};

use super::error::ApiError;
use super::events::{Piece, in_band};
use super::listen::ResetSwitch;
use super::stream::{EventStream, streamed};
use crate::faults::{FaultKind, FaultPlan};
use crate::trace::AnswerOutcome;

/// How a stream ends that has ended.
const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment, which no client may take for an event.
const COMMENT: &[u8] = b": keep-alive\n\n";
/// What was written before a reset gets so long to be on its way: resetting drops what is not.
const RESET_LEAD: Duration = Duration::from_millis(5);

/// The connection is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset by `--fault reset`")]
pub(super) struct Reset;

/// The body of an answer to which faults happen.
pub(super) struct FaultyStream {
    inner: EventStream,
    plan: FaultPlan,
    switch: ResetSwitch,
    /// Events that came so far.
    n_events: usize,
    /// What waits to be written with what follows, and of how many events that is.
    held: Outgoing,
    n_held: usize,
    /// What is written next.
    outgoing: Outgoing,
    /// Whether a piece has been handed over that has to be written before the next one.
    must_rest: bool,
    state: State,
}

enum State {
    Flowing,
    /// This piece waits.
    Stalled(Pin<Box<Sleep>>, Piece),
    Resetting(Pin<Box<Sleep>>, usize),
    Over,
}

impl FaultyStream {
    pub(super) fn new(mut inner: EventStream, plan: FaultPlan, switch: ResetSwitch) -> Self {
        let standing = [
            (FaultKind::Split, plan.split.is_some()),
            (FaultKind::Merge, plan.merge.get() > 1),
            (FaultKind::Tokens, plan.tokens.get() > 1),
            (FaultKind::NoDone, !plan.has_done),
            (FaultKind::Comments, plan.has_comments),
        ];
        for (kind, _) in standing.into_iter().filter(|(_, is_on)| *is_on) {
            note(&mut inner, kind, None);
        }
        FaultyStream {
            inner,
            plan,
            switch,
            n_events: 0,
            held: Outgoing::default(),
            n_held: 0,
            outgoing: Outgoing::default(),
            must_rest: false,
            state: State::Flowing,
        }
    }

    pub(super) fn into_response(self) -> Response {
        streamed(Body::new(self))
    }

    /// Takes a piece as it comes, and does to it what is planned for its event.
    fn meet(&mut self, piece: Piece) {
        let event = self.n_events;
        self.n_events += usize::from(piece.tokens > 0);
        if self.plan.error == Some(event) {
            self.release();
            note(&mut self.inner, FaultKind::Error, Some(event));
            let error = ApiError::injected(FaultKind::Error);
            self.outgoing.push(b"", in_band(&error));
            self.inner.cancel(error.outcome());
            self.state = State::Over;
        } else if self.plan.reset == Some(event) {
            self.release();
            self.state = State::Resetting(Box::pin(sleep(RESET_LEAD)), event);
        } else if let Some((_, lasts)) = self.plan.stall.filter(|(before, _)| *before == event) {
            self.release();
            note(&mut self.inner, FaultKind::Stall, Some(event));
            self.state = State::Stalled(Box::pin(sleep(lasts)), piece);
        } else {
            self.pass(piece);
        }
    }

    /// Lets a piece go, at once or with those that follow.
    fn pass(&mut self, mut piece: Piece) {
        let is_last = self.inner.is_over();
        if !self.plan.has_done && piece.bytes.ends_with(DONE) {
            piece.bytes.truncate(piece.bytes.len() - DONE.len());
        }
        let comment: &[u8] = if self.plan.has_comments { COMMENT } else { b"" };
        self.held.push(comment, piece);
        self.n_held += 1;
        if is_last || self.n_held >= self.plan.merge.get() {
            self.release();
        }
        if is_last {
            self.state = State::Over;
        }
    }

    /// Lets everything go that was held back.
    fn release(&mut self) {
        self.n_held = 0;
        self.outgoing.append(&mut self.held);
    }

    /// The next bytes to be written.
    fn write(&mut self) -> Bytes {
        let (bytes, said) = self.outgoing.take(self.plan.split);
        for Mark {
            tokens, is_silent, ..
        } in said
        {
            if let Some(tracing) = self.inner.tracing() {
                tracing.sent(tokens, is_silent);
            }
        }
        self.must_rest = self.plan.split.is_some();
        if self.outgoing.is_empty() && matches!(self.state, State::Over) {
            self.inner.end();
        }
        bytes
    }

    fn reset(&mut self, event: usize) -> Reset {
        note(&mut self.inner, FaultKind::Reset, Some(event));
        self.inner.cancel(AnswerOutcome::Reset);
        self.inner.end();
        self.switch.set();
        self.state = State::Over;
        Reset
    }
}

fn note(inner: &mut EventStream, fault: FaultKind, event: Option<usize>) {
    if let Some(tracing) = inner.tracing() {
        tracing.fault(fault, event);
    }
}

impl hyper::body::Body for FaultyStream {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        let this = &mut *self;
        loop {
            if !this.outgoing.is_empty() {
                // A connection whose body has nothing writes what it has.
                if std::mem::take(&mut this.must_rest) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Ok(Frame::data(this.write()))));
            }
            match &mut this.state {
                State::Over => return Poll::Ready(None),
                State::Resetting(lead, event) => {
                    ready!(lead.as_mut().poll(context));
                    let event = *event;
                    return Poll::Ready(Some(Err(this.reset(event))));
                }
                State::Stalled(wait, _) => {
                    ready!(wait.as_mut().poll(context));
                    if let Some(tracing) = this.inner.tracing() {
                        tracing.fault_ends();
                    }
                    if let State::Stalled(_, piece) =
                        std::mem::replace(&mut this.state, State::Flowing)
                    {
                        this.pass(piece);
                    }
                }
                State::Flowing => match ready!(this.inner.poll_piece(context)) {
                    Some(piece) => this.meet(piece),
                    None => this.state = State::Over,
                },
            }
        }
    }
}

/// Bytes on their way out, and what of them is an event's.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them have gone.
    n_gone: usize,
    marks: VecDeque<Mark>,
}

/// Where what an event says of its tokens ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    end: usize,
    tokens: u32,
    is_silent: bool,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, before: &[u8], piece: Piece) {
        self.bytes.extend_from_slice(before);
        if piece.tokens > 0 {
            self.marks.push_back(Mark {
                end: self.bytes.len() + piece.said,
                tokens: piece.tokens,
                is_silent: piece.is_silent,
            });
        }
        self.bytes.extend_from_slice(&piece.bytes);
    }

    /// Puts everything of `other` behind this.
    fn append(&mut self, other: &mut Outgoing) {
        let shift = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        let marks = other.marks.drain(..).map(|mark| Mark {
            end: mark.end + shift,
            ..mark
        });
        self.marks.extend(marks);
    }

    /// Takes the next bytes, at most so many, and the events whose last byte is among them.
    fn take(&mut self, most: Option<NonZeroUsize>) -> (Bytes, Vec<Mark>) {
        let n_left = self.bytes.len() - self.n_gone;
        let n = most.map_or(n_left, |most| most.get().min(n_left));
        let (from, to) = (self.n_gone, self.n_gone + n);
        self.n_gone = to;
        let said = self.marks.iter().take_while(|mark| mark.end <= to).count();
        let said = self.marks.drain(..said).collect();
        let bytes = Bytes::copy_from_slice(&self.bytes[from..to]);
        if n == n_left {
            self.bytes.clear();
            self.n_gone = 0;
        }
        (bytes, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(n_bytes: usize, said: usize, tokens: u32) -> Piece {
        Piece {
            bytes: (0..n_bytes).map(|n| n as u8).collect(),
            said,
            tokens,
            is_silent: false,
        }
    }

    proptest! {
        #[test]
        fn every_byte_goes_out_once_and_every_event_with_its_last_one(
            pieces in prop::collection::vec((1..40_usize, 0..40_usize, 0..3_u32), 1..10),
            most in prop::option::of(1..9_usize),
        ) {
            let mut outgoing = Outgoing::default();
            let (mut whole, mut ends) = (Vec::new(), Vec::new());
            for (n_bytes, said, tokens) in pieces {
                let said = said.min(n_bytes);
                let mut held = Outgoing::default();
                held.push(b"::", piece(n_bytes, said, tokens));
                outgoing.append(&mut held);
                whole.extend_from_slice(b"::");
                if tokens > 0 {
                    ends.push(whole.len() + said);
                }
                whole.extend((0..n_bytes).map(|n| n as u8));
            }
            let (mut gone, mut told) = (Vec::new(), Vec::new());
            while !outgoing.is_empty() {
                let before = gone.len();
                let (bytes, said) = outgoing.take(most.and_then(NonZeroUsize::new));
                prop_assert!(!bytes.is_empty() && bytes.len() <= most.unwrap_or(usize::MAX));
                gone.extend_from_slice(&bytes);
                for mark in said {
                    // An event that says nothing in its own bytes goes with those before it.
                    prop_assert!(mark.end <= gone.len() && mark.end >= before);
                    told.push(mark.end);
                }
            }
            prop_assert_eq!(gone, whole);
            prop_assert_eq!(told, ends);
        }
    }
}
