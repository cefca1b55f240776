//! What runs have left behind, run by run. A run that a living process works on is never touched:
//! its lock is held while its leftovers are ended.

use super::folder::{RunFolder, lock_of};
use super::history;
use crate::journal::{LockError, RunLock};
use crate::process::reaper::{self, Leftover, Reaped, Survey};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long leftovers may take to end when told to, before they are killed.
const GRACE: Duration = Duration::from_secs(5);

/// What a run has left, or had.
#[derive(Debug, Clone, Serialize)]
pub struct RunRemains {
    /// The run's name.
    pub run: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What was found.
    pub found: Vec<Leftover>,
    /// What is still there.
    pub left: Vec<Leftover>,
}

impl RunRemains {
    fn of(folder: PathBuf, reaped: Reaped) -> Option<Self> {
        let run = folder.file_name()?.to_string_lossy().into_owned();
        (!reaped.found.is_empty()).then_some(Self {
            run,
            folder,
            found: reaped.found,
            left: reaped.left,
        })
    }
}

/// Finds what is left of runs below `out` that are not live; ends nothing.
pub fn find(out: &Path) -> Vec<RunRemains> {
    let idle = history::list(out)
        .into_iter()
        .filter(|run| !super::folder::is_live(run));
    let survey = Survey::now();
    let look = |run: PathBuf| {
        let found = survey.leftovers(&run);
        let left = found.clone();
        RunRemains::of(run, Reaped { found, left })
    };
    idle.filter_map(look).collect()
}

/// Ends what is left of runs below `out` that are not live.
///
/// # Errors
/// If a run's lock cannot be used.
pub fn end(out: &Path) -> Result<Vec<RunRemains>, LockError> {
    let mut all = Vec::new();
    for run in find(out).into_iter().map(|remains| remains.folder) {
        match RunLock::acquire(&lock_of(&run)) {
            Ok(_lock) => {
                let reaped = reaper::end(&run, GRACE);
                all.extend(RunRemains::of(run, reaped));
            }
            Err(LockError::Held { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Ends what is left of a run that this process is about to go on with.
pub fn end_of(run: &RunFolder) -> Reaped {
    reaper::end(run.path(), GRACE)
}
