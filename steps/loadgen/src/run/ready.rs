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
use crate::{ReadyOrder, Rounds, Stop};

/// When requests arrive after the start, ascending; each is drawn when its turn comes, as nobody knows
/// how many will be used.
pub(crate) type Instants = Box<dyn Iterator<Item = Duration> + Send>;

/// The instants of a run and the conversations that wait for one.
pub(crate) struct ReadyQueue(Mutex<Waiting>);

struct Waiting {
    instants: Instants,
    order: Order,
    conversations: Vec<Conversation>,
    /// Conversations that were ready at the latest arrival so far, and since when.
    ready: VecDeque<(u64, usize)>,
    /// Those that became ready after it, the first one first.
    coming: BinaryHeap<Reverse<(u64, usize)>>,
    /// The round that is under way, where all wait for its end.
    round: Option<Round>,
    /// Turns that were neither taken nor given up.
    left: u64,
}

/// Which of the conversations that are ready is taken.
enum Order {
    /// The first.
    Fifo,
    /// One that is drawn.
    Random(Box<ChaCha12Rng>),
    /// That whose turn stands first here; each turn is told with its conversation.
    Strict(VecDeque<(u64, usize)>),
}

/// A turn of each conversation that goes on.
struct Round {
    /// Its turns that are not over.
    open: usize,
    /// When the latest of the others was.
    ended: u64,
    /// Conversations that go on in the next round.
    waiting: Vec<usize>,
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
        (order, rounds): (ReadyOrder, Rounds),
        seed: u64,
    ) -> Self {
        let round = Round {
            open: conversations.len(),
            ended: 0,
            waiting: Vec::new(),
        };
        Self(Mutex::new(Waiting {
            instants,
            order: Order::of(order, &conversations, seed),
            ready: (0..conversations.len()).map(|c| (0, c)).collect(),
            coming: BinaryHeap::new(),
            round: (rounds == Rounds::Barrier).then_some(round),
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

    /// A turn has its answer since `at`: the next one is ready, or will be when its round is over.
    pub(super) fn is_answered(&self, conversation: usize, at: u64) {
        let mut waiting = self.lock();
        let Waiting {
            conversations,
            coming,
            round,
            ..
        } = &mut *waiting;
        let goes_on = conversations[conversation].turn().is_some();
        match round {
            Some(round) => round.is_answered((conversation, goes_on), at, coming),
            None if goes_on => coming.push(Reverse((at, conversation))),
            None => {}
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
        let taken = match &mut self.order {
            Order::Fifo => {
                let at = self.ready.iter().position(was_ready)?;
                self.ready.remove(at)
            }
            Order::Strict(turns) => {
                let next = first(turns, &self.conversations)?;
                let is_next = |ready: &(u64, usize)| was_ready(ready) && ready.1 == next;
                let at = self.ready.iter().position(is_next)?;
                self.ready.remove(at)
            }
            Order::Random(_) if self.ready.is_empty() => None,
            Order::Random(random) => {
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

impl Conversation {
    /// Its next turn, if it goes on.
    fn turn(&self) -> Option<u64> {
        self.turns.get(self.next).copied()
    }
}

impl Order {
    fn of(order: ReadyOrder, conversations: &[Vec<u64>], seed: u64) -> Self {
        match order {
            ReadyOrder::Fifo => Self::Fifo,
            ReadyOrder::Random => {
                let mut random = ChaCha12Rng::seed_from_u64(seed);
                // The first stream is that of the arrivals.
                random.set_stream(1);
                Self::Random(Box::new(random))
            }
            ReadyOrder::Strict => Self::Strict(listed(conversations)),
        }
    }
}

/// All turns in the workload's order. One that stands before an earlier turn of its conversation comes
/// right behind that one.
fn listed(conversations: &[Vec<u64>]) -> VecDeque<(u64, usize)> {
    let mut all: Vec<(u64, u64, usize)> = Vec::new();
    for (conversation, turns) in conversations.iter().enumerate() {
        let mut place = 0;
        for turn in turns {
            place = place.max(*turn);
            all.push((place, *turn, conversation));
        }
    }
    // Stable: turns in one place stay in the order of their conversation.
    all.sort_by_key(|(place, ..)| *place);
    all.into_iter()
        .map(|(_, turn, conversation)| (turn, conversation))
        .collect()
}

/// The conversation of the first turn that was neither taken nor given up.
fn first(turns: &mut VecDeque<(u64, usize)>, conversations: &[Conversation]) -> Option<usize> {
    loop {
        let (turn, conversation) = *turns.front()?;
        if conversations[conversation].turn() == Some(turn) {
            return Some(conversation);
        }
        turns.pop_front();
    }
}

impl Round {
    /// A turn of this round is over since `at`; with the last one the next round begins.
    fn is_answered(
        &mut self,
        (conversation, goes_on): (usize, bool),
        at: u64,
        coming: &mut BinaryHeap<Reverse<(u64, usize)>>,
    ) {
        self.open = self.open.saturating_sub(1);
        self.ended = self.ended.max(at);
        if goes_on {
            self.waiting.push(conversation);
        }
        if self.open == 0 {
            self.open = self.waiting.len();
            let next = self.waiting.drain(..);
            coming.extend(next.map(|conversation| Reverse((self.ended, conversation))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_listed_as_the_workload_has_them() {
        // The second conversation's first turn stands behind its second one.
        let conversations = [vec![0, 2], vec![5, 1], vec![3], vec![4, 6]];
        let turns: Vec<u64> = listed(&conversations)
            .into_iter()
            .map(|(turn, _)| turn)
            .collect();
        assert_eq!(turns, [0, 2, 3, 4, 5, 1, 6]);
    }
}
