//! Everything below a folder of the store, for those who look after it.
//!
//! What vanishes meanwhile was not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Lists the files and links below `folder`, sorted.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for (path, is_folder) in entries(&folder) {
            if is_folder {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Checks that every folder below `folder` can be listed, so that [`files`] leaves nothing out.
///
/// # Errors
/// The first that cannot be.
pub(super) fn check(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let listed = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err((folder, error)),
        };
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((entry.path(), error)),
            }
        }
    }
    Ok(())
}

/// Lists what lies in `folder` itself, with whether it is a folder, sorted.
pub(super) fn entries(folder: &Path) -> Vec<(PathBuf, bool)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(PathBuf, bool)> = entries
        .map(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            (entry.path(), is_folder)
        })
        .collect();
    found.sort();
    found
}
