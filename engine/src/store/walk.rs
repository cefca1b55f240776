//! Everything below a folder of the store, for those who look after it.
//!
//! What vanishes meanwhile was not there.

use std::fs;
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
