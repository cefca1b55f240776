//! The folder of one run: `runs/<name>/` with its journal, the plan as it ran, logs and links to
//! results. One process at a time works in it, by a lock that dies with the process.

use super::RunError;
use crate::disk;
use crate::event::Event;
use crate::journal::{Durability, Journal, LockError, RunLock};
use crate::key::Manifest;
use crate::params::Settings;
use crate::past::ManifestLog;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const JOURNAL: &str = "journal.log";
pub(super) const LOCK: &str = "lock";
const RECIPE: &str = "run.json";
const PLAN: &str = "plan.toml";
const SOURCES: &str = "sources";
const LOCK_FILE: &str = "plan.lock.toml";
const LOCK_FILE_ASIDE: &str = "plan.lock.toml.new";

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
    /// The lock file that the plan must agree with, if one was asked for.
    #[serde(default)]
    pub locked: Option<PathBuf>,
    /// The version of the command.
    pub version: String,
}

/// A recipe as it is kept, with the texts that it was read from.
#[derive(Serialize, Deserialize)]
struct KeptRecipe {
    #[serde(flatten)]
    recipe: Recipe,
    /// The texts besides the plan's own.
    #[serde(default)]
    sources: Vec<KeptSource>,
}

/// A text that a plan was read from besides its own.
#[derive(Serialize, Deserialize)]
struct KeptSource {
    /// Where it lay.
    path: PathBuf,
    /// Where it is kept, below the run's folder.
    file: PathBuf,
}

/// An [`Entry`](super::history::Entry) as it is written.
#[derive(Serialize)]
struct Noted<'a> {
    wall_ms: u64,
    at_ms: u64,
    event: &'a Event,
}

/// The folder of a run that this process works on.
pub struct RunFolder {
    path: PathBuf,
    name: String,
    journal: Journal,
    manifests: ManifestLog,
    _lock: RunLock,
}

impl Drop for RunFolder {
    /// Who gives a run up has no use for an error, and what was held was never promised.
    fn drop(&mut self) {
        let _ = self.journal.flush();
    }
}

impl RunFolder {
    /// Creates the folder of a new run of the plan called `plan` below `out`, and keeps the
    /// `texts` that it was read from, its own first.
    ///
    /// When this returns, the folder is on disk with all that resuming takes. The journal comes
    /// last: where there is one, there is the plan.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(
        out: &Path,
        plan: &str,
        texts: &[(PathBuf, String)],
        recipe: &Recipe,
    ) -> Result<Self, RunError> {
        let out = &absolute(out)?;
        let path = fresh_folder(&out.join("runs"), plan)?;
        let lock = acquire(&path)?;
        keep_recipe(&path, texts, recipe)?;
        disk::sync_folder(&path).map_err(RunError::on(&path))?;
        let journal =
            Journal::create(&path.join(JOURNAL)).map_err(|e| RunError::Journal(e.to_string()))?;
        let folder = Self {
            name: file_name(&path),
            manifests: ManifestLog::open(&path).map_err(RunError::on(&path))?,
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
        let folder = Self {
            name: file_name(path),
            path: path.to_owned(),
            manifests: ManifestLog::open(path).map_err(RunError::on(path))?,
            journal,
            _lock: lock,
        };
        // Who created it may have died before its name was on disk, and before it was the latest.
        if let Some(runs) = path.parent()
            && let Some(out) = runs.parent()
        {
            for folder in [runs, out] {
                disk::sync_folder(folder).map_err(RunError::on(folder))?;
            }
            if folder.is_newer_than_latest(out) {
                folder.point_latest(out)?;
            }
        }
        Ok(folder)
    }

    /// Returns the run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what a node is that has to run, for later explanations.
    pub(super) fn note(&mut self, node: &str, manifest: &Manifest) -> Result<(), RunError> {
        let noted = self.manifests.note(node, manifest);
        noted.map_err(RunError::on(&self.path))
    }

    /// Writes an event to the journal; those that resume rests on are on disk when this
    /// returns, the others are written with the next of those or by [`flush`](Self::flush).
    pub(super) fn record(&mut self, at_ms: u64, event: &Event) -> Result<(), RunError> {
        let wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        let entry = Noted {
            wall_ms,
            at_ms,
            event,
        };
        let bytes = serde_json::to_vec(&entry).map_err(|e| RunError::Journal(e.to_string()))?;
        let durability = match event {
            Event::Planned { .. }
            | Event::Decided { .. }
            | Event::Skipped { .. }
            | Event::Progressed { .. } => Durability::Held,
            _ => Durability::Synced,
        };
        self.journal
            .append(&bytes, durability)
            .map_err(|e| RunError::Journal(e.to_string()))
    }

    /// Lets other processes see every event that was recorded.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        let flushed = self.journal.flush();
        flushed.map_err(|e| RunError::Journal(e.to_string()))
    }

    /// Takes the lock file of another run beside this one; false if that has none.
    pub(super) fn share_lock(&self, run: &str) -> bool {
        let Some(runs) = self.path.parent() else {
            return false;
        };
        let (theirs, ours) = (runs.join(run).join(LOCK_FILE), self.path.join(LOCK_FILE));
        // One that a part of this run wrote before is replaced.
        let _ = disk::remove_file(&ours);
        theirs != ours && disk::hard_link(&theirs, &ours).is_ok()
    }

    /// Writes what the plan resolved to.
    pub(super) fn write_lock(&self, text: &str) -> Result<(), RunError> {
        // Never into the file that is there: it may be that of another run too.
        let (path, aside) = (self.path.join(LOCK_FILE), self.path.join(LOCK_FILE_ASIDE));
        write(&aside, text.as_bytes())?;
        disk::rename(&aside, &path)
            .and_then(|()| disk::sync_folder(&self.path))
            .map_err(RunError::on(&path))
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

    /// Returns an empty folder for outputs of the try of a node that logs to `logs`. A try that took
    /// too long may still write to its own: no two have the same.
    pub(super) fn work(&self, node: &str, logs: &Path) -> Result<PathBuf, RunError> {
        let of_node = self.path.join("work").join(file_safe(node));
        if of_node.exists() {
            disk::remove_all(&of_node).map_err(RunError::on(&of_node))?;
        }
        let path = of_node.join(file_name(logs));
        create(&path)?;
        Ok(path)
    }

    /// Removes what steps that did not end well have left.
    pub(super) fn clean_work(&self) {
        // What cannot be removed disturbs nobody and is removed with the run.
        let _ = disk::remove_all(&self.path.join("work"));
    }

    /// Links a result so that a person finds it: `results/<node>/…/<file>`.
    pub(super) fn link(&self, folders: &[&str], file: &str, target: &Path) -> Result<(), RunError> {
        use std::io::ErrorKind::{AlreadyExists, NotFound};
        let mut folder = self.path.join("results");
        folder.extend(folders.iter().map(|f| file_safe(f)));
        let target = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
        let link = folder.join(file);
        let relative = relative_to(&folder, &target);
        // Most often there is nothing, and a run in which all is done is mostly this.
        let made = match disk::symlink(&relative, &link) {
            Err(error) if error.kind() == NotFound => {
                create(&folder)?;
                disk::symlink(&relative, &link)
            }
            Err(error) if error.kind() == AlreadyExists => {
                if fs::read_link(&link).is_ok_and(|now| now == relative) {
                    return Ok(());
                }
                disk::remove_file(&link).and_then(|()| disk::symlink(&relative, &link))
            }
            other => other,
        };
        made.map_err(RunError::on(&link))
    }

    /// Whether `latest` leads to a run that began before this one, or nowhere.
    fn is_newer_than_latest(&self, out: &Path) -> bool {
        // Names begin with the time.
        let latest = fs::read_link(out.join("latest"));
        latest.map_or(true, |link| *file_name(&link) < *self.name)
    }

    fn point_latest(&self, out: &Path) -> Result<(), RunError> {
        let link = out.join("latest");
        let aside = out.join(format!(".latest-{}", std::process::id()));
        let _ = disk::remove_file(&aside);
        disk::symlink(&Path::new("runs").join(&self.name), &aside)
            .and_then(|()| disk::rename(&aside, &link))
            .and_then(|()| disk::sync_folder(out))
            .map_err(RunError::on(&link))
    }
}

fn keep_recipe(run: &Path, texts: &[(PathBuf, String)], recipe: &Recipe) -> Result<(), RunError> {
    let plan = texts.first().map_or("", |(_, text)| text.as_str());
    write(&run.join(PLAN), plan.as_bytes())?;
    let mut sources = Vec::new();
    for (i, (path, text)) in texts.iter().enumerate().skip(1) {
        let file = Path::new(SOURCES).join(format!("{i}-{}", file_safe(&file_name(path))));
        create(&run.join(SOURCES))?;
        write(&run.join(&file), text.as_bytes())?;
        let path = absolute(path)?;
        sources.push(KeptSource { path, file });
    }
    if !sources.is_empty() {
        let folder = run.join(SOURCES);
        disk::sync_folder(&folder).map_err(RunError::on(&folder))?;
    }
    let kept = KeptRecipe {
        recipe: recipe.clone(),
        sources,
    };
    let kept = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    write(&run.join(RECIPE), &kept)
}

/// Reads how the run in `path` was asked for, and the texts of its plan, the plan's own first.
///
/// # Errors
/// If its files cannot be read.
pub fn read_recipe(path: &Path) -> Result<(Recipe, Vec<(PathBuf, String)>), RunError> {
    let read = |name: &Path| {
        fs::read_to_string(path.join(name)).map_err(|source| RunError::Folder {
            path: path.join(name),
            source,
        })
    };
    let kept: KeptRecipe =
        serde_json::from_str(&read(Path::new(RECIPE))?).map_err(|e| RunError::Folder {
            path: path.join(RECIPE),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        })?;
    let mut texts = vec![(kept.recipe.plan_path.clone(), read(Path::new(PLAN))?)];
    for source in kept.sources {
        texts.push((source.path, read(&source.file)?));
    }
    Ok((kept.recipe, texts))
}

/// Returns the path of a run's lock file, which is there once the run has ended in order.
pub fn lock_file_of(run: &Path) -> PathBuf {
    run.join(LOCK_FILE)
}

/// Returns the path of a run's journal.
pub(super) fn journal_of(run: &Path) -> PathBuf {
    run.join(JOURNAL)
}

/// Returns the path of a run's lock.
pub(super) fn lock_of(run: &Path) -> PathBuf {
    run.join(LOCK)
}

/// Whether a living process works on the run.
pub(super) fn is_live(run: &Path) -> bool {
    RunLock::is_held(&lock_of(run)).unwrap_or(false)
}

/// Steps and services have working folders of their own, so no path of a run may be relative.
fn absolute(path: &Path) -> Result<PathBuf, RunError> {
    std::path::absolute(path).map_err(RunError::on(path))
}

fn acquire(path: &Path) -> Result<RunLock, RunError> {
    RunLock::acquire(&lock_of(path)).map_err(|error| match error {
        LockError::Held { by, .. } => RunError::InUse {
            run: file_name(path),
            holder: by.map_or_else(String::new, |pid| format!(" (process {pid})")),
        },
        other => RunError::Journal(other.to_string()),
    })
}

fn fresh_folder(runs: &Path, plan: &str) -> Result<PathBuf, RunError> {
    disk::create_folders_synced(runs).map_err(RunError::on(runs))?;
    let stem = format!("{}-{}", timestamp(crate::samples::now_s()), file_safe(plan));
    for attempt in 0..1000 {
        let name = if attempt == 0 {
            stem.clone()
        } else {
            format!("{stem}-{attempt}")
        };
        let path = runs.join(name);
        match disk::create_folder(&path) {
            Ok(()) => {
                disk::sync_folder(runs).map_err(RunError::on(runs))?;
                return Ok(path);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(RunError::on(&path)(source)),
        }
    }
    let source = std::io::Error::other("a thousand runs began in this second");
    Err(RunError::on(runs)(source))
}

fn create(path: &Path) -> Result<(), RunError> {
    disk::create_folders(path).map_err(RunError::on(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    disk::write_synced(path, bytes).map_err(RunError::on(path))
}

pub(super) fn file_name(path: &Path) -> String {
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
    fn every_text_of_a_plan_is_kept_with_the_place_where_it_lay() {
        let out = tempfile::tempdir().expect("a folder");
        let recipe = Recipe {
            plan_path: "/plans/p.toml".into(),
            settings: Settings::default(),
            seed: 0,
            fresh: false,
            locked: None,
            version: "1".into(),
        };
        let texts = [
            ("/plans/p.toml".into(), "one".to_owned()),
            ("/plans/library/a.toml".into(), "two".to_owned()),
            ("/elsewhere/a.toml".into(), "three".to_owned()),
        ];
        let run = RunFolder::create(out.path(), "p", &texts, &recipe).expect("a run");
        let (read, kept) = read_recipe(run.path()).expect("a recipe");
        assert_eq!(read.plan_path, recipe.plan_path);
        assert_eq!(kept, texts);
        assert!(run.path().join("sources/1-a.toml").is_file());
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
