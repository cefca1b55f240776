//! Content on disk, found again by what it is.
//!
//! ```text
//! blobs/ab/<digest>                 files, read-only, named by the BLAKE3 of what they hold
//! trees/<digest>/…                  artifacts as real paths: hard links to blobs
//! records/<namespace>/<k>/<key>.json  small values, such as which artifacts an action produced
//! index/<name>                      what is known of the keys of a plan, derived from records
//! stat-cache                        digests of files elsewhere that did not change
//! locks/…                           who works on what
//! quarantine/…                      what `fsck` found damaged
//! tmp/<session>/                    what is not finished
//! ```
//!
//! An artifact's manifest lists its files, is itself a blob, and its digest is the artifact's.
//! Everything is written aside, synced and renamed; a blob is on disk before a tree or a record
//! names it. Something that is missing or short is a miss, never a failure: it is made again.
//!
//! Several processes may use one store at once; none of them waits for another unless it asks for a
//! lock. This module knows nothing of steps, keys or runs.
//!
//! Reading order: `artifact` (what an artifact is), `import`, `blobs`, `trees`, `verify`,
//! `sources` with `stat_cache`, `records`, `index`, `locks`, `gc`, `fsck`;
//! `references`, `scan`, `walk`, `session`, `parallel` and
//! `durable` serve them.

mod artifact;
mod digest;

mod import;

mod blobs;
mod trees;

mod verify;

mod sources;

mod stat_cache;

mod records;

mod index;

mod locks;

mod fsck;
mod gc;
mod references;

mod durable;
mod error;
mod parallel;
mod scan;
mod session;
mod walk;

pub use artifact::{ArtifactKind, ArtifactRef, Content, Entry, Manifest};
pub use digest::{Digest, DigestError};
pub use error::{StoreError, Unfit};
pub use fsck::{Finding, FsckOptions, FsckReport, Problem, Remedy};
pub use gc::{Freed, GcOptions, GcReport, Roots};
pub use index::{Index, Known};
pub use locks::{Attempt, Holder, KeyLock, Patience, StoreLease, Waited};

use blobs::Blobs;
use durable::SyncedFolders;
use records::Records;
use serde_json::Value;
use session::Session;
use stat_cache::StatCache;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trees::Trees;

/// How many warnings are kept until somebody takes them.
const MAX_WARNINGS: usize = 100;
/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 30;

/// A content-addressed store. Clones share everything; all methods block for the disk.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    blobs: PathBuf,
    trees: PathBuf,
    records: PathBuf,
    locks: PathBuf,
    stat_cache: Mutex<StatCache>,
    warnings: Mutex<Vec<String>>,
    session: Session,
    folders: SyncedFolders,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let aside = self.session.fresh();
        let cache = self
            .stat_cache
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // Losing it costs time and nothing else.
        let _ = cache.save(&aside);
    }
}

impl Store {
    /// Opens the store in the folder `root`, created if missing, and removes what earlier
    /// processes left unfinished there more than a day ago.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`], [`StoreError::OutOfSpace`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::on("resolve", root))?;
        let [blobs, trees, records, locks, tmp] =
            ["blobs", "trees", "records", "locks", "tmp"].map(|name| root.join(name));
        let unusable = |error| match error {
            StoreError::Io { source, .. } => StoreError::NotWritable {
                root: root.clone(),
                source,
            },
            other => other,
        };
        for folder in [&blobs, &trees, &records, &locks, &tmp] {
            durable::create_folders(folder).map_err(unusable)?;
        }
        // Who created them may have died before their names were on disk.
        durable::sync_folder(&root).map_err(unusable)?;
        if let Some(parent) = root.parent() {
            // One that may not be read cannot be synced, and was there before.
            let _ = durable::sync_folder(parent);
        }
        let warnings = session::clean_up(&tmp)
            .iter()
            .map(ToString::to_string)
            .take(MAX_WARNINGS)
            .collect();
        let session = Session::begin(&tmp)
            .map_err(StoreError::on("write to", &tmp))
            .map_err(unusable)?;
        let stat_cache = Mutex::new(StatCache::load(root.join("stat-cache")));
        let warnings = Mutex::new(warnings);
        let inner = Inner {
            root,
            blobs,
            trees,
            records,
            locks,
            stat_cache,
            warnings,
            session,
            folders: SyncedFolders::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Returns the store's folder as an absolute path.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns the absolute path of an artifact, a file or a folder.
    ///
    /// Something is there after [`import`](Self::import) or [`present`](Self::present). It is
    /// shared with everyone: read-only.
    pub fn path(&self, artifact: &ArtifactRef) -> PathBuf {
        let tree = self.trees().path(&artifact.digest);
        match &artifact.kind {
            ArtifactKind::File { name } => tree.join(name),
            ArtifactKind::Folder => tree,
        }
    }

    /// Whether an artifact is here, whole and at its [`path`](Self::path).
    ///
    /// Looks at the size and time of every file and reads only those that somebody touched. A tree
    /// that is missing or damaged is made again from whole blobs. Whatever else is wrong makes
    /// this `false`, and a [warning](Self::take_warnings) if it was not just absence.
    pub fn present(&self, artifact: &ArtifactRef) -> bool {
        self.check(artifact).unwrap_or_else(|error| {
            self.warn(error.to_string());
            false
        })
    }

    fn check(&self, artifact: &ArtifactRef) -> Result<bool, StoreError> {
        let Some(manifest) = self.manifest(artifact) else {
            return Ok(false);
        };
        for entry in manifest.entries() {
            if let Content::File { size, digest, .. } = &entry.content
                && !self.blobs().is_whole(digest, *size)?
            {
                return Ok(false);
            }
        }
        self.trees().ensure(&artifact.digest, &manifest)?;
        Ok(true)
    }

    /// Returns the list of what an artifact consists of; `None` if the store does not have it.
    pub fn manifest(&self, artifact: &ArtifactRef) -> Option<Manifest> {
        let path = self.blobs().path(&artifact.digest);
        if fs::metadata(&path).ok()?.len() > MAX_MANIFEST {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        let manifest =
            Manifest::decode(&text).filter(|_| Digest::of(text.as_bytes()) == artifact.digest)?;
        let fits = match &artifact.kind {
            ArtifactKind::Folder => true,
            ArtifactKind::File { name } => {
                matches!(manifest.entries(), [Entry { path, content: Content::File { .. } }] if path == name)
            }
        };
        fits.then_some(manifest)
    }

    /// Keeps `value` under `key`, in place of an earlier one. It is on disk when this returns.
    ///
    /// A namespace may have parts, separated by `/`. Characters of either that do not suit a file's
    /// name are escaped.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] for what is empty or longer than 240 bytes once escaped,
    /// [`StoreError::OutOfSpace`], [`StoreError::Io`].
    pub fn put_record(&self, namespace: &str, key: &str, value: &Value) -> Result<(), StoreError> {
        self.records().put(namespace, key, value)
    }

    /// Returns what was kept under `key`. A damaged record reads as `None`, with a
    /// [warning](Self::take_warnings).
    pub fn get_record(&self, namespace: &str, key: &str) -> Option<Value> {
        self.records()
            .get(namespace, key)
            .unwrap_or_else(|warning| {
                self.warn(warning);
                None
            })
    }

    /// Forgets what was kept under `key`; returns whether there was something.
    ///
    /// # Errors
    /// [`StoreError::BadKey`], [`StoreError::Io`].
    pub fn remove_record(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        self.records().remove(namespace, key)
    }

    /// Lists the keys of a namespace that begin with `prefix`, sorted; all of them for `""`.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] for the namespace, [`StoreError::Io`].
    pub fn list_records(&self, namespace: &str, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.records().list(namespace, prefix)
    }

    /// Returns, and forgets, what went wrong without being an error; at most 100 are kept.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.inner.warnings))
    }

    /// Adds to the warnings.
    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = lock(&self.inner.warnings);
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    fn blobs(&self) -> Blobs<'_> {
        Blobs {
            root: &self.inner.blobs,
            session: &self.inner.session,
        }
    }

    fn trees(&self) -> Trees<'_> {
        Trees {
            root: &self.inner.trees,
            blobs: self.blobs(),
        }
    }

    fn records(&self) -> Records<'_> {
        Records {
            root: &self.inner.records,
            session: &self.inner.session,
            folders: &self.inner.folders,
        }
    }
}

/// What these locks guard is whole between any two statements, also if a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
