//! Rounds of loads: in each every loader loads every checkpoint once, in an order by chance, so that what changes
//! in the machine meanwhile meets all of them alike.

use super::arms::Arm;
use super::foreign::Foreign;
use super::state::{self, StateChoice};
use super::target::Target;
use super::{failure, permutation};
use checkpoints::blocks::PACKED;
use checkpoints::device::Device;
use checkpoints::device::cuda::Cuda;
use checkpoints::loader::{Buffers, Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::usage::{Peak, PeakMemory, Usage};
use checkpoints::{Contents, Destination, Format, Load, Loaded, Stages};
use engine::step::{FailureClass, StepError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A checkpoint, or replicas of one.
pub(super) struct Source {
    pub(super) format: Format,
    pub(super) folders: Vec<PathBuf>,
    /// What the first of its folders holds, as all of them do.
    pub(super) contents: Contents,
}

/// What is done.
pub(super) struct Rounds {
    pub(super) sources: Vec<Source>,
    pub(super) rounds: u32,
    pub(super) to: Target,
    pub(super) state: StateChoice,
    pub(super) keeping: Keeping,
    pub(super) effort: Effort,
    /// Bytes of one read.
    pub(super) block: u64,
    /// Whether the first load of each kind is held to the files.
    pub(super) is_checked: bool,
    pub(super) order: Order,
    pub(super) seed: u64,
    /// How long a program of others may take for one load.
    pub(super) limit: Duration,
}

/// Which replica is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each once, in an order by chance.
    Random,
    /// The first, again and again, once before anything is timed.
    Cached,
}

/// Where loads go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// A pool of so many bytes, written to before.
    Resident { pool: u64 },
    /// Memory that each load takes anew.
    Fresh,
    /// So many blocks that go round, and a destination.
    Ring { blocks: u64 },
    /// A pool of so many bytes, and a destination.
    Through { pool: u64 },
}

/// One load that was timed.
pub(super) struct Timed {
    pub(super) round: u32,
    pub(super) source: usize,
    /// Which of those that load it was.
    pub(super) arm: usize,
    /// What that is called in results: who loaded, and what took its place.
    pub(super) loader: String,
    /// The reader, of one of ours.
    pub(super) way: Option<Way>,
    /// Until every tensor could be used.
    pub(super) total: Duration,
    /// Stages that were timed, by the names of result columns.
    pub(super) parts: Vec<(&'static str, Duration)>,
    pub(super) bytes: u64,
    /// Blocks that files were cut into, where that is known.
    pub(super) blocks: Option<usize>,
    /// Share of the files that was in the page cache before.
    pub(super) resident: f64,
    pub(super) told_by: &'static str,
    pub(super) cpu: Duration,
    pub(super) device_bytes: Option<u64>,
    pub(super) peak_memory: Option<Peak>,
    /// What `io_uring` read into, if that read.
    pub(super) buffers: Option<Buffers>,
    pub(super) trouble: Option<String>,
}

/// Everything that was found.
pub(super) struct Outcome {
    pub(super) timed: Vec<Timed>,
    /// How long it took to have memory ready, which no load has in its time.
    pub(super) pool_ready: Duration,
    /// How long of that it took to pin memory for a GPU, and for which.
    pub(super) pinned: Option<(Duration, String)>,
    /// Loaders that the kernel does not have, with why not.
    pub(super) refused: Vec<(Way, String)>,
    /// What there is to know of those that load.
    pub(super) remarks: Vec<String>,
}

/// Memory of all loads.
#[derive(Default)]
struct Memory {
    // In this order: memory is unpinned before the GPU is let go.
    pool: Option<Pool>,
    ring: Option<Region>,
    to: Option<Region>,
    gpu: Option<Cuda>,
    pinning: Duration,
}

impl Rounds {
    /// Does everything. Blocks.
    pub(super) fn perform(
        &self,
        arms: &mut [Arm],
        go_on: &dyn Fn(u64) -> bool,
    ) -> Result<Outcome, StepError> {
        let began = Instant::now();
        let has_native = arms.iter().any(|arm| arm.way().is_some());
        let mut memory = match has_native {
            true => self.memory()?,
            false => Memory::default(),
        };
        let mut outcome = Outcome {
            timed: Vec::new(),
            pool_ready: began.elapsed(),
            pinned: memory.pinned(),
            refused: self.refused(arms),
            remarks: self.remarks(arms),
        };
        let pairs = self.pairs(arms)?;
        for round in 0..self.rounds {
            for at in permutation(pairs.len(), self.seed.wrapping_add(round.into())) {
                let (source, arm) = pairs[at];
                let mut timed = match &mut arms[arm] {
                    Arm::Native(way) => {
                        self.measure(round, source, *way, &mut memory, &outcome.refused)?
                    }
                    Arm::Foreign(foreign) => self.measure_foreign(round, source, &mut **foreign)?,
                };
                (timed.round, timed.source, timed.arm) = (round, source, arm);
                outcome.timed.push(timed);
                if !go_on(outcome.timed.len() as u64) {
                    return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
                }
            }
        }
        Ok(outcome)
    }

    /// How many loads are timed.
    pub(super) fn loads(&self, arms: &[Arm]) -> Result<u64, StepError> {
        Ok(u64::from(self.rounds) * self.pairs(arms)?.len() as u64)
    }

    /// Every checkpoint with each of those that read its format.
    fn pairs(&self, arms: &[Arm]) -> Result<Vec<(usize, usize)>, StepError> {
        let mut pairs = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            let readers = (0..arms.len()).filter(|arm| arms[*arm].reads(source.format));
            pairs.extend(readers.map(|arm| (at, arm)));
        }
        if pairs.is_empty() {
            return Err(
                StepError::new("none of the loaders reads any of the checkpoints")
                    .help("add a loader of the format, or convert by `checkpoint.convert`"),
            );
        }
        Ok(pairs)
    }

    /// Who is left out of what, and who moves no bytes.
    fn remarks(&self, arms: &[Arm]) -> Vec<String> {
        let mut remarks = Vec::new();
        for arm in arms {
            for source in self.sources.iter().filter(|s| !arm.reads(s.format)) {
                let folder = source.folders.first().map(|f| f.display().to_string());
                remarks.push(format!(
                    "`{}` reads no {} and was left out of `{}`",
                    arm.name(),
                    source.format.word(),
                    folder.unwrap_or_default()
                ));
            }
            if let Arm::Foreign(foreign) = arm
                && !foreign.loads_into_memory()
            {
                remarks.push(format!(
                    "`{}` has no memory of its own for what it loads: from the page cache it may move no byte",
                    foreign.name()
                ));
            }
        }
        remarks
    }

    fn refused(&self, arms: &[Arm]) -> Vec<(Way, String)> {
        let file = self
            .sources
            .iter()
            .find_map(|source| source.contents.paths().into_iter().next());
        let Some(file) = file else { return Vec::new() };
        let why = |way: Way| Some((way, way.refusal(&file)?));
        arms.iter().filter_map(Arm::way).filter_map(why).collect()
    }

    fn memory(&self) -> Result<Memory, StepError> {
        let of = |source: &Source| {
            let contents = &source.contents;
            contents.file_bytes() + contents.tensors.len() as u64 * PACKED
        };
        let most = self.sources.iter().map(of).max().unwrap_or(0);
        let gpu = self.to.open()?;
        let mut pinning = Duration::ZERO;
        let region = |bytes| Region::new(bytes, Touch::Before).map_err(failure);
        let mut pinned = |bytes: u64| -> Result<Region, StepError> {
            let mut region = region(bytes)?;
            if let Some(gpu) = &gpu {
                let began = Instant::now();
                region.pin(gpu).map_err(failure)?;
                pinning += began.elapsed();
            }
            Ok(region)
        };
        let (pool, ring, to) = match self.keeping {
            Keeping::Resident { pool } => (Some(pool), None, None),
            Keeping::Fresh => (None, None, None),
            Keeping::Ring { blocks } => (None, Some(blocks * self.block), Some(most)),
            Keeping::Through { pool } => (Some(pool), None, Some(most)),
        };
        let pool = pool.map(&mut pinned).transpose()?.map(Pool::new);
        let ring = ring.map(&mut pinned).transpose()?;
        // A GPU is a destination itself.
        let to = to.filter(|_| gpu.is_none()).map(region).transpose()?;
        Ok(Memory {
            pool,
            ring,
            to,
            gpu,
            pinning,
        })
    }

    fn measure(
        &self,
        round: u32,
        source: usize,
        way: Way,
        memory: &mut Memory,
        refused: &[(Way, String)],
    ) -> Result<Timed, StepError> {
        let is_refused = |way: Way| refused.iter().any(|(other, _)| *other == way);
        let instead =
            is_refused(way).then(|| match is_refused(Way::Direct) || way == Way::Direct {
                true => Way::Buffered,
                false => Way::Direct,
            });
        let load = Load {
            folder: self.folder(round, source).to_owned(),
            way: instead.unwrap_or(way),
            effort: self.effort,
            block: self.block,
        };
        // The pool keeps a checkpoint only where it is to be found there.
        if self.state == StateChoice::HostPool || self.is_before_all(round) {
            checkpoints::load(&load, memory.destination()).map_err(failure)?;
        }
        if self.state != StateChoice::HostPool {
            memory.forget(&load);
        }
        let mut timed = self.time(&load, memory, round == 0 && self.is_checked)?;
        timed.loader = match instead {
            Some(instead) => format!("{} in place of {}", instead.word(), way.word()),
            None => way.word().to_owned(),
        };
        Ok(timed)
    }

    /// The replica that a round loads.
    fn folder(&self, round: u32, source: usize) -> &Path {
        let folders = &self.sources[source].folders;
        match self.order {
            Order::Cached => &folders[0],
            Order::Random => {
                let order = permutation(folders.len(), self.seed ^ source as u64);
                &folders[order[round as usize % folders.len()]]
            }
        }
    }

    /// Whether there is a load before this one that is not timed.
    fn is_before_all(&self, round: u32) -> bool {
        round == 0 && self.order == Order::Cached
    }

    fn measure_foreign(
        &self,
        round: u32,
        source: usize,
        foreign: &mut dyn Foreign,
    ) -> Result<Timed, StepError> {
        let folder = self.folder(round, source);
        let contents = Contents::read(folder).map_err(failure)?;
        if self.is_before_all(round) {
            foreign.load(folder, self.limit)?;
        }
        let found = state::prepare(self.state, &contents.paths())?;
        let loaded = foreign.load(folder, self.limit)?;
        let expected = contents.tensor_bytes();
        if loaded.bytes < expected {
            let message = format!(
                "`{}` loaded {} bytes of `{}`, whose tensors have {expected}",
                foreign.name(),
                loaded.bytes,
                folder.display()
            );
            return Err(StepError::new(message).help("nothing of it was kept"));
        }
        Ok(Timed {
            round,
            source,
            arm: 0,
            loader: foreign.name().to_owned(),
            way: None,
            total: loaded.total,
            parts: loaded.parts,
            bytes: expected,
            blocks: None,
            resident: found.residency.share(),
            told_by: found.residency.by,
            cpu: loaded.cpu,
            device_bytes: None,
            peak_memory: loaded.peak_memory.map(|bytes| Peak { bytes, by: "VmHWM" }),
            buffers: None,
            trouble: found.trouble,
        })
    }

    fn time(&self, load: &Load, memory: &mut Memory, is_checked: bool) -> Result<Timed, StepError> {
        let contents = Contents::read(&load.folder).map_err(failure)?;
        let found = state::prepare(self.state, &contents.paths())?;
        let peak = PeakMemory::watch();
        let before = Usage::now();
        let loaded = checkpoints::load(load, memory.destination()).map_err(failure)?;
        let after = Usage::now();
        let peak_memory = peak.end();
        if is_checked {
            require_same(load, &loaded)?;
        }
        let is_missing = self.state == StateChoice::HostPool && !loaded.was_resident;
        let missing = is_missing.then(|| "the checkpoint was not in the pool".to_owned());
        let device_bytes = after.device_bytes.zip(before.device_bytes);
        Ok(Timed {
            round: 0,
            source: 0,
            arm: 0,
            loader: String::new(),
            way: Some(load.way),
            total: loaded.stages.total,
            parts: parts(&loaded.stages),
            bytes: loaded.contents.tensor_bytes(),
            blocks: Some(loaded.blocks),
            resident: found.residency.share(),
            told_by: found.residency.by,
            cpu: after.cpu.saturating_sub(before.cpu),
            device_bytes: device_bytes.map(|(after, before)| after.saturating_sub(before)),
            peak_memory,
            buffers: loaded.buffers.clone(),
            trouble: found.trouble.or(missing),
        })
    }
}

impl Memory {
    fn destination(&mut self) -> Destination<'_> {
        if let Some(device) = &mut self.gpu {
            return match (&mut self.ring, &mut self.pool) {
                (Some(ring), _) => Destination::RingToDevice { ring, device },
                (None, Some(pool)) => Destination::PoolToDevice { pool, device },
                // A plan that asks for neither is refused before it runs.
                (None, None) => Destination::Fresh,
            };
        }
        match (&mut self.pool, &mut self.ring, &mut self.to) {
            (_, Some(ring), Some(to)) => Destination::Ring { ring, to },
            (Some(pool), _, Some(to)) => Destination::Through { pool, to },
            (Some(pool), _, None) => Destination::Pool(pool),
            _ => Destination::Fresh,
        }
    }

    /// How long it took to pin memory, and for which GPU.
    fn pinned(&self) -> Option<(Duration, String)> {
        let gpu = self.gpu.as_ref()?;
        Some((self.pinning, gpu.name().to_owned()))
    }

    fn forget(&mut self, load: &Load) {
        if let Some(pool) = &mut self.pool {
            pool.forget(&load.folder.to_string_lossy());
        }
    }
}

/// Stages by the names of result columns.
fn parts(stages: &Stages) -> Vec<(&'static str, Duration)> {
    vec![
        ("header_ms", stages.header),
        ("open_ms", stages.open),
        ("allocate_ms", stages.allocate),
        ("read_ms", stages.read),
        ("copy_ms", stages.copy),
        ("first_tensor_ms", stages.first_tensor),
    ]
}

/// Fails if a tensor in memory is not as in the files.
fn require_same(load: &Load, loaded: &Loaded<'_>) -> Result<(), StepError> {
    let differs = loaded.first_difference().map_err(failure)?;
    let Some(tensor) = differs else { return Ok(()) };
    let (way, folder) = (load.way.word(), load.folder.display());
    let message =
        format!("`{way}` brought `{tensor}` of `{folder}` with other bytes than its file has");
    Err(StepError::new(message)
        .help("this is a fault of the loader, or of the memory: nothing of it was kept"))
}
