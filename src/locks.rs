//! Lock files for commands: made from a plan, read, compared, and told of in words.

use crate::exit::{self, Failure};
use crate::outputs::{self, Peek};
use crate::render;
use crate::terminal::{self, Terminal};
use crate::words;
use engine::decide::Ledger;
use engine::environment::Environment;
use engine::expand::Expanded;
use engine::freshness::Wish;
use engine::lock::{Difference, Lock, Subject};
use std::path::Path;
use std::sync::Arc;

/// How many differences are listed; of the others only the count is said.
const SHOWN: usize = 20;
/// Where a value is cut, in characters.
const MAX_VALUE: usize = 60;

/// Pins what a plan resolves to, and the results of it that are in the store.
pub(crate) fn of_plan(expanded: &Expanded, peek: &Peek) -> Result<Lock, Failure> {
    let (graph, store) = (&expanded.graph, &peek.store);
    let environment = Arc::new(Environment::detect());
    let mut ledger = Ledger::new(
        graph.clone(),
        store.clone(),
        environment.clone(),
        expanded.text.clone(),
        Wish::Enough,
    );
    let failure = |error: engine::store::StoreError| Failure::new(error.to_string());
    ledger.assess().map_err(failure)?;
    let subject = Subject {
        graph,
        text: &expanded.text,
        store,
        environment: &environment,
    };
    Lock::of_plan(&subject, &ledger).map_err(failure)
}

/// Reads a lock file; `mend` says how one comes to be.
pub(crate) fn read(file: &Path, mend: &str) -> Result<Lock, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("could not read the lock file `{shown}`: {error}")).help(mend)
    })?;
    Lock::read(&text)
        .map_err(|error| Failure::new(format!("`{shown}` is no lock file: {error}")).help(mend))
}

/// Reads what the run in `folder` resolved to.
pub(crate) fn of_run(folder: &Path) -> Result<Lock, Failure> {
    let file = engine::run::folder::lock_file_of(folder);
    read(
        &file,
        "it is written when a run ends; `benchwright resume` ends it",
    )
}

/// Draws in what a plan differs from a lock file; returns whether it does.
pub(crate) fn is_other(
    title: &str,
    differences: &[Difference],
    mend: &str,
    terminal: &Terminal,
) -> bool {
    if differences.is_empty() {
        return false;
    }
    let mut message = title.to_owned();
    for difference in differences.iter().take(SHOWN) {
        message.push_str(&format!("\n  {}", line(difference)));
    }
    if differences.len() > SHOWN {
        message.push_str(&format!("\n  and {} more", differences.len() - SHOWN));
    }
    let failure = Failure::new(message).help(mend);
    terminal::error_line(render::failure(&failure, terminal));
    true
}

/// Writes a value on one line, and of a digest as much as tells it from others.
fn value(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let max = if is_digest { 12 } else { MAX_VALUE };
    format!("`{}`", words::cut(text, max))
}

/// Says where a difference is and what both sides have.
fn line(difference: &Difference) -> String {
    let Difference {
        node,
        field,
        locked,
        found,
    } = difference;
    let place = match (node, field.as_str()) {
        (Some(node), "") => format!("`{node}`"),
        (Some(node), field) => format!("`{node}`: `{field}`"),
        (None, field) => format!("`{field}`"),
    };
    match (locked, found) {
        (Some(locked), Some(found)) => {
            format!(
                "{place} is locked as {}, found {}",
                value(locked),
                value(found)
            )
        }
        (None, Some(found)) => format!("{place} is not locked, found {}", value(found)),
        (Some(locked), None) => format!("{place} is locked as {}, and is not there", value(locked)),
        (None, None) => place,
    }
}

/// What a plan must agree with to run.
pub(crate) struct Pinned {
    lock: Lock,
    /// The lock file as it is called in messages.
    shown: String,
    mend: String,
}

impl Pinned {
    /// Reads the lock file of a run; a lock file that is not there is a mistake of the command line.
    pub(crate) fn read(file: &Path, plan: &Path, terminal: &Terminal) -> Result<Self, u8> {
        let again = format!(
            "benchwright lock {}",
            words::shell(&plan.display().to_string())
        );
        let mend = format!("`{again}` pins what there is now");
        match read(file, &mend) {
            Ok(lock) => Ok(Self {
                lock,
                shown: file.display().to_string(),
                mend,
            }),
            Err(failure) => {
                terminal::error_line(render::failure(&failure, terminal));
                Err(exit::UNSOUND)
            }
        }
    }

    /// Refuses a plan that is not as it is pinned.
    pub(crate) fn admits(
        &self,
        expanded: &Expanded,
        out: &Path,
        terminal: &Terminal,
    ) -> Result<bool, Failure> {
        let now = of_plan(expanded, &outputs::peek(out)?)?;
        let title = format!("the plan is not as `{}` pins it; nothing ran", self.shown);
        let differences = self.lock.differences(&now);
        Ok(!is_other(&title, &differences, &self.mend, terminal))
    }

    /// Looks whether a run has brought what is pinned; returns whether it has.
    pub(crate) fn is_met(&self, run: &Path, terminal: &Terminal) -> Result<bool, Failure> {
        let title = format!(
            "the run has brought other results than `{}` pins",
            self.shown
        );
        let strays = self.lock.strays(&of_run(run)?);
        Ok(!is_other(&title, &strays, &self.mend, terminal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_where_it_is_and_what_both_sides_have() {
        let difference =
            |node: Option<&str>, field: &str, locked: Option<&str>, found: Option<&str>| {
                line(&Difference {
                    node: node.map(Into::into),
                    field: field.into(),
                    locked: locked.map(Into::into),
                    found: found.map(Into::into),
                })
            };
        assert_eq!(
            difference(Some("load"), "with.seed", Some("1"), Some("2")),
            "`load`: `with.seed` is locked as `1`, found `2`"
        );
        assert_eq!(
            difference(Some("load"), "", None, Some("load.test")),
            "`load` is not locked, found `load.test`"
        );
        assert_eq!(
            difference(None, "params.layers", Some("2"), None),
            "`params.layers` is locked as `2`, and is not there"
        );
    }
}
