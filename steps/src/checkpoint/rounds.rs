//! Rounds of loads: in each every loader loads every checkpoint once, in an order by chance, so that what changes
//! in the machine meanwhile meets all of them alike.

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
use std::path::PathBuf;
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
    pub(super) ways: Vec<Way>,
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
    pub(super) way: Way,
    /// What was used in its place, because the kernel does not have it.
    pub(super) instead: Option<Way>,
    pub(super) stages: Stages,
    pub(super) bytes: u64,
    pub(super) blocks: usize,
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
}

/// Memory of all loads.
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
    pub(super) fn perform(&self, go_on: &dyn Fn(u64) -> bool) -> Result<Outcome, StepError> {
        let began = Instant::now();
        let mut memory = self.memory()?;
        let mut outcome = Outcome {
            timed: Vec::new(),
            pool_ready: began.elapsed(),
            pinned: memory.pinned(),
            refused: self.refused(),
        };
        let arms: Vec<(usize, Way)> = (0..self.sources.len())
            .flat_map(|source| self.ways.iter().map(move |way| (source, *way)))
            .collect();
        for round in 0..self.rounds {
            for at in permutation(arms.len(), self.seed.wrapping_add(round.into())) {
                let (source, way) = arms[at];
                let mut timed = self.measure(round, source, way, &mut memory, &outcome.refused)?;
                timed.round = round;
                outcome.timed.push(timed);
                if !go_on(outcome.timed.len() as u64) {
                    return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
                }
            }
        }
        Ok(outcome)
    }

    /// How many loads are timed.
    pub(super) fn loads(&self) -> u64 {
        u64::from(self.rounds) * (self.sources.len() * self.ways.len()) as u64
    }

    fn refused(&self) -> Vec<(Way, String)> {
        let file = self
            .sources
            .iter()
            .find_map(|source| source.contents.paths().into_iter().next());
        let Some(file) = file else { return Vec::new() };
        let why = |way: &Way| Some((*way, way.refusal(&file)?));
        self.ways.iter().filter_map(why).collect()
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
        let folders = &self.sources[source].folders;
        let folder = match self.order {
            Order::Cached => 0,
            Order::Random => {
                let order = permutation(folders.len(), self.seed ^ source as u64);
                order[round as usize % folders.len()]
            }
        };
        let load = Load {
            folder: folders[folder].clone(),
            way: instead.unwrap_or(way),
            effort: self.effort,
            block: self.block,
        };
        // The pool keeps a checkpoint only where it is to be found there.
        if self.state == StateChoice::HostPool || round == 0 && self.order == Order::Cached {
            checkpoints::load(&load, memory.destination()).map_err(failure)?;
        }
        if self.state != StateChoice::HostPool {
            memory.forget(&load);
        }
        let mut timed = self.time(&load, memory, round == 0 && self.is_checked)?;
        (timed.source, timed.way, timed.instead) = (source, way, instead);
        Ok(timed)
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
            way: load.way,
            instead: None,
            stages: loaded.stages,
            bytes: loaded.contents.tensor_bytes(),
            blocks: loaded.blocks,
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
