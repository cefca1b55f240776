//! The folder of one run: `runs/<name>/` with its journal, the plan as it ran, logs and links to
//! results. One process at a time works in it, by a lock that dies with the process.

use super::RunError;
use super::history::Entry;
use crate::event::Event;
use crate::journal::{Durability, Journal, LockError, RunLock};
use crate::params::Settings;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const JOURNAL: &str = "journal.log";
const LOCK: &str = "lock";
const RECIPE: &str = "run.json";
const PLAN: &str = "plan.toml";
const LOCK_FILE: &str = "plan.lock.toml";

/// How a run was asked for: enough to ask again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recipe {
    /// Where the plan lay; paths in it are searched from there.
    pub plan_path: PathBuf,
    /// Parameters and variant.
    pub settings: Settings,
    /// What the order of samples is shuffled by.
    pub seed: u64,
    /// Whether new samples were asked for.
    pub fresh: bool,
    /// The version of the command.
    pub version: String,
}

/// The folder of a run that this process works on.
pub struct RunFolder {
    path: PathBuf,
    name: String,
    journal: Journal,
    _lock: RunLock,
}

impl RunFolder {
    /// Creates the folder of a new run of the plan called `plan` below `out`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(
        out: &Path,
        plan: &str,
        plan_text: &str,
        recipe: &Recipe,
    ) -> Result<Self, RunError> {
        let out = &absolute(out)?;
        let path = fresh_folder(&out.join("runs"), plan)?;
        let lock = acquire(&path)?;
        write(&path.join(PLAN), plan_text.as_bytes())?;
        let recipe = serde_json::to_vec_pretty(recipe).unwrap_or_default();
        write(&path.join(RECIPE), &recipe)?;
        let journal =
            Journal::create(&path.join(JOURNAL)).map_err(|e| RunError::Journal(e.to_string()))?;
        let folder = Self {
            name: file_name(&path),
            path,
            journal,
            _lock: lock,
        };
        folder.point_latest(out)?;
        Ok(folder)
    }

    /// Opens the folder of a run to go on with it.
    ///
    /// # Errors
    /// If another process works on it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let path = &absolute(path)?;
        let lock = acquire(path)?;
        let (journal, _) =
            Journal::open(&path.join(JOURNAL)).map_err(|e| RunError::Journal(e.to_string()))?;
        Ok(Self {
            name: file_name(path),
            path: path.to_owned(),
            journal,
            _lock: lock,
        })
    }

    /// Returns the run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event to the journal; those that resume rests on are on disk when this returns.
    pub(super) fn record(&mut self, at_ms: u64, event: &Event) -> Result<(), RunError> {
        let wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        let entry = Entry {
            wall_ms,
            at_ms,
            event: event.clone(),
        };
        let bytes = serde_json::to_vec(&entry).map_err(|e| RunError::Journal(e.to_string()))?;
        let durability = match event {
            Event::Decided { .. } | Event::Skipped { .. } | Event::Progressed { .. } => {
                Durability::Buffered
            }
            _ => Durability::Synced,
        };
        self.journal
            .append(&bytes, durability)
            .map_err(|e| RunError::Journal(e.to_string()))
    }

    /// Writes what the plan resolved to.
    pub(super) fn write_lock(&self, text: &str) -> Result<(), RunError> {
        write(&self.path.join(LOCK_FILE), text.as_bytes())
    }

    /// Returns the folder for logs of one run of a node.
    pub(super) fn logs(&self, node: &str, number: u32) -> Result<PathBuf, RunError> {
        let folder = self.path.join("logs").join(file_safe(node));
        // A run that goes on keeps what was said before, and begins anew.
        let mut path = folder.join(number.to_string());
        let mut attempt = 1;
        while path.exists() {
            attempt += 1;
            path = folder.join(format!("{number}.{attempt}"));
        }
        create(&path)?;
        Ok(path)
    }

    /// Returns an empty folder for outputs of one run of a node.
    pub(super) fn work(&self, node: &str, number: u32) -> Result<PathBuf, RunError> {
        let path = self
            .path
            .join("work")
            .join(file_safe(node))
            .join(number.to_string());
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| RunError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        create(&path)?;
        Ok(path)
    }

    /// Removes what steps that did not end well have left.
    pub(super) fn clean_work(&self) {
        // What cannot be removed disturbs nobody and is removed with the run.
        let _ = fs::remove_dir_all(self.path.join("work"));
    }

    /// Links a result so that a person finds it: `results/<node>/…/<file>`.
    pub(super) fn link(&self, folders: &[&str], file: &str, target: &Path) -> Result<(), RunError> {
        let mut folder = self.path.join("results");
        folder.extend(folders.iter().map(|f| file_safe(f)));
        create(&folder)?;
        let target = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
        let link = folder.join(file);
        let relative = relative_to(&folder, &target);
        if fs::read_link(&link).is_ok_and(|now| now == relative) {
            return Ok(());
        }
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&relative, &link)
            .map_err(|source| RunError::Folder { path: link, source })
    }

    fn point_latest(&self, out: &Path) -> Result<(), RunError> {
        let link = out.join("latest");
        let aside = out.join(format!(".latest-{}", std::process::id()));
        let _ = fs::remove_file(&aside);
        let made = std::os::unix::fs::symlink(Path::new("runs").join(&self.name), &aside);
        made.and_then(|()| fs::rename(&aside, &link))
            .map_err(|source| RunError::Folder { path: link, source })
    }
}

/// Reads how the run in `path` was asked for.
///
/// # Errors
/// If it is no folder of a run.
pub fn read_recipe(path: &Path) -> Result<(Recipe, String), RunError> {
    let read = |name: &str| {
        let path = path.join(name);
        fs::read_to_string(&path).map_err(|source| RunError::Folder { path, source })
    };
    let recipe = serde_json::from_str(&read(RECIPE)?).map_err(|e| RunError::Folder {
        path: path.join(RECIPE),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
    })?;
    Ok((recipe, read(PLAN)?))
}

/// Returns the path of a run's lock file, which is there once the run has ended in order.
pub fn lock_of(run: &Path) -> PathBuf {
    run.join(LOCK_FILE)
}

/// Returns the path of a run's journal.
pub(super) fn journal_of(run: &Path) -> PathBuf {
    run.join(JOURNAL)
}

/// Whether a living process works on the run.
pub(super) fn is_live(run: &Path) -> bool {
    RunLock::is_held(&run.join(LOCK)).unwrap_or(false)
}

/// Steps and services have working folders of their own, so no path of a run may be relative.
fn absolute(path: &Path) -> Result<PathBuf, RunError> {
    std::path::absolute(path).map_err(|source| RunError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn acquire(path: &Path) -> Result<RunLock, RunError> {
    RunLock::acquire(&path.join(LOCK)).map_err(|error| match error {
        LockError::Held { by, .. } => RunError::InUse {
            run: file_name(path),
            holder: by.map_or_else(String::new, |pid| format!(" (process {pid})")),
        },
        other => RunError::Journal(other.to_string()),
    })
}

fn fresh_folder(runs: &Path, plan: &str) -> Result<PathBuf, RunError> {
    create(runs)?;
    let stem = format!("{}-{}", timestamp(crate::samples::now_s()), file_safe(plan));
    for attempt in 0..1000 {
        let name = if attempt == 0 {
            stem.clone()
        } else {
            format!("{stem}-{attempt}")
        };
        let path = runs.join(name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(RunError::Folder { path, source }),
        }
    }
    let source = std::io::Error::other("a thousand runs began in this second");
    Err(RunError::Folder {
        path: runs.to_owned(),
        source,
    })
}

fn create(path: &Path) -> Result<(), RunError> {
    fs::create_dir_all(path).map_err(|source| RunError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let written = fs::File::create(path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|source| RunError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The longest name of a file made from a node's name, bytes.
const LONGEST_NAME: usize = 120;

/// Writes a node's name so that it is one file name, and different names stay different.
pub fn file_safe(name: &str) -> String {
    let mut safe = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() || "-_.,=[]+@".contains(c) {
            safe.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    if safe.len() <= LONGEST_NAME && !safe.starts_with('.') {
        return safe;
    }
    let head: String = safe
        .trim_start_matches('.')
        .chars()
        .take(LONGEST_NAME / 4)
        .collect();
    format!("{head}-{}", &blake3::hash(name.as_bytes()).to_hex()[..12])
}

pub(crate) fn relative_to(folder: &Path, target: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let shared = folder
        .components()
        .zip(target.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder.components().count() - shared;
    let mut relative: PathBuf = std::iter::repeat_n("..", up).collect();
    relative.extend(target.components().skip(shared));
    relative
}

/// Writes seconds since 1970 as `20261122-054500`, in UTC.
///
/// The date follows Howard Hinnant's `civil_from_days` (2013), which is exact for all days.
pub fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}-{:02}{:02}{:02}",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(timestamp(0), "19700101-000000");
        assert_eq!(timestamp(951_782_400), "20000229-000000");
        assert_eq!(timestamp(1_795_326_300), "20261122-054500");
    }

    #[test]
    fn different_names_have_different_files() {
        let names = [
            "org/a",
            "org_a",
            "org a",
            "org%2Fa",
            "load[request_rate=4]",
            ".",
            "..",
        ];
        let files: std::collections::BTreeSet<String> = names.map(file_safe).into();
        assert_eq!(files.len(), names.len(), "{files:?}");
        assert_eq!(file_safe("load[request_rate=4]"), "load[request_rate=4]");
        assert!(file_safe(&"ä".repeat(300)).len() < 255);
    }

    #[test]
    fn links_are_relative_so_that_a_folder_can_be_moved() {
        let relative = relative_to(
            Path::new("/out/runs/a/results/x"),
            Path::new("/out/store/trees/1/f"),
        );
        assert_eq!(relative, Path::new("../../../../store/trees/1/f"));
    }
}
