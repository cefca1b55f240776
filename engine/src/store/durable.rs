//! Operations on files that are all or nothing, also across a crash. Knows nothing of stores.

use super::{StoreError, lock};
use crate::disk;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How much is read at once when hashing and copying, in bytes.
const BUFFER: usize = 1 << 20;

/// What became of a file that was to get a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// It has it.
    Here,
    /// Something had it before, and keeps it.
    ThereAlready,
}

/// Creates `path` and the folders above it, each one on disk in its parent when this returns.
pub(super) fn create_folders(path: &Path) -> Result<(), StoreError> {
    disk::create_folders_synced(path).map_err(StoreError::on("create the folder", path))
}

/// Folders whose names are on disk, as far as this process has seen to it.
///
/// That a folder is there does not say so: who made it may have died before syncing.
#[derive(Debug, Default)]
pub(super) struct SyncedFolders(Mutex<HashSet<PathBuf>>);

impl SyncedFolders {
    /// Creates `folder` and those between it and `root`, each one on disk in its parent when this
    /// returns. The name of `root` is so already.
    pub(super) fn create(&self, root: &Path, folder: &Path) -> Result<(), StoreError> {
        if folder == root || lock(&self.0).contains(folder) {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(root);
        self.create(root, parent)?;
        match disk::create_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::on("create the folder", folder)(error));
            }
            _ => sync_folder(parent)?,
        }
        lock(&self.0).insert(folder.to_owned());
        Ok(())
    }
}

/// Returns when the names in `folder` are on disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    disk::sync_folder(folder).map_err(StoreError::on("sync the folder", folder))
}

/// Writes a new file and returns when its content is on disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    disk::write_synced(path, bytes).map_err(StoreError::on("write", path))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::rename(from, to).map_err(renaming(from, to))
}

/// Renames `from` to `to` unless something is there; then `from` stays as it is.
///
/// On file systems that cannot do this in one go, what is there is replaced instead. That is as
/// good for content-addressed files, which are equal, and fails for folders that are not empty.
pub(super) fn publish(from: &Path, to: &Path) -> Result<Published, StoreError> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty};
    match disk::rename_new(from, to) {
        Ok(()) => Ok(Published::Here),
        Err(error) if matches!(error.kind(), AlreadyExists | DirectoryNotEmpty) => {
            Ok(Published::ThereAlready)
        }
        Err(error) => Err(renaming(from, to)(error)),
    }
}

fn renaming(from: &Path, to: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let action = format!("rename `{}` to `{}`", from.display(), to.display());
    move |source| StoreError::io(action, source)
}

/// Reads all of `source`, writing what it reads to `sink`; returns the digest and the size.
///
/// Holds 1 MiB of it at a time.
pub(super) fn pour(mut source: impl Read, mut sink: impl Write) -> io::Result<(blake3::Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finalize(), hasher.count())),
            Ok(n_read) => {
                hasher.update(&buffer[..n_read]);
                sink.write_all(&buffer[..n_read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a file, or a folder with everything in it, whatever the permissions of the folders.
pub(super) fn remove_all(path: &Path) -> Result<(), StoreError> {
    disk::remove_all(path).map_err(StoreError::on("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn publishing_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert_eq!(publish(&from, &to).unwrap(), Published::ThereAlready);
        assert_eq!(
            (fs::read(&from).unwrap(), fs::read(&to).unwrap()),
            (b"new".to_vec(), b"old".to_vec())
        );
        fs::remove_file(&to).unwrap();
        assert_eq!(publish(&from, &to).unwrap(), Published::Here);
        let error = publish(&from, &to).unwrap_err().to_string();
        assert!(
            error.contains(&format!(
                "rename `{}` to `{}`",
                from.display(),
                to.display()
            )),
            "{error}"
        );
    }

    #[test]
    fn pouring_counts_and_hashes_across_buffers() {
        let source: Vec<u8> = (0..3 * BUFFER + 17).map(|i| (i * 31 % 251) as u8).collect();
        let mut sink = Vec::new();
        let (hash, size) = pour(&source[..], &mut sink).unwrap();
        assert_eq!((hash, size), (blake3::hash(&source), source.len() as u64));
        assert_eq!(sink, source);
    }
}
