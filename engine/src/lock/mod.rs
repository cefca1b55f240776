//! What a plan resolved to, pinned: sources, parameters, every node with its options as they took
//! effect and the digests of its input files, and what came of it.
//!
//! Pins come from the same walk as keys, so that whatever a key depends on is pinned. What another
//! node brings is pinned by its name, because before anything runs nobody knows its content. The
//! identity of the machine is written down and never compared: another machine measures another
//! class of samples, which the store tells apart by itself.

mod differences;
mod pins;
mod text;

use crate::decide::Ledger;
use crate::environment::Environment;
use crate::graph::{Graph, NodeId};
use crate::run::folder::relative_to;
use crate::step::PlanText;
use crate::store::{Digest, Store, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use differences::Difference;
pub use text::LockError;

/// The version of the engine, as locks name it.
pub const ENGINE: &str = env!("CARGO_PKG_VERSION");

/// What a plan resolved to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// The version of the engine.
    pub engine: String,
    /// The plan's name.
    pub plan: String,
    /// Parameters with their values as TOML.
    pub params: BTreeMap<String, String>,
    /// Files that the plan was read from, relative to its own, with their digests.
    pub sources: BTreeMap<String, String>,
    /// What samples of this machine share.
    pub environment: BTreeMap<String, String>,
    /// Nodes in the order of the plan.
    pub nodes: Vec<(String, Pins)>,
    /// What came of nodes that are done.
    pub results: BTreeMap<String, Pinned>,
}

/// What a node depends on, field by field, in the order of the walk.
pub type Pins = Vec<(String, String)>;

/// What came of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinned {
    /// What its result is kept by.
    pub key: String,
    /// For measurements, how many samples there are.
    pub samples: Option<u32>,
    /// Digests of outputs by name; of a measurement, of its set of samples.
    pub outputs: BTreeMap<String, String>,
}

/// What is locked.
pub struct Subject<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The plan's texts and parameters.
    pub text: &'a PlanText,
    /// Where files are hashed.
    pub store: &'a Store,
    /// This machine.
    pub environment: &'a Environment,
}

impl Lock {
    /// Pins every node of a plan, and the results that `ledger` knows.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn of_plan(subject: &Subject<'_>, ledger: &Ledger) -> Result<Self, StoreError> {
        Self::of(subject, ledger, subject.graph.order().to_vec())
    }

    /// Pins the nodes of a run that were decided: of the others the inputs were never read, and
    /// the end of a run is no time to begin with that.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn of_run(subject: &Subject<'_>, ledger: &Ledger) -> Result<Self, StoreError> {
        let all = subject.graph.order().iter().copied();
        let decided = all.filter(|node| ledger.manifest(*node).is_some());
        Self::of(subject, ledger, decided.collect())
    }

    fn of(subject: &Subject<'_>, ledger: &Ledger, chosen: Vec<NodeId>) -> Result<Self, StoreError> {
        let Subject { graph, text, .. } = subject;
        let walk = pins::Walker::new(subject);
        let mut lock = Self {
            engine: ENGINE.to_owned(),
            plan: text.name.clone(),
            params: params(text),
            sources: sources(text),
            environment: subject.environment.identity.clone(),
            ..Self::default()
        };
        for node in chosen {
            let name = graph.name(node);
            if let Some(result) = result(graph, ledger, node) {
                lock.results.insert(name.clone(), result);
            }
            lock.nodes.push((name, walk.pins(node)?));
        }
        Ok(lock)
    }
}

/// Returns where the lock file of the plan at `plan` lies when nothing else is said:
/// `online.toml` has `online.lock.toml` beside it.
#[must_use]
pub fn beside(plan: &Path) -> PathBuf {
    plan.with_extension("lock.toml")
}

fn params(text: &PlanText) -> BTreeMap<String, String> {
    let params = text.params.iter();
    params
        .map(|(name, value, _)| (name.clone(), value.clone()))
        .collect()
}

fn sources(text: &PlanText) -> BTreeMap<String, String> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let plan = text.sources.first().map(|(path, _)| absolute(path));
    let folder = plan.as_deref().and_then(Path::parent);
    let folder = folder.unwrap_or(Path::new("."));
    let pin = |(path, text): &(PathBuf, String)| {
        let relative = relative_to(folder, &absolute(path));
        (
            relative.display().to_string(),
            Digest::of(text.as_bytes()).to_string(),
        )
    };
    text.sources.iter().map(pin).collect()
}

/// What is known of a node that is done.
fn result(graph: &Graph, ledger: &Ledger, node: NodeId) -> Option<Pinned> {
    let step = graph.step(node)?;
    let key = ledger.key(node)?.to_string();
    if let Some(set) = ledger.samples(node).filter(|set| !set.records.is_empty()) {
        let digest = ("samples".to_owned(), set.digest().to_string());
        return Some(Pinned {
            key,
            samples: Some(u32::try_from(set.records.len()).unwrap_or(u32::MAX)),
            outputs: BTreeMap::from([digest]),
        });
    }
    let outputs = step.entry.outputs.iter().filter_map(|output| {
        let artifact = ledger.artifact(node, output.name)?;
        Some((output.name.to_owned(), artifact.digest.to_string()))
    });
    let outputs: BTreeMap<String, String> = outputs.collect();
    (!outputs.is_empty()).then_some(Pinned {
        key,
        samples: None,
        outputs,
    })
}

#[cfg(test)]
mod tests;
