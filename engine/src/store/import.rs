//! Taking what a step produced into the store.

use super::artifact::{ArtifactKind, ArtifactRef, Content, Entry, Manifest};
use super::scan::{self, Found, FoundKind, Links};
use super::{Digest, Store, StoreError, durable, parallel};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

impl Store {
    /// Moves the file or folder at `path` into the store. Everything is on disk when this returns.
    ///
    /// Files are moved where the file system allows it, and read once for their digest, 1 MiB at a
    /// time; content that the store has already is not kept twice. Of permissions only whether a
    /// file may be executed is kept. Links must stay inside the folder.
    ///
    /// # Errors
    /// [`StoreError::Missing`] and [`StoreError::Unfit`] are found before anything is moved. After
    /// another error the folder may have lost files to the store, but nothing incomplete is
    /// [`present`](Self::present).
    pub fn import(&self, path: &Path) -> Result<ArtifactRef, StoreError> {
        let data = scan::look(path, Links::Keep)?;
        let (found, kind) = if data.is_dir() {
            (scan::walk(path, Links::Keep)?, ArtifactKind::Folder)
        } else {
            let name = scan::file_name(path)?;
            let found = Found {
                path: path.to_owned(),
                relative: name.clone(),
                kind: FoundKind::File(data),
            };
            (vec![found], ArtifactKind::File { name })
        };
        let digest = self.keep(found)?;
        // Whatever remains is a copy of what the store has.
        if let Err(error) = durable::remove_all(path) {
            self.warn(error.to_string());
        }
        Ok(ArtifactRef { digest, kind })
    }

    fn keep(&self, found: Vec<Found>) -> Result<Digest, StoreError> {
        let kept = parallel::try_map(&found, |one| self.keep_one(one))?;
        let (entries, folders): (Vec<Entry>, Vec<Option<PathBuf>>) = kept.into_iter().unzip();
        let manifest = Manifest::new(entries);
        // The list must not be there before what it lists.
        self.blobs().sync(folders.into_iter().flatten().collect())?;
        let digest = self.blobs().put(manifest.encode().as_bytes())?;
        self.trees().ensure(&digest, &manifest)?;
        Ok(digest)
    }

    /// Returns what the manifest says of it, and the folder of blobs in which it now is.
    fn keep_one(&self, found: &Found) -> Result<(Entry, Option<PathBuf>), StoreError> {
        let (content, folder) = match &found.kind {
            FoundKind::EmptyFolder => (Content::EmptyFolder, None),
            FoundKind::Link { target } => (
                Content::Link {
                    target: target.clone(),
                },
                None,
            ),
            FoundKind::File(data) => {
                let (digest, folder) = self.blobs().adopt(&found.path, data)?;
                let executable = data.permissions().mode() & 0o111 != 0;
                (
                    Content::File {
                        executable,
                        size: data.len(),
                        digest,
                    },
                    Some(folder),
                )
            }
        };
        Ok((
            Entry {
                path: found.relative.clone(),
                content,
            },
            folder,
        ))
    }
}
