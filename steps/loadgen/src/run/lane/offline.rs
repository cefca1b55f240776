//! Plays a load to a server in the same process, in time that is made up: nothing is waited for, and the same
//! load brings the same records to the nanosecond.
//!
//! The requests, the order of things and what answers mean are those of every other run; there is no
//! connection, so that the client adds nothing. Knows no server: whoever has one implements
//! [`OfflineServer`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::lateness::of_answer;
use super::{Feed, REFUSED};
use crate::client::Head;
use crate::clock::nanoseconds;
use crate::protocol::Fault;
use crate::run::context::{Context, Job};
use crate::run::sight::Sight;
use crate::{Class, Outcome, Record};

/// Pieces that are taken before others get their turn on the thread.
const AT_ONE_GO: u32 = 256;

/// What comes back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The status of its answer.
    Head {
        /// The number.
        status: u16,
        /// Whether the body is a stream of events.
        is_event_stream: bool,
    },
    /// Bytes of its body.
    Body(Vec<u8>),
    /// The end of its body.
    End,
}

/// A piece, of which answer it is and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What the request was called.
    pub request: u64,
    /// The instant, in nanoseconds of the run.
    pub at: u64,
    /// The piece.
    pub piece: Piece,
}

/// A server whose time is the run's.
pub trait OfflineServer: Send {
    /// Takes a request that was sent at `at`; `body` is what would be posted.
    fn ask(&mut self, request: u64, body: Bytes, at: u64);
    /// Goes on to what comes back next, at `until` at the latest; `None` if nothing does by then.
    fn next(&mut self, until: u64) -> Option<Told>;
    /// Nobody waits for an answer any more.
    fn cancel(&mut self, request: u64);
}

/// Plays `feed` to `server` until it ends or `is_stopped`, and returns the records and whether it was.
pub(in crate::run) async fn play(
    context: &Arc<Context>,
    feed: Feed,
    server: &mut dyn OfflineServer,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> (Vec<Record>, bool) {
    let mut play = Play {
        context,
        feed,
        server,
        now: 0,
        exchanges: HashMap::new(),
        looks: BinaryHeap::new(),
        admitted: VecDeque::new(),
        records: Vec::new(),
    };
    while !is_stopped() {
        for _ in 0..AT_ONE_GO {
            if !play.goes_on() {
                return (play.records, false);
            }
        }
        tokio::task::yield_now().await;
    }
    play.drop_all();
    (play.records, true)
}

struct Play<'a> {
    context: &'a Arc<Context>,
    feed: Feed,
    server: &'a mut dyn OfflineServer,
    now: u64,
    exchanges: HashMap<u64, (Job, Sight)>,
    /// When to look whether a request has taken too long, and which.
    looks: BinaryHeap<Reverse<(u64, u64)>>,
    /// Requests that got a place under the cap and are to be sent next.
    admitted: VecDeque<Job>,
    records: Vec<Record>,
}

impl Play<'_> {
    /// Does what is next; `false` when nothing is.
    fn goes_on(&mut self) -> bool {
        self.send_due();
        let look = self.next_look().unwrap_or(u64::MAX);
        let until = self.feed.next_due().unwrap_or(u64::MAX).min(look);
        match self.server.next(until) {
            Some(told) => {
                self.now = self.now.max(told.at);
                self.take(told);
            }
            None if until == u64::MAX => {
                self.give_all_up();
                return false;
            }
            None => self.now = until,
        }
        self.end_late();
        true
    }

    fn send_due(&mut self) {
        while let Some(job) = self.admitted.pop_front() {
            self.start(job);
        }
        while self.feed.next_due().is_some_and(|due| due <= self.now) {
            let Some(job) = self.feed.take(self.now, self.context) else {
                continue;
            };
            self.context.gauge.arrived.add(1);
            let is_admitted = self.context.cap.as_ref().is_none_or(|cap| cap.admits(job));
            if is_admitted {
                self.start(job);
            }
        }
    }

    fn start(&mut self, job: Job) {
        let body = self.context.render_job(job);
        let plan = &self.context.plan;
        let mut sight = Sight::new(self.now, plan, self.context.answer_form(job));
        sight.attempts = 1;
        self.context.gauge.enter(self.now);
        let late = self.now.saturating_add(nanoseconds(plan.timeouts.request));
        self.looks.push(Reverse((late, job.index)));
        self.exchanges.insert(job.index, (job, sight));
        self.server.ask(job.index, body, self.now);
    }

    fn take(&mut self, told: Told) {
        let Some((_, sight)) = self.exchanges.get_mut(&told.request) else {
            return;
        };
        let was_silent = sight.heard.is_none();
        let result = match told.piece {
            Piece::Head {
                status,
                is_event_stream,
            } => {
                sight.head(Head::told(status, is_event_stream), told.at);
                None
            }
            Piece::Body(bytes) => match sight.piece(&bytes, told.at) {
                Ok(tokens) => {
                    self.context.gauge.tokens.add(tokens);
                    sight.has_ended().then(|| sight.verdict())
                }
                Err(fault) => {
                    // What follows is not read.
                    self.server.cancel(told.request);
                    Some(Err(fault))
                }
            },
            Piece::End => Some(sight.verdict()),
        };
        if let Some(heard) = sight.heard.filter(|_| was_silent) {
            self.looks
                .push(Reverse((self.idle_from(heard), told.request)));
        }
        if let Some(result) = result {
            self.deliver(told.request, result.map(|()| Outcome::Completed));
        }
    }

    /// When an answer has been silent for too long that was heard of last at `heard`.
    fn idle_from(&self, heard: u64) -> u64 {
        heard.saturating_add(nanoseconds(self.context.plan.timeouts.idle))
    }

    /// When to look next at a request that is still open.
    fn next_look(&mut self) -> Option<u64> {
        while let Some(Reverse((at, request))) = self.looks.peek() {
            if self.exchanges.contains_key(request) {
                return Some(*at);
            }
            self.looks.pop();
        }
        None
    }

    /// Ends what has taken too long.
    fn end_late(&mut self) {
        let timeouts = self.context.plan.timeouts;
        while self.next_look().is_some_and(|at| at <= self.now) {
            let Some(Reverse((_, request))) = self.looks.pop() else {
                return;
            };
            let Some((_, sight)) = self.exchanges.get(&request) else {
                continue;
            };
            let Some(late) = of_answer(sight, self.now, &timeouts) else {
                // It was heard of since then.
                let heard = sight.heard.unwrap_or(self.now);
                self.looks.push(Reverse((self.idle_from(heard), request)));
                continue;
            };
            let unconnected = self.context.wire.too_late(timeouts.connect);
            self.server.cancel(request);
            if let Some(fault) = late.fault(&timeouts, &unconnected) {
                self.deliver(request, Err(fault));
            }
        }
    }

    /// What is open, in the order in which it was sent.
    fn open(&self) -> Vec<u64> {
        let mut open: Vec<u64> = self.exchanges.keys().copied().collect();
        open.sort_unstable();
        open
    }

    /// The server has nothing more to say: what is open stays so.
    fn give_all_up(&mut self) {
        for request in self.open() {
            let fault = Fault {
                class: Class::Timeout,
                message: "the server fell silent".to_owned(),
            };
            self.deliver(request, Err(fault));
        }
    }

    /// Breaks off everything that is under way or waits.
    fn drop_all(&mut self) {
        self.feed = Feed::nothing();
        let waiting = self.context.cap.as_ref().map(crate::run::cap::Cap::give_up);
        let admitted = std::mem::take(&mut self.admitted);
        for job in waiting.into_iter().flatten().chain(admitted) {
            let record = self.context.record(job, Ok(Outcome::Dropped), self.now);
            self.records.push(record);
        }
        for request in self.open() {
            self.server.cancel(request);
            self.deliver(request, Ok(Outcome::Dropped));
        }
    }

    /// Passes the record of an exchange on, and lets the next one go.
    fn deliver(&mut self, request: u64, outcome: Result<Outcome, Fault>) {
        let Some((job, sight)) = self.exchanges.remove(&request) else {
            return;
        };
        let context = self.context.clone();
        let done = sight.not_before(self.now);
        // Answered in no time it would ask again and again within one instant.
        let rest = if done == sight.dispatched { REFUSED } else { 0 };
        context.gauge.leave(done);
        let mut record = context.record(job, outcome, done);
        let answer = sight.describe(&mut record);
        let noted = context.note(job, &record, answer);
        self.records.push(record);
        if let Err(why) = noted {
            self.give_up(job, done, &why);
        }
        self.feed.is_over(job, done + rest);
        let next = context.cap.as_ref().and_then(crate::run::cap::Cap::release);
        self.admitted.extend(next);
    }

    /// The conversation of a request cannot go on: its further turns are never sent.
    fn give_up(&mut self, job: Job, at: u64, why: &str) {
        for request in self.feed.give_up(job, self.context) {
            let Some(index) = self.context.number() else {
                return;
            };
            self.context.gauge.arrived.add(1);
            let turn = Job {
                index,
                request,
                scheduled: at,
                ..job
            };
            let mut record = self.context.record(turn, Ok(Outcome::Dropped), at);
            record.error = Some(format!("not sent: {why}"));
            self.records.push(record);
        }
    }
}
