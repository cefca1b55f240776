//! Artifacts as real paths: `trees/<digest>/…`, made of hard links to blobs.
//!
//! A tree can be made again from its manifest at any time, so its names do not wait for the disk.

use super::artifact::{Content, Entry, Manifest};
use super::blobs::{self, Blobs};
use super::durable;
use super::{Digest, StoreError};
use crate::disk;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The trees of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trees<'a> {
    pub(super) root: &'a Path,
    pub(super) blobs: Blobs<'a>,
}

impl Trees<'_> {
    /// Returns where the tree is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.to_string())
    }

    /// Sees to it that the tree is there and as its manifest says, mending only what is not.
    ///
    /// The blobs must be whole. What others have added to the tree stays.
    pub(super) fn ensure(&self, digest: &Digest, manifest: &Manifest) -> Result<(), StoreError> {
        let tree = self.path(digest);
        if !tree.is_dir() {
            return self.build(&tree, manifest);
        }
        for entry in manifest.entries() {
            let path = tree.join(&entry.path);
            if !is_as_listed(&path, &entry.content) {
                self.mend(&path, entry)?;
            }
        }
        Ok(())
    }

    /// Builds the tree aside, so that it appears whole or not at all.
    fn build(&self, tree: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let aside = self.blobs.session.fresh();
        disk::create_folder(&aside).map_err(StoreError::on("create the folder", &aside))?;
        for entry in manifest.entries() {
            let path = aside.join(&entry.path);
            let folder = path.parent().unwrap_or(&aside);
            disk::create_folders(folder).map_err(StoreError::on("create the folder", folder))?;
            self.make(&path, entry)?;
        }
        // If another was quicker, its tree is equal, and this one ends with the session.
        durable::publish(&aside, tree)?;
        Ok(())
    }

    /// Replaces what is at `path` in one go where that is possible.
    pub(super) fn mend(&self, path: &Path, entry: &Entry) -> Result<(), StoreError> {
        let aside = self.blobs.session.fresh();
        self.make(&aside, entry)?;
        let folder = path.parent().unwrap_or(self.root);
        if !folder.is_dir() {
            durable::remove_all(folder)?;
            disk::create_folders(folder).map_err(StoreError::on("create the folder", folder))?;
        }
        let is_folder = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
        if is_folder || entry.content == Content::EmptyFolder {
            durable::remove_all(path)?;
        }
        durable::rename(&aside, path)
    }

    fn make(&self, path: &Path, entry: &Entry) -> Result<(), StoreError> {
        match &entry.content {
            Content::EmptyFolder => {
                disk::create_folder(path).map_err(StoreError::on("create the folder", path))
            }
            Content::Link { target } => disk::symlink(Path::new(target), path)
                .map_err(StoreError::on("create the link", path)),
            Content::File {
                executable, digest, ..
            } => {
                let blob = self.blobs.path(digest);
                let made = if *executable {
                    copy(&blob, path, true)
                } else {
                    link_or_copy(&blob, path)
                };
                let action = || format!("link `{}` to `{}`", blob.display(), path.display());
                made.map_err(|source| StoreError::io(action(), source))
            }
        }
    }
}

/// Hard links need the same file system, a free place among the inode's links, and permission.
fn link_or_copy(blob: &Path, path: &Path) -> io::Result<()> {
    match disk::hard_link(blob, path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => copy(blob, path, false),
        other => other,
    }
}

/// The blob of a program is not executable itself, so a link would not do. On disk before it is
/// sealed, since the seal says that it is whole.
fn copy(blob: &Path, path: &Path, executable: bool) -> io::Result<()> {
    disk::copy(blob, path)?;
    disk::sync_file(path)?;
    blobs::seal(path, executable)
}

/// Whether what is at `path` looks as listed; content is not read.
pub(super) fn is_as_listed(path: &Path, content: &Content) -> bool {
    let Ok(data) = fs::symlink_metadata(path) else {
        return false;
    };
    match content {
        Content::EmptyFolder => data.is_dir(),
        Content::Link { target } => {
            fs::read_link(path).is_ok_and(|found| found == Path::new(target))
        }
        Content::File {
            executable, size, ..
        } => {
            blobs::is_sealed(&data, *size)
                && (data.permissions().mode() & 0o111 != 0) == *executable
        }
    }
}
