//! Where a lane's requests come from: the instants of an open loop, which take requests in their
//! order or conversations that are ready, or the users of a closed one.
//!
//! Lanes share the instants in turn, and the users as evenly as they can be. An instant that
//! has passed is due at once: nothing is dropped, and no later instant moves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::arrivals::unit;
use crate::clock::nanoseconds;
use crate::run::context::{Context, Job};
use crate::run::ready::ReadyQueue;
use crate::{Stop, Think};

/// Bytes of bodies that may wait for their instants, in all lanes.
const RENDERED: usize = 64 << 20;

/// The requests of one lane.
pub(in crate::run) enum Feed {
    Open(Instants),
    Ready(Arrivals),
    Closed(Users),
}

impl Feed {
    /// When the next request is due, in nanoseconds of the run; `None` if none is in sight.
    pub(super) fn next_due(&self) -> Option<u64> {
        match self {
            Self::Open(instants) => instants.next_due(),
            Self::Ready(arrivals) => arrivals.next_due(),
            Self::Closed(users) => users.free.peek().map(|Reverse((at, _))| *at),
        }
    }

    /// A feed that brings nothing.
    pub(in crate::run) fn nothing() -> Self {
        Self::Closed(Users::new(0..0, None, None, None))
    }

    /// Takes a request that is due at `now`.
    pub(super) fn take(&mut self, now: u64, context: &Context) -> Option<Job> {
        match self {
            Self::Open(instants) => instants.take(now),
            Self::Ready(arrivals) => arrivals.take(now, context),
            Self::Closed(users) => users.take(now, context),
        }
    }

    /// The exchange of a request is over since `at`: who sent it may go on.
    pub(super) fn is_over(&mut self, job: Job, at: u64) {
        match self {
            Self::Open(_) => {}
            Self::Ready(arrivals) => arrivals.queue.is_answered(job.conversation, at),
            Self::Closed(users) => users.is_answered(job.user, at),
        }
    }

    /// The conversation of a request cannot go on: takes its further turns.
    pub(super) fn give_up(&mut self, job: Job, context: &Context) -> Vec<u64> {
        match self {
            Self::Open(_) => Vec::new(),
            Self::Ready(arrivals) => arrivals.queue.give_up(job.conversation, context),
            Self::Closed(users) => users.give_up(job.user),
        }
    }
}

/// The instants of an open loop that one lane keeps.
pub(in crate::run) struct Instants {
    all: Arc<Vec<Duration>>,
    next: usize,
    stride: usize,
    /// Bodies of the requests from `next` on.
    ahead: VecDeque<Bytes>,
    ahead_bytes: usize,
}

impl Instants {
    pub(in crate::run) fn new(all: Arc<Vec<Duration>>, lane: usize, lanes: usize) -> Self {
        Self {
            all,
            next: lane,
            stride: lanes,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.all.get(self.next).map(|at| nanoseconds(*at))
    }

    fn take(&mut self, now: u64) -> Option<Job> {
        let scheduled = self.next_due().filter(|due| *due <= now)?;
        let index = self.next as u64;
        self.next += self.stride;
        Some(Job {
            index,
            request: index,
            scheduled,
            user: 0,
            conversation: 0,
        })
    }

    /// Whether there are bodies to render, and room for one.
    pub(super) fn can_render(&self) -> bool {
        self.ahead_bytes < RENDERED / self.stride && self.unrendered() < self.all.len()
    }

    /// Renders the next body that is not rendered yet.
    pub(super) fn render_ahead(&mut self, context: &Context) {
        let body = context.render(self.unrendered() as u64);
        self.ahead_bytes += body.len();
        self.ahead.push_back(body);
    }

    fn unrendered(&self) -> usize {
        self.next + self.ahead.len() * self.stride
    }

    /// Takes the body of the request that was taken last.
    pub(super) fn body(&mut self) -> Option<Bytes> {
        let body = self.ahead.pop_front()?;
        self.ahead_bytes -= body.len();
        Some(body)
    }
}

/// The arrivals of one lane that take conversations which are ready.
pub(in crate::run) struct Arrivals {
    queue: Arc<ReadyQueue>,
    /// The next of them, which no other lane has.
    due: Option<Duration>,
}

impl Arrivals {
    pub(in crate::run) fn of(queue: Arc<ReadyQueue>) -> Self {
        let due = queue.arrival();
        Self { queue, due }
    }

    fn next_due(&self) -> Option<u64> {
        self.due.filter(|_| !self.queue.is_over()).map(nanoseconds)
    }

    fn take(&mut self, now: u64, context: &Context) -> Option<Job> {
        let scheduled = self.next_due().filter(|due| *due <= now)?;
        self.due = self.queue.arrival();
        self.queue.take(scheduled, context)
    }
}

/// Users of a closed loop.
pub(in crate::run) struct Users {
    /// Who is free, and since or from when.
    free: BinaryHeap<Reverse<(u64, usize)>>,
    users: Vec<User>,
    /// The most requests of all users.
    most: Option<u64>,
    /// What users take one after the other, if that matters.
    sessions: Option<Arc<Vec<Vec<u64>>>>,
    think: Option<Think>,
}

/// One user.
struct User {
    /// The session, and how many of its turns were taken.
    session: Option<(usize, usize)>,
    /// Draws how long it thinks.
    random: Option<ChaCha12Rng>,
}

impl Users {
    /// Builds the users with these numbers among all users of the run.
    pub(in crate::run) fn new(
        numbers: Range<usize>,
        most: Option<u64>,
        sessions: Option<Arc<Vec<Vec<u64>>>>,
        think: Option<Think>,
    ) -> Self {
        let user = |number: usize| User {
            session: None,
            random: think.and_then(|t| t.seed).map(|seed| {
                let mut random = ChaCha12Rng::seed_from_u64(seed);
                // Each user has a stream of its own, whichever thread it is on.
                random.set_stream(number as u64);
                random
            }),
        };
        Self {
            free: (0..numbers.len()).map(|user| Reverse((0, user))).collect(),
            users: numbers.map(user).collect(),
            most,
            sessions,
            think,
        }
    }

    /// A user has an answer, and thinks about it.
    pub(super) fn is_answered(&mut self, user: usize, at: u64) {
        let Some(who) = self.users.get_mut(user) else {
            return;
        };
        let thinks = self.think.map_or(0, |think| {
            let mean = think.mean.as_secs_f64() * 1e9;
            let times = who.random.as_mut().map_or(1.0, |r| -(-unit(r)).ln_1p());
            // A number beyond what fits is as good as never.
            (mean * times) as u64
        });
        self.free.push(Reverse((at.saturating_add(thinks), user)));
    }

    /// A request counts as scheduled when its user became free, so what the client adds between
    /// two requests shows as lag.
    fn take(&mut self, now: u64, context: &Context) -> Option<Job> {
        let end = match context.plan.stop {
            Stop::Requests(_) => u64::MAX,
            Stop::After(end) => nanoseconds(end),
        };
        while let Some(Reverse((scheduled, user))) = self.free.peek().copied() {
            if scheduled > now {
                return None;
            }
            self.free.pop();
            if scheduled >= end {
                continue;
            }
            match self.next(user, context) {
                Some((index, (request, conversation))) => {
                    return Some(Job {
                        index,
                        request,
                        scheduled,
                        user,
                        conversation,
                    });
                }
                None => {
                    let timed = matches!(context.plan.stop, Stop::After(_));
                    context.exhausted.fetch_or(timed, Ordering::Relaxed);
                }
            }
        }
        None
    }

    /// What a user sends next: its number in the run, the request, and the conversation that it is a turn
    /// of. A user for whom no session
    /// is left takes no number from those who still have turns to send.
    fn next(&mut self, user: usize, context: &Context) -> Option<(u64, (u64, usize))> {
        let turn = match &self.sessions {
            Some(sessions) => Some(self.users.get_mut(user)?.turn(sessions, context)?),
            None => None,
        };
        let index = context.taken.fetch_add(1, Ordering::Relaxed);
        let is_within = self.most.is_none_or(|most| index < most);
        is_within.then(|| (index, turn.unwrap_or((index, 0))))
    }

    /// Takes the turns that a user has left of its conversation.
    fn give_up(&mut self, user: usize) -> Vec<u64> {
        let session = self.users.get_mut(user).and_then(|who| who.session.take());
        match (session, &self.sessions) {
            (Some((session, turn)), Some(sessions)) => sessions[session][turn..].to_vec(),
            _ => Vec::new(),
        }
    }
}

impl User {
    /// The next turn of the user's session, or the first of another one, and which session that is.
    fn turn(&mut self, sessions: &[Vec<u64>], context: &Context) -> Option<(u64, usize)> {
        let (session, turn) = match self.session {
            Some((session, turn)) if turn < sessions[session].len() => (session, turn),
            _ => {
                let next = context.sessions_taken.fetch_add(1, Ordering::Relaxed);
                (usize::try_from(next).ok()?, 0)
            }
        };
        let request = sessions.get(session)?.get(turn).copied();
        self.session = Some((session, turn + 1));
        request.map(|request| (request, session))
    }
}
