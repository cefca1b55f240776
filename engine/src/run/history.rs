//! Reads runs back from their journals: what ran, how it ended, what is left.

use super::folder;
use crate::event::{Event, Failure, NodeSummary, Outcome};
use crate::freshness::Freshness;
use crate::journal::{Damage, read};
use crate::step::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
    /// Where each node stands in `nodes`.
    #[serde(skip)]
    places: HashMap<String, usize>,
}

/// What became of a node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeHistory {
    /// What it is.
    #[serde(flatten)]
    pub node: NodeSummary,
    /// Its state.
    pub state: NodeState,
    /// Since when it is in that state, milliseconds since 1970; `None` if it always was.
    pub since_ms: Option<u64>,
    /// For measurements, the sample that was begun last, from 0.
    pub sample: Option<u32>,
    /// The folder of logs of what was begun last, for steps.
    pub logs: Option<PathBuf>,
    /// For services, the last launch in this run, from 1.
    pub incarnation: Option<u32>,
    /// For services that serve, where.
    pub url: Option<String>,
    /// Why it was skipped, if it was.
    pub because: Option<String>,
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

/// Reads what the journal of the run in `path` says, in order, and what of it could not be read.
///
/// # Errors
/// If its journal cannot be read at all.
pub fn entries(path: &Path) -> Result<(Vec<Damage>, Vec<Entry>), super::RunError> {
    let recovered =
        read(&folder::journal_of(path)).map_err(|e| super::RunError::Journal(e.to_string()))?;
    // A record of a later version is one that this version cannot know.
    let known = |record: &Vec<u8>| serde_json::from_slice::<Entry>(record).ok();
    let entries = recovered.records.iter().filter_map(known).collect();
    Ok((recovered.damage, entries))
}

/// Reads the history of the run in `path`.
///
/// # Errors
/// If its journal cannot be read at all.
pub fn load(path: &Path) -> Result<History, super::RunError> {
    // Asked first: a run that ends in between is one that has ended.
    let live = folder::is_live(path);
    let (damage, entries) = entries(path)?;
    Ok(History::of(path, live, &entries, damage))
}

impl History {
    /// Puts together what `entries` say of the run in `path`.
    pub fn of(path: &Path, live: bool, entries: &[Entry], damage: Vec<Damage>) -> Self {
        let name = path.file_name().unwrap_or_default();
        let mut history = Self {
            run: name.to_string_lossy().into_owned(),
            folder: path.to_owned(),
            plan: String::new(),
            began_ms: 0,
            live,
            outcome: None,
            took_ms: 0,
            nodes: Vec::new(),
            damage,
            places: HashMap::new(),
        };
        entries.iter().for_each(|entry| history.take(entry));
        history
    }

    /// Returns what became of the node called `name`.
    pub fn find(&self, name: &str) -> Option<&NodeHistory> {
        self.nodes.get(*self.places.get(name)?)
    }

    fn take(&mut self, entry: &Entry) {
        let at = entry.wall_ms;
        match &entry.event {
            Event::RunStarted { plan, nodes, .. } => self.begin(plan, nodes, at),
            Event::Planned { nodes } => self.introduce(nodes),
            Event::RunFinished { outcome, took_ms } => {
                self.outcome = Some(*outcome);
                self.took_ms += took_ms;
            }
            event => {
                if let Some(name) = event.node()
                    && let Some(place) = self.places.get(name)
                {
                    self.nodes[*place].take(event, at);
                }
            }
        }
    }

    fn begin(&mut self, plan: &str, nodes: &[NodeSummary], wall_ms: u64) {
        plan.clone_into(&mut self.plan);
        self.outcome = None;
        if self.began_ms == 0 {
            self.began_ms = wall_ms;
        }
        self.nodes.clear();
        self.places.clear();
        self.introduce(nodes);
    }

    fn introduce(&mut self, nodes: &[NodeSummary]) {
        for node in nodes {
            self.places.insert(node.node.clone(), self.nodes.len());
            self.nodes.push(NodeHistory::new(node.clone()));
        }
    }
}

impl NodeHistory {
    /// Counts the samples that there are: those that were found, and those drawn since.
    pub fn n_samples(&self) -> u32 {
        let found = match &self.freshness {
            Some(Freshness::Reused {
                samples: Some(count),
                ..
            }) => count.have,
            Some(Freshness::ToppedUp { have, .. }) => have.have,
            _ => 0,
        };
        let drawn = u32::try_from(self.verdicts.len()).unwrap_or(u32::MAX);
        found.saturating_add(drawn)
    }

    /// Builds what is known of a node before anything was told of it.
    pub fn new(node: NodeSummary) -> Self {
        Self {
            node,
            state: NodeState::Waiting,
            since_ms: None,
            sample: None,
            logs: None,
            incarnation: None,
            url: None,
            because: None,
            freshness: None,
            finished: 0,
            took_ms: 0,
            summary: None,
            verdicts: Vec::new(),
            failure: None,
        }
    }

    fn enter(&mut self, state: NodeState, at: u64) {
        self.state = state;
        self.since_ms = Some(at);
    }

    fn take(&mut self, event: &Event, at: u64) {
        match event {
            Event::Decided { freshness, .. } => {
                if matches!(freshness, Freshness::Reused { .. }) {
                    self.enter(NodeState::Reused, at);
                }
                self.freshness = Some(freshness.clone());
            }
            Event::Started { sample, logs, .. } => {
                self.enter(NodeState::Running, at);
                self.sample = *sample;
                self.logs = Some(logs.clone());
            }
            Event::Finished {
                took_ms,
                summary,
                verdict,
                ..
            } => {
                self.enter(NodeState::Done, at);
                self.finished += 1;
                self.took_ms += took_ms;
                self.summary.clone_from(summary);
                self.verdicts.extend(verdict.clone());
            }
            Event::Failed(failure) => {
                self.enter(NodeState::Failed, at);
                self.failure = Some(failure.clone());
                self.url = None;
            }
            Event::Skipped { because, .. } => {
                self.enter(NodeState::Skipped, at);
                self.because = Some(because.clone());
            }
            event => self.serve(event, at),
        }
    }

    fn serve(&mut self, event: &Event, at: u64) {
        match event {
            Event::ServiceLaunching { incarnation, .. } => {
                self.enter(NodeState::Running, at);
                self.incarnation = Some(*incarnation);
                self.url = None;
            }
            Event::ServiceReady { url, .. } => {
                self.since_ms = Some(at);
                self.url = Some(url.clone());
            }
            Event::ServiceDied { .. } => {
                self.enter(NodeState::Failed, at);
                self.url = None;
            }
            Event::ServiceStopped { .. } => {
                self.enter(NodeState::Done, at);
                self.url = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(node: &str) -> serde_json::Value {
        json!({ "node": node, "uses": "x.y", "kind": "pure", "target": 1 })
    }

    fn history(events: &[serde_json::Value]) -> History {
        let entry = |(at, event): (usize, &serde_json::Value)| {
            let entry = json!({ "wall_ms": 100 + at, "at_ms": at, "event": event });
            serde_json::from_value(entry).expect("an entry")
        };
        let entries: Vec<Entry> = events.iter().enumerate().map(entry).collect();
        History::of(Path::new("runs/r"), true, &entries, Vec::new())
    }

    fn started(nodes: &[serde_json::Value]) -> serde_json::Value {
        json!({ "event": "run_started", "run": "r", "plan": "p", "resumed": false, "seed": 0, "nodes": nodes })
    }

    #[test]
    fn nodes_come_with_the_start_of_the_run_and_in_further_parts() {
        let history = history(&[
            started(&[summary("a")]),
            json!({ "event": "planned", "nodes": [summary("b"), summary("c")] }),
            json!({ "event": "started", "node": "c", "sample": null, "logs": "l" }),
        ]);
        let names: Vec<&str> = history.nodes.iter().map(|n| n.node.node.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let c = history.find("c").expect("a node");
        assert_eq!((c.state, c.since_ms), (NodeState::Running, Some(102)));
        assert!(history.find("d").is_none());
    }

    #[test]
    fn a_resumed_run_begins_anew_with_what_it_introduces() {
        let history = history(&[
            started(&[summary("a"), summary("b")]),
            json!({ "event": "skipped", "node": "b", "because": "interrupted" }),
            started(&[summary("b")]),
        ]);
        assert_eq!(history.nodes.len(), 1);
        assert_eq!(history.find("b").map(|n| n.state), Some(NodeState::Waiting));
        assert_eq!(history.began_ms, 100);
    }

    #[test]
    fn a_service_has_an_address_while_it_serves() {
        let server = json!({ "node": "s", "uses": "x", "kind": null, "target": 1 });
        let up = [
            started(&[server]),
            json!({ "event": "service_launching", "node": "s", "incarnation": 2 }),
            json!({ "event": "service_ready", "node": "s", "url": "http://x", "took_ms": 1 }),
        ];
        let serving = history(&up);
        let serving = serving.find("s").expect("a service");
        assert_eq!(serving.url.as_deref(), Some("http://x"));
        assert_eq!(
            (serving.incarnation, serving.since_ms),
            (Some(2), Some(102))
        );
        let died = json!({ "event": "service_died", "node": "s", "how": "x", "log": null, "log_tail": [] });
        let dead = history(&[&up[..], &[died]].concat());
        assert_eq!(dead.find("s").map(|n| n.url.is_none()), Some(true));
    }
}
