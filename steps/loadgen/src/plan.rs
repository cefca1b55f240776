//! What a run is asked to do.
//!
//! Plain values; whether they fit together is decided in [`crate::schedule`].

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Arrivals, Limits, Target, Timeouts, Workload, WorkloadError, schedule::MOST_ARRIVALS};

/// When requests are sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Requests arrive by themselves, however the server is doing.
    Open {
        /// The process that decides the instants.
        arrivals: Arrivals,
        /// Starts its random numbers.
        seed: u64,
        /// Holds arrivals back, in order, while so many are unanswered. The queue that this
        /// makes shows as the difference between scheduled and dispatched.
        max_in_flight: Option<NonZeroU32>,
        /// Gives each arrival the next turn of a conversation whose last answer has ended, in this
        /// order; an arrival that finds none passes unused. Otherwise arrivals take requests in
        /// the workload's order, whatever was answered.
        #[serde(default)]
        ready_queue: Option<ReadyOrder>,
        /// How the rounds of a ready queue follow each other.
        #[serde(default)]
        rounds: Rounds,
    },
    /// A fixed number of users, each of whom sends when the last answer has ended and was thought
    /// about.
    Closed {
        /// The number of users.
        concurrency: NonZeroU32,
        /// How long a user thinks.
        #[serde(default)]
        think: Option<Think>,
        /// Whether a user takes whole conversations of the workload, turn by turn; otherwise every
        /// request by itself, in the workload's order.
        #[serde(default)]
        sessions: bool,
    },
}

impl Load {
    /// Users who do not think and take every request by itself.
    #[must_use]
    pub fn closed(concurrency: NonZeroU32) -> Self {
        Self::Closed {
            concurrency,
            think: None,
            sessions: false,
        }
    }
}

/// Which of the conversations that are ready is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyOrder {
    /// Any: drawn, by the seed of the load.
    Random,
    /// The one that has been ready longest.
    Fifo,
    /// The one whose turn is next in the workload; while its answer before has not ended, none.
    Strict,
}

/// How the rounds of conversations follow each other: the first round are all first turns, the next all
/// second ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounds {
    /// A conversation goes on as soon as its own last answer has ended.
    #[default]
    Overlap,
    /// None goes on before all answers of its round have ended.
    Barrier,
}

/// The time between the end of an answer and the next request of a user.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Think {
    /// Its mean.
    pub mean: Duration,
    /// Whether it is drawn from an exponential distribution, and what starts the random numbers.
    pub seed: Option<u64>,
}

/// When a run stops sending; requests in flight are always waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// After so many requests.
    Requests(NonZeroU64),
    /// After so much time.
    After(Duration),
}

/// What happens when a run needs more requests than the workload has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Each request is sent at most once: a repeated prompt would meet a warm cache.
    #[default]
    Once,
    /// The workload starts over.
    Cycle,
}

/// The client's own threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// How many; as many as `cores` if absent, or one for every four processors.
    pub count: Option<NonZeroU32>,
    /// The processors that they are kept on, in turn; anywhere if there are none.
    pub cores: Vec<u32>,
}

/// Whose time an event gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventTime {
    /// The client's, right after the read that brought it.
    #[default]
    Read,
    /// The kernel's, when it received the packet. As it no longer matters when a socket is read,
    /// what comes in is read together, so often that the next request of a closed loop is held up for
    /// a small share of the time to a first token at most: that costs less.
    Kernel,
}

/// Everything that a run needs.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// What is asked.
    pub workload: Arc<Workload>,
    /// When.
    pub load: Load,
    /// Until when.
    pub stop: Stop,
    /// Whether the workload may start over.
    pub reuse: Reuse,
    /// Whom.
    pub target: Target,
    /// For how long to wait.
    pub timeouts: Timeouts,
    /// How much to read.
    pub limits: Limits,
    /// With what.
    pub threads: Threads,
    /// By which clock.
    pub event_time: EventTime,
}

/// Why a plan cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More requests are asked for than there are.
    #[error(
        "the load needs {needed} requests but the workload has {have}; help: make the workload longer, stop earlier, or let it cycle"
    )]
    WorkloadTooShort {
        /// What the load and its end need.
        needed: u64,
        /// What there is.
        have: usize,
    },
    /// The instants of the load never end.
    #[error("{load} with {stop} never ends; help: {help}")]
    Endless {
        /// The load.
        load: &'static str,
        /// Its end condition.
        stop: &'static str,
        /// The mend.
        help: &'static str,
    },
    /// The plan needs an unreasonable number of arrivals.
    #[error(
        "the load has more than {MOST_ARRIVALS} arrivals; help: lower the rate or stop earlier"
    )]
    TooManyArrivals,
    /// No request would be sent.
    #[error("no request arrives before the load stops; help: stop later or raise the rate")]
    NoArrivals,
    /// Listed arrivals were asked for, but a request lists none, or an earlier one than the
    /// request before it.
    #[error(
        "request `{id}` {problem}; help: listed arrivals need an ascending `arrival` on every line"
    )]
    BadArrival {
        /// The request.
        id: String,
        /// What is wrong with its arrival.
        problem: &'static str,
    },
    /// Whole conversations were asked for in a way that cannot be.
    #[error("{0}")]
    Sessions(&'static str),
    /// Listed arrivals cannot start over.
    #[error(
        "listed arrivals cannot cycle; help: take each request once, or another arrival process"
    )]
    ListedCycle,
    /// The protocol has no way to send this prompt.
    #[error(
        "request `{id}` has a prompt of {prompt}, which the {protocol} protocol cannot send; help: {help}"
    )]
    Unsendable {
        /// The request.
        id: String,
        /// The kind of prompt.
        prompt: &'static str,
        /// The protocol.
        protocol: &'static str,
        /// The mend.
        help: &'static str,
    },
    /// An image of the workload cannot be sent.
    #[error(transparent)]
    Images(#[from] WorkloadError),
    /// A request names a model that is not the target's, and the protocol cannot say so.
    #[error(
        "request `{id}` asks for the model `{model}`, which the {protocol} protocol cannot name; help: use the completions or the chat protocol, or remove `model` from the workload"
    )]
    OtherModel {
        /// The request.
        id: String,
        /// The model that it asks for.
        model: String,
        /// The protocol.
        protocol: &'static str,
    },
    /// The extra body overrides what the load generator itself must decide.
    #[error("the extra body sets `{0}`; help: leave it out, the load generator decides it")]
    ReservedKey(String),
    /// The address cannot be used.
    #[error(
        "the server address `{address}` cannot be used: {problem}; help: write it like `http://127.0.0.1:8000`"
    )]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The API key holds characters that a header cannot carry.
    #[error(
        "the API key cannot be sent in a header; help: look for line breaks or control characters in it"
    )]
    ApiKey,
}

impl RunPlan {
    /// A plan that goes through the workload once, by the client's own clock, with the usual limits.
    #[must_use]
    pub fn new(workload: Workload, load: Load, stop: Stop, target: Target) -> Self {
        Self {
            workload: Arc::new(workload),
            load,
            stop,
            reuse: Reuse::Once,
            target,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            threads: Threads::default(),
            event_time: EventTime::default(),
        }
    }

    /// Checks what can be checked before a run, the same as [`crate::run`] does first.
    ///
    /// # Errors
    ///
    /// Any [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        self.prepare().map(drop)
    }
}
