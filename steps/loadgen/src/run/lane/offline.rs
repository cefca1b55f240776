//! Plays a load to a server in the same process, in time that is made up: nothing is waited for, and the same
//! load brings the same records to the nanosecond.
//!
//! The requests, the order of things and what answers mean are those of every other run; there is no
//! connection, so that the client adds nothing. Knows no server: whoever has one implements
//! [`OfflineServer`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Feed;
use crate::client::Head;
use crate::clock::nanoseconds;
use crate::protocol::Fault;
use crate::run::context::{Context, Job};
use crate::run::sight::Sight;
use crate::{Class, Outcome, Record};

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
pub trait OfflineServer {
    /// Takes a request that was sent at `at`; `body` is what would be posted.
    fn ask(&mut self, request: u64, body: Bytes, at: u64);
    /// Goes on to what comes back next, at `until` at the latest; `None` if nothing does by then.
    fn next(&mut self, until: u64) -> Option<Told>;
    /// Nobody waits for an answer any more.
    fn cancel(&mut self, request: u64);
}

/// Plays `feed` to `server`, and returns the records.
pub(in crate::run) fn play(
    context: &Arc<Context>,
    feed: Feed,
    server: &mut dyn OfflineServer,
) -> Vec<Record> {
    let mut play = Play {
        context,
        feed,
        server,
        now: 0,
        exchanges: HashMap::new(),
        deadlines: VecDeque::new(),
        admitted: VecDeque::new(),
        records: Vec::new(),
    };
    while play.goes_on() {}
    play.records
}

struct Play<'a> {
    context: &'a Arc<Context>,
    feed: Feed,
    server: &'a mut dyn OfflineServer,
    now: u64,
    exchanges: HashMap<u64, (Job, Sight)>,
    /// When requests have taken too long, in their order.
    deadlines: VecDeque<(u64, u64)>,
    /// Requests that got a place under the cap and are to be sent next.
    admitted: VecDeque<Job>,
    records: Vec<Record>,
}

impl Play<'_> {
    /// Does what is next; `false` when nothing is.
    fn goes_on(&mut self) -> bool {
        self.send_due();
        let deadline = self.deadlines.front().map_or(u64::MAX, |(at, _)| *at);
        let until = self.feed.next_due().unwrap_or(u64::MAX).min(deadline);
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
        self.deadlines.push_back((late, job.index));
        self.exchanges.insert(job.index, (job, sight));
        self.server.ask(job.index, body, self.now);
    }

    fn take(&mut self, told: Told) {
        let Some((_, sight)) = self.exchanges.get_mut(&told.request) else {
            return;
        };
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
                Err(fault) => Some(Err(fault)),
            },
            Piece::End => Some(sight.verdict()),
        };
        if let Some(result) = result {
            self.deliver(told.request, result.map(|()| Outcome::Completed));
        }
    }

    /// Ends what has taken too long.
    fn end_late(&mut self) {
        while let Some((at, request)) = self.deadlines.front().copied() {
            let is_open = self.exchanges.contains_key(&request);
            if is_open && at > self.now {
                return;
            }
            self.deadlines.pop_front();
            if is_open {
                self.server.cancel(request);
                let limit = self.context.plan.timeouts.request;
                let message = format!("the answer was not complete after {limit:?}");
                self.deliver(request, Err(timeout(message)));
            }
        }
    }

    /// The server has nothing more to say: what is open stays so.
    fn give_all_up(&mut self) {
        let mut open: Vec<u64> = self.exchanges.keys().copied().collect();
        open.sort_unstable();
        for request in open {
            self.deliver(request, Err(timeout("the server fell silent".to_owned())));
        }
    }

    /// Passes the record of an exchange on, and lets the next one go.
    fn deliver(&mut self, request: u64, outcome: Result<Outcome, Fault>) {
        let Some((job, sight)) = self.exchanges.remove(&request) else {
            return;
        };
        let context = self.context.clone();
        let done = sight.not_before(self.now);
        context.gauge.leave(done);
        let mut record = context.record(job, outcome, done);
        let answer = sight.describe(&mut record);
        let noted = context.note(job, &record, answer);
        self.records.push(record);
        if let Err(why) = noted {
            self.give_up(job, done, &why);
        }
        self.feed.is_over(job, done);
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

fn timeout(message: String) -> Fault {
    Fault {
        class: Class::Timeout,
        message,
    }
}
