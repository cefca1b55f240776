//! Finds what is left of a run whose engine and guardians were both killed, and ends it.
//!
//! Two sources: the run's register of processes, and the marks that every program of a run has in
//! its environment. Never goes by names of programs. Does not know whether a run is live: who asks
//! does, and holds the run's lock meanwhile.

use super::register::{self, Entry};
use super::secrets::masked_words;
use super::supervisor::{FOLDER_VARIABLE, RUN_VARIABLE};
use super::tree::{self, Stat};
use super::{Identity, identity};
use rustix::process::{Pid, Signal, getpid};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long survivors of SIGKILL are waited for.
const KILL_LIMIT: Duration = Duration::from_secs(15);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How much of a command line is shown, bytes.
const LONGEST_COMMAND: usize = 4096;
/// The deepest that processes are followed upwards: no system nests deeper.
const DEEPEST: usize = 4096;

/// How a process was found to belong to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// The run's register names it.
    Register,
    /// Its environment names the run.
    Mark,
    /// It descends from one that belongs to the run.
    Descent,
}

/// A process that a run has left behind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Leftover {
    /// Which process.
    #[serde(flatten)]
    pub identity: Identity,
    /// Its command line, without secrets that its options name.
    pub command: String,
    /// How long it has been running, seconds.
    pub age_s: u64,
    /// The step or service that it was started for, where the register says so.
    pub label: Option<String>,
    /// How it was found.
    pub found_by: FoundBy,
}

/// What became of leftovers.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reaped {
    /// All that were found.
    pub found: Vec<Leftover>,
    /// Those that are still there.
    pub left: Vec<Leftover>,
}

/// Ends what is left of the run in `run`, and verifies that it is gone: SIGTERM, after `grace`
/// SIGKILL. Blocks for at most `grace` and 15 s.
pub fn end(run: &Path, grace: Duration) -> Reaped {
    let mut found = Survey::now().leftovers(run);
    for leftover in &found {
        leftover.identity.signal(Signal::TERM);
        // One that is stopped would not see it.
        leftover.identity.signal(Signal::CONT);
    }
    wait_for(&found, grace);
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        // What was born meanwhile counts too.
        let left = Survey::now().leftovers(run);
        for leftover in &left {
            leftover.identity.signal(Signal::KILL);
            if !found.iter().any(|old| old.identity == leftover.identity) {
                found.push(leftover.clone());
            }
        }
        if left.is_empty() || Instant::now() >= deadline {
            return Reaped { found, left };
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn wait_for(leftovers: &[Leftover], limit: Duration) {
    let deadline = Instant::now() + limit;
    while leftovers.iter().any(|l| l.identity.is_alive()) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// All processes of this machine at one moment, as far as this user may see them.
pub struct Survey {
    stats: BTreeMap<i32, Stat>,
    marks: BTreeMap<i32, Mark>,
    boot_id: String,
    uptime: Duration,
}

/// What the environment of a process says of the run that it belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    run: OsString,
    folder: PathBuf,
}

impl Survey {
    /// Looks at every process.
    pub fn now() -> Self {
        let living = tree::processes().into_iter().filter(|stat| !stat.dead);
        let stats: BTreeMap<i32, Stat> = living.map(|stat| (raw(stat.pid), stat)).collect();
        let mark = |pid: &i32| Some((*pid, Mark::read(*pid)?));
        Self {
            marks: stats.keys().filter_map(mark).collect(),
            stats,
            boot_id: identity::boot_id(),
            uptime: uptime(),
        }
    }

    /// Finds what is left of the run in `run`, a folder; nothing is changed.
    pub fn leftovers(&self, run: &Path) -> Vec<Leftover> {
        let register = register::read(run);
        let mark = Mark::of(run);
        let mut belongs: BTreeMap<i32, FoundBy> = BTreeMap::new();
        for pid in register.iter().filter_map(|e| self.pid_of(&e.identity)) {
            belongs.insert(pid, FoundBy::Register);
        }
        for (pid, _) in self.marks.iter().filter(|(_, other)| **other == mark) {
            belongs.entry(*pid).or_insert(FoundBy::Mark);
        }
        let roots: Vec<i32> = belongs.keys().copied().collect();
        for pid in roots.into_iter().flat_map(|root| self.below(root)) {
            belongs.entry(pid).or_insert(FoundBy::Descent);
        }
        self.spare(&mut belongs, &mark);
        let describe = |(pid, found_by)| self.leftover(pid, found_by, &register);
        belongs.into_iter().filter_map(describe).collect()
    }

    /// The pid of the very process that `identity` names.
    fn pid_of(&self, identity: &Identity) -> Option<i32> {
        let pid = i32::try_from(identity.pid).ok()?;
        let stat = self.stats.get(&pid)?;
        let is_same = stat.start_time == identity.start_time && self.boot_id == identity.boot_id;
        is_same.then_some(pid)
    }

    fn below(&self, root: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut open = vec![root];
        while let Some(parent) = open.pop() {
            let children = self.stats.values().filter(|stat| stat.parent == parent);
            for child in children.map(|stat| raw(stat.pid)) {
                if child != root && !found.contains(&child) {
                    found.push(child);
                    open.push(child);
                }
            }
        }
        found
    }

    /// Takes out what must not be ended: this process and whoever it was started by, engines at
    /// work, what belongs to another run, and all that these were started by.
    fn spare(&self, belongs: &mut BTreeMap<i32, FoundBy>, mark: &Mark) {
        let is_another = |pid: &i32| {
            let marked_otherwise = self.marks.get(pid).is_some_and(|other| other != mark);
            marked_otherwise || works_on_a_run(*pid)
        };
        let mut spared: BTreeSet<i32> = belongs.keys().copied().filter(is_another).collect();
        // What an engine at work has started is its own business.
        let below: Vec<i32> = spared.iter().flat_map(|pid| self.below(*pid)).collect();
        spared.insert(raw(getpid()));
        let above: Vec<i32> = spared.iter().flat_map(|pid| self.above(*pid)).collect();
        spared.extend(below.into_iter().chain(above));
        belongs.retain(|pid, _| !spared.contains(pid));
    }

    fn above(&self, pid: i32) -> Vec<i32> {
        let parent = |pid: &i32| Some(self.stats.get(pid)?.parent);
        let chain = std::iter::successors(Some(pid), parent);
        chain.skip(1).take(DEEPEST).collect()
    }

    fn leftover(&self, pid: i32, found_by: FoundBy, register: &[Entry]) -> Option<Leftover> {
        let stat = self.stats.get(&pid)?;
        let identity = Identity {
            pid: stat.raw_pid(),
            start_time: stat.start_time,
            boot_id: self.boot_id.clone(),
        };
        let entry = register.iter().find(|entry| entry.identity == identity);
        let started = Duration::from_secs(stat.start_time / ticks_per_second());
        Some(Leftover {
            command: command_line(pid),
            age_s: self.uptime.saturating_sub(started).as_secs(),
            label: entry.map(|entry| entry.label.clone()),
            found_by,
            identity,
        })
    }
}

impl Mark {
    fn of(run: &Path) -> Self {
        Self {
            run: run.file_name().unwrap_or_default().to_owned(),
            folder: resolved(run),
        }
    }

    fn read(pid: i32) -> Option<Self> {
        let environ = identity::environ(Pid::from_raw(pid)?)?;
        let value = |name: &str| {
            let mut variables = environ.split(|byte| *byte == 0);
            let value = |v: &'_ [u8]| -> Option<OsString> {
                let value = v.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(OsString::from_vec(value.to_vec()))
            };
            variables.find_map(value)
        };
        // Both must fit: runs in different folders may have the same name.
        Some(Self {
            run: value(RUN_VARIABLE)?,
            folder: resolved(Path::new(&value(FOLDER_VARIABLE)?)),
        })
    }
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a process has the lock of a run open: an engine, which has inherited the mark of the run
/// that started it, or none.
fn works_on_a_run(pid: i32) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut targets = open
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    targets.any(|target| is_lock_of_a_run(&target))
}

fn is_lock_of_a_run(path: &Path) -> bool {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|n| n.to_owned());
    let runs = path.parent().and_then(Path::parent);
    name(Some(path)).is_some_and(|n| n == "lock") && name(runs).is_some_and(|n| n == "runs")
}

fn command_line(pid: i32) -> String {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.truncate(LONGEST_COMMAND);
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<String> = text
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect();
    masked_words(&words).join(" ")
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|s| s.parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_a_run_only_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs/one");
        fs::create_dir_all(&run).unwrap();
        let mark = |run: &str, folder: PathBuf| Mark {
            run: run.into(),
            folder: resolved(&folder),
        };
        let indirect = folder.path().join("runs/../runs/one");
        assert_eq!(mark("one", indirect), Mark::of(&run));
        assert_ne!(mark("two", run.clone()), Mark::of(&run));
        assert_ne!(mark("one", "/elsewhere/runs/one".into()), Mark::of(&run));
    }

    #[test]
    fn only_locks_of_runs_are_taken_for_those() {
        assert!(is_lock_of_a_run(Path::new("/out/runs/one/lock")));
        for other in [
            "/out/store/lock",
            "/lock",
            "/out/runs/one/log",
            "socket:[7]",
        ] {
            assert!(!is_lock_of_a_run(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn this_process_and_those_above_it_are_never_found() {
        let folder = tempfile::tempdir().unwrap();
        let me = Identity::of(std::process::id()).unwrap();
        let register = folder.path().join(register::REGISTER);
        register::add(&register, me.clone(), register::Role::Program, "me").unwrap();
        let parent = Survey::now().above(raw(getpid()))[0];
        let parent = Identity::of(u32::try_from(parent).unwrap()).unwrap();
        register::add(&register, parent, register::Role::Program, "above").unwrap();
        assert_eq!(Survey::now().leftovers(folder.path()), []);
    }
}
