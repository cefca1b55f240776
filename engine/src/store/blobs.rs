//! Files by their content: `blobs/ab/<digest>`.
//!
//! A blob is *sealed*: read-only, and last modified at a fixed instant that no clock shows. Trees
//! are hard links to blobs, and a program that runs as root can write to a read-only file; such a
//! write moves the time of modification, so a look at size and time tells whether a blob is still
//! what its name says, without reading it. Knows nothing of artifacts.

use super::durable::{self, Published};
use super::session::Session;
use super::{Digest, StoreError, parallel};
use crate::disk;
use rustix::fs::{FileType, Stat};
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When every sealed file claims to have been modified, in seconds after the epoch. Not zero, which
/// some tools take for "unknown".
const SEAL_S: u64 = 1;
/// Read by all, and executed by all.
const EXECUTABLE: u32 = 0o555;
const READ_ONLY: u32 = 0o444;

fn seal_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(SEAL_S)
}

/// Makes a file read-only and gives it the time that says so.
pub(super) fn seal(path: &Path, executable: bool) -> io::Result<()> {
    let mode = if executable { EXECUTABLE } else { READ_ONLY };
    disk::set_attributes(path, seal_time(), mode)
}

/// Whether `data` is that of a file of `size` bytes that nobody wrote to since it was sealed.
pub(super) fn is_sealed(data: &Metadata, size: u64) -> bool {
    data.is_file() && data.len() == size && data.modified().is_ok_and(|time| time == seal_time())
}

/// The same of what the system itself says of a file.
pub(super) fn is_sealed_stat(stat: &Stat, size: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(size)
        && u64::try_from(stat.st_mtime) == Ok(SEAL_S)
        && stat.st_mtime_nsec == 0
}

/// The blobs of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blobs<'a> {
    pub(super) root: &'a Path,
    pub(super) session: &'a Session,
}

impl Blobs<'_> {
    /// Returns where the blob of this content is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder(digest).join(digest.to_string())
    }

    fn folder(&self, digest: &Digest) -> PathBuf {
        self.root.join(&digest.to_string()[..2])
    }

    /// Whether the blob is there and whole.
    ///
    /// One whose time is not that of the seal is read: if it is what it claims, it is sealed
    /// again, and otherwise moved out of the way. One that is too short is moved away too.
    pub(super) fn is_whole(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let path = self.path(digest);
        let data = match fs::symlink_metadata(&path) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::on("look at", &path)(error)),
        };
        if is_sealed(&data, size) {
            return Ok(true);
        }
        if data.is_file() && data.len() == size && digest_of(&path)?.0 == *digest {
            seal(&path, false).map_err(StoreError::on("seal", &path))?;
            return Ok(true);
        }
        self.discard(digest)?;
        Ok(false)
    }

    /// Moves a damaged blob out of the way; who has it open may go on reading.
    pub(super) fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        match durable::rename(&self.path(digest), &self.session.fresh()) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }

    /// Makes the file at `path` a blob: moves it if it is nobody else's, copies it otherwise.
    ///
    /// The blob's content is on disk when this returns, its name once the returned folder is
    /// [`sync`](Self::sync)ed.
    pub(super) fn adopt(
        &self,
        path: &Path,
        data: &Metadata,
    ) -> Result<(Digest, PathBuf), StoreError> {
        let movable =
            data.nlink() == 1 && fs::metadata(self.root).is_ok_and(|root| root.dev() == data.dev());
        if movable {
            match self.adopt_by_moving(path, data) {
                // One file system may be mounted twice, and there is no renaming across that.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::CrossesDevices => {}
                other => return other,
            }
        }
        // A step that links what another has made brings a file that the store has already.
        if is_sealed(data, data.len()) {
            let (digest, size) = digest_of(path)?;
            if self.is_whole(&digest, size)? {
                return Ok((digest, self.folder(&digest)));
            }
        }
        let (digest, copy) = self.copy(path)?;
        let folder = self.place(&copy, &digest, data.len())?;
        Ok((digest, folder))
    }

    /// Somebody may still write to the file: before it was read that shows in its times, after it
    /// was sealed the seal is broken.
    fn adopt_by_moving(
        &self,
        path: &Path,
        data: &Metadata,
    ) -> Result<(Digest, PathBuf), StoreError> {
        let (digest, size_read) = digest_of(path)?;
        let after = fs::symlink_metadata(path).map_err(StoreError::on("look at", path))?;
        let times = |data: &Metadata| (data.mtime(), data.mtime_nsec(), data.len());
        if size_read != data.len() || times(&after) != times(data) {
            return Err(StoreError::Changing {
                path: path.to_owned(),
            });
        }
        let folder = self.place(&self.own(path)?, &digest, data.len())?;
        Ok((digest, folder))
    }

    /// Stores bytes that are in memory. They and their name are on disk when this returns.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.is_whole(&digest, bytes.len() as u64)? {
            let aside = self.session.fresh();
            durable::write_synced(&aside, bytes)?;
            seal(&aside, false).map_err(StoreError::on("seal", &aside))?;
            self.place(&aside, &digest, bytes.len() as u64)?;
        }
        // Also one that was there: who placed it may not have come to this, or never will.
        self.sync(BTreeSet::from([self.folder(&digest)]))?;
        Ok(digest)
    }

    /// Makes a blob of a copy of the file at `path`, whose digest and size are known.
    pub(super) fn put_copy(
        &self,
        path: &Path,
        digest: &Digest,
        size: u64,
    ) -> Result<(), StoreError> {
        let (_, copy) = self.copy(path)?;
        let folder = self.place(&copy, digest, size)?;
        self.sync(BTreeSet::from([folder]))
    }

    /// Returns when the names in these folders, and the folders' own, are on disk.
    pub(super) fn sync(&self, folders: BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let folders: Vec<PathBuf> = folders.into_iter().chain([self.root.to_owned()]).collect();
        parallel::try_map(&folders, |folder| durable::sync_folder(folder)).map(|_| ())
    }

    /// Seals the file in place, or a copy of it if it belongs to another user.
    fn own(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let sealed = disk::sync_file(path).and_then(|()| seal(path, false));
        match sealed {
            Ok(()) => Ok(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(self.copy(path)?.1),
            Err(error) => Err(StoreError::on("seal", path)(error)),
        }
    }

    /// Copies the file aside, sealed and on disk.
    fn copy(&self, path: &Path) -> Result<(Digest, PathBuf), StoreError> {
        let aside = self.session.fresh();
        let source = File::open(path).map_err(StoreError::on("open", path))?;
        let copy = || {
            let mut sink = disk::File::create_new(&aside)?;
            let (digest, _) = durable::pour(source, &mut sink)?;
            sink.sync_all()?;
            seal(&aside, false)?;
            Ok(digest.into())
        };
        let action = || format!("copy `{}` to `{}`", path.display(), aside.display());
        let digest = copy().map_err(|source| StoreError::io(action(), source))?;
        Ok((digest, aside))
    }

    /// Gives a sealed file its name, unless a whole blob has it already; returns the folder.
    fn place(&self, file: &Path, digest: &Digest, size: u64) -> Result<PathBuf, StoreError> {
        let (path, folder) = (self.path(digest), self.folder(digest));
        if !self.is_whole(digest, size)? {
            match disk::create_folder(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::on("create the folder", &folder)(error));
                }
                _ => {}
            }
            // Another thread may be quicker: then its file stays, and this one is surplus.
            let (Published::Here | Published::ThereAlready) = durable::publish(file, &path)?;
        }
        Ok(folder)
    }
}

/// Computes the digest and the size of the file at `path`.
pub(super) fn digest_of(path: &Path) -> Result<(Digest, u64), StoreError> {
    let file = File::open(path).map_err(StoreError::on("open", path))?;
    let (hash, size) = durable::pour(file, io::sink()).map_err(StoreError::on("read", path))?;
    Ok((hash.into(), size))
}
