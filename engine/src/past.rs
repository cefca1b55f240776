//! What nodes were when they last ran: what explanations compare with, and how long they took.
//!
//! Two sources: the store's own memory of each plan's nodes, and the folder of one run. Neither
//! decides anything: without them everything works and only explains less.

use crate::disk;
use crate::event::Event;
use crate::freshness::ActionRecord;
use crate::key::Manifest;
use crate::run::history;
use crate::store::{Digest, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

/// The namespace in which the store remembers the nodes of plans.
const LATEST: &str = "latest";
/// The namespace in which the store keeps what classes of samples are.
const CLASSES: &str = "classes";
/// The file in a run's folder with the manifests of nodes that had to run.
const MANIFESTS: &str = "manifests.jsonl";
/// How many durations of a node are remembered.
const REMEMBERED: usize = 5;

/// What a node was, and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// What it depended on.
    pub manifest: Manifest,
    /// How long its last runs took, milliseconds, oldest first.
    #[serde(default)]
    pub took_ms: Vec<u64>,
}

impl Memory {
    /// Returns the median of how long it took; `None` if it is not known.
    pub fn usual(&self) -> Option<Duration> {
        let mut sorted = self.took_ms.clone();
        sorted.sort_unstable();
        sorted
            .get(sorted.len() / 2)
            .map(|ms| Duration::from_millis(*ms))
    }
}

/// Returns what the store remembers of a plan's node.
pub fn recall(store: &Store, plan: &str, node: &str) -> Option<Memory> {
    let value = store.get_record(LATEST, &key_of(plan, node))?;
    serde_json::from_value(value).ok()
}

/// Remembers what a node was when it ran and how long that took.
///
/// # Errors
/// If the store cannot be written.
pub fn remember(
    store: &Store,
    plan: &str,
    node: &str,
    manifest: &Manifest,
    took_ms: u64,
) -> Result<(), StoreError> {
    let mut memory = recall(store, plan, node).unwrap_or_default();
    memory.manifest.clone_from(manifest);
    memory.took_ms.push(took_ms);
    let too_many = memory.took_ms.len().saturating_sub(REMEMBERED);
    memory.took_ms.drain(..too_many);
    let value = serde_json::to_value(&memory).unwrap_or_default();
    store.put_record(LATEST, &key_of(plan, node), &value)
}

fn key_of(plan: &str, node: &str) -> String {
    Digest::from(blake3::hash(format!("{plan}\n{node}").as_bytes())).to_string()
}

/// Keeps what a class of samples is, if that is not known yet.
///
/// # Errors
/// If the store cannot be written.
pub fn keep_class(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    let key = manifest.digest().to_string();
    if store.get_record(CLASSES, &key).is_some() {
        return Ok(());
    }
    let value = serde_json::to_value(manifest).unwrap_or_default();
    store.put_record(CLASSES, &key, &value)
}

/// Writes down, in a run's folder, what nodes are that have to run.
pub struct ManifestLog(disk::File);

/// One line of the log.
#[derive(Serialize, Deserialize)]
struct Line {
    node: String,
    manifest: Manifest,
}

impl ManifestLog {
    /// Opens the log in the folder `run`, to go on with it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(run: &Path) -> std::io::Result<Self> {
        let path = run.join(MANIFESTS);
        match disk::File::open_log(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                disk::File::create_log(&path).map(Self)
            }
            other => other.map(Self),
        }
    }

    /// Writes one manifest down.
    ///
    /// # Errors
    /// What the system says.
    pub fn note(&mut self, node: &str, manifest: &Manifest) -> std::io::Result<()> {
        let line = Line {
            node: node.to_owned(),
            manifest: manifest.clone(),
        };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        self.0.write_all(&bytes)
    }
}

/// Reads what the nodes of the run in `folder` were, by name, as far as that is still known.
///
/// # Errors
/// If the run's journal cannot be read.
pub fn of_run(
    store: &Store,
    folder: &Path,
) -> Result<BTreeMap<String, Manifest>, crate::run::RunError> {
    let mut found = BTreeMap::new();
    for entry in history::entries(folder)?.1 {
        if let Event::Decided {
            node,
            key: Some(key),
            ..
        } = entry.event
            && let Some(manifest) = of_key(store, &key)
        {
            found.insert(node, manifest);
        }
    }
    // A line that was cut off by a crash is of no use to anyone.
    let lines = File::open(folder.join(MANIFESTS)).map(BufReader::new);
    for line in lines
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(Result::ok)
    {
        if let Ok(line) = serde_json::from_str::<Line>(&line) {
            found.insert(line.node, line.manifest);
        }
    }
    Ok(found)
}

/// Returns the manifest that the store keeps for a key.
fn of_key(store: &Store, key: &Digest) -> Option<Manifest> {
    let key = key.to_string();
    if let Some(value) = store.get_record("actions", &key) {
        let record: ActionRecord = serde_json::from_value(value).ok()?;
        return Some(record.manifest);
    }
    serde_json::from_value(store.get_record(CLASSES, &key)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_duration_is_the_median_of_the_last_few() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(recall(&store, "p", "n"), None);
        for took_ms in [9000, 10, 30, 20, 1000, 25] {
            remember(&store, "p", "n", &Manifest::default(), took_ms).unwrap();
        }
        let memory = recall(&store, "p", "n").unwrap();
        assert_eq!(memory.took_ms, [10, 30, 20, 1000, 25]);
        assert_eq!(memory.usual(), Some(Duration::from_millis(25)));
        assert_eq!(Memory::default().usual(), None);
    }
}
