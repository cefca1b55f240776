//! What watching a run looks like: live on a terminal, plain lines elsewhere, JSON for machines.
//!
//! All three hear the same events and nothing else.

mod json;
mod live;
mod plain;

use crate::terminal::Terminal;
use engine::event::{Event, Listener, NodeSummary};
use engine::freshness::{Freshness, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// Chooses how a run is watched.
pub(crate) fn listener(terminal: &Terminal, json: bool) -> Box<dyn Listener> {
    match (json, terminal.is_talkative(), terminal.live) {
        (true, ..) => Box::new(json::Json),
        (false, false, _) => Box::new(Silent),
        (false, true, true) => Box::new(live::Live::new(*terminal)),
        (false, true, false) => Box::new(plain::Plain::new(*terminal)),
    }
}

struct Silent;

impl Listener for Silent {
    fn hear(&mut self, _: u64, _: &Event) {}
}

/// What was said of the nodes when the run began.
#[derive(Debug, Default)]
struct Nodes {
    targets: BTreeMap<String, u32>,
    steps: BTreeSet<String>,
}

impl Nodes {
    /// Takes in nodes; those of a large plan come in several parts.
    fn learn(&mut self, nodes: &[NodeSummary]) {
        self.targets
            .extend(nodes.iter().map(|n| (n.node.clone(), n.target)));
        let steps = nodes.iter().filter(|n| n.kind.is_some());
        self.steps.extend(steps.map(|n| n.node.clone()));
    }

    /// Names the sample of a measurement that wants several.
    fn sample(&self, node: &str, sample: Option<u32>) -> Option<String> {
        let target = self.targets.get(node).copied().unwrap_or(1);
        sample
            .filter(|index| target > 1 || *index > 0)
            .map(|index| crate::words::sample(index, target))
    }
}

/// Whether a person would want to know why a node has to run: not that it never did.
fn is_news(freshness: &Freshness) -> bool {
    match freshness {
        Freshness::Stale { reason } => *reason != Reason::NeverRan,
        Freshness::ToppedUp { .. } => true,
        Freshness::Reused { .. }
        | Freshness::OnDemand
        | Freshness::Service
        | Freshness::Undecided { .. } => false,
    }
}

/// Whether a node was skipped since the whole run ends: said once for all of them.
fn was_interrupted(because: &str) -> bool {
    because == "interrupted"
}

/// What is said when somebody wants the run to end.
fn interruption(at_once: bool) -> &'static str {
    if at_once {
        "interrupted again: ending at once"
    } else {
        "interrupted: tearing down in order; press Ctrl-C again to end at once"
    }
}
