//! Reading everything again, for damage that sizes and times do not show.

use super::artifact::{ArtifactRef, Content};
use super::{Digest, Store, StoreError, blobs, durable};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl Store {
    /// Reads every file of an artifact and returns those whose content is not what it was.
    ///
    /// They are moved away, so that the artifact is not [`present`](Self::present) until it is made
    /// again. Takes as long as reading everything.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be read or moved.
    pub fn verify(&self, artifact: &ArtifactRef) -> Result<Vec<PathBuf>, StoreError> {
        let Some(manifest) = self.manifest(artifact) else {
            return Ok(Vec::new());
        };
        let tree = self.trees().path(&artifact.digest);
        let mut damaged = Vec::new();
        for entry in manifest.entries() {
            let Content::File { digest, .. } = &entry.content else {
                continue;
            };
            let (blob, path) = (self.blobs().path(digest), tree.join(&entry.path));
            let is_link = inode(&blob).is_some() && inode(&blob) == inode(&path);
            let blob_damaged = is_damaged(&blob, digest)?;
            // A hard link needs no second reading.
            let path_damaged = if is_link {
                blob_damaged
            } else {
                is_damaged(&path, digest)?
            };
            if blob_damaged {
                self.blobs().discard(digest)?;
                damaged.push(blob);
            }
            if path_damaged {
                durable::remove_all(&path)?;
                damaged.push(path);
            }
        }
        Ok(damaged)
    }
}

/// Whether the file at `path` is there, but not what it should be.
fn is_damaged(path: &Path, digest: &Digest) -> Result<bool, StoreError> {
    Ok(inode(path).is_some() && blobs::digest_of(path)?.0 != *digest)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|data| (data.dev(), data.ino()))
}
