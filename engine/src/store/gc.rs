//! Removing what nothing needs any more: mark and sweep.
//!
//! Needed is what the caller says, what samples consist of, and what cached results consist of.
//! Cached results (records in `actions`) can be made again, so they go when they are older than
//! `max_age`, and the oldest first while the store is larger than `max_size`, unless the caller
//! needs them. Samples cannot be made again: they go only by an age that is given for them alone.
//! Records of other kinds hold no artifacts and stay.
//!
//! Records are removed before what they name, so that a crash leaves surplus and never a record of
//! something that was removed. Nobody uses the store meanwhile, and what is younger than the grace
//! period stays, for those who use it without saying so.

use super::references::{Extent, RecordFile};
use super::{ArtifactRef, Digest, Store, StoreError, durable, session, walk};
use crate::{disk, notes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The records of results that can be made again.
const CACHE: &str = "actions";
/// The records of measurements.
const SAMPLES: &str = "samples";
/// How long to wait for those who use the store only for an instant.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a caller needs, whatever its age.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Artifacts, such as those of runs that are kept.
    pub artifacts: BTreeSet<Digest>,
    /// Keys of cached results, such as those that are pinned.
    pub actions: BTreeSet<String>,
}

/// What to remove.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// What was made within this time stays.
    pub grace: Duration,
    /// Cached results that are older go.
    pub max_age: Option<Duration>,
    /// The oldest cached results go until no more than this is left, bytes.
    pub max_size: Option<u64>,
    /// Samples that are older go. They cannot be made again.
    pub samples_max_age: Option<Duration>,
    /// Whether to remove nothing and only say what would be.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60 * 60),
            max_age: None,
            max_size: None,
            samples_max_age: None,
            dry_run: false,
        }
    }
}

/// How much of one kind was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// How many.
    pub count: u64,
    /// How much room they took, bytes.
    pub bytes: u64,
}

impl Freed {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Records of cached results.
    pub actions: Freed,
    /// Records of samples.
    pub samples: Freed,
    /// Trees; their bytes are those of files that are no links to blobs.
    pub trees: Freed,
    /// Files by content.
    pub blobs: Freed,
    /// Leftovers of processes that died, and notes that are worth nothing any more.
    pub unfinished: Freed,
    /// Lock files of processes that died.
    pub locks: u64,
    /// How much room the blobs that stay take, bytes.
    pub kept_bytes: u64,
    /// What could not be removed, and why.
    pub trouble: Vec<String>,
}

impl GcReport {
    /// Returns how much room was made, bytes.
    pub fn bytes(&self) -> u64 {
        let parts = [
            self.actions,
            self.samples,
            self.trees,
            self.blobs,
            self.unfinished,
        ];
        parts.iter().map(|freed| freed.bytes).sum()
    }
}

/// What stays and what goes.
#[derive(Default)]
struct Plan {
    live: HashSet<Digest>,
    live_bytes: u64,
    /// The size of all blobs that stay, whether needed or young.
    kept_bytes: u64,
    records: Vec<RecordFile>,
    /// With the room that it takes.
    blobs: Vec<(PathBuf, u64)>,
    trees: Vec<(PathBuf, u64)>,
}

impl Store {
    /// Removes what nothing needs: see [`GcOptions`]. Waits for nobody. `roots` is asked once nobody
    /// else uses the store, so that nothing that is needed meanwhile is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a run uses the store, [`StoreError::Unreadable`] if it is not known
    /// what is needed. What cannot be removed is no error but part of the report.
    pub fn gc(
        &self,
        roots: impl FnOnce() -> Roots,
        options: &GcOptions,
    ) -> Result<GcReport, StoreError> {
        let _lease = match options.dry_run {
            true => self.lease(PATIENCE)?,
            false => self.lease_alone(PATIENCE)?,
        };
        let now = SystemTime::now();
        let plan = self.plan(self.readable_records()?, &roots(), options, now);
        let mut report = GcReport {
            dry_run: options.dry_run,
            kept_bytes: plan.kept_bytes,
            ..GcReport::default()
        };
        self.sweep(plan, &mut report);
        if report.actions.count > 0 {
            // What was removed is not to be found by another way.
            remove(&self.indexes(), &mut report);
        }
        self.sweep_unfinished(options, now, &mut report);
        if !options.dry_run {
            report.locks = self.sweep_locks(before(now, options.grace)) as u64;
        }
        Ok(report)
    }

    /// Reads every record. One that cannot be read may name what is needed: then nothing is to be swept.
    fn readable_records(&self) -> Result<Vec<RecordFile>, StoreError> {
        let unreadable = |path: &Path, reason: String| StoreError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        walk::check(&self.inner.records)
            .map_err(|(path, error)| unreadable(&path, error.to_string()))?;
        let records = self.record_files();
        // A cached result that is damaged is made again; samples cannot be.
        let mut damaged = records
            .iter()
            .filter(|record| record.space == SAMPLES && record.artifacts.is_none());
        match damaged.next() {
            None => Ok(records),
            Some(record) => {
                let reason = "it is damaged; `benchwright fsck` moves it aside".to_owned();
                Err(unreadable(&record.path, reason))
            }
        }
    }

    fn plan(
        &self,
        records: Vec<RecordFile>,
        roots: &Roots,
        options: &GcOptions,
        now: SystemTime,
    ) -> Plan {
        let young = before(now, options.grace);
        let mut plan = Plan::default();
        let mut cached = Vec::new();
        for artifact in &roots.artifacts {
            self.mark_digest(&mut plan, artifact);
        }
        for record in records {
            let is_pinned = record.modified >= young
                || record
                    .key
                    .as_ref()
                    .is_some_and(|key| record.space == CACHE && roots.actions.contains(key));
            match &*record.space {
                CACHE if !is_pinned => cached.push(record),
                SAMPLES if !is_pinned && is_older(&record, options.samples_max_age, now) => {
                    plan.records.push(record);
                }
                space if notes::are_in(space) && is_older(&record, Some(notes::KEPT), now) => {
                    plan.records.push(record);
                }
                _ => self.mark(&mut plan, record.artifacts.iter().flatten()),
            }
        }
        self.plan_cached(&mut plan, cached, options, now);
        self.plan_content(&mut plan, young);
        plan
    }

    /// Keeps the newest cached results that fit.
    fn plan_cached(
        &self,
        plan: &mut Plan,
        mut cached: Vec<RecordFile>,
        options: &GcOptions,
        now: SystemTime,
    ) {
        cached.sort_by_key(|record| std::cmp::Reverse(record.modified));
        let mut fits = true;
        for record in cached {
            let artifacts = record.artifacts.iter().flatten();
            let size = self.new_bytes(plan, artifacts.clone());
            // One that shares all its content with what stays would give no room back.
            let is_over = options
                .max_size
                .is_some_and(|max| size > 0 && plan.live_bytes + size > max);
            fits &= !is_over;
            if (fits || size == 0) && !is_older(&record, options.max_age, now) {
                self.mark(plan, artifacts);
            } else {
                plan.records.push(record);
            }
        }
    }

    /// Returns how much would stay that does not yet, bytes.
    fn new_bytes<'a>(&self, plan: &Plan, artifacts: impl Iterator<Item = &'a ArtifactRef>) -> u64 {
        let mut files = BTreeMap::new();
        for artifact in artifacts {
            if let Extent::Listed(listed) = self.extent(artifact) {
                files.extend(listed);
            }
        }
        let new = files
            .iter()
            .filter(|(digest, _)| !plan.live.contains(digest));
        new.map(|(_, size)| size).sum()
    }

    fn mark<'a>(&self, plan: &mut Plan, artifacts: impl Iterator<Item = &'a ArtifactRef>) {
        for artifact in artifacts {
            self.mark_digest(plan, &artifact.digest);
        }
    }

    fn mark_digest(&self, plan: &mut Plan, artifact: &Digest) {
        if !plan.live.insert(*artifact) {
            return;
        }
        let artifact = ArtifactRef {
            digest: *artifact,
            kind: super::ArtifactKind::Folder,
        };
        if let Extent::Listed(files) = self.extent(&artifact) {
            for (digest, size) in files {
                if plan.live.insert(digest) {
                    plan.live_bytes += size;
                }
            }
        }
    }

    /// Finds the blobs and trees that nothing needs and that are not young.
    fn plan_content(&self, plan: &mut Plan, young: SystemTime) {
        let is_dead = |path: &Path| {
            let digest = path.file_name().and_then(|n| n.to_str()?.parse().ok());
            // What has another name is for `fsck`.
            digest.is_some_and(|digest: Digest| !plan.live.contains(&digest))
        };
        let (mut blobs, mut kept_bytes) = (Vec::new(), 0);
        for path in walk::files(&self.inner.blobs) {
            match old_size(&path, young).filter(|_| is_dead(&path)) {
                Some(size) => blobs.push((path, size)),
                None => kept_bytes += fs::symlink_metadata(&path).map_or(0, |data| data.len()),
            }
        }
        let trees = walk::entries(&self.inner.trees).into_iter();
        let trees: Vec<_> = trees
            .filter(|(path, _)| is_dead(path))
            .filter(|(path, _)| old_size(path, young).is_some())
            .map(|(path, _)| (path.clone(), own_size(&path)))
            .collect();
        (plan.blobs, plan.trees, plan.kept_bytes) = (blobs, trees, kept_bytes);
    }

    fn sweep(&self, plan: Plan, report: &mut GcReport) {
        let mut folders = BTreeSet::new();
        for record in &plan.records {
            if remove(&record.path, report) {
                let freed = match &*record.space {
                    CACHE => &mut report.actions,
                    SAMPLES => &mut report.samples,
                    _ => &mut report.unfinished,
                };
                freed.add(record.size);
                folders.extend(record.path.parent());
            }
        }
        for folder in folders.into_iter().filter(|_| !report.dry_run) {
            if let Err(error) = durable::sync_folder(folder) {
                report.trouble.push(error.to_string());
            }
        }
        // Trees first: a blob whose links are gone gives its room back.
        for (path, size) in &plan.trees {
            if remove(path, report) {
                report.trees.add(*size);
            }
        }
        for (path, size) in &plan.blobs {
            if remove(path, report) {
                report.blobs.add(*size);
            }
        }
    }

    fn sweep_unfinished(&self, options: &GcOptions, now: SystemTime, report: &mut GcReport) {
        let young = before(now, options.grace);
        for path in session::abandoned(&self.inner.root.join("tmp"), young) {
            let size = own_size(&path);
            if remove(&path, report) {
                report.unfinished.add(size);
            }
        }
    }
}

fn before(now: SystemTime, age: Duration) -> SystemTime {
    now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn is_older(record: &RecordFile, age: Option<Duration>, now: SystemTime) -> bool {
    age.is_some_and(|age| record.modified < before(now, age))
}

/// Removes `path` unless nothing is to be removed; returns whether it is gone, or would be.
fn remove(path: &Path, report: &mut GcReport) -> bool {
    if report.dry_run {
        return true;
    }
    let removed = disk::remove_all(path);
    if let Err(error) = &removed {
        let trouble = format!("could not remove `{}`: {error}", path.display());
        report.trouble.push(trouble);
    }
    removed.is_ok()
}

/// Returns the size of what was not touched since `young`; the time of modification of a blob is
/// that of its seal, so the time of its last change of any kind counts.
fn old_size(path: &Path, young: SystemTime) -> Option<u64> {
    let data = fs::symlink_metadata(path).ok()?;
    let seconds = u64::try_from(data.ctime()).ok()?;
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    (changed < young).then_some(data.len())
}

/// Returns the size of the files below `path` that have no other name, bytes.
fn own_size(path: &Path) -> u64 {
    let data = walk::files(path).into_iter().map(fs::symlink_metadata);
    let own = data.flatten().filter(|data| data.nlink() == 1);
    own.map(|data| data.len()).sum()
}
