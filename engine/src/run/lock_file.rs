//! The lock file of a run: what its plan resolved to and what came of it, written when it ends.

use super::{Run, RunError};
use crate::lock::{Lock, Subject};

impl Run {
    /// Writes the lock file of the run beside its journal.
    pub(super) fn write_lock(&self) -> Result<(), RunError> {
        let subject = Subject {
            graph: &self.graph,
            text: &self.plan,
            store: &self.store,
            environment: &self.environment,
        };
        let lock = Lock::of_run(&subject, &self.ledger)?;
        self.folder.write_lock(&lock.to_text())
    }
}
