//! What of a model is on the device, what is asked to move, and what is told of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::clock::{Clock, Nanos};
use crate::device::{Place, Shortage};
use crate::swapping::{ModelState, Reason};

/// Moves that a server of several models remembers.
pub const MOST_MOVES: usize = 8192;

/// Parts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Its weights.
    pub weights: bool,
    /// Its key-value cache.
    pub cache: bool,
}

impl Parts {
    /// Both.
    pub const ALL: Parts = Parts {
        weights: true,
        cache: true,
    };

    /// Whether it is neither.
    pub(super) fn is_none(self) -> bool {
        !self.weights && !self.cache
    }
}

/// What becomes of the requests that run when a model leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// The model stays as long as it has any request.
    Refuse,
    /// They are computed to their end, while new ones wait.
    Finish,
    /// They go back to wait, and are computed again later.
    Retract,
    /// They are broken off.
    BreakOff,
}

/// A model that is asked to leave the device, as far as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// What of it.
    pub parts: Parts,
    /// What becomes of running requests.
    pub running: Running,
    /// Whether requests that have not begun are broken off.
    pub evicts_waiting: bool,
    /// Why.
    pub reason: Reason,
}

/// A model that is asked to come onto the device, as far as it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Come {
    /// What of it.
    pub parts: Parts,
    /// Bytes of its cache; `None`: its share of what is free.
    pub cache_bytes: Option<u64>,
    /// Why.
    pub reason: Reason,
}

/// Which way a model went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Onto the device.
    In,
    /// To host memory.
    Out,
}

/// A move that is over.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Move {
    /// The model.
    pub model: String,
    /// Which way.
    pub direction: Way,
    /// Why.
    pub reason: Reason,
    /// When it was asked for; of `CLOCK_MONOTONIC`.
    pub began_ns: Nanos,
    /// When it was over.
    pub ended_ns: Nanos,
    /// Until no request ran, seconds.
    pub drain_s: f64,
    /// To copy the weights, seconds.
    pub copy_s: f64,
    /// To make or give back the cache, seconds.
    pub pool_s: f64,
    /// Bytes of weights that were copied.
    pub bytes: u64,
    /// Bytes of the cache that was made or given back.
    pub pool_bytes: u64,
}

/// A move that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Requests are there, and the model was to leave only without any.
    #[error("{n_requests} requests run or wait; let them end first")]
    Busy {
        /// How many.
        n_requests: usize,
    },
    /// Another move of it is under way, or the engine has not got round to what it was asked before.
    #[error("the model is on its way already; ask again when it has arrived")]
    InTransit,
    /// Nothing of what should leave is there, or all of what should come.
    #[error("{0}")]
    Already(&'static str),
    /// There is no room.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// Nothing of it lies anywhere.
    #[error("a server that tells tokens at a stated pace has no memory to move; use `sim_steps`")]
    Unmovable,
    /// The engine is gone or going.
    #[error("the server is stopping")]
    Stopping,
}

/// Where the answer to a request for a move goes.
pub(super) type Reply = oneshot::Sender<Result<Move, MoveError>>;

/// Moves since the start, the oldest forgotten where they are too many.
#[derive(Debug, Default)]
pub struct MoveLog {
    moves: Mutex<VecDeque<Move>>,
}

impl MoveLog {
    /// Adds one.
    pub fn push(&self, moved: Move) {
        let mut moves = self.lock();
        if moves.len() == MOST_MOVES {
            moves.pop_front();
        }
        moves.push_back(moved);
    }

    /// Those that ended at or after an instant.
    #[must_use]
    pub fn since(&self, instant: Nanos) -> Vec<Move> {
        let moves = self.lock();
        let later = moves.iter().filter(|moved| moved.ended_ns >= instant);
        later.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Move>> {
        // What is pushed is whole.
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a model fares, for whoever decides where it should be.
#[derive(Debug)]
pub struct Status {
    state: AtomicU8,
    since: AtomicU64,
    /// When the first waiting request has to be answered; 0: no one says.
    deadline: AtomicU64,
    last_busy: AtomicU64,
}

impl Status {
    /// Of a model that begins on the device or off it, at `clock`'s present instant.
    #[must_use]
    pub fn begin(is_active: bool, clock: &dyn Clock) -> Arc<Self> {
        let state = match is_active {
            true => ModelState::Active,
            false => ModelState::Off,
        };
        let now = clock.now().0;
        Arc::new(Status {
            state: AtomicU8::new(state as u8),
            since: AtomicU64::new(now),
            deadline: AtomicU64::new(0),
            last_busy: AtomicU64::new(now),
        })
    }

    /// Whether it can compute, and since when that is so.
    #[must_use]
    pub fn state(&self) -> (ModelState, Nanos) {
        let state = match self.state.load(Relaxed) {
            n if n == ModelState::Active as u8 => ModelState::Active,
            n if n == ModelState::Off as u8 => ModelState::Off,
            _ => ModelState::InTransit,
        };
        (state, Nanos(self.since.load(Relaxed)))
    }

    /// When the first waiting request has to be answered, if any says so.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        let at = self.deadline.load(Relaxed);
        (at > 0).then_some(Nanos(at))
    }

    /// When it last had a request.
    #[must_use]
    pub fn last_busy(&self) -> Nanos {
        Nanos(self.last_busy.load(Relaxed))
    }

    pub(super) fn become_(&self, state: ModelState, now: Nanos) {
        self.since.store(now.0, Relaxed);
        self.state.store(state as u8, Relaxed);
    }

    pub(super) fn set_deadline(&self, at: Option<Nanos>) {
        self.deadline.store(at.map_or(0, |at| at.0), Relaxed);
    }

    pub(super) fn busy(&self, now: Nanos) {
        self.last_busy.store(now.0, Relaxed);
    }
}

/// Where a model lives, and how it moves.
pub struct Home {
    /// Its name in what is told of its moves.
    pub model: String,
    /// Its place on the device.
    pub place: Arc<Place>,
    /// Whether it begins there.
    pub is_active: bool,
    /// Most blocks of its cache.
    pub most_blocks: u64,
    /// Bytes per second at which weights come and go; `None`: as it comes.
    pub link: Option<f64>,
    /// Where its moves are told.
    pub moves: Arc<MoveLog>,
}

/// What of the model is on the device, and whether it is leaving.
pub(super) struct Residence {
    pub(super) weights: bool,
    pub(super) cache: bool,
    pub(super) leaving: Option<Leaving>,
}

impl Residence {
    pub(super) fn new(is_active: bool) -> Self {
        Residence {
            weights: is_active,
            cache: is_active,
            leaving: None,
        }
    }

    /// Whether steps can be computed.
    pub(super) fn is_whole(&self) -> bool {
        self.weights && self.cache
    }

    /// Whether there is a cache that stays.
    pub(super) fn keeps_cache(&self) -> bool {
        let leaves = |leaving: &Leaving| leaving.leave.parts.cache;
        self.cache && !self.leaving.as_ref().is_some_and(leaves)
    }

    /// What of `parts` is on the device.
    pub(super) fn there(&self, parts: Parts) -> Parts {
        Parts {
            weights: parts.weights && self.weights,
            cache: parts.cache && self.cache,
        }
    }

    /// What of `parts` is not on the device.
    pub(super) fn missing(&self, parts: Parts) -> Parts {
        Parts {
            weights: parts.weights && !self.weights,
            cache: parts.cache && !self.cache,
        }
    }
}

/// A model that leaves once nothing of it runs.
pub(super) struct Leaving {
    pub(super) leave: Leave,
    pub(super) began: Nanos,
    pub(super) reply: Reply,
}
