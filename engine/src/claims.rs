//! What this machine's runs take from each other: the machine as a whole, and parts of pools such
//! as GPUs and ports. Held by locks on files, so that they end with their holder, however it dies.
//!
//! ```text
//! machine        shared by whoever runs, exclusive to whoever measures
//! machine.turn   held by who waits for the machine alone, so that latecomers do not pass it by
//! <pool>/<part>  exclusive to who has the part
//! ```
//!
//! A run holds the machine once for all its nodes: what runs beside a measurement within one run
//! is the schedule's business. Nothing is held while waiting for something else but a turn, so no
//! two runs can wait for each other for the machine: a service claims it as its steps will. For parts
//! of pools they can, if each holds some for a service and wants more for a step; a wait has its limit.
//! Knows nothing of steps.

mod machine;

use crate::policy::{Demand, Machine, Supply};
use crate::run::folder::file_safe;
use machine::MachineLock;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names the folder of locks, for containers that share a machine but not its `/run/lock`.
pub const FOLDER_VARIABLE: &str = "BENCHWRIGHT_LOCK_DIR";

/// Where the locks of a machine lie, the first that is a folder.
const PLACES: [&str; 2] = ["/run/lock", "/tmp"];
const FOLDER: &str = "benchwright";
/// Pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long to wait for what others hold.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// The most that is read of what a holder wrote of itself, bytes.
const MAX_HOLDER: u64 = 300;

/// Why something could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The lock's file could not be used.
    #[error("could not use the lock `{}`: {source}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others held it too long.
    #[error("{what} is held by {holder} for too long")]
    TooLong {
        /// What was wanted.
        what: String,
        /// Who holds it.
        holder: String,
    },
}

/// What one run claims of the machine.
#[derive(Debug)]
pub struct Claims {
    folder: PathBuf,
    supply: Arc<Supply>,
    /// Who this is, as others are told.
    holder: String,
    machine: Mutex<MachineLock>,
}

/// What a node holds until this is dropped.
#[derive(Debug)]
pub struct Claim {
    /// The parts that it was given, by pool: names of devices, numbers of ports.
    pub parts: BTreeMap<String, Vec<String>>,
    _locks: Vec<File>,
    _machine: MachineHold,
}

/// One count of this run's hold on the machine.
#[derive(Debug)]
struct MachineHold {
    claims: Arc<Claims>,
    mode: Machine,
}

impl Drop for MachineHold {
    fn drop(&mut self) {
        self.claims.lock_machine().release(self.mode);
    }
}

/// The pool whose parts are GPUs, and the variable by which programs see only theirs.
const GPUS: (&str, &str) = ("gpus", "CUDA_VISIBLE_DEVICES");

/// Shows a program only the GPUs that were given to it, unless its environment names some already.
pub fn show_devices(claims: &BTreeMap<String, Vec<String>>, env: &mut BTreeMap<String, String>) {
    show_devices_of(claims, (0, 1), env);
}

/// The same for one of several programs that share them evenly: its position, and how many there are.
pub fn show_devices_of(
    claims: &BTreeMap<String, Vec<String>>,
    (position, n): (usize, usize),
    env: &mut BTreeMap<String, String>,
) {
    let (pool, variable) = GPUS;
    let Some(parts) = claims.get(pool).filter(|_| !env.contains_key(variable)) else {
        return;
    };
    let bound = |position: usize| parts.len() * position / n.max(1);
    let parts = &parts[bound(position)..bound(position + 1)];
    // Device files are called `nvidia0`, devices `0`.
    let names = parts.iter().map(|part| part.trim_start_matches("nvidia"));
    env.insert(variable.to_owned(), names.collect::<Vec<_>>().join(","));
}

/// What stands in the way of a claim.
struct Busy {
    what: String,
    holder: String,
}

impl Claims {
    /// Builds the claims of the run called `run` on the parts of `supply`, with locks in `folder`.
    pub fn new(folder: PathBuf, supply: Arc<Supply>, run: &str) -> Self {
        let holder = format!("run {run} (process {})", std::process::id());
        Self {
            machine: Mutex::new(MachineLock::new(&folder, holder.clone())),
            folder,
            supply,
            holder,
        }
    }

    /// Returns the folder of locks that all runs on this machine share.
    pub fn usual_folder() -> PathBuf {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|f| !f.is_empty()) {
            return PathBuf::from(folder);
        }
        let place = PLACES.iter().find(|place| Path::new(place).is_dir());
        Path::new(place.unwrap_or(&"/tmp")).join(FOLDER)
    }

    /// Waits until what `demand` asks for is free, and takes it; says meanwhile who holds it.
    ///
    /// Dropping the future gives up the wait.
    ///
    /// # Errors
    /// [`ClaimError`]; a day is the longest wait.
    pub async fn take(
        self: &Arc<Self>,
        demand: &Demand,
        say: impl Fn(String),
    ) -> Result<Claim, ClaimError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let _turn = (demand.machine == Machine::Exclusive).then(|| TurnGuard::of(self));
        loop {
            let busy = match self.try_take(demand)? {
                Ok(claim) => return Ok(claim),
                Err(busy) => busy,
            };
            if began.elapsed() > LONGEST_WAIT {
                let Busy { what, holder } = busy;
                return Err(ClaimError::TooLong { what, holder });
            }
            say(format!("waiting for {}: {} has it", busy.what, busy.holder));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Names who holds a part of a pool, if anyone does.
    ///
    /// # Errors
    /// If its lock cannot be used.
    pub fn holder(&self, pool: &str, part: &str) -> Result<Option<String>, ClaimError> {
        let path = self.folder.join(file_safe(pool)).join(file_safe(part));
        let is_free = try_lock(&path, &self.holder)?.is_some();
        Ok((!is_free).then(|| holder_of(&path)))
    }

    /// Takes everything or nothing.
    fn try_take(self: &Arc<Self>, demand: &Demand) -> Result<Result<Claim, Busy>, ClaimError> {
        if !self.lock_machine().try_acquire(demand.machine)? {
            return Ok(Err(Busy {
                what: "the machine".to_owned(),
                holder: holder_of(&self.folder.join(machine::MACHINE)),
            }));
        }
        let hold = MachineHold {
            claims: self.clone(),
            mode: demand.machine,
        };
        let mut claim = Claim {
            parts: BTreeMap::new(),
            _locks: Vec::new(),
            _machine: hold,
        };
        for (pool, amount) in &demand.amounts {
            if let Some(busy) = self.try_parts(pool, *amount, &mut claim)? {
                return Ok(Err(busy));
            }
        }
        Ok(Ok(claim))
    }

    fn try_parts(
        &self,
        pool: &str,
        amount: u32,
        claim: &mut Claim,
    ) -> Result<Option<Busy>, ClaimError> {
        let Some(all) = self.supply.get(pool) else {
            return Ok(None);
        };
        let folder = self.folder.join(file_safe(pool));
        let mut parts = Vec::new();
        let mut holder = None;
        for part in (0..all.size()).map(|i| all.part(i)) {
            if parts.len() >= amount as usize {
                break;
            }
            let path = folder.join(file_safe(&part));
            match try_lock(&path, &self.holder)? {
                Some(lock) => {
                    claim._locks.push(lock);
                    parts.push(part);
                }
                None => holder = Some(holder_of(&path)),
            }
        }
        let wanted = amount.min(all.size()) as usize;
        let busy = (parts.len() < wanted).then(|| Busy {
            what: format!("{amount} of `{pool}`"),
            holder: holder.unwrap_or_else(|| "another run".to_owned()),
        });
        claim.parts.insert(pool.to_owned(), parts);
        Ok(busy)
    }

    fn lock_machine(&self) -> std::sync::MutexGuard<'_, MachineLock> {
        // It is whole between any two statements, also if a thread panicked.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the turn back when a wait ends, also when it is given up.
struct TurnGuard<'a>(&'a Claims);

impl<'a> TurnGuard<'a> {
    fn of(claims: &'a Claims) -> Self {
        claims.lock_machine().want_turn();
        Self(claims)
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.lock_machine().give_up_turn();
    }
}

/// Takes the lock at `path` if nobody has it, and writes who has it now.
fn try_lock(path: &Path, holder: &str) -> Result<Option<File>, ClaimError> {
    let failed = |source| ClaimError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            // It only serves to say who has it.
            let _ = write_holder(&mut file, holder);
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens a lock's file, for every user of the machine.
fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
        fs::create_dir_all(folder)?;
        // As /tmp is: everybody may add, nobody may remove what is another's.
        for folder in folder.ancestors().take(2) {
            let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o1777));
        }
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).truncate(false).open(path)?;
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o666));
            Ok(file)
        }
        other => other,
    }
}

fn write_holder(file: &mut File, holder: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{holder}")
}

fn holder_of(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(MAX_HOLDER).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another run".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Pool;

    fn claims(folder: &Path, run: &str) -> Arc<Claims> {
        let supply = Supply::from([
            (
                "gpus".to_owned(),
                Pool::Devices(vec!["a".into(), "b".into()]),
            ),
            (
                "ports".to_owned(),
                Pool::Range {
                    first: 100,
                    last: 102,
                },
            ),
        ]);
        Arc::new(Claims::new(folder.to_owned(), Arc::new(supply), run))
    }

    fn demand(machine: Machine, amounts: &[(&str, u32)]) -> Demand {
        Demand {
            machine,
            amounts: amounts.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        }
    }

    fn try_take(claims: &Arc<Claims>, demand: &Demand) -> Result<Claim, String> {
        let taken = claims.try_take(demand).unwrap();
        taken.map_err(|busy| format!("{}: {}", busy.what, busy.holder))
    }

    #[test]
    fn a_measurement_of_one_run_and_anything_of_another_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|run| claims(folder.path(), run));
        let (shared, alone) = (
            demand(Machine::Shared, &[]),
            demand(Machine::Exclusive, &[]),
        );
        let first = try_take(&one, &shared).unwrap();
        let second = try_take(&two, &shared).unwrap();
        assert!(try_take(&two, &alone).is_err());
        drop(first);
        // What a run itself shares does not keep it from having the machine.
        let measuring = try_take(&two, &alone).unwrap();
        let error = try_take(&one, &shared).unwrap_err();
        assert!(
            error.starts_with("the machine: run two (process "),
            "{error}"
        );
        drop(second);
        assert!(try_take(&one, &shared).is_err());
        let beside = try_take(&two, &shared).unwrap();
        drop(measuring);
        assert!(try_take(&one, &shared).is_err(), "kept until all are done");
        drop(beside);
        assert!(try_take(&one, &alone).is_ok());
    }

    #[test]
    fn who_waits_to_be_alone_is_not_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|run| claims(folder.path(), run));
        let shared = demand(Machine::Shared, &[]);
        let running = try_take(&one, &shared).unwrap();
        assert!(try_take(&two, &demand(Machine::Exclusive, &[])).is_err());
        assert!(try_take(&three, &shared).is_err(), "two waits already");
        drop(running);
        let alone = try_take(&two, &demand(Machine::Exclusive, &[])).unwrap();
        drop(alone);
        assert!(try_take(&three, &shared).is_ok());
    }

    #[tokio::test]
    async fn a_claim_of_a_run_does_not_give_up_the_turn_of_another_of_its_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|run| claims(folder.path(), run));
        let (shared, alone) = (
            demand(Machine::Shared, &[]),
            demand(Machine::Exclusive, &[]),
        );
        let running = try_take(&one, &shared).unwrap();
        let mine = try_take(&two, &shared).unwrap();
        let wait = tokio::spawn({
            let two = two.clone();
            async move { two.take(&alone, |_| {}).await }
        });
        while try_take(&three, &shared).is_ok() {
            tokio::task::yield_now().await;
        }
        drop(two.take(&shared, |_| {}).await.unwrap());
        assert!(try_take(&three, &shared).is_err(), "two still waits");
        drop((running, mine));
        drop(wait.await.unwrap().unwrap());
        assert!(try_take(&three, &shared).is_ok());
    }

    #[test]
    fn nobody_is_told_of_a_holder_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|run| claims(folder.path(), run));
        drop(try_take(&one, &demand(Machine::Exclusive, &[])).unwrap());
        let _running = try_take(&two, &demand(Machine::Shared, &[])).unwrap();
        let error = try_take(&three, &demand(Machine::Exclusive, &[])).unwrap_err();
        assert_eq!(error, "the machine: another run");
    }

    #[test]
    fn parts_are_given_once_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|run| claims(folder.path(), run));
        let first = try_take(&one, &demand(Machine::Shared, &[("gpus", 1), ("ports", 2)])).unwrap();
        assert_eq!(first.parts["gpus"], ["a"]);
        assert_eq!(first.parts["ports"], ["100", "101"]);
        let error = try_take(&two, &demand(Machine::Shared, &[("gpus", 2)])).unwrap_err();
        assert!(error.starts_with("2 of `gpus`: run one"), "{error}");
        let second = try_take(&two, &demand(Machine::Shared, &[("gpus", 1)])).unwrap();
        assert_eq!(
            second.parts["gpus"],
            ["b"],
            "what was not had is given back"
        );
        drop(first);
        assert!(try_take(&one, &demand(Machine::Shared, &[("ports", 3)])).is_ok());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|run| claims(folder.path(), run));
        let running = try_take(&one, &demand(Machine::Shared, &[])).unwrap();
        let alone = demand(Machine::Exclusive, &[]);
        let wait = two.take(&alone, |_| {});
        let given_up = tokio::time::timeout(Duration::from_millis(30), wait).await;
        assert!(given_up.is_err());
        assert!(try_take(&three, &demand(Machine::Shared, &[])).is_ok());
        drop(running);
        assert!(two.take(&alone, |_| {}).await.is_ok());
    }
}
