//! Where a lane's requests come from: the instants of an open loop, or the users of a closed one.
//!
//! Lanes share the instants round robin, and the users as evenly as they can be. An instant that
//! has passed is due at once: nothing is dropped, and no later instant moves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::Stop;
use crate::clock::nanoseconds;
use crate::run::context::{Context, Job};

/// Bytes of bodies that may wait for their instants, in all lanes.
const RENDERED: usize = 64 << 20;

/// The requests of one lane.
pub(in crate::run) enum Feed {
    Open(Instants),
    Closed(Users),
}

impl Feed {
    /// When the next request is due, in nanoseconds of the run; `None` if none is in sight.
    pub(super) fn next_due(&self) -> Option<u64> {
        match self {
            Self::Open(instants) => instants.next_due(),
            Self::Closed(users) => users.free.peek().map(|Reverse(at)| *at),
        }
    }

    /// Takes a request that is due at `now`.
    pub(super) fn take(&mut self, now: u64, context: &Context) -> Option<Job> {
        match self {
            Self::Open(instants) => instants.take(now),
            Self::Closed(users) => users.take(now, context),
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
        Some(Job { index, scheduled })
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

/// Users of a closed loop, by when they become free.
pub(in crate::run) struct Users {
    pub(super) free: BinaryHeap<Reverse<u64>>,
    /// The most requests of all users.
    most: Option<u64>,
}

impl Users {
    pub(in crate::run) fn new(n: usize, most: Option<u64>) -> Self {
        Self {
            free: std::iter::repeat_n(Reverse(0), n).collect(),
            most,
        }
    }

    /// A request counts as scheduled when its user became free, so what the client adds between
    /// two requests shows as lag.
    fn take(&mut self, now: u64, context: &Context) -> Option<Job> {
        let end = match context.plan.stop {
            Stop::Requests(_) => u64::MAX,
            Stop::After(end) => nanoseconds(end),
        };
        while let Some(Reverse(scheduled)) = self.free.peek().copied().filter(|at| at.0 <= now) {
            self.free.pop();
            if scheduled >= end {
                continue;
            }
            let index = context.taken.fetch_add(1, Ordering::Relaxed);
            if self.most.is_none_or(|most| index < most) {
                return Some(Job { index, scheduled });
            }
            let timed = matches!(context.plan.stop, Stop::After(_));
            context.exhausted.fetch_or(timed, Ordering::Relaxed);
        }
        None
    }
}
