//! What a plan says of a node besides its options: how often, how long, what it takes of the
//! machine, and what happens when it fails.
//!
//! Instances of one declaration share one policy unless it depends on an axis. Knows no plan text.

use crate::step::{FailureClass, Timeout};
use crate::types::Pattern;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// How long a step may run when the plan does not say.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(3600);
/// How many suspect samples of one set a run replaces when the plan does not say.
pub const REPLACEMENTS: u32 = 2;
/// How often a service is launched again after it died when the plan does not say.
pub const RESTARTS: u32 = 2;
/// The pause between two questions whether a service lives, when the plan does not say.
pub const LIVENESS_EVERY: Duration = Duration::from_secs(10);
/// How long the answer may take when the plan does not say.
pub const LIVENESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How many failures in a row are death when the plan does not say.
pub const LIVENESS_FAILURES: NonZeroU32 = match NonZeroU32::new(6) {
    Some(failures) => failures,
    None => NonZeroU32::MIN,
};

/// What is said of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How many samples; for everything that is not a measurement its target is 1.
    pub samples: Sampling,
    /// How long it may take.
    pub timeout: Timeout,
    /// When it is tried again.
    pub retry: Retry,
    /// What its failure means for the others.
    pub on_failure: OnFailure,
    /// What it takes of the machine while it runs.
    pub demand: Demand,
}

/// What is said of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePolicy {
    /// When it counts as ready.
    pub ready: Readiness,
    /// When it counts as dead though its process lives.
    pub liveness: Liveness,
    /// How often it is launched again after it died without any step having ended well on it.
    pub restarts: u32,
    /// What it takes of the machine from its launch to its verified end.
    pub demand: Demand,
}

/// When a service is ready: all of these at once, beside the probe of its kind and, for one that
/// the engine starts, a living process.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    /// The longest that a launch may take.
    pub timeout: Duration,
    /// A path that answers with status 200.
    pub http: Option<String>,
    /// Whether its port must accept connections.
    pub tcp: bool,
    /// What its log must have said.
    pub log: Option<Pattern>,
    /// A program and its arguments that must return status 0; none if empty.
    pub command: Vec<String>,
}

/// How a service that hangs is told from one that is busy: it must answer one question in a
/// while.
///
/// The defaults are generous, because a server under load answers late: only six failures in a
/// row, thus one to two minutes without any answer, are taken for death. They ask rarely, because
/// the question reaches a server that is being measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// Whether it is asked at all.
    pub enabled: bool,
    /// The path that answers with status 200; that of its kind if absent.
    pub http: Option<String>,
    /// The pause between two questions.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many questions in a row must fail.
    pub failures: NonZeroU32,
}

/// How many samples a measurement wants, and which count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// How many.
    pub target: NonZeroU32,
    /// Older ones do not count.
    pub max_age: Option<Duration>,
    /// How many suspect samples a run replaces by new ones before it is content with them.
    pub replacements: u32,
}

/// When a step that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, beyond the first try.
    pub max: u32,
    /// After which failures.
    pub on: Vec<FailureClass>,
    /// The pause before the first further try; it doubles with every one.
    pub backoff: Duration,
}

/// What a failure of a step means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing new is started; what runs ends.
    #[default]
    Stop,
    /// What waits for it is skipped, everything else goes on.
    SkipDependents,
    /// Only what reads its output is skipped; what merely comes after it, and what reads the
    /// samples that there are, goes on.
    Continue,
}

/// How a node shares the machine with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// Others may run beside it.
    #[default]
    Shared,
    /// It has the machine to itself, also across runs.
    Exclusive,
}

/// What a node takes of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// How it shares the machine.
    pub machine: Machine,
    /// How much of which pool.
    pub amounts: BTreeMap<String, u32>,
}

/// What there is of the machine, by the name of the pool.
pub type Supply = BTreeMap<String, Pool>;

/// Something of which there is only so much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// So many, all alike.
    Count(u32),
    /// Each with a name of its own, such as GPUs.
    Devices(Vec<String>),
    /// Numbers from `first` to `last`, both included, such as ports.
    Range {
        /// The smallest.
        first: u32,
        /// The largest.
        last: u32,
    },
}

/// What the name of the pool of one port begins with.
const PORT: &str = "port ";

/// Names the pool of one port, of which there is one on every machine: two services that were given
/// the same are never up at once, neither in one run nor in two.
pub fn port_pool(port: u16) -> (String, Pool) {
    let pool = Pool::Range {
        first: port.into(),
        last: port.into(),
    };
    (format!("{PORT}{port}"), pool)
}

/// Whether a pool is that of one port.
pub fn is_port_pool(name: &str) -> bool {
    let port = name.strip_prefix(PORT);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

impl Pool {
    /// Returns how much there is.
    pub fn size(&self) -> u32 {
        match self {
            Pool::Count(n) => *n,
            Pool::Devices(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
            Pool::Range { first, last } => last.saturating_sub(*first).saturating_add(1),
        }
    }

    /// Names one of its parts, from 0 to `size() - 1`.
    pub fn part(&self, index: u32) -> String {
        match self {
            Pool::Count(_) => index.to_string(),
            Pool::Devices(names) => names.get(index as usize).cloned().unwrap_or_default(),
            Pool::Range { first, .. } => first.saturating_add(index).to_string(),
        }
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            enabled: true,
            http: None,
            every: LIVENESS_EVERY,
            timeout: LIVENESS_TIMEOUT,
            failures: LIVENESS_FAILURES,
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            target: NonZeroU32::MIN,
            max_age: None,
            replacements: REPLACEMENTS,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 0,
            on: vec![FailureClass::Infrastructure],
            backoff: Duration::from_secs(10),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            samples: Sampling::default(),
            timeout: Timeout {
                run: RUN_TIMEOUT,
                idle: None,
            },
            retry: Retry::default(),
            on_failure: OnFailure::default(),
            demand: Demand::default(),
        }
    }
}
