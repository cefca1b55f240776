//! The folder for what is under way: one file and its notes for each, found again by what is brought.
//!
//! What was brought to its end is moved away from here, so that only what was cut off stays. What
//! nobody has touched for thirty days goes, and the oldest goes while all of it is too large.

use crate::digest::Sha256;
use crate::error::FetchError;
use crate::partial::Partial;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long something stays that nobody touches.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much may stay, bytes: a large model and a few data sets.
const LARGEST: u64 = 512 << 30;
/// Names the folder.
const VARIABLE: &str = "BENCHWRIGHT_CACHE_DIR";

/// The folder for what is under way.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    /// Bytes that may be lost by a cut, and have to be brought again.
    checkpoint: u64,
}

impl Cache {
    /// Uses a folder, created if missing, and removes what was left there too long ago. After each
    /// `checkpoint` bytes it is written down, and synced, what is there.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(folder: &Path, checkpoint: u64) -> Result<Self, FetchError> {
        fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
        let cache = Self {
            folder: folder.to_owned(),
            checkpoint: checkpoint.max(1),
        };
        cache.sweep(KEPT, LARGEST);
        Ok(cache)
    }

    /// The folder for downloads below [`of_user`](Self::of_user).
    pub fn usual(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
        Self::of_user(variable).join("downloads")
    }

    /// The folder that the environment names for all that is kept beyond runs, by
    /// `BENCHWRIGHT_CACHE_DIR`, or by `XDG_CACHE_HOME` or `HOME` and the names that are usual below
    /// them; a temporary one where it names none.
    pub fn of_user(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        variable(VARIABLE)
            .or_else(|| absolute("XDG_CACHE_HOME").map(|home| home.join("benchwright")))
            .or_else(|| absolute("HOME").map(|home| home.join(".cache/benchwright")))
            .unwrap_or_else(|| std::env::temp_dir().join("benchwright"))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens what is known by `identity`; `None` while another process has it.
    ///
    /// # Errors
    /// If the folder does not let it.
    pub(crate) fn claim(&self, identity: &str) -> Result<Option<Partial>, FetchError> {
        let key = Sha256::of(identity.as_bytes()).to_string();
        let stem = self.folder.join(&key[..32]);
        let path = stem.with_extension("lock");
        let lock = loop {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path);
            let lock = lock.map_err(FetchError::io("open", &path))?;
            match hold(&lock, &path) {
                Ok(Hold::Ours) => break lock,
                Ok(Hold::Stale) => {}
                Ok(Hold::Others) => return Ok(None),
                Err(error) => return Err(FetchError::io("lock", &path)(error.into())),
            }
        };
        Partial::open(&stem, lock, self.checkpoint).map(Some)
    }

    /// Removes what is older than `kept`, and the oldest until no more than `largest` bytes are left;
    /// what somebody works on stays. What cannot be removed stays too.
    fn sweep(&self, kept: Duration, largest: u64) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let parts = entries.map(|entry| entry.path());
        let parts = parts.filter(|path| path.extension().is_some_and(|kind| kind == "part"));
        let mut parts: Vec<(SystemTime, u64, PathBuf)> = parts
            .filter_map(|path| {
                let found = fs::metadata(&path).ok()?;
                Some((found.modified().ok()?, occupied(&found), path))
            })
            .collect();
        parts.sort();
        let mut total: u64 = parts.iter().map(|(_, bytes, _)| bytes).sum();
        let now = SystemTime::now();
        for (modified, bytes, path) in parts {
            let age = now.duration_since(modified).unwrap_or_default();
            if (age > kept || total > largest) && remove_unless_held(&path) {
                total -= bytes;
            }
        }
    }
}

/// Bytes on disk: files under way have holes.
fn occupied(found: &Metadata) -> u64 {
    found.blocks() * 512
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Whose a lock is.
#[derive(Debug, PartialEq, Eq)]
enum Hold {
    Ours,
    Others,
    /// Who had it removed it at its end: nobody else sees it.
    Stale,
}

fn hold(lock: &File, path: &Path) -> rustix::io::Result<Hold> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(lock, path) => Ok(Hold::Ours),
        Ok(()) => Ok(Hold::Stale),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Hold::Others),
        Err(error) => Err(error),
    }
}

fn remove_unless_held(part: &Path) -> bool {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(part.with_extension("lock"));
    lock.is_ok_and(|lock| remove_with(&lock, part))
}

/// Removes a part with its lock open, if that is still the lock of it.
fn remove_with(lock: &File, part: &Path) -> bool {
    if hold(lock, &part.with_extension("lock")) != Ok(Hold::Ours) {
        return false;
    }
    let all = ["json", "part", "lock"].map(|kind| fs::remove_file(part.with_extension(kind)));
    all[1].is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_folder() {
        let usual = |pairs: &[(&str, &str)]| {
            Cache::usual(|name| {
                let found = pairs.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        let home = ("HOME", "/h");
        let all = [(VARIABLE, "own"), ("XDG_CACHE_HOME", "/x"), home];
        assert_eq!(usual(&all), Path::new("own/downloads"));
        assert_eq!(usual(&all[1..]), Path::new("/x/benchwright/downloads"));
        assert_eq!(
            usual(&[("XDG_CACHE_HOME", "x"), home]),
            Path::new("/h/.cache/benchwright/downloads")
        );
        assert!(usual(&[]).starts_with(std::env::temp_dir()));
    }

    #[test]
    fn one_process_at_a_time_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1).expect("a cache");
        let claim = |name: &str| cache.claim(name).expect("a folder");
        let held = claim("a").expect("nobody has it");
        assert!(claim("a").is_none());
        for name in ["b", "c"] {
            let partial = claim(name).expect("nobody has it");
            partial.begin("u", Some(4), None).expect("room");
            partial.write(0, b"four").expect("room");
        }
        let count = || {
            fs::read_dir(folder.path())
                .expect("a folder")
                .flatten()
                .count()
        };
        let before = count();
        cache.sweep(KEPT, LARGEST);
        assert_eq!(count(), before);
        cache.sweep(KEPT, 0);
        let left: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
            .collect();
        assert_eq!(left.len(), 2, "its part and its lock: {left:?}");
        drop(held);
        assert!(claim("a").is_some());
    }

    #[test]
    fn a_lock_that_was_removed_meanwhile_removes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1).expect("a cache");
        let claim = || cache.claim("a").expect("a folder").expect("nobody has it");
        let first = claim();
        let part = first.data().to_owned();
        let old = File::open(part.with_extension("lock")).expect("a lock");
        first.discard().expect("the disk");
        drop(first);
        let _second = claim();
        assert!(!remove_with(&old, &part));
        assert!(part.exists(), "what another works on");
    }
}
