//! `benchwright gc`: makes room, by age and size, without touching what is needed.

use super::Session;
use crate::args::Gc;
use crate::columns::Columns;
use crate::exit::{self, Failure};
use crate::terminal::{self, Terminal};
use crate::{outputs, words};
use engine::run::prune::{PruneOptions, PruneReport, artifacts_shown, prune};
use engine::store::{Freed, GcOptions, GcReport, Roots, StoreError};
use serde_json::json;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Removes old runs that were asked for, then what no run, sample or cached result needs.
pub(super) fn gc(arguments: &Gc, session: &Session) -> Result<u8, Failure> {
    if !session.out.join("store").is_dir() {
        return Err(Failure::new(format!(
            "there is no store in `{}`",
            session.out.display()
        )));
    }
    let runs = prune(
        &session.out,
        &PruneOptions {
            keep_last: arguments.keep_runs,
            max_age: arguments.runs_max_age,
            dry_run: arguments.dry_run,
        },
    );
    let store = outputs::open(&session.out)?;
    let options = GcOptions {
        grace: arguments.grace,
        max_age: arguments.max_age,
        max_size: arguments.max_size,
        samples_max_age: arguments.samples_max_age,
        dry_run: arguments.dry_run,
    };
    let swept = store
        .gc(|| roots(&runs, &session.out), &options)
        .map_err(|error| refused(&error))?;
    if arguments.json {
        terminal::line(json!({ "runs": runs, "store": swept }));
    } else {
        show(&runs, &swept, &session.terminal);
    }
    let trouble = runs.trouble.len() + swept.trouble.len();
    Ok(if trouble == 0 {
        exit::DONE
    } else {
        exit::FAILED
    })
}

/// What the runs that stay show is needed, those too that were begun since the others were removed.
fn roots(runs: &PruneReport, out: &Path) -> Roots {
    let now = std::fs::read_dir(out.join("runs")).into_iter().flatten();
    let now = now.flatten().map(|entry| entry.path());
    let goes = |path: &PathBuf| {
        let name = path.file_name();
        let removed = runs.removed.iter().map(|run| OsStr::new(&run.run));
        removed.map(Some).any(|removed| removed == name)
    };
    let kept = now.filter(|path| !goes(path)).chain(runs.kept.clone());
    Roots {
        artifacts: kept.flat_map(|run| artifacts_shown(&run)).collect(),
        ..Roots::default()
    }
}

fn refused(error: &StoreError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        StoreError::InUse { .. } => {
            failure.help("wait for the run, or stop it; `benchwright status` says which it is")
        }
        _ => failure,
    }
}

fn show(runs: &PruneReport, swept: &GcReport, terminal: &Terminal) {
    let run_bytes = runs.removed.iter().map(|run| run.bytes).sum();
    let freed_runs = Freed {
        count: runs.removed.len() as u64,
        bytes: run_bytes,
    };
    let mut columns = Columns::default();
    for (what, freed) in [
        ("runs", freed_runs),
        ("cached results", swept.actions),
        ("samples", swept.samples),
        ("trees", swept.trees),
        ("files by content", swept.blobs),
        ("leftovers of processes that died", swept.unfinished),
    ] {
        if freed.count > 0 {
            let count = freed.count.to_string();
            columns.row(vec![
                what.into(),
                count.into(),
                words::bytes(freed.bytes).into(),
            ]);
        }
    }
    columns
        .lines("  ", terminal.color)
        .iter()
        .for_each(terminal::line);
    let all = words::bytes(swept.bytes() + run_bytes);
    let left = words::bytes(swept.kept_bytes);
    terminal::line(match swept.dry_run {
        true => format!("{all} would be freed, {left} would stay; nothing was removed"),
        false => format!("{all} freed, {left} stay"),
    });
    for trouble in runs.trouble.iter().chain(&swept.trouble) {
        terminal::error_line(format!("could not remove: {trouble}"));
    }
}
