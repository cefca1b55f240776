//! Everything that can be told of a run, as one closed enum.
//!
//! The journal, the progress display and `--json` listen to it and to nothing else. Nodes go by
//! their canonical names, so that an event can be read without the plan.

use crate::freshness::Freshness;
use crate::secrets::Redactor;
use crate::step::{FailureClass, Progress, StepKind, Verdict};
use crate::store::{ArtifactRef, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A node as it is introduced at the start of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// Its canonical name.
    pub node: String,
    /// The kind of step or service that it uses.
    pub uses: String,
    /// How its results may be used again; `None` for services.
    pub kind: Option<StepKind>,
    /// Samples wanted; 1 for everything that is not a measurement.
    pub target: u32,
}

/// Something that happened in a run. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The run begins or goes on.
    RunStarted {
        /// The run's name.
        run: String,
        /// The plan's name.
        plan: String,
        /// Whether it was begun before.
        resumed: bool,
        /// What the order of samples is shuffled by.
        seed: u64,
        /// Every node, each after what it waits for; of a large plan the first ones, or none.
        nodes: Vec<NodeSummary>,
    },
    /// Further nodes of a plan that is too large to be introduced at once.
    Planned {
        /// Nodes, each after what it waits for.
        nodes: Vec<NodeSummary>,
    },
    /// It is known what is left to do for a node, and why.
    Decided {
        /// The node.
        node: String,
        /// What was found.
        freshness: Freshness,
        /// What its result is kept by: the digest of all that it depends on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
    },
    /// A step begins.
    Started {
        /// The node.
        node: String,
        /// For measurements, which sample, from 0.
        sample: Option<u32>,
        /// Its folder of logs.
        logs: PathBuf,
    },
    /// A step or a service says what it is doing. Not kept in the journal.
    Progressed {
        /// The node.
        node: String,
        /// What it says.
        progress: Progress,
    },
    /// A step ended well and its outputs are in the store.
    Finished {
        /// The node.
        node: String,
        /// For measurements, which sample, from 0.
        sample: Option<u32>,
        /// How long it ran.
        took_ms: u64,
        /// What it has to say.
        summary: Option<String>,
        /// For measurements, how far the sample can be believed.
        verdict: Option<Verdict>,
        /// Its outputs by name.
        outputs: BTreeMap<String, ArtifactRef>,
    },
    /// A step failed, or a service could not be launched.
    Failed(Failure),
    /// A node will not run.
    Skipped {
        /// The node.
        node: String,
        /// Why.
        because: String,
    },
    /// A service is being launched.
    ServiceLaunching {
        /// The node.
        node: String,
        /// Which launch of this service in this run, from 1.
        incarnation: u32,
    },
    /// A service serves.
    ServiceReady {
        /// The node.
        node: String,
        /// Which launch of this service in this run, from 1; 0 in journals that do not say.
        #[serde(default)]
        incarnation: u32,
        /// Where.
        url: String,
        /// How long it took.
        took_ms: u64,
    },
    /// A service ended by itself.
    ServiceDied {
        /// The node.
        node: String,
        /// Which launch of this service in this run, from 1; 0 in journals that do not say.
        #[serde(default)]
        incarnation: u32,
        /// How it ended.
        how: String,
        /// Its log.
        log: Option<PathBuf>,
        /// The log's last lines.
        log_tail: Vec<String>,
    },
    /// A service was torn down and holds nothing any more.
    ServiceStopped {
        /// The node.
        node: String,
        /// How long it took.
        took_ms: u64,
        /// What could not be verified, if anything.
        trouble: Option<String>,
    },
    /// Somebody wants the run to end.
    Interrupted {
        /// Whether at once, without grace.
        at_once: bool,
    },
    /// The run is over.
    RunFinished {
        /// How.
        outcome: Outcome,
        /// How long this part of it took.
        took_ms: u64,
    },
}

impl Event {
    /// Takes the values of secrets out of everything that steps, services and their logs said.
    #[must_use]
    pub fn redacted(mut self, redactor: &Redactor) -> Self {
        let redact = |text: &mut String| *text = redactor.text(text).into_owned();
        match &mut self {
            Event::Progressed { progress, .. } => redact(&mut progress.doing),
            Event::Finished {
                summary, verdict, ..
            } => {
                summary.iter_mut().for_each(redact);
                let reasons = verdict.iter_mut().flat_map(|v| &mut v.reasons);
                reasons.for_each(redact);
            }
            Event::Failed(failure) => {
                redact(&mut failure.message);
                failure.help.iter_mut().for_each(redact);
                failure.log_tail.iter_mut().for_each(redact);
            }
            Event::ServiceDied { how, log_tail, .. } => {
                redact(how);
                log_tail.iter_mut().for_each(redact);
            }
            Event::ServiceStopped { trouble, .. } => trouble.iter_mut().for_each(redact),
            _ => {}
        }
        self
    }

    /// Returns the node that the event is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Event::Decided { node, .. }
            | Event::Started { node, .. }
            | Event::Progressed { node, .. }
            | Event::Finished { node, .. }
            | Event::Skipped { node, .. }
            | Event::ServiceLaunching { node, .. }
            | Event::ServiceReady { node, .. }
            | Event::ServiceDied { node, .. }
            | Event::ServiceStopped { node, .. } => Some(node),
            Event::Failed(failure) => Some(&failure.node),
            Event::RunStarted { .. }
            | Event::Planned { .. }
            | Event::Interrupted { .. }
            | Event::RunFinished { .. } => None,
        }
    }
}

/// What is known of a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The node.
    pub node: String,
    /// For measurements, which sample, from 0.
    pub sample: Option<u32>,
    /// What happened.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Whose fault it was.
    pub class: FailureClass,
    /// The log that tells more.
    pub log: Option<PathBuf>,
    /// The log's last lines.
    pub log_tail: Vec<String>,
    /// The pause before it is tried again, if it is, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// Everything was done, and a measurement is invalid.
    Invalid,
    /// A step failed.
    Failed,
    /// Somebody stopped it.
    Interrupted,
}

impl Outcome {
    /// Returns the documented exit code: 0 done, 1 a step failed, 3 a measurement is invalid,
    /// 130 interrupted. (2 is for plans that are not sound.)
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Invalid => 3,
            Outcome::Interrupted => 130,
        }
    }
}

/// Listens to a run.
pub trait Listener: Send {
    /// Hears of an event, `at_ms` milliseconds since this part of the run began.
    fn hear(&mut self, at_ms: u64, event: &Event);
}
