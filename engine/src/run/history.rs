//! Reads runs back from their journals: what ran, how it ended, what is left.

use super::folder;
use crate::event::{Event, Failure, NodeSummary, Outcome};
use crate::freshness::Freshness;
use crate::journal::{Damage, read};
use crate::step::Verdict;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since this part of the run began.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
}

/// What a journal says of a run.
#[derive(Debug, Clone, Serialize)]
pub struct History {
    /// The run's name.
    pub run: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The plan's name.
    pub plan: String,
    /// When it began, milliseconds since 1970.
    pub began_ms: u64,
    /// Whether a living process works on it.
    pub live: bool,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// How long its parts took together, milliseconds.
    pub took_ms: u64,
    /// Every node with what became of it.
    pub nodes: Vec<NodeHistory>,
    /// What of the journal could not be read.
    #[serde(serialize_with = "damage_text")]
    pub damage: Vec<Damage>,
}

/// What became of a node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeHistory {
    /// What it is.
    #[serde(flatten)]
    pub node: NodeSummary,
    /// Its state.
    pub state: NodeState,
    /// What was found before it ran.
    pub freshness: Option<Freshness>,
    /// Runs of it that ended well in this run.
    pub finished: u32,
    /// How long those took, milliseconds.
    pub took_ms: u64,
    /// What it last had to say.
    pub summary: Option<String>,
    /// The verdicts of the samples drawn.
    pub verdicts: Vec<Verdict>,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
}

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Not begun.
    Waiting,
    /// Under way, or cut off there if the run is not live.
    Running,
    /// Ended well.
    Done,
    /// Its result was there already.
    Reused,
    /// Failed.
    Failed,
    /// Will not run.
    Skipped,
}

fn damage_text<S: serde::Serializer>(damage: &[Damage], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(damage.iter().map(|d| format!("{d:?}")))
}

/// Lists the folders of all runs below `out`, oldest first.
pub fn list(out: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out.join("runs"))
        .into_iter()
        .flatten()
        .flatten();
    let mut runs: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| folder::journal_of(p).exists())
        // One that is being removed is none any more.
        .filter(|p| !folder::file_name(p).starts_with('.'))
        .collect();
    runs.sort();
    runs
}

/// Finds the run that `name` means: its folder, its name, a part of it that only one has, or
/// `latest`.
///
/// # Errors
/// What is wrong with the name, with the mend.
pub fn find(out: &Path, name: Option<&str>) -> Result<PathBuf, String> {
    let runs = list(out);
    let last = || {
        runs.last()
            .cloned()
            .ok_or_else(|| format!("there are no runs in `{}`", out.display()))
    };
    let Some(name) = name.filter(|n| *n != "latest") else {
        return last();
    };
    if folder::journal_of(Path::new(name)).exists() {
        return Ok(PathBuf::from(name));
    }
    let called = |p: &&PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().contains(name))
    };
    let exact = runs
        .iter()
        .find(|p| p.file_name().is_some_and(|n| n == name));
    let found: Vec<&PathBuf> = runs.iter().filter(called).collect();
    match (exact, found.as_slice()) {
        (Some(run), _) => Ok(run.clone()),
        (None, [one]) => Ok((*one).clone()),
        (None, []) => Err(format!(
            "no run in `{}` is called `{name}`; `benchwright status` lists them",
            out.display()
        )),
        (None, many) => Err(format!(
            "{} runs in `{}` are called like `{name}`; `benchwright status` lists them",
            many.len(),
            out.display()
        )),
    }
}

/// Reads the history of the run in `path`.
///
/// # Errors
/// If its journal cannot be read at all.
pub fn load(path: &Path) -> Result<History, super::RunError> {
    let (damage, entries) = entries(path)?;
    let mut history = History {
        run: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        folder: path.to_owned(),
        plan: String::new(),
        began_ms: 0,
        live: folder::is_live(path),
        outcome: None,
        took_ms: 0,
        nodes: Vec::new(),
        damage,
    };
    entries.iter().for_each(|entry| history.take(entry));
    Ok(history)
}

/// Reads all that the journal of the run in `path` says, and what of it could not be read.
///
/// # Errors
/// If it cannot be read at all.
pub fn entries(path: &Path) -> Result<(Vec<Damage>, Vec<Entry>), super::RunError> {
    let recovered =
        read(&folder::journal_of(path)).map_err(|e| super::RunError::Journal(e.to_string()))?;
    // A record of a later version is one that this version cannot know.
    let records = recovered.records.iter();
    let entries = records.filter_map(|record| serde_json::from_slice(record).ok());
    Ok((recovered.damage, entries.collect()))
}

impl History {
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            Event::RunStarted { plan, nodes, .. } => self.begin(plan, nodes, entry.wall_ms),
            Event::Decided {
                node, freshness, ..
            } => self.node(node, |n| {
                n.freshness = Some(freshness.clone());
                if matches!(freshness, Freshness::Reused { .. }) {
                    n.state = NodeState::Reused;
                }
            }),
            Event::Started { node, .. } | Event::ServiceLaunching { node, .. } => {
                self.node(node, |n| n.state = NodeState::Running)
            }
            Event::Finished {
                node,
                took_ms,
                summary,
                verdict,
                ..
            } => self.node(node, |n| {
                n.state = NodeState::Done;
                n.finished += 1;
                n.took_ms += took_ms;
                n.summary.clone_from(summary);
                n.verdicts.extend(verdict.clone());
            }),
            Event::Failed(failure) => self.node(&failure.node, |n| {
                n.state = NodeState::Failed;
                n.failure = Some(failure.clone());
            }),
            Event::Skipped { node, .. } => self.node(node, |n| n.state = NodeState::Skipped),
            Event::ServiceStopped { node, .. } => self.node(node, |n| n.state = NodeState::Done),
            Event::ServiceDied { node, .. } => self.node(node, |n| n.state = NodeState::Failed),
            Event::RunFinished { outcome, took_ms } => {
                self.outcome = Some(*outcome);
                self.took_ms += took_ms;
            }
            Event::ServiceReady { .. } | Event::Progressed { .. } | Event::Interrupted { .. } => {}
        }
    }

    fn begin(&mut self, plan: &str, nodes: &[NodeSummary], wall_ms: u64) {
        plan.clone_into(&mut self.plan);
        self.outcome = None;
        if self.began_ms == 0 {
            self.began_ms = wall_ms;
        }
        let fresh = |node: &NodeSummary| NodeHistory {
            node: node.clone(),
            state: NodeState::Waiting,
            freshness: None,
            finished: 0,
            took_ms: 0,
            summary: None,
            verdicts: Vec::new(),
            failure: None,
        };
        self.nodes = nodes.iter().map(fresh).collect();
    }

    fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeHistory)) {
        if let Some(node) = self.nodes.iter_mut().find(|n| n.node.node == name) {
            change(node);
        }
    }
}
