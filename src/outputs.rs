//! The folder that everything is kept in: opening its store, finding its runs and their reports.

use crate::exit::Failure;
use engine::library::Library;
use engine::run::RunError;
use engine::run::folder::file_safe;
use engine::run::history::{self, History};
use engine::store::{Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kind of artifact that is a folder with a `report.html`.
pub(crate) const PAGE: &str = "page";

/// Opens the store to write to it; creates what is missing.
pub(crate) fn open(out: &Path) -> Result<Arc<Store>, Failure> {
    Store::open(&out.join("store"))
        .map(Arc::new)
        .map_err(|error| unusable(out, &error))
}

/// A store to look into, which leaves no trace where there was none.
pub(crate) struct Peek {
    /// The store.
    pub(crate) store: Arc<Store>,
    /// Removed with this value.
    _scratch: Option<tempfile::TempDir>,
}

/// Opens the store to look into it; an empty one if there is none.
pub(crate) fn peek(out: &Path) -> Result<Peek, Failure> {
    if out.join("store").is_dir() {
        return Ok(Peek {
            store: open(out)?,
            _scratch: None,
        });
    }
    let scratch = tempfile::tempdir()
        .map_err(|e| Failure::new(format!("could not create a temporary folder: {e}")))?;
    let store = Store::open(scratch.path()).map_err(|error| unusable(scratch.path(), &error))?;
    Ok(Peek {
        store: Arc::new(store),
        _scratch: Some(scratch),
    })
}

fn unusable(out: &Path, error: &StoreError) -> Failure {
    let why = match error {
        StoreError::NotWritable { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Failure::new(format!(
        "cannot write to the output folder `{}`: {why}",
        out.display()
    ))
    .help("choose another folder with `--out DIR`, or make this one writable")
}

/// Turns an error of a run's own files into words.
pub(crate) fn run_failure(out: &Path, error: &RunError) -> Failure {
    match error {
        RunError::Folder { path, source } => Failure::new(format!("could not use `{}`: {source}", path.display()))
            .help(format!("look at the permissions and the free space of `{}`, or choose another folder with `--out DIR`", out.display())),
        RunError::InUse { .. } => Failure::new(error.to_string()).help("`benchwright status` shows what it is doing; wait for it or stop it"),
        RunError::PortInUse { .. } => Failure::new(error.to_string()).help("end what uses it, then `benchwright resume`; or remove `port` from the plan to take any free one"),
        other => Failure::new(other.to_string()),
    }
}

/// Finds the run that `name` means and reads its history.
pub(crate) fn history(out: &Path, name: Option<&str>) -> Result<History, Failure> {
    let folder = history::find(out, name).map_err(Failure::new)?;
    history::load(&folder).map_err(|error| run_failure(out, &error))
}

/// Lists the reports of a run: every artifact of its steps that is a page.
pub(crate) fn reports(run: &History, library: &Library) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for node in &run.nodes {
        let Some(entry) = library.find_step(&node.node.uses) else {
            continue;
        };
        let folder = run.folder.join("results").join(file_safe(&node.node.node));
        let pages = entry
            .outputs
            .iter()
            .filter(|o| o.kind == PAGE)
            .map(|o| folder.join(o.file).join("report.html"));
        found.extend(pages.filter(|page| page.is_file()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_leaves_no_trace_where_nothing_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("outputs");
        drop(peek(&out).expect("a store"));
        assert!(!out.exists());
        drop(open(&out).expect("a store"));
        assert!(out.join("store").is_dir());
    }

    #[test]
    fn an_output_folder_that_is_a_file_is_named_with_the_mend() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("outputs");
        std::fs::write(&out, "").expect("a file");
        let failure = open(&out).expect_err("a file is no folder");
        assert!(
            failure.message.contains(&format!("`{}`", out.display())),
            "{}",
            failure.message
        );
        assert!(failure.help.is_some_and(|help| help.contains("--out DIR")));
    }
}
