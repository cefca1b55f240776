//! What can go wrong with a store.

use super::scan::{MAX_DEPTH, MAX_ENTRIES};
use crate::disk;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be used.
    #[error("could not {action}: {source}")]
    Io {
        /// What was tried, with its paths: `rename A to B`.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk or the quota is full.
    #[error("could not {action}: {}", disk::FULL)]
    OutOfSpace {
        /// What was tried, with its paths.
        action: String,
    },
    /// The store's folder cannot be written.
    #[error("the store `{}` cannot be written: {source}; change its permissions, or choose another folder with `--out`", root.display())]
    NotWritable {
        /// The store's folder.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody uses the store, and what was asked needs it alone.
    #[error("the store `{}` is in use by a run; wait until it ends, or stop it", root.display())]
    InUse {
        /// The store's folder.
        root: PathBuf,
    },
    /// Somebody sweeps the store, and takes too long.
    #[error("the store `{}` is being swept by another process; wait until that ends", root.display())]
    BeingSwept {
        /// The store's folder.
        root: PathBuf,
    },
    /// Not all can be read that says what is needed, so nothing can be said to be useless.
    #[error("nothing is removed, because `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The folder or record.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Nothing is at the path.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// What is there cannot be part of an artifact.
    #[error("`{}` {reason}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: Unfit,
    },
    /// The file was written to while it was read.
    #[error("`{}` changes while it is read; end what writes to it first", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A record's key or namespace cannot be the name of a file.
    #[error("`{key}` cannot name a record: {reason}")]
    BadKey {
        /// The key or namespace, cut if it is long.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What keeps a file or folder from being part of an artifact. Each continues a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A link that would mean something else in the store.
    #[error("is a link to `{}`, outside of what is stored; put the file itself there", target.display())]
    EscapingLink {
        /// Where it points.
        target: PathBuf,
    },
    /// A link to nothing.
    #[error("is a link to `{}`, which does not exist", target.display())]
    DanglingLink {
        /// Where it points.
        target: PathBuf,
    },
    /// The artifact itself is a link.
    #[error("is a link; give what it points to")]
    Link,
    /// A socket, a pipe or a device.
    #[error("is neither a file nor a folder")]
    Special,
    /// A name that cannot be written down.
    #[error("has a name that is not UTF-8; rename it")]
    Name,
    /// Too many folders within each other, or links in a circle.
    #[error("lies more than {MAX_DEPTH} folders deep, or links lead in a circle")]
    TooDeep,
    /// More than a manifest can sensibly list.
    #[error("holds more than {MAX_ENTRIES} files; pack them into an archive")]
    TooMany,
}

impl StoreError {
    /// Wraps what the system said about `action` into the variant that it deserves.
    pub(super) fn io(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        match disk::is_full(&source) {
            true => Self::OutOfSpace { action },
            false => Self::Io { action, source },
        }
    }

    /// Returns an adapter for `map_err` on an operation with one path.
    pub(super) fn on(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::io(format!("{verb} `{}`", path.display()), source)
    }

    pub(super) fn unfit(path: &Path, reason: Unfit) -> Self {
        Self::Unfit {
            path: path.to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_its_mend() {
        let error = StoreError::on("write", Path::new("/a/b"))(io::ErrorKind::StorageFull.into());
        assert!(matches!(error, StoreError::OutOfSpace { .. }));
        assert!(
            error
                .to_string()
                .starts_with("could not write `/a/b`: no space is left; free some with")
        );
    }

    #[test]
    fn other_errors_name_the_path_and_the_operation() {
        let error =
            StoreError::on("open", Path::new("/a/b"))(io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            error.to_string(),
            "could not open `/a/b`: permission denied"
        );
    }
}
