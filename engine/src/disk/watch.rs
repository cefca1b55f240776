//! Who looks on while the engine changes the disk: a recorder, or a disk that is full.
//!
//! A watcher is attached to a folder and is asked about every change below it, in the order in
//! which they happen. While nobody watches, this costs one load of an atomic number.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A change on disk that is about to happen.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// A folder is made.
    CreateFolder {
        /// Its path.
        path: &'a Path,
    },
    /// A file is made, or emptied if it was there.
    CreateFile {
        /// Its path.
        path: &'a Path,
    },
    /// Bytes are appended to a file.
    Append {
        /// The file.
        path: &'a Path,
        /// What is appended.
        bytes: &'a [u8],
    },
    /// A file is cut.
    SetLength {
        /// The file.
        path: &'a Path,
        /// Its new size, bytes.
        size: u64,
    },
    /// A file's time of modification, or its permissions, are set.
    SetAttributes {
        /// The file.
        path: &'a Path,
    },
    /// What a file holds is brought to the disk. Its name is not.
    SyncFile {
        /// The file.
        path: &'a Path,
    },
    /// The names in a folder are brought to the disk.
    SyncFolder {
        /// The folder.
        path: &'a Path,
    },
    /// A file or folder gets another name, in place of what had it.
    Rename {
        /// The old name.
        from: &'a Path,
        /// The new one.
        to: &'a Path,
    },
    /// A file gets a second name.
    Link {
        /// The first.
        from: &'a Path,
        /// The second.
        to: &'a Path,
    },
    /// A file is copied, with its permissions.
    Copy {
        /// The file.
        from: &'a Path,
        /// The copy.
        to: &'a Path,
    },
    /// A symbolic link is made.
    Symlink {
        /// Where it points.
        target: &'a Path,
        /// Its path.
        path: &'a Path,
    },
    /// A file, or a folder with everything in it, is removed.
    Remove {
        /// Its path.
        path: &'a Path,
    },
}

impl<'a> Operation<'a> {
    /// Returns what changes: of two names, the one that there was not before.
    pub fn path(&self) -> &'a Path {
        match self {
            Self::CreateFolder { path }
            | Self::CreateFile { path }
            | Self::Append { path, .. }
            | Self::SetLength { path, .. }
            | Self::SetAttributes { path }
            | Self::SyncFile { path }
            | Self::SyncFolder { path }
            | Self::Symlink { path, .. }
            | Self::Remove { path } => path,
            Self::Rename { to, .. } | Self::Link { to, .. } | Self::Copy { to, .. } => to,
        }
    }
}

/// Looks on while the engine changes the disk.
pub trait Watcher: Send + Sync {
    /// Lets `change` happen by calling it, or refuses it with an error.
    ///
    /// Is called by many threads; a watcher that keeps the order of changes holds a lock meanwhile.
    ///
    /// # Errors
    /// What the change comes to, or the refusal.
    fn around(
        &self,
        operation: &Operation<'_>,
        change: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()>;
}

struct Attached {
    below: PathBuf,
    watcher: Arc<dyn Watcher>,
}

static N_ATTACHED: AtomicUsize = AtomicUsize::new(0);
static ATTACHED: Mutex<Vec<Arc<Attached>>> = Mutex::new(Vec::new());

fn attached() -> MutexGuard<'static, Vec<Arc<Attached>>> {
    ATTACHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks `watcher` about every change below the folder `below`, an absolute path, until the guard
/// that is returned is dropped.
pub fn watch(below: &Path, watcher: Arc<dyn Watcher>) -> Watch {
    let one = Arc::new(Attached {
        below: below.to_owned(),
        watcher,
    });
    attached().push(one.clone());
    N_ATTACHED.fetch_add(1, Ordering::SeqCst);
    Watch(one)
}

/// Detaches a watcher when dropped.
pub struct Watch(Arc<Attached>);

impl Drop for Watch {
    fn drop(&mut self) {
        attached().retain(|one| !Arc::ptr_eq(one, &self.0));
        N_ATTACHED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Performs a change under the eyes of whoever watches its path.
pub(super) fn perform<T>(
    operation: Operation<'_>,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    if N_ATTACHED.load(Ordering::Relaxed) == 0 {
        return change();
    }
    let found = attached()
        .iter()
        .find(|one| operation.path().starts_with(&one.below))
        .cloned();
    match found {
        Some(one) => under_eyes(&*one.watcher, &operation, change),
        None => change(),
    }
}

fn under_eyes<T>(
    watcher: &dyn Watcher,
    operation: &Operation<'_>,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let (mut change, mut done) = (Some(change), None);
    watcher.around(operation, &mut || {
        if let Some(change) = change.take() {
            done = Some(change()?);
        }
        Ok(())
    })?;
    done.ok_or_else(|| io::Error::other("whoever watches the disk did not let it happen"))
}

#[cfg(test)]
mod tests {
    use super::super::{self as disk};
    use super::*;
    use std::io::Write;

    /// Counts, and refuses what comes after the second operation.
    #[derive(Default)]
    struct Strict(Mutex<Vec<String>>);

    impl Watcher for Strict {
        fn around(
            &self,
            operation: &Operation<'_>,
            change: &mut dyn FnMut() -> io::Result<()>,
        ) -> io::Result<()> {
            let mut seen = self.0.lock().unwrap();
            if seen.len() == 2 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let text = format!("{operation:?}");
            seen.push(text.split(' ').next().unwrap_or_default().to_owned());
            change()
        }
    }

    #[test]
    fn a_watcher_sees_what_happens_below_its_folder_and_may_refuse_it() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let strict = Arc::new(Strict::default());
        let watch = watch(folders[0].path(), strict.clone());
        disk::create_folder(&folders[1].path().join("elsewhere")).unwrap();
        let path = folders[0].path().join("f");
        let mut file = disk::File::create_new(&path).unwrap();
        file.write_all(b"x").unwrap();
        let error = file.sync_all().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(*strict.0.lock().unwrap(), ["CreateFile", "Append"]);
        drop(watch);
        file.sync_all().unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"x");
    }
}
