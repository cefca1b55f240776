//! Answers at stated instants: the ground truth that a client is measured against.
//!
//! Every request is answered by itself, its first token so long after it arrived and each further
//! one so long after the one before, at absolute deadlines: a token that goes out late delays no
//! other. There is no batch, no cache and no limit on what runs at once, so that nothing but the
//! client and the machine can make a difference. It says nothing of how fast a model would be.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slab::Slab;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::active::Active;
use super::handle::Message;
use super::request::{EventKind, Failure};
use super::{Flushed, MoveError, Pace};
use crate::clock::{Clock, Nanos};
use crate::metrics::Metrics;
use crate::tokenizer::Tokenizer;

/// The longest sleep: what nobody tells it, it looks up.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// The thread's state.
pub(super) struct Paced {
    pub(super) pace: Pace,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) is_stopping: Arc<AtomicBool>,
    pub(super) answers: Slab<Active>,
    /// When each answer's next token is due.
    pub(super) due: BinaryHeap<Reverse<(Nanos, usize)>>,
}

impl Paced {
    /// Answers until it is told to stop, or nobody can ask any more.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        // A system that refuses wakes it up to 50 µs late, which the trace shows.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while !self.is_stopping.load(Ordering::Acquire) {
            loop {
                match inbox.try_recv() {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.is_stopping.store(true, Ordering::Release);
                        break;
                    }
                }
            }
            self.tell_due();
            self.metrics.n_running.set(self.answers.len());
            let due = self.due.peek().map(|Reverse((at, _))| *at);
            let left = due.map_or(LONGEST_SLEEP, |at| at.since(self.clock.now()));
            std::thread::park_timeout(left.min(LONGEST_SLEEP));
        }
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.take(message);
        }
        for answer in &self.answers {
            answer.1.tell(EventKind::Failed(Failure::Stopping));
        }
        self.metrics.aborted.add(self.answers.len());
        self.metrics.n_running.set(0);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(arrivals) => {
                self.metrics.arrived.add(arrivals.len());
                for arrival in arrivals {
                    let n_prompt = arrival.request.prompt.len();
                    let first = arrival.arrived.after(self.pace.first);
                    let mut answer = Active::new(arrival, n_prompt, &self.tokenizer);
                    answer.leave_queue();
                    let at = self.answers.insert(answer);
                    self.due.push(Reverse((first, at)));
                }
            }
            // There is no cache. Whoever asked may have left.
            Message::Flush(request) => drop(request.reply.send(Flushed::Done)),
            Message::Leave(_, reply) | Message::Come(_, reply) => {
                drop(reply.send(Err(MoveError::Unmovable)));
            }
            Message::Stop => {}
        }
    }

    /// Tells every token that is due by now.
    fn tell_due(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((due, at))) = self.due.peek().copied() {
            if due > now {
                return;
            }
            self.due.pop();
            let Some(answer) = self.answers.get_mut(at) else {
                continue;
            };
            if answer.is_abandoned() {
                self.answers.remove(at);
                self.metrics.aborted.add(1);
                continue;
            }
            self.metrics.lateness.observe(now.since(due));
            let id = answer.plain_id(&self.tokenizer);
            let finish = answer.accept(id, now, &self.metrics);
            answer.tell(EventKind::Token {
                id,
                finish,
                cached: 0,
                origin: answer.origin(None, now),
            });
            if finish.is_some() {
                self.answers.remove(at);
            } else {
                self.due.push(Reverse((due.after(self.pace.each), at)));
            }
        }
    }
}
