//! Removing folders of runs, and which artifacts those that stay show.
//!
//! A run that somebody works on stays, and so does the one to which `latest` leads. Artifacts are
//! in the store and outlive the folders that show them.

use super::RunError;
use super::folder::{self, journal_of};
use crate::disk;
use crate::journal::RunLock;
use crate::store::Digest;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Begins the names of folders whose removal has begun.
const REMOVED: &str = ".removed-";

/// Which runs to remove: those that meet every condition that is given. Without one, none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// The newest of all runs stay, so many.
    pub keep_last: Option<usize>,
    /// Runs in which something happened within this time stay.
    pub max_age: Option<Duration>,
    /// Whether to remove nothing and only say what would be.
    pub dry_run: bool,
}

/// A run that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunedRun {
    /// Its name.
    pub run: String,
    /// How much room it took, bytes.
    pub bytes: u64,
}

/// What became of the runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// The runs that were removed, oldest first.
    pub removed: Vec<PrunedRun>,
    /// The folders of the runs that stay, oldest first.
    pub kept: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub trouble: Vec<String>,
}

/// Removes folders of runs below `out`.
pub fn prune(out: &Path, options: &PruneOptions) -> PruneReport {
    let mut report = PruneReport {
        dry_run: options.dry_run,
        ..PruneReport::default()
    };
    let runs = folders(&out.join("runs"), &mut report);
    let latest = fs::canonicalize(out.join("latest")).ok();
    let n_runs = runs.len();
    for (i, run) in runs.into_iter().enumerate() {
        let is_latest = latest.is_some() && fs::canonicalize(&run).ok() == latest;
        let goes = !is_latest && is_unwanted(&run, n_runs - i, options);
        match goes.then(|| remove(&run, options)) {
            Some(Ok(Some(pruned))) => report.removed.push(pruned),
            Some(Err(error)) => {
                report.trouble.push(error.to_string());
                report.kept.push(run);
            }
            Some(Ok(None)) | None => report.kept.push(run),
        }
    }
    report
}

/// Lists the folders of runs, oldest first, and finishes removals that were cut off.
fn folders(runs: &Path, report: &mut PruneReport) -> Vec<PathBuf> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found.retain(|path| {
        let is_half_removed = folder::file_name(path).starts_with(REMOVED);
        if is_half_removed && !report.dry_run {
            report
                .trouble
                .extend(remove_folder(path).err().map(|e| e.to_string()));
        }
        !is_half_removed && path.is_dir()
    });
    found
}

/// Whether a run meets the conditions; `place` is 1 for the newest run.
fn is_unwanted(run: &Path, place: usize, options: &PruneOptions) -> bool {
    let is_beyond = options.keep_last.is_none_or(|n| place > n);
    let is_old = options.max_age.is_none_or(|age| {
        let changed = last_change(run).and_then(|at| SystemTime::now().duration_since(at).ok());
        changed.is_some_and(|since| since > age)
    });
    let is_asked = options.keep_last.is_some() || options.max_age.is_some();
    is_asked && is_beyond && is_old
}

/// Returns when something happened in a run last; one that was cut off early has no journal.
fn last_change(run: &Path) -> Option<SystemTime> {
    let data = fs::metadata(journal_of(run)).or_else(|_| fs::metadata(run));
    data.ok()?.modified().ok()
}

/// Removes a run unless somebody works on it. Its name goes at once, so that nobody finds a half.
fn remove(run: &Path, options: &PruneOptions) -> Result<Option<PrunedRun>, RunError> {
    if folder::is_live(run) {
        return Ok(None);
    }
    let pruned = PrunedRun {
        run: folder::file_name(run),
        bytes: size(run),
    };
    if options.dry_run {
        return Ok(Some(pruned));
    }
    // Somebody may have begun to go on with it this moment.
    let Ok(_lock) = RunLock::acquire(&run.join(folder::LOCK)) else {
        return Ok(None);
    };
    let aside = run.with_file_name(format!("{REMOVED}{}", pruned.run));
    disk::rename(run, &aside).map_err(RunError::on(run))?;
    remove_folder(&aside)?;
    Ok(Some(pruned))
}

fn remove_folder(path: &Path) -> Result<(), RunError> {
    disk::remove_all(path).map_err(RunError::on(path))
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Returns the artifacts that the results of a run lead to: what the store must keep for it.
pub fn artifacts_shown(run: &Path) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    let mut open = vec![run.join("results")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_symlink() => found.extend(artifact_of(&path)),
                _ => {}
            }
        }
    }
    found
}

/// Returns the artifact that a link leads to: a part of its path is the digest.
fn artifact_of(link: &Path) -> Option<Digest> {
    let target = fs::read_link(link).ok()?;
    let mut names = target.iter().filter_map(|name| name.to_str());
    names.find_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes runs of which each is a day older than the next; returns the folder of outputs.
    fn runs(names: &[&str]) -> tempfile::TempDir {
        let out = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            let run = out.path().join("runs").join(name);
            fs::create_dir_all(&run).unwrap();
            fs::write(journal_of(&run), "0123456789").unwrap();
            let days = u32::try_from(names.len() - i).unwrap();
            let then = SystemTime::now() - Duration::from_secs(86_400) * days;
            fs::File::open(journal_of(&run))
                .unwrap()
                .set_modified(then)
                .unwrap();
        }
        out
    }

    fn pruned(out: &Path, options: &PruneOptions) -> Vec<String> {
        let report = prune(out, options);
        assert!(report.trouble.is_empty(), "{report:?}");
        report.removed.into_iter().map(|run| run.run).collect()
    }

    #[test]
    fn old_runs_beyond_the_last_go_and_none_without_a_condition() {
        let out = runs(&["1", "2", "3", "4"]);
        let nothing = PruneOptions::default();
        assert!(pruned(out.path(), &nothing).is_empty());
        let both = PruneOptions {
            keep_last: Some(1),
            max_age: Some(Duration::from_secs(86_400 * 5 / 2)),
            dry_run: true,
        };
        assert_eq!(pruned(out.path(), &both), ["1", "2"]);
        let both = PruneOptions {
            dry_run: false,
            ..both
        };
        assert_eq!(pruned(out.path(), &both), ["1", "2"]);
        assert!(!out.path().join("runs/1").exists() && out.path().join("runs/3").exists());
        let last = PruneOptions {
            keep_last: Some(1),
            ..nothing
        };
        assert_eq!(pruned(out.path(), &last), ["3"]);
    }

    #[test]
    fn the_latest_and_the_living_stay() {
        let out = runs(&["latest", "living", "other"]);
        std::os::unix::fs::symlink("runs/latest", out.path().join("latest")).unwrap();
        let living = out.path().join("runs/living");
        let lock = RunLock::acquire(&living.join(folder::LOCK)).unwrap();
        let all = PruneOptions {
            keep_last: Some(0),
            ..PruneOptions::default()
        };
        assert_eq!(pruned(out.path(), &all), ["other"]);
        drop(lock);
        assert_eq!(pruned(out.path(), &all), ["living"]);
        assert_eq!(
            prune(out.path(), &all).kept,
            [out.path().join("runs/latest")]
        );
    }

    #[test]
    fn a_removal_that_was_cut_off_is_finished() {
        let out = runs(&["1", ".removed-0"]);
        assert_eq!(super::super::history::list(out.path()).len(), 1);
        prune(out.path(), &PruneOptions::default());
        let left: Vec<_> = fs::read_dir(out.path().join("runs")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn artifacts_are_known_by_the_links_to_them() {
        let out = runs(&["1"]);
        let digest = Digest::of(b"x");
        let node = out.path().join("runs/1/results/load/0");
        fs::create_dir_all(&node).unwrap();
        let target = format!("../../../../../store/trees/{digest}/value.txt");
        std::os::unix::fs::symlink(target, node.join("value.txt")).unwrap();
        let shown = artifacts_shown(&out.path().join("runs/1"));
        assert_eq!(shown, BTreeSet::from([digest]));
    }
}
