//! Where environments live: a folder beyond all runs, each environment under its own digest.
//!
//! An environment is whole once its marker is there, which is written last; what has none is removed and
//! built anew, and nobody uses it. It is built in its place, because the scripts of an environment name
//! their Python by its whole path, and by one process at a time.

use super::installer::Installer;
use super::interpreter::Interpreter;
use super::named::{LOCK, Named};
use super::runner::Runner;
use crate::files;
use engine::step::StepError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Names the folder in place of the usual one.
const VARIABLE: &str = "BENCHWRIGHT_CACHE_DIR";
/// What is written last.
const MARKER: &str = "benchwright.json";
/// How often it is tried to get what another process builds.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of all environments together, about five engines with CUDA.
const MOST: u64 = 60 << 30;
/// Whatever was used within this time stays, because it may be in use.
const IN_USE: Duration = Duration::from_secs(48 * 60 * 60);

/// The folder of all environments.
pub(crate) struct Cache {
    root: PathBuf,
}

/// What the marker says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    id: String,
    n_packages: usize,
    bytes: u64,
}

impl Cache {
    /// Finds the folder that this user's environments are in.
    pub(crate) fn of_user() -> Result<Self, StepError> {
        Ok(Self::at(&user_cache()?))
    }

    pub(super) fn at(folder: &Path) -> Self {
        Self {
            root: folder.join("environments"),
        }
    }

    /// Where the environment is, or will be.
    pub(crate) fn folder(&self, named: &Named) -> PathBuf {
        self.root.join(&named.told.id)
    }

    /// Makes sure that the environment is there and whole; returns whether it had to be built.
    pub(super) async fn provide(
        &self,
        named: &Named,
        python: &Interpreter,
        installer: &Installer,
        runner: &Runner,
    ) -> Result<bool, StepError> {
        files::create_dir(&self.root)?;
        let _alone = self.lock(named).await?;
        if self.use_now(named) {
            return Ok(false);
        }
        let half = Half(self.folder(named));
        half.remove()?;
        let lock = runner.folder("install").join(LOCK);
        files::create_dir(&runner.folder("install"))?;
        files::write(&lock, &named.lock)?;
        let sources = &named.told.sources;
        installer
            .install(&lock, sources, python, &half.0, runner)
            .await?;
        self.finish(named, half)?;
        self.prune(MOST, IN_USE, &named.told.id);
        Ok(true)
    }

    /// Says whether the environment is whole, and notes that it is used.
    pub(super) fn use_now(&self, named: &Named) -> bool {
        let folder = self.folder(named);
        let Some(marker) = read_marker(&folder) else {
            return false;
        };
        // Its Python is a link: to one that may have been removed.
        let runs = folder.join("bin/python").metadata().is_ok();
        let is_whole =
            marker.id == named.told.id && runs && n_installed(&folder) >= marker.n_packages;
        if is_whole {
            let marker = File::options().append(true).open(folder.join(MARKER));
            // What is not noted is only forgotten sooner.
            let _ = marker.and_then(|marker| marker.set_modified(SystemTime::now()));
        }
        is_whole
    }

    /// Waits until no other process builds this environment.
    async fn lock(&self, named: &Named) -> Result<File, StepError> {
        lock(&self.root.join(format!("{}.lock", named.told.id))).await
    }

    /// Declares what was built whole.
    fn finish(&self, named: &Named, half: Half) -> Result<(), StepError> {
        let marker = Marker {
            id: named.told.id.clone(),
            n_packages: n_installed(&half.0),
            bytes: bytes_in(&half.0),
        };
        files::write_json(&half.0.join(MARKER), &marker)?;
        half.keep();
        Ok(())
    }

    /// Removes what was not used for longest until all together take at most `most` bytes; never `kept`,
    /// nor what was used within `in_use`.
    fn prune(&self, most: u64, in_use: Duration, kept: &str) {
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let folder = entry.path();
            let used = folder.join(MARKER).metadata().and_then(|m| m.modified());
            if let (Some(marker), Ok(used)) = (read_marker(&folder), used) {
                all.push((used, marker.bytes, folder));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        for (used, bytes, folder) in all {
            let is_old = used.elapsed().is_ok_and(|age| age > in_use);
            if total <= most || !is_old || folder.ends_with(kept) {
                continue;
            }
            // The marker first: nobody takes the rest for whole.
            let _ = fs::remove_file(folder.join(MARKER));
            let _ = fs::remove_dir_all(&folder);
            total = total.saturating_sub(bytes);
        }
    }
}

/// The folder of what this user builds and keeps beyond all runs.
pub(crate) fn user_cache() -> Result<PathBuf, StepError> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    let own = var(VARIABLE).map(PathBuf::from);
    let xdg = || var("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("benchwright"));
    let home = || var("HOME").map(|home| PathBuf::from(home).join(".cache/benchwright"));
    let folder = own.or_else(xdg).or_else(home).ok_or_else(|| {
        StepError::new("there is no folder for what is built: neither a cache nor a home")
            .help(format!("name one in `{VARIABLE}`"))
    })?;
    std::path::absolute(&folder).map_err(|e| StepError::because("could not find the cache", e))
}

/// Waits until no other process holds the lock that is this file.
pub(crate) async fn lock(path: &Path) -> Result<File, StepError> {
    let failed =
        |e: std::io::Error| StepError::because(format!("could not lock `{}`", path.display()), e);
    let file = File::create(path).map_err(failed)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// A folder that is removed unless what is in it becomes whole.
struct Half(PathBuf);

impl Half {
    fn remove(&self) -> Result<(), StepError> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let what = format!(
                    "could not remove the half environment `{}`",
                    self.0.display()
                );
                Err(StepError::because(what, error))
            }
            _ => Ok(()),
        }
    }

    /// It is whole: it stays.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // Without a marker nobody uses what stays.
        let _ = self.remove();
    }
}

fn read_marker(folder: &Path) -> Option<Marker> {
    files::read_json(&folder.join(MARKER)).ok()
}

/// Packages that are installed, by their metadata.
fn n_installed(folder: &Path) -> usize {
    let pythons = fs::read_dir(folder.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    let sites = pythons.map(|python| python.path().join("site-packages"));
    let entries = sites.flat_map(|site| fs::read_dir(site).into_iter().flatten().flatten());
    let is_metadata = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".dist-info");
    entries
        .filter(|entry| is_metadata(&entry.file_name()))
        .count()
}

/// Bytes of all files below a folder; links count nothing.
fn bytes_in(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) if data.is_file() => bytes += data.len(),
                _ => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::named::Sources;
    use super::*;

    fn named(version: &str) -> Named {
        let python = Interpreter {
            program: String::new(),
            version: version.to_owned(),
            platform: "here".to_owned(),
        };
        Named::new("six==1.17.0\n".to_owned(), &python, Sources::default())
    }

    /// What an installer leaves.
    fn fill(folder: &Path) {
        let site = folder.join("lib/python3/site-packages/six-1.17.0.dist-info");
        fs::create_dir_all(&site).expect("a folder");
        fs::create_dir_all(folder.join("bin")).expect("a folder");
        fs::write(folder.join("bin/python"), "").expect("a file");
    }

    fn build(cache: &Cache, named: &Named) {
        fill(&cache.folder(named));
        cache
            .finish(named, Half(cache.folder(named)))
            .expect("finished");
    }

    #[test]
    fn only_what_was_finished_and_is_whole_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, one) = (Cache::at(folder.path()), named("1"));
        fill(&cache.folder(&one));
        assert!(!cache.use_now(&one), "its building was cut off");
        build(&cache, &one);
        assert!(cache.use_now(&one));
        fs::remove_dir_all(cache.folder(&one).join("lib")).expect("removed");
        assert!(!cache.use_now(&one), "its packages are gone");
        build(&cache, &one);
        fs::remove_file(cache.folder(&one).join("bin/python")).expect("removed");
        assert!(!cache.use_now(&one), "its Python is gone");
    }

    #[test]
    fn what_is_given_up_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, one) = (Cache::at(folder.path()), named("1"));
        fill(&cache.folder(&one));
        drop(Half(cache.folder(&one)));
        assert!(!cache.folder(&one).exists());
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path());
        for (version, age) in [("1", 300), ("2", 200), ("3", 100), ("4", 0)] {
            build(&cache, &named(version));
            fs::write(cache.folder(&named(version)).join("large"), [0; 64]).expect("a file");
            build(&cache, &named(version));
            let marker = File::options()
                .append(true)
                .open(cache.folder(&named(version)).join(MARKER));
            let then = SystemTime::now() - Duration::from_secs(age);
            marker.and_then(|m| m.set_modified(then)).expect("an age");
        }
        let id = |version| named(version).told.id;
        let there = || ["1", "2", "3", "4"].map(|v| cache.folder(&named(v)).exists());
        cache.prune(u64::MAX, Duration::ZERO, &id("4"));
        assert_eq!(there(), [true; 4]);
        cache.prune(0, Duration::from_secs(250), &id("4"));
        assert_eq!(
            there(),
            [false, true, true, true],
            "the others may be in use"
        );
        cache.prune(0, Duration::from_secs(50), &id("2"));
        assert_eq!(there(), [false, true, false, true]);
    }
}
