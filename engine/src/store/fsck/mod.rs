//! Reading and comparing everything in the store, and mending what can be mended.
//!
//! Blobs are hashed, trees are compared with their lists, records with their checksums. What is
//! damaged moves to `quarantine/`, and is made again where something whole says the same: a blob
//! from a tree's copy, a list from a whole tree, a tree from blobs. What is sound is not touched.

mod artifacts;
mod report;

pub use report::{Finding, FsckReport, Problem, Remedy};

use super::artifact::ArtifactRef;
use super::references::RecordFile;
use super::{Digest, Store, StoreError, blobs, durable, parallel, session, walk};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long to wait for those who use the store only for an instant.
const PATIENCE: Duration = Duration::from_millis(200);
/// A process that begins locks its folder after making it; this is ample for that.
const BEGINNING: Duration = Duration::from_secs(60);

/// How to check a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Whether to change nothing and only say what is wrong.
    pub dry_run: bool,
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// What reading one blob showed.
enum Read {
    Whole { identity: Identity, sealed: bool },
    Damaged,
    Stray,
    Unreadable(StoreError),
}

/// A check under way.
struct Check<'a> {
    store: &'a Store,
    report: FsckReport,
    /// The blobs that are whole.
    whole: BTreeMap<Digest, Identity>,
    /// The artifacts of which everything is there.
    complete: BTreeSet<Digest>,
}

impl Store {
    /// Reads everything in the store, says what is wrong and mends what can be mended. Takes as
    /// long as reading everything.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a run uses the store, unless nothing is to be changed. What
    /// cannot be read is no error but part of the report.
    pub fn fsck(&self, options: FsckOptions) -> Result<FsckReport, StoreError> {
        let _lease = match options.dry_run {
            true => self.lease(PATIENCE)?,
            false => self.lease_alone(PATIENCE)?,
        };
        let mut check = Check {
            store: self,
            report: FsckReport {
                dry_run: options.dry_run,
                ..FsckReport::default()
            },
            whole: BTreeMap::new(),
            complete: BTreeSet::new(),
        };
        check.blobs();
        let records = self.record_files();
        check.artifacts(&records);
        check.records(&records);
        check.unfinished();
        Ok(check.report)
    }
}

impl Check<'_> {
    /// Writes down a problem, and does what mends it unless nothing is to be changed.
    fn found(
        &mut self,
        path: &Path,
        problem: Problem,
        remedy: Remedy,
        mend: impl FnOnce(&Store) -> Result<(), StoreError>,
    ) {
        let mut finding = Finding {
            path: path.to_owned(),
            problem,
            remedy,
        };
        if !self.report.dry_run
            && let Err(error) = mend(self.store)
        {
            self.report.trouble.push(error.to_string());
            finding.remedy = Remedy::Nothing;
        }
        self.report.findings.push(finding);
    }

    fn quarantine(&mut self, path: &Path, problem: Problem) {
        self.found(path, problem, Remedy::Quarantined, |store| {
            store.quarantine(path)
        });
    }

    fn blobs(&mut self) {
        let paths = walk::files(&self.store.inner.blobs);
        let read = |path: &PathBuf| Ok::<_, Infallible>(self.read_blob(path));
        let all = parallel::try_map(&paths, read).unwrap_or_default();
        for (path, (digest, size, read)) in paths.iter().zip(all) {
            self.report.blobs += 1;
            self.report.bytes += size;
            match (read, digest) {
                (Read::Whole { identity, sealed }, Some(digest)) => {
                    self.whole.insert(digest, identity);
                    if !sealed {
                        self.touched(path, false);
                    }
                }
                (Read::Damaged, _) => self.quarantine(path, Problem::Damaged),
                (Read::Unreadable(error), _) => self.report.trouble.push(error.to_string()),
                (Read::Stray | Read::Whole { .. }, _) => self.quarantine(path, Problem::Stray),
            }
        }
    }

    fn touched(&mut self, path: &Path, executable: bool) {
        self.found(path, Problem::Touched, Remedy::Sealed, |_| {
            blobs::seal(path, executable).map_err(StoreError::on("seal", path))
        });
    }

    fn read_blob(&self, path: &Path) -> (Option<Digest>, u64, Read) {
        let name = path.file_name().and_then(|name| name.to_str());
        let digest: Option<Digest> = name.and_then(|name| name.parse().ok());
        let is_place = |digest: &Digest| self.store.blobs().path(digest) == path;
        let Some(digest) = digest.filter(is_place) else {
            return (None, 0, Read::Stray);
        };
        let (size, read) = match blobs::digest_of(path) {
            Err(error) => (0, Read::Unreadable(error)),
            Ok((found, size)) if found == digest => (size, self.whole_blob(path, size)),
            Ok((_, size)) => (size, Read::Damaged),
        };
        (Some(digest), size, read)
    }

    fn whole_blob(&self, path: &Path, size: u64) -> Read {
        match fs::symlink_metadata(path) {
            Ok(data) => Read::Whole {
                identity: (data.dev(), data.ino()),
                sealed: blobs::is_sealed(&data, size),
            },
            Err(error) => Read::Unreadable(StoreError::on("look at", path)(error)),
        }
    }

    fn artifacts(&mut self, records: &[RecordFile]) {
        let named = records.iter().flat_map(|record| &record.artifacts);
        let mut digests: BTreeSet<Digest> = named.flatten().map(|a| a.digest).collect();
        for (path, _) in walk::entries(&self.store.inner.trees) {
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| name.parse::<Digest>().ok()) {
                Some(digest) => drop(digests.insert(digest)),
                None => self.quarantine(&path, Problem::Stray),
            }
        }
        for digest in digests {
            self.artifact(&digest);
        }
    }

    fn records(&mut self, records: &[RecordFile]) {
        for record in records {
            self.report.records += 1;
            match &record.artifacts {
                None if record.key.is_none() => self.quarantine(&record.path, Problem::Stray),
                None => self.quarantine(&record.path, Problem::Damaged),
                Some(artifacts) => self.references(&record.path, artifacts),
            }
        }
    }

    fn references(&mut self, record: &Path, artifacts: &[ArtifactRef]) {
        for artifact in artifacts {
            if !self.complete.contains(&artifact.digest) {
                let artifact = artifact.digest;
                let problem = Problem::Dangling { artifact };
                self.found(record, problem, Remedy::Nothing, |_| Ok(()));
            }
        }
    }

    fn unfinished(&mut self) {
        let young = SystemTime::now() - BEGINNING;
        for path in session::abandoned(&self.store.inner.root.join("tmp"), young) {
            self.found(&path, Problem::Unfinished, Remedy::Removed, |_| {
                durable::remove_all(&path)
            });
        }
    }
}

impl Store {
    /// Moves something out of the way, for a person to look at.
    fn quarantine(&self, path: &Path) -> Result<(), StoreError> {
        let folder = self.inner.root.join("quarantine");
        durable::create_folders(&folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut place = folder.join(&*name);
        let mut number = 1;
        while fs::symlink_metadata(&place).is_ok() {
            number += 1;
            place = folder.join(format!("{name}.{number}"));
        }
        durable::rename(path, &place)?;
        durable::sync_folder(&folder)
    }
}
