//! Operations on files that are all or nothing, also across a crash. Knows nothing of stores.

use super::StoreError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

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
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    create_folders(parent)?;
    match fs::create_dir(path) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(StoreError::on("create the folder", path)(error)),
    }
}

/// Returns when the names in `folder` are on disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::on("sync the folder", folder))
}

/// Writes a new file and returns when its content is on disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::on("write", path))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(renaming(from, to))
}

/// Renames `from` to `to` unless something is there; then `from` stays as it is.
///
/// On file systems that cannot do this in one go, what is there is replaced instead. That is as
/// good for content-addressed files, which are equal, and fails for folders that are not empty.
pub(super) fn publish(from: &Path, to: &Path) -> Result<Published, StoreError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Published::Here),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Published::ThereAlready),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::rename(from, to) {
            Ok(()) => Ok(Published::Here),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Ok(Published::ThereAlready)
            }
            Err(error) => Err(renaming(from, to)(error)),
        },
        Err(error) => Err(renaming(from, to)(error.into())),
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
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    let removed = remove(path).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            open_up(path);
            remove(path)
        }
        _ => Err(error),
    });
    removed.map_err(StoreError::on("remove", path))
}

/// Makes the folders below `path` writable to their owner, as far as that is allowed.
fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
