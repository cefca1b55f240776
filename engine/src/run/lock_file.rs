//! The lock file of a run: what its plan resolved to and what came of it, written when it ends.

use super::{Run, RunError};
use crate::lock::{ENGINE, Lock, Subject};
use crate::store::Digest;
use serde_json::json;

/// The namespace in which the store remembers which run has the lock file of a plan.
const LOCKS: &str = "locks";

impl Run {
    /// Writes the lock file of the run beside its journal. That of an earlier run in which
    /// everything had the same key is the same file.
    pub(super) fn write_lock(&self) -> Result<(), RunError> {
        let resolved = self.resolved_digest();
        let key = Digest::from(blake3::hash(self.plan.name.as_bytes())).to_string();
        if let Some(resolved) = resolved
            && let Some(last) = self.store.get_record(LOCKS, &key)
            && last["resolved"] == resolved.to_string()
            && let Some(run) = last["run"].as_str()
            && self.folder.share_lock(run)
        {
            return Ok(());
        }
        let subject = Subject {
            graph: &self.graph,
            text: &self.plan,
            store: &self.store,
            environment: &self.environment,
        };
        let lock = Lock::of_run(&subject, &self.ledger)?;
        self.folder.write_lock(&lock.to_text())?;
        if let Some(resolved) = resolved {
            let last = json!({ "resolved": resolved.to_string(), "run": self.folder.name() });
            self.store.put_record(LOCKS, &key, &last)?;
        }
        Ok(())
    }

    /// Hashes all that a lock file says, by the keys and results of all nodes; `None` if one of them was
    /// not decided.
    fn resolved_digest(&self) -> Option<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(ENGINE.as_bytes());
        hasher.update(self.ledger.plan_digest().to_string().as_bytes());
        for (name, value) in &self.environment.identity {
            hasher.update(format!("{name}={value}\n").as_bytes());
        }
        for node in self.graph.order() {
            let key = self.ledger.key(*node)?;
            hasher.update(key.as_bytes());
            if let Some(samples) = self.ledger.samples(*node) {
                hasher.update(samples.digest().as_bytes());
            }
            // What came of it, or that nothing did: a step can bring another result by the same key.
            let outputs = self.graph.step(*node).map_or(&[][..], |s| s.entry.outputs);
            for output in outputs {
                let artifact = self.ledger.artifact(*node, output.name);
                let digest = artifact.map_or([0; 32], |a| *a.digest.as_bytes());
                hasher.update(&digest);
            }
        }
        Some(Digest::from(hasher.finalize()))
    }
}
