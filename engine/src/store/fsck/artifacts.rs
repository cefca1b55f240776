//! Whether artifacts are as their lists say, and making lists, blobs and trees from one another.

use super::{Check, Problem, Remedy};
use crate::store::artifact::{ArtifactRef, Content, Entry, Manifest};
use crate::store::scan::{self, FoundKind, Links};
use crate::store::{ArtifactKind, Digest, StoreError, blobs, trees};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

impl Check<'_> {
    /// Checks one artifact: its list, its blobs, its tree.
    pub(super) fn artifact(&mut self, digest: &Digest) {
        let tree = self.store.trees().path(digest);
        let has_tree = fs::symlink_metadata(&tree).is_ok();
        self.report.trees += u64::from(has_tree);
        let Some(manifest) = self.manifest(digest, &tree) else {
            if has_tree {
                self.quarantine(&tree, Problem::Damaged);
            }
            return;
        };
        for entry in manifest.entries() {
            self.blob_of(entry, &tree);
        }
        let is_whole = |entry: &Entry| match &entry.content {
            Content::File { digest, .. } => self.whole.contains_key(digest),
            Content::Link { .. } | Content::EmptyFolder => true,
        };
        if manifest.entries().iter().all(is_whole) {
            self.complete.insert(*digest);
        }
        if has_tree && !self.is_tree_folder(&tree) {
            self.quarantine(&tree, Problem::Damaged);
        } else if has_tree {
            for entry in manifest.entries() {
                self.tree_entry(entry, &tree);
            }
        }
    }

    fn is_tree_folder(&self, tree: &Path) -> bool {
        fs::symlink_metadata(tree).is_ok_and(|data| data.is_dir())
    }

    /// Returns an artifact's list; one that is lost is made again from a whole tree.
    fn manifest(&mut self, digest: &Digest, tree: &Path) -> Option<Manifest> {
        let artifact = ArtifactRef {
            digest: *digest,
            kind: ArtifactKind::Folder,
        };
        if self.whole.contains_key(digest) {
            return self.store.manifest(&artifact);
        }
        let manifest = list(tree).filter(|manifest| manifest.digest() == *digest)?;
        let path = self.store.blobs().path(digest);
        let text = manifest.encode();
        self.found(&path, Problem::Missing, Remedy::Rebuilt, |store| {
            store.blobs().put(text.as_bytes()).map(|_| ())
        });
        self.now_whole(digest);
        Some(manifest)
    }

    /// Sees to the blob of a file; one that is lost is made again from the tree's own copy.
    fn blob_of(&mut self, entry: &Entry, tree: &Path) {
        let Content::File { size, digest, .. } = entry.content else {
            return;
        };
        let copy = tree.join(&entry.path);
        if self.whole.contains_key(&digest) || !is_content(&copy, &digest) {
            return;
        }
        let path = self.store.blobs().path(&digest);
        self.found(&path, Problem::Missing, Remedy::Rebuilt, |store| {
            store.blobs().put_copy(&copy, &digest, size)
        });
        self.now_whole(&digest);
    }

    /// Without changing anything, what would be made again counts as made.
    fn now_whole(&mut self, digest: &Digest) {
        let data = fs::symlink_metadata(self.store.blobs().path(digest));
        let identity = data.map_or((0, 0), |data| (data.dev(), data.ino()));
        self.whole.insert(*digest, identity);
    }

    fn tree_entry(&mut self, entry: &Entry, tree: &Path) {
        let path = tree.join(&entry.path);
        let (is_sound, can_rebuild) = match &entry.content {
            Content::File { digest, .. } => (
                self.is_sound_file(&path, &entry.content, digest),
                self.whole.contains_key(digest),
            ),
            other => (trees::is_as_listed(&path, other), true),
        };
        let is_there = fs::symlink_metadata(&path).is_ok();
        let problem = match is_there {
            true => Problem::Damaged,
            false => Problem::Missing,
        };
        match (is_sound, can_rebuild) {
            (true, _) => {}
            (false, true) => self.found(&path, problem, Remedy::Rebuilt, |store| {
                store.trees().mend(&path, entry)
            }),
            (false, false) if is_there => self.quarantine(&path, problem),
            (false, false) => self.found(&path, problem, Remedy::Nothing, |_| Ok(())),
        }
    }

    /// Whether a file of a tree is what its list says, by content too.
    fn is_sound_file(&self, path: &Path, content: &Content, digest: &Digest) -> bool {
        let identity = fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()));
        let is_whole_blob = identity.is_ok_and(|own| self.whole.get(digest) == Some(&own));
        trees::is_as_listed(path, content) && (is_whole_blob || is_content(path, digest))
    }
}

/// Whether the file at `path` holds what has this digest.
fn is_content(path: &Path, digest: &Digest) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|data| data.is_file());
    is_file && blobs::digest_of(path).is_ok_and(|(found, _)| found == *digest)
}

/// Makes the list of what a folder holds.
fn list(folder: &Path) -> Option<Manifest> {
    let found = scan::walk(folder, Links::Keep).ok()?;
    let entries: Result<Vec<Entry>, StoreError> = found
        .into_iter()
        .map(|found| {
            let content = match found.kind {
                FoundKind::EmptyFolder => Content::EmptyFolder,
                FoundKind::Link { target } => Content::Link { target },
                FoundKind::File(data) => {
                    let (digest, size) = blobs::digest_of(&found.path)?;
                    let executable = data.permissions().mode() & 0o111 != 0;
                    Content::File {
                        executable,
                        size,
                        digest,
                    }
                }
            };
            let path = found.relative;
            Ok(Entry { path, content })
        })
        .collect();
    Some(Manifest::new(entries.ok()?))
}
