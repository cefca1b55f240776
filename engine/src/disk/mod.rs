//! Every change that the engine makes on disk, one function each.
//!
//! The store, the journals and the folders of runs change the disk through here and in no other
//! way. So it can be seen in which order names and contents reach the disk, and tests can
//! [`watch`] that: they cut the power between any two changes, or fill the disk. What steps write
//! themselves, and all reading, goes past this module, which knows nothing of stores and runs.

mod watch;

pub use watch::{Operation, Watch, Watcher, watch};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use watch::perform;

/// What to say, and to do, when [`is_full`].
pub const FULL: &str =
    "no space is left; free some with `benchwright gc`, or choose another disk with `--out`";

/// Whether a change failed because the disk or the quota is full.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// A file open for writing.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
}

impl File {
    /// Creates a file where there is nothing.
    ///
    /// # Errors
    /// What the system says, also if something is there.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().write(true).create_new(true).clone();
        Self::make(path, &options)
    }

    /// Creates a file, or empties the one that is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .clone();
        Self::make(path, &options)
    }

    /// Creates a file where there is nothing, to append to it.
    ///
    /// # Errors
    /// What the system says, also if something is there.
    pub fn create_log(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().append(true).create_new(true).clone();
        Self::make(path, &options)
    }

    /// Opens a file that is there, to append to it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_log(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().append(true))
    }

    /// Opens a file to read and write it, made if missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).clone();
        loop {
            match Self::open(path, &options) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            match Self::make(path, options.clone().create_new(true)) {
                // Another process was quicker.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
    }

    fn make(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        perform(Operation::CreateFile { path }, || Self::open(path, options))
    }

    fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        Ok(Self {
            file: options.open(path)?,
            path: path.to_owned(),
        })
    }

    /// Returns the system's file, to lock it or to read from it.
    pub fn as_file(&self) -> &fs::File {
        &self.file
    }

    /// Returns when content and size are on disk; the file's name may not be.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync_all(&self) -> io::Result<()> {
        perform(Operation::SyncFile { path: &self.path }, || {
            self.file.sync_all()
        })
    }

    /// Like [`sync_all`](Self::sync_all), without the times.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync_data(&self) -> io::Result<()> {
        perform(Operation::SyncFile { path: &self.path }, || {
            self.file.sync_data()
        })
    }

    /// Cuts the file to `size` bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        let path = &self.path;
        perform(Operation::SetLength { path, size }, || {
            self.file.set_len(size)
        })
    }
}

impl Write for File {
    /// Writes all of `bytes` or fails.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let path = &self.path;
        perform(Operation::Append { path, bytes }, || {
            self.file.write_all(bytes)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a folder in one that is there.
///
/// # Errors
/// What the system says, also if something is there.
pub fn create_folder(path: &Path) -> io::Result<()> {
    perform(Operation::CreateFolder { path }, || fs::create_dir(path))
}

/// Makes a folder and those above it; their names need not be on disk when this returns.
///
/// # Errors
/// What the system says.
pub fn create_folders(path: &Path) -> io::Result<()> {
    create_missing(path, &|_| Ok(()))
}

/// Makes a folder and those above it; the names of all that were missing are on disk when this
/// returns.
///
/// # Errors
/// What the system says.
pub fn create_folders_synced(path: &Path) -> io::Result<()> {
    create_missing(path, &sync_folder)
}

fn create_missing(path: &Path, made_in: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, NotFound};
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let made = match (create_folder(path), parent) {
        (Err(error), Some(parent)) if error.kind() == NotFound => {
            create_missing(parent, made_in)?;
            create_folder(path)
        }
        (other, _) => other,
    };
    match made {
        Ok(()) => parent.map_or(Ok(()), made_in),
        Err(error) if error.kind() == AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file, in place of what it held; its content is on disk when this returns, its name may
/// not be.
///
/// # Errors
/// What the system says.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Returns when the content of the file at `path` is on disk.
///
/// # Errors
/// What the system says.
pub fn sync_file(path: &Path) -> io::Result<()> {
    perform(Operation::SyncFile { path }, || {
        fs::File::open(path)?.sync_all()
    })
}

/// Returns when the names in the folder are on disk.
///
/// # Errors
/// What the system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    perform(Operation::SyncFolder { path }, || {
        fs::File::open(path)?.sync_all()
    })
}

/// Renames a file or folder, in place of what has the new name.
///
/// # Errors
/// What the system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    perform(Operation::Rename { from, to }, || fs::rename(from, to))
}

/// Renames a file or folder unless something has the new name: an error of the kind
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) or, for a folder,
/// [`DirectoryNotEmpty`](io::ErrorKind::DirectoryNotEmpty).
///
/// File systems that cannot do this in one go replace what is there, unless it is a folder that is
/// not empty.
///
/// # Errors
/// What the system says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    perform(Operation::Rename { from, to }, || {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(from, to),
            other => Ok(other?),
        }
    })
}

/// Gives a file a second name.
///
/// # Errors
/// What the system says.
pub fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    perform(Operation::Link { from, to }, || fs::hard_link(from, to))
}

/// Copies a file with its permissions.
///
/// # Errors
/// What the system says.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    perform(Operation::Copy { from, to }, || {
        fs::copy(from, to).map(|_| ())
    })
}

/// Makes a symbolic link at `path` that points to `target`.
///
/// # Errors
/// What the system says.
pub fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    perform(Operation::Symlink { target, path }, || {
        std::os::unix::fs::symlink(target, path)
    })
}

/// Sets when a file was modified last, and its permissions.
///
/// # Errors
/// What the system says.
pub fn set_attributes(path: &Path, modified: SystemTime, mode: u32) -> io::Result<()> {
    perform(Operation::SetAttributes { path }, || {
        fs::File::open(path)?.set_modified(modified)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    })
}

/// Removes a file or a link.
///
/// # Errors
/// What the system says, also if nothing is there.
pub fn remove_file(path: &Path) -> io::Result<()> {
    perform(Operation::Remove { path }, || fs::remove_file(path))
}

/// Removes a file, or a folder with everything in it, whatever the permissions of the folders.
/// Nothing being there is as good.
///
/// # Errors
/// What the system says.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    perform(Operation::Remove { path }, || {
        remove(path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                open_up(path);
                remove(path)
            }
            _ => Err(error),
        })
    })
}

/// Makes the folders below `path` writable to their owner, as far as that is allowed.
fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
