//! How long a run would take, from how long its nodes took before.

use crate::outlook::{Prospect, Will};
use crate::words;
use engine::decide::Ledger;
use engine::graph::{Body, Graph, NodeId};
use engine::step::StepKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// What one node would take.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Estimate {
    /// How often it would run.
    pub(crate) times: u32,
    /// How long each run would take, milliseconds; `None` if it never ran.
    pub(crate) each_ms: Option<u64>,
    /// GPUs that would be taken meanwhile, by it and by the services that it uses.
    pub(crate) gpus: u32,
}

/// Everything that would run, together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Total {
    /// One after the other, milliseconds.
    pub(crate) took_ms: u64,
    /// The same weighted by GPUs, in hours.
    pub(crate) gpu_hours: f64,
    /// Nodes of which nobody knows how long they take.
    pub(crate) n_unknown: usize,
}

/// Estimates every node of a graph, which the ledger has assessed.
pub(crate) fn of_nodes(graph: &Graph, ledger: &Ledger) -> BTreeMap<NodeId, Estimate> {
    let usual: BTreeMap<NodeId, u64> = graph
        .order()
        .iter()
        .filter_map(|id| Some((*id, millis(ledger.memory(*id)?.usual()?))))
        .collect();
    let of_kin = of_declarations(graph, &usual);
    let estimate = |id: &NodeId| {
        let name = &graph.node(*id).name.decl;
        let each = usual.get(id).or_else(|| of_kin.get(&**name));
        Estimate {
            times: times(graph, ledger, *id),
            each_ms: each.copied(),
            gpus: gpus(graph, *id),
        }
    };
    graph.order().iter().map(|id| (*id, estimate(id))).collect()
}

/// The median over the instances of each declaration: the best guess for one that is new.
fn of_declarations<'a>(graph: &'a Graph, usual: &BTreeMap<NodeId, u64>) -> BTreeMap<&'a str, u64> {
    let mut all: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (id, ms) in usual {
        let decl: &str = &graph.node(*id).name.decl;
        all.entry(decl).or_default().push(*ms);
    }
    let median = |mut list: Vec<u64>| {
        list.sort_unstable();
        list[list.len() / 2]
    };
    all.into_iter().map(|(k, list)| (k, median(list))).collect()
}

fn times(graph: &Graph, ledger: &Ledger, id: NodeId) -> u32 {
    let Some(step) = graph.step(id) else { return 1 };
    match step.entry.kind {
        StepKind::Measure if ledger.manifest(id).is_some() => ledger.missing(id),
        _ => step.target(),
    }
}

fn gpus(graph: &Graph, id: NodeId) -> u32 {
    let own = |id: NodeId| {
        let demand = match &graph.node(id).body {
            Body::Step(step) => &step.policy.demand,
            Body::Service(service) => &service.policy.demand,
        };
        demand.amounts.get("gpus").copied().unwrap_or(0)
    };
    let leased = graph.leased(id).into_iter();
    own(id) + leased.map(own).sum::<u32>()
}

/// Adds up what would run for sure, and what may.
pub(crate) fn total(prospects: &[Prospect]) -> Total {
    let mut total = Total::default();
    for prospect in prospects.iter().filter(|p| p.will != Will::Rest) {
        let Estimate {
            times,
            each_ms,
            gpus,
        } = prospect.estimate;
        match each_ms {
            Some(each) => {
                let ms = each * u64::from(times);
                total.took_ms += ms;
                total.gpu_hours += hours(ms) * f64::from(gpus);
            }
            None => total.n_unknown += 1,
        }
    }
    total
}

impl Total {
    /// Says it in a sentence; `None` where nothing would run.
    pub(crate) fn sentence(&self, prospects: &[Prospect]) -> Option<String> {
        if prospects.iter().all(|p| p.will == Will::Rest) {
            return None;
        }
        if self.took_ms == 0 {
            return Some("nobody knows yet how long that takes: none of it ever ran".to_owned());
        }
        let may = prospects.iter().any(|p| p.will == Will::Perhaps);
        let most = if may { "up to about" } else { "about" };
        let mut text = format!("that takes {most} {}", words::duration(self.took_ms));
        if self.gpu_hours > 0.0 {
            text += &format!(" and {:.2} GPU-hours", self.gpu_hours);
        }
        text += ", as it did before";
        if self.n_unknown > 0 {
            let nodes = words::plural(self.n_unknown, "node");
            text += &format!("; of {nodes} it is not known");
        }
        Some(text)
    }
}

fn hours(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64() / 3600.0
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
