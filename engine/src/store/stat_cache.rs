//! Digests of files that have not changed since they were computed, so that a checkpoint of
//! 100 GB is read once.
//!
//! A file is taken for unchanged if device, inode, size, time of modification and time of status
//! change are the same. A file can be written twice within one tick of its file system's clock,
//! and the second write would not show; so, like git, nothing is remembered of files that were
//! touched just before they were read.
//!
//! The file is one line per digest with a checksum each: what is damaged is forgotten.

use super::durable;
use super::{Digest, StoreError};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// No file system's clock ticks more slowly than this.
const SLOWEST_CLOCK_NS: i128 = 2_000_000_000;
/// How many files are remembered; those learned first are forgotten first.
const MAX_LINES: usize = 500_000;
/// The largest file that is read, in bytes: no line is longer than 200.
const MAX_FILE: u64 = 200 * MAX_LINES as u64;

/// What names a state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    pub(super) fn of(data: &Metadata) -> Self {
        let ns = |seconds, ns| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: data.dev(),
            ino: data.ino(),
            size: data.size(),
            modified_ns: ns(data.mtime(), data.mtime_nsec()),
            changed_ns: ns(data.ctime(), data.ctime_nsec()),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether a write after `instant` must give another stamp.
    fn is_settled(&self, instant: SystemTime) -> bool {
        let instant = instant
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let latest = self.modified_ns.max(self.changed_ns);
        i128::try_from(instant.as_nanos()).is_ok_and(|now| latest + SLOWEST_CLOCK_NS < now)
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    digest: Digest,
    /// Grows with every digest learned.
    age: u64,
}

/// The digests that are known.
#[derive(Debug)]
pub(super) struct StatCache {
    path: PathBuf,
    known: HashMap<Stamp, Known>,
    n_learned: u64,
    /// How many bytes would have to be read again if this were lost.
    unsaved: u64,
}

impl StatCache {
    /// Loads what can be understood of the file at `path`.
    pub(super) fn load(path: PathBuf) -> Self {
        let mut cache = Self {
            path,
            known: HashMap::new(),
            n_learned: 0,
            unsaved: 0,
        };
        cache.merge();
        cache
    }

    /// Takes over what another process may have saved; what is known already stays.
    fn merge(&mut self) {
        let fits = fs::metadata(&self.path).is_ok_and(|data| data.len() <= MAX_FILE);
        let text = if fits {
            fs::read(&self.path).unwrap_or_default()
        } else {
            Vec::new()
        };
        for (stamp, digest) in String::from_utf8_lossy(&text).lines().filter_map(decode) {
            if !self.known.contains_key(&stamp) {
                self.insert(stamp, digest);
            }
        }
    }

    fn insert(&mut self, stamp: Stamp, digest: Digest) {
        self.n_learned += 1;
        self.known.insert(
            stamp,
            Known {
                digest,
                age: self.n_learned,
            },
        );
    }

    pub(super) fn get(&self, stamp: &Stamp) -> Option<Digest> {
        self.known.get(stamp).map(|known| known.digest)
    }

    /// Remembers the digest of a file whose reading began at `read_at`.
    pub(super) fn learn(&mut self, stamp: Stamp, digest: Digest, read_at: SystemTime) {
        if stamp.is_settled(read_at) {
            self.insert(stamp, digest);
            // An empty file still costs a look.
            self.unsaved += stamp.size + 1;
        }
    }

    pub(super) fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// Writes everything to `aside` and from there to its place.
    pub(super) fn save(&mut self, aside: &Path) -> Result<(), StoreError> {
        if self.unsaved == 0 {
            return Ok(());
        }
        self.merge();
        let mut lines: Vec<(&Stamp, &Known)> = self.known.iter().collect();
        lines.sort_by_key(|(_, known)| known.age);
        let skip = lines.len().saturating_sub(MAX_LINES);
        let text: String = lines[skip..]
            .iter()
            .map(|(stamp, known)| encode(stamp, &known.digest))
            .collect();
        durable::write_synced(aside, text.as_bytes())?;
        durable::rename(aside, &self.path)?;
        self.unsaved = 0;
        Ok(())
    }
}

fn encode(stamp: &Stamp, digest: &Digest) -> String {
    let Stamp {
        dev,
        ino,
        size,
        modified_ns,
        changed_ns,
    } = stamp;
    let fields = format!("{dev} {ino} {size} {modified_ns} {changed_ns} {digest}");
    format!("{:08x} {fields}\n", crc32fast::hash(fields.as_bytes()))
}

fn decode(line: &str) -> Option<(Stamp, Digest)> {
    let (checksum, fields) = line.split_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(fields.as_bytes()) {
        return None;
    }
    let [dev, ino, size, modified, changed, digest] = fields.split(' ').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let stamp = Stamp {
        dev: dev.parse().ok()?,
        ino: ino.parse().ok()?,
        size: size.parse().ok()?,
        modified_ns: modified.parse().ok()?,
        changed_ns: changed.parse().ok()?,
    };
    Some((stamp, digest.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stamp(ino: u64) -> Stamp {
        Stamp {
            dev: 1,
            ino,
            size: 3,
            modified_ns: 5_000_000_000,
            changed_ns: 6_000_000_000,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_touched_just_before_is_not_remembered() {
        let mut cache = StatCache::load("/nonexistent".into());
        for (second, remembered) in [(5, false), (8, false), (9, true)] {
            cache.learn(stamp(second), Digest::of(b"x"), at(second));
            assert_eq!(cache.get(&stamp(second)).is_some(), remembered, "{second}");
        }
    }

    #[test]
    fn two_processes_do_not_forget_each_others_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat-cache");
        let mut caches = [StatCache::load(path.clone()), StatCache::load(path.clone())];
        for (i, cache) in caches.iter_mut().enumerate() {
            cache.learn(stamp(i as u64), Digest::of(b"x"), at(100));
            cache.save(&folder.path().join("aside")).unwrap();
        }
        let cache = StatCache::load(path);
        assert_eq!(cache.known.len(), 2);
    }

    #[test]
    fn a_damaged_line_is_forgotten_and_the_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat-cache");
        let lines = [1, 2, 3].map(|ino| encode(&stamp(ino), &Digest::of(b"x")));
        let damaged = lines[1].replace(" 2 ", " 4 ");
        fs::write(
            &path,
            [
                lines[0].as_str(),
                &damaged,
                "\u{1}garbage\n",
                &lines[2],
                "0",
            ]
            .concat(),
        )
        .unwrap();
        let cache = StatCache::load(path);
        let known = [1, 2, 3, 4].map(|ino| cache.get(&stamp(ino)).is_some());
        assert_eq!(known, [true, false, true, false]);
    }
}
