//! What a run of a plan would do, node by node, and why. Does nothing of it.

use crate::estimate::{self, Estimate};
use crate::exit::Failure;
use crate::outputs::Peek;
use engine::decide::Ledger;
use engine::environment::Environment;
use engine::expand::Expanded;
use engine::freshness::{Freshness, Reason, Wish};
use engine::graph::{Edge, Graph, Link, NodeId};
use engine::key::{Change, Manifest};
use engine::options::Walk;
use engine::step::StepKind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Whether a node would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Will {
    /// It would.
    Run,
    /// It depends on the outcome of something that runs before.
    Perhaps,
    /// Its result is reused, or nobody asks for it.
    Rest,
}

/// A node and what would become of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Prospect {
    /// Its canonical name.
    pub(crate) node: String,
    /// The kind of step or service that it uses.
    pub(crate) uses: String,
    /// `pure`, `fetch`, `measure`, `effect`, `report` or `service`.
    pub(crate) kind: &'static str,
    /// Samples wanted; 1 for everything that is not a measurement.
    pub(crate) target: u32,
    /// Whether it would run.
    pub(crate) will: Will,
    /// Why, for people.
    pub(crate) why: String,
    /// What was found.
    pub(crate) freshness: Freshness,
    /// Nodes whose results it reads.
    pub(crate) needs: Vec<String>,
    /// Nodes that come before it.
    pub(crate) after: Vec<String>,
    /// Services that it uses while it runs.
    pub(crate) leases: Vec<String>,
    /// Its options as they took effect.
    pub(crate) with: Vec<(String, String)>,
    /// What it would take.
    pub(crate) estimate: Estimate,
}

/// Names a kind of step, or `service`.
pub(crate) fn kind_word(kind: Option<StepKind>) -> &'static str {
    match kind {
        Some(StepKind::Pure) => "pure",
        Some(StepKind::Fetch) => "fetch",
        Some(StepKind::Measure) => "measure",
        Some(StepKind::Effect) => "effect",
        Some(StepKind::Report) => "report",
        None => "service",
    }
}

/// What a run would do.
pub(crate) struct Outlook {
    /// Every node, each after what it waits for.
    pub(crate) prospects: Vec<Prospect>,
    /// What the nodes depend on whose inputs are there, by name.
    pub(crate) manifests: BTreeMap<String, Manifest>,
}

/// Finds out what a run would do; `fresh` asks for new samples.
///
/// # Errors
/// If an input or the store cannot be read.
pub(crate) fn outlook(expanded: &Expanded, peek: &Peek, fresh: bool) -> Result<Outlook, Failure> {
    let graph = &expanded.graph;
    let environment = Arc::new(Environment::detect());
    // No run has begun, so none of the samples is of this one.
    let wish = if fresh {
        Wish::NewIn(String::new())
    } else {
        Wish::Enough
    };
    let mut ledger = Ledger::new(
        graph.clone(),
        peek.store.clone(),
        environment,
        expanded.text.clone(),
        wish,
    );
    let found = ledger.assess().map_err(|e| Failure::new(e.to_string()))?;
    let wills = wills(graph, &found);
    let estimates = estimate::of_nodes(graph, &ledger);
    let known = found.iter().filter_map(|(id, _)| {
        let manifest = ledger.manifest(*id)?;
        Some((graph.name(*id), manifest.clone()))
    });
    let manifests = known.collect();
    let prospects = found
        .into_iter()
        .filter_map(|(id, freshness)| {
            Some(prospect(graph, id, freshness, &wills, *estimates.get(&id)?))
        })
        .collect();
    Ok(Outlook {
        prospects,
        manifests,
    })
}

/// Decides for each node from the last to the first: a service or an effect follows from what
/// depends on it.
fn wills(graph: &Graph, found: &[(NodeId, Freshness)]) -> BTreeMap<NodeId, Will> {
    let mut wills: BTreeMap<NodeId, Will> = BTreeMap::new();
    for (id, freshness) in found.iter().rev() {
        let will = match freshness {
            Freshness::Reused { .. } => Will::Rest,
            Freshness::ToppedUp { .. } | Freshness::Stale { .. } => Will::Run,
            _ if is_on_demand(graph, *id) => demanded(graph, *id, &wills),
            _ => Will::Perhaps,
        };
        wills.insert(*id, will);
    }
    wills
}

fn is_on_demand(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.step_kind(id), None | Some(StepKind::Effect))
}

fn demanded(graph: &Graph, id: NodeId, wills: &BTreeMap<NodeId, Will>) -> Will {
    let dependents: Vec<NodeId> = graph.outgoing(id).map(|(to, _)| to).collect();
    if dependents.is_empty() && graph.step(id).is_some() {
        return Will::Run;
    }
    let any = |wanted: Will| dependents.iter().any(|to| wills.get(to) == Some(&wanted));
    match (any(Will::Run), any(Will::Perhaps)) {
        (true, _) => Will::Run,
        (false, true) => Will::Perhaps,
        (false, false) => Will::Rest,
    }
}

fn prospect(
    graph: &Graph,
    id: NodeId,
    freshness: Freshness,
    wills: &BTreeMap<NodeId, Will>,
    estimate: Estimate,
) -> Prospect {
    let will = wills.get(&id).copied().unwrap_or(Will::Perhaps);
    let node = graph.node(id);
    let mut options = WrittenOptions {
        graph,
        written: Vec::new(),
    };
    node.body.walk(&mut options);
    let names = |wanted: &[Edge]| {
        let mut names: Vec<String> = graph
            .incoming(id)
            .filter(|(_, e)| wanted.contains(e))
            .map(|(from, _)| graph.name(from))
            .collect();
        names.sort();
        names
    };
    Prospect {
        node: node.name.to_string(),
        uses: uses(graph, id).to_owned(),
        kind: kind_word(graph.step_kind(id)),
        target: graph.step(id).map_or(1, engine::graph::StepNode::target),
        will,
        why: why(graph, id, &freshness, will),
        freshness,
        needs: names(&[Edge::Needs, Edge::Reads]),
        after: names(&[Edge::After]),
        leases: names(&[Edge::Leases]),
        with: options.written,
        estimate,
    }
}

/// Returns the kind of step or service that a node uses.
pub(crate) fn uses(graph: &Graph, id: NodeId) -> &'static str {
    match (graph.step(id), graph.service(id)) {
        (Some(step), _) => step.entry.name,
        (None, service) => service.map_or("", |s| s.entry.name),
    }
}

fn why(graph: &Graph, id: NodeId, freshness: &Freshness, will: Will) -> String {
    if matches!(freshness, Freshness::Undecided { .. }) && !is_on_demand(graph, id) {
        return freshness.to_string();
    }
    let is_service = graph.service(id).is_some();
    match (freshness, will) {
        (Freshness::Service | Freshness::OnDemand | Freshness::Undecided { .. }, will) => {
            match (is_service, will) {
                (true, Will::Run) => "will be launched: a step that runs uses it".to_owned(),
                (true, Will::Perhaps) => "launched if a step that uses it runs".to_owned(),
                (true, Will::Rest) => "not launched: every step that uses it is reused".to_owned(),
                (false, Will::Run) => "will run: a step that comes after it does".to_owned(),
                (false, Will::Perhaps) => "runs if a step that comes after it does".to_owned(),
                (false, Will::Rest) => {
                    "not needed: every step that comes after it is reused".to_owned()
                }
            }
        }
        _ => freshness.to_string(),
    }
}

/// Lists what changed, one phrase each, if that is why a node would run.
pub(crate) fn changes(freshness: &Freshness) -> Vec<String> {
    let Freshness::Stale {
        reason: Reason::Changed { changes },
    } = freshness
    else {
        return Vec::new();
    };
    change_lines(changes)
}

/// Writes changes, one line each.
pub(crate) fn change_lines(changes: &[Change]) -> Vec<String> {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    changes
        .iter()
        .map(|c| format!("{}: {} → {}", c.field, shown(&c.old), shown(&c.new)))
        .collect()
}

/// Writes options as a plan would, with links by name.
struct WrittenOptions<'a> {
    graph: &'a Graph,
    written: Vec<(String, String)>,
}

impl Walk for WrittenOptions<'_> {
    fn value(&mut self, path: &str, text: &str) {
        self.written.push((path.to_owned(), text.to_owned()));
    }

    fn link(&mut self, path: &str, link: &Link) {
        let text = match link {
            Link::Output { node, output } => {
                format!("${{steps.{}.{output}}}", self.graph.name(*node))
            }
            Link::All { nodes } => {
                let names: Vec<String> = nodes.iter().map(|n| self.graph.name(*n)).collect();
                format!("all samples of {}", names.join(", "))
            }
            Link::Service { node } => format!("${{services.{}}}", self.graph.name(*node)),
            Link::Fact { node, fact } => format!("${{services.{}.{fact}}}", self.graph.name(*node)),
            Link::Secret { name, .. } => format!("${{secret.{name}}}"),
        };
        self.written.push((path.to_owned(), text));
    }

    fn file(&mut self, path: &str, file: &Path) {
        self.written
            .push((path.to_owned(), file.display().to_string()));
    }
}
