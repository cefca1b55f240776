//! Conversations whose last answer has ended: each arrival of an open loop takes the next one.
//!
//! Shared by all threads: whichever of them has the next arrival takes whichever conversation is
//! ready. An arrival that finds none passes unused, and no other arrival moves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::context::{Context, Job};
use crate::{ReadyOrder, Stop};

/// When requests arrive after the start, ascending; each is drawn when its turn comes, as nobody knows
/// how many will be used.
pub(crate) type Instants = Box<dyn Iterator<Item = Duration> + Send>;

/// The instants of a run and the conversations that wait for one.
pub(crate) struct ReadyQueue(Mutex<Waiting>);

struct Waiting {
    instants: Instants,
    /// Draws the next conversation; the first is taken where there is nothing to draw.
    random: Option<ChaCha12Rng>,
    conversations: Vec<Conversation>,
    /// Conversations that were ready at the latest arrival so far, and since when.
    ready: VecDeque<(u64, usize)>,
    /// Those that became ready after it, the first one first.
    coming: BinaryHeap<Reverse<(u64, usize)>>,
    /// Turns that were neither taken nor given up.
    left: u64,
}

struct Conversation {
    turns: Vec<u64>,
    next: usize,
}

impl ReadyQueue {
    /// Every one of `conversations` is ready for its first turn.
    pub(crate) fn new(
        instants: Instants,
        conversations: Vec<Vec<u64>>,
        order: ReadyOrder,
        seed: u64,
    ) -> Self {
        let random = || {
            let mut random = ChaCha12Rng::seed_from_u64(seed);
            // The first stream is that of the arrivals.
            random.set_stream(1);
            random
        };
        Self(Mutex::new(Waiting {
            instants,
            random: (order == ReadyOrder::Random).then(random),
            ready: (0..conversations.len()).map(|c| (0, c)).collect(),
            coming: BinaryHeap::new(),
            left: conversations.iter().map(|turns| turns.len() as u64).sum(),
            conversations: conversations
                .into_iter()
                .map(|turns| Conversation { turns, next: 0 })
                .collect(),
        }))
    }

    /// The next arrival, for the thread that asks; `None` when there is nothing to send any more.
    pub(super) fn arrival(&self) -> Option<Duration> {
        let mut waiting = self.lock();
        (waiting.left > 0)
            .then(|| waiting.instants.next())
            .flatten()
    }

    /// Whether every turn was taken or given up.
    pub(super) fn is_over(&self) -> bool {
        self.lock().left == 0
    }

    /// The next turn of a conversation that is ready, for an arrival at `scheduled`.
    pub(super) fn take(&self, scheduled: u64, context: &Context) -> Option<Job> {
        let mut waiting = self.lock();
        if waiting.left == 0 {
            return None;
        }
        let Some(conversation) = waiting.next(scheduled) else {
            context.gauge.unused.add(1);
            return None;
        };
        let Some(index) = context.number() else {
            waiting.left = 0;
            return None;
        };
        let turns = &mut waiting.conversations[conversation];
        let request = turns.turns[turns.next];
        turns.next += 1;
        waiting.less(1, context);
        Some(Job {
            index,
            request,
            scheduled,
            user: 0,
            conversation,
        })
    }

    /// A turn has its answer since `at`: the next one is ready.
    pub(super) fn is_answered(&self, conversation: usize, at: u64) {
        let mut waiting = self.lock();
        let turns = &waiting.conversations[conversation];
        if turns.next < turns.turns.len() {
            waiting.coming.push(Reverse((at, conversation)));
        }
    }

    /// Gives a conversation up, and returns its turns that were not taken.
    pub(super) fn give_up(&self, conversation: usize, context: &Context) -> Vec<u64> {
        let mut waiting = self.lock();
        let turns = &mut waiting.conversations[conversation];
        let rest = turns.turns.split_off(turns.next);
        waiting.less(rest.len() as u64, context);
        rest
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The next of the conversations that were ready at `scheduled`: what has ended since then came
    /// too late for that arrival, however late it is dealt with.
    fn next(&mut self, scheduled: u64) -> Option<usize> {
        while let Some(Reverse(next)) = self.coming.peek()
            && next.0 <= scheduled
        {
            self.ready.push_back(*next);
            self.coming.pop();
        }
        // A thread that is behind has an arrival before the latest: only then some are not ready for it.
        let was_ready = |(since, _): &(u64, usize)| *since <= scheduled;
        let taken = match &mut self.random {
            None => {
                let at = self.ready.iter().position(was_ready)?;
                self.ready.remove(at)
            }
            Some(_) if self.ready.is_empty() => None,
            Some(random) => {
                let mut at = random.random_range(0..self.ready.len());
                if !was_ready(&self.ready[at]) {
                    let all = (0..self.ready.len()).filter(|at| was_ready(&self.ready[*at]));
                    let all: Vec<usize> = all.collect();
                    at = *all.get(random.random_range(0..all.len().max(1)))?;
                }
                self.ready.swap_remove_back(at)
            }
        };
        taken.map(|(_, conversation)| conversation)
    }

    /// So many turns fewer are left. A run that has had as many as it was to have counts none any more.
    fn less(&mut self, turns: u64, context: &Context) {
        let was_left = self.left > 0;
        self.left = self.left.saturating_sub(turns);
        let is_timed = matches!(context.plan.stop, Stop::After(_));
        if was_left && self.left == 0 && is_timed && self.instants.next().is_some() {
            context.exhausted.store(true, Ordering::Relaxed);
        }
    }
}
