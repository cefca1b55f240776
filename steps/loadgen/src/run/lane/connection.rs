//! One connection of a lane and the exchange that it carries.

use std::io::{self, IoSlice};

use bytes::Bytes;
use rustix::event::epoll::EventFlags;

use crate::client::{Part, Reader, RequestHead, Socket};
use crate::protocol::Fault;
use crate::run::context::Job;
use crate::run::gauge::Count;
use crate::run::sight::Sight;

/// A request on its way and its answer so far.
pub(super) struct Exchange {
    pub(super) job: Job,
    pub(super) head: RequestHead,
    pub(super) body: Bytes,
    written: usize,
    /// Whether a byte of the answer came: from then on the server may have begun to work.
    pub(super) answered: bool,
    pub(super) sight: Sight,
}

impl Exchange {
    pub(super) fn new(job: Job, head: RequestHead, body: Bytes, sight: Sight) -> Self {
        Self {
            job,
            head,
            body,
            written: 0,
            answered: false,
            sight,
        }
    }

    /// Forgets what was written, to write it again on another connection.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
    }

    fn rest(&self) -> [IoSlice<'_>; 2] {
        let bytes = self.head.bytes();
        let head = self.written.min(bytes.len());
        let body = self.written - head;
        [
            IoSlice::new(&bytes[head..]),
            IoSlice::new(&self.body[body..]),
        ]
    }

    pub(super) fn is_written(&self) -> bool {
        self.written == self.head.bytes().len() + self.body.len()
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being made, to the server's address of this number, since this instant.
    Connecting { address: usize, since: u64 },
    /// It carries an exchange.
    Busy,
    /// The exchange is over, the end of its body is awaited until this instant.
    Draining { until: u64 },
    /// It waits to be used again.
    Idle,
}

pub(super) struct Connection {
    /// What the system calls it.
    pub(super) name: u64,
    pub(super) socket: Socket,
    pub(super) reader: Reader,
    pub(super) phase: Phase,
    pub(super) exchange: Option<Box<Exchange>>,
    /// Whether what came on it was no answer: it is of no further use.
    pub(super) is_broken: bool,
    /// Whether it was made for the exchange that it carries.
    pub(super) fresh: bool,
    /// What the system is asked to tell of it.
    pub(super) interest: EventFlags,
}

impl Connection {
    /// Writes what there is room for of the request; `true` when nothing is left.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let Some(exchange) = &mut self.exchange else {
            self.socket.flush()?;
            return Ok(!self.socket.wants_write());
        };
        while !exchange.is_written() {
            match self.socket.write(&exchange.rest())? {
                0 => return Ok(false),
                n => exchange.written += n,
            }
        }
        self.socket.flush()?;
        Ok(!self.socket.wants_write())
    }

    /// Takes what `bytes`, read at `now`, say of the answer; its result once it is over.
    pub(super) fn take(
        &mut self,
        bytes: &mut &[u8],
        now: u64,
        tokens: &Count,
    ) -> Option<Result<(), Fault>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.answered = true;
        }
        let mut result = None;
        loop {
            let part = match self.reader.next(bytes) {
                Ok(Some(part)) => part,
                Ok(None) => return result,
                Err(fault) => {
                    self.is_broken = true;
                    // An answer that has ended is whole, whatever follows.
                    return result.or_else(|| self.exchange.is_some().then_some(Err(fault)));
                }
            };
            let Some(exchange) = self.exchange.as_mut().filter(|_| result.is_none()) else {
                continue;
            };
            let sight = &mut exchange.sight;
            match part {
                Part::Head(head) => sight.head(head, now),
                Part::Body(piece) => match sight.piece(piece, now) {
                    Ok(more) => tokens.add(more),
                    Err(fault) => result = Some(Err(fault)),
                },
                Part::End => result = Some(sight.verdict()),
            }
            if result.is_none() && sight.has_ended() {
                result = Some(sight.verdict());
            }
        }
    }

    /// Events with content that its answer has brought so far.
    pub(super) fn n_events(&self) -> usize {
        self.exchange.as_ref().map_or(0, |e| e.sight.n_events())
    }

    /// Whether it can take another request.
    pub(super) fn is_reusable(&self) -> bool {
        !self.is_broken && self.reader.keep_alive()
    }

    /// Whether it could, once the body of the answer has come to its end.
    pub(super) fn may_become_reusable(&self) -> bool {
        !self.is_broken && self.reader.may_continue()
    }

    /// Whether an exchange that fails now may be tried once more: the connection was pooled, and
    /// may have been closed before the server saw anything.
    pub(super) fn may_be_stale(&self) -> bool {
        let is_first = |e: &Exchange| !e.answered && e.sight.attempts == 1;
        !self.fresh && self.exchange.as_deref().is_some_and(is_first)
    }
}
