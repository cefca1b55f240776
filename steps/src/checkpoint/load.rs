//! `checkpoint.load`: how long checkpoints take from storage into memory.

use super::arms::{Arm, called};
use super::best::Ceiling;
use super::python::{BackendChoice, start_all};
use super::rounds::{Keeping, Order, Rounds, Source};
use super::sllm::{SllmStore, StoreTarget};
use super::state::StateChoice;
use super::target::Target;
use super::told::Told;
use super::{blocking, count, failure};
use crate::files;
use crate::kinds::{Measured, Model, ModelStore, PythonEnvironment, ReplicaSet};
use checkpoints::loader::{Effort, Way};
use checkpoints::{Contents, Replicas};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Lease, Positive, Samples};
use engine::value::Table;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

engine::choices! {
    /// Who loads.
    pub enum LoaderChoice {
        /// Maps files and touches every page: what is loaded lies in the page cache, and no byte is moved if it
        /// was there.
        Mmap = "mmap",
        /// Maps files and copies from there.
        MmapCopy = "mmap_copy",
        /// Reads through the page cache.
        Buffered = "buffered",
        /// Reads past the page cache, by threads that each take the next block.
        Direct = "direct",
        /// Reads past the page cache by `io_uring`, one thread with several blocks under way. Where the kernel does
        /// not have it, `direct` takes its place and the result says so.
        IoUring = "io_uring",
        /// The safetensors package of each environment in `python`, in a program of Python that runs before
        /// anything is timed; its name in results has the version, such as `safetensors 0.8.0`.
        Safetensors = "safetensors",
        /// The ServerlessLLM store in `store`, which runs already; its name in results has the version.
        SllmStore = "sllm_store",
    }
}

engine::choices! {
    /// Which replica a round loads.
    pub enum OrderChoice {
        /// Each once, in an order by chance.
        Random = "random",
        /// The first in every round, and once before anything is timed.
        Cached = "cached",
    }
}

engine::choices! {
    /// What memory a load finds.
    pub enum MemoryChoice {
        /// Large pages that are there already, as a server that loads models again and again has them.
        PoolReady = "pool_ready",
        /// None: the load takes it from the system, as a program does that loads once.
        FirstTouch = "first_touch",
    }
}

engine::choices! {
    /// Where a checkpoint is kept.
    pub enum ModeChoice {
        /// Whole, as its files have it; tensors are used where they lie.
        Resident = "resident",
        /// A few blocks that go round; from there tensors are copied to a destination, beside the reading.
        Ring = "ring",
    }
}

engine::options! {
    /// Options of `checkpoint.load`.
    pub struct CheckpointLoad {
        /// Folders with checkpoints, of either format.
        checkpoints: Vec<Artifact<Model>> = Vec::new();
        /// Replicas of checkpoints, see `checkpoint.replicate`.
        replicas: Vec<Artifact<ReplicaSet>> = Vec::new();
        /// Who loads: in each round every one of them loads every checkpoint once, in an order by chance.
        loaders: Vec<LoaderChoice>;
        /// Environments of `env.python` that have safetensors and numpy, and `ml_dtypes` or `torch` for types that
        /// numpy lacks, such as BF16. Each is a loader of its own.
        python: Vec<Artifact<PythonEnvironment>> = Vec::new();
        /// How Python's safetensors reads; the package's own choice if absent, and 0.8 is the first to have another.
        safetensors_backend: Option<BackendChoice>;
        /// The ServerlessLLM store, see `server.sllm_store`.
        store: Option<Lease<ModelStore>>;
        /// Where the ServerlessLLM store loads to.
        store_target: StoreTarget = StoreTarget::Host;
        /// The longest that a program of others may take to load a checkpoint once.
        load_timeout: Duration = Duration::from_secs(600);
        /// How many rounds.
        rounds: NonZeroU32 = NonZeroU32::new(7).unwrap_or(NonZeroU32::MIN);
        /// Which replica a round loads.
        order: OrderChoice = OrderChoice::Random;
        /// What is in memory when a load begins. It is brought about and looked at before each load; where it
        /// is not so, the sample is invalid.
        state: StateChoice = StateChoice::GuestCold;
        /// What memory a load finds.
        memory: MemoryChoice = MemoryChoice::PoolReady;
        /// Where a checkpoint is kept.
        mode: ModeChoice = ModeChoice::Resident;
        /// Where tensors go: `host`, or `cuda:N` for a GPU, by pinned memory and with copies beside the reading.
        to: Target = Target::Host;
        /// Memory of the pool, in which what was not used for longest makes room; as much as the largest
        /// checkpoint needs if absent, or all of them with `state = "host_pool"`.
        pool: Option<Positive>, in "GB";
        /// The most that one read asks for.
        block: NonZeroU32 = NonZeroU32::new(16).unwrap_or(NonZeroU32::MIN), in "MiB";
        /// Threads that read; `io_uring` has one.
        threads: NonZeroU32 = NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN);
        /// Blocks that `io_uring` has under way at once.
        depth: NonZeroU32 = NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN), in "blocks";
        /// Blocks that go round with `mode = "ring"`.
        ring: NonZeroU32 = NonZeroU32::new(32).unwrap_or(NonZeroU32::MIN), in "blocks";
        /// Whether every tensor of the first round is held to the files, read once more outside of the time.
        check: bool = true;
        /// The loader to which others are held, round by round: `speedup`. One of those in `loaders`; where a word
        /// stands for several, with the version, such as `safetensors 0.8.0`.
        baseline: Option<String>;
        /// What the storage can do, see `storage.ceiling`.
        ceiling: Option<Samples<Measured>>;
        /// Starts the random orders; the sample's index is added.
        seed: u64 = 42;
    }
}

impl LoaderChoice {
    /// The reader of ours that it means, if it is none of others.
    fn way(self) -> Option<Way> {
        match self {
            LoaderChoice::Mmap => Some(Way::Mmap),
            LoaderChoice::MmapCopy => Some(Way::MmapCopy),
            LoaderChoice::Buffered => Some(Way::Buffered),
            LoaderChoice::Direct => Some(Way::Direct),
            LoaderChoice::IoUring => Some(Way::IoUring),
            LoaderChoice::Safetensors | LoaderChoice::SllmStore => None,
        }
    }
}

impl StepType for CheckpointLoad {
    const NAME: &'static str = "checkpoint.load";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Measures how long checkpoints take into host or GPU memory, stage by stage, from a cache state that is verified.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "One row for each load: its stages, rate, processor time and memory.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![("loader".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.checkpoints.is_empty() && self.replicas.is_empty() {
            let help = "give `checkpoints` or `replicas`";
            parser.wrong::<()>(
                place,
                "there is no checkpoint to load",
                "nothing to load",
                help,
            );
        }
        if self.loaders.is_empty() {
            let help = "write `loaders = [\"direct\"]`, or more of them";
            parser.wrong::<()>(&at("loaders"), "there is no loader", "nobody to load", help);
        }
        let mut words = self.loaders.iter().map(|loader| loader.word());
        if let Some(baseline) = &self.baseline
            && !words.any(|word| baseline.split(' ').next() == Some(word))
        {
            let message = format!("`{baseline}` is none of the loaders");
            parser.wrong::<()>(
                &at("baseline"),
                message,
                "not measured",
                "add it to `loaders`",
            );
        }
        for (is_wrong, option, message, help) in self
            .impossible_programs()
            .into_iter()
            .chain(self.impossible_memory())
        {
            if is_wrong {
                parser.wrong::<()>(&at(option), message, "not possible", help);
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for CheckpointLoad {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        self.to.require()?;
        let rounds = tokio::task::block_in_place(|| self.rounds(context))?;
        let ceiling = self.ceiling(context)?;
        let mut arms = self.arms(context).await?;
        let baseline = self.baseline.as_ref().map(|word| called(&arms, word));
        let baseline = baseline.transpose().map_err(|why| {
            StepError::new(why).help("write `baseline` as it stands there, with its version")
        })?;
        let total = rounds.loads(&arms)?;
        let done = blocking(context, "loading", total, move |go_on| {
            let outcome = rounds.perform(&mut arms, go_on)?;
            Ok((rounds, outcome))
        });
        let (rounds, outcome) = done.await?;
        let told = Told {
            rounds: &rounds,
            outcome: &outcome,
            baseline,
            ceiling,
        };
        files::write_json(&context.output("result.json"), &told.result(self.target()))?;
        let figures = told.figures();
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(told.verdict()),
            figures,
        })
    }
}

/// What cannot be together: whether it is, at which option, what is wrong and what mends it.
type Impossible = (bool, &'static str, &'static str, &'static str);

impl CheckpointLoad {
    /// What cannot be together of programs of others and what they are given.
    fn impossible_programs(&self) -> [Impossible; 7] {
        let python = self.loaders.contains(&LoaderChoice::Safetensors);
        let stores = self.loaders.contains(&LoaderChoice::SllmStore);
        let pool = self.state == StateChoice::HostPool;
        let gpu = self.to != Target::Host;
        [
            (
                python && gpu,
                "to",
                "Python's safetensors loads to host memory here",
                "take it out of `loaders`, or leave `to` out",
            ),
            (
                python && self.python.is_empty(),
                "loaders",
                "`safetensors` is a package of Python, and there is no environment",
                "add `python = [\"${steps.NAME.environment}\"]` with a step of `env.python`",
            ),
            (
                !python && !self.python.is_empty(),
                "python",
                "an environment loads nothing by itself",
                "add `safetensors` to `loaders`, or remove it",
            ),
            (
                !python && self.safetensors_backend.is_some(),
                "safetensors_backend",
                "nothing is loaded by Python",
                "add `safetensors` to `loaders`, or remove it",
            ),
            (
                python && pool,
                "state",
                "Python's safetensors has no pool",
                "take it out of `loaders`, or measure from another `state`",
            ),
            (
                stores && self.store.is_none(),
                "loaders",
                "`sllm_store` is a server, and there is none",
                "add `store = \"${services.NAME}\"` with a service of `server.sllm_store`",
            ),
            (
                !stores && self.store.is_some(),
                "store",
                "the store is asked for nothing",
                "add `sllm_store` to `loaders`, or remove it",
            ),
        ]
    }

    /// What cannot be together of where checkpoints are loaded to.
    fn impossible_memory(&self) -> [Impossible; 7] {
        let maps = self.loaders.contains(&LoaderChoice::Mmap);
        let ring = self.mode == ModeChoice::Ring;
        let pool = self.state == StateChoice::HostPool;
        let fresh = self.memory == MemoryChoice::FirstTouch;
        let gpu = self.to != Target::Host;
        [
            (
                gpu && fresh,
                "memory",
                "what a GPU is loaded from is pinned before",
                "leave `memory` out",
            ),
            (
                gpu && maps,
                "to",
                "`mmap` reads into no memory that a GPU could be given",
                "take `mmap_copy`",
            ),
            (
                ring && pool,
                "mode",
                "what lies in the pool goes through no ring",
                "leave `mode` out",
            ),
            (
                ring && fresh,
                "memory",
                "a ring is memory that is there before",
                "leave `memory` out",
            ),
            (
                pool && fresh,
                "memory",
                "a pool is memory that is there before",
                "leave `memory` out",
            ),
            (
                maps && ring,
                "mode",
                "`mmap` reads into no blocks",
                "take `mmap_copy`",
            ),
            (
                maps && pool,
                "state",
                "`mmap` reads into no pool",
                "take `mmap_copy`",
            ),
        ]
    }

    fn rounds(&self, context: &StepContext) -> Result<Rounds, StepError> {
        let sources = self.sources(context)?;
        let room = |source: &Source| {
            // Each file begins at a multiple of what direct reads need.
            source.contents.file_bytes() + source.contents.files.len() as u64 * (64 << 10)
        };
        let rooms = sources.iter().map(room);
        let needed = match self.state {
            StateChoice::HostPool => rooms.sum(),
            StateChoice::GuestCold | StateChoice::PageCache => rooms.max().unwrap_or(0),
        };
        let pool = self.pool.map_or(needed, |pool| (pool.0 * 1e9) as u64);
        let keeping = match (self.mode, self.state, self.memory) {
            (ModeChoice::Ring, _, _) => Keeping::Ring {
                blocks: self.ring.get().into(),
            },
            (_, StateChoice::HostPool, _) => Keeping::Through { pool },
            (_, _, MemoryChoice::FirstTouch) => Keeping::Fresh,
            _ => Keeping::Resident { pool },
        };
        Ok(Rounds {
            sources,
            rounds: self.rounds.get(),
            to: self.to,
            state: self.state,
            keeping,
            effort: Effort {
                threads: count(self.threads),
                depth: count(self.depth),
            },
            block: u64::from(self.block.get()) << 20,
            is_checked: self.check,
            order: match self.order {
                OrderChoice::Random => Order::Random,
                OrderChoice::Cached => Order::Cached,
            },
            seed: self.seed.wrapping_add(u64::from(context.sample) << 32),
            limit: self.load_timeout,
        })
    }

    /// Everyone who loads, in the order of the plan; programs of others run once this returns.
    async fn arms(&self, context: &StepContext) -> Result<Vec<Arm>, StepError> {
        let mut arms = Vec::new();
        for loader in &self.loaders {
            match loader {
                LoaderChoice::Safetensors => {
                    let started = start_all(context, &self.python, self.safetensors_backend);
                    let started = started.await?.into_iter();
                    arms.extend(started.map(|python| Arm::Foreign(Box::new(python))));
                }
                LoaderChoice::SllmStore => {
                    if let Some(store) = &self.store {
                        let endpoint = context.endpoint(store)?;
                        let store = SllmStore::of(endpoint, self.store_target, self.check)?;
                        arms.push(Arm::Foreign(Box::new(store)));
                    }
                }
                native => arms.extend(native.way().map(Arm::Native)),
            }
        }
        Ok(arms)
    }

    fn sources(&self, context: &StepContext) -> Result<Vec<Source>, StepError> {
        let mut sources = Vec::new();
        for checkpoint in &self.checkpoints {
            let folder = context.path(checkpoint)?;
            sources.push(source(vec![folder])?);
        }
        for replicas in &self.replicas {
            let path = context.path(replicas)?;
            let replicas: Replicas = files::read_json(&path)?;
            replicas
                .ready(&|_| !context.is_cancelled())
                .map_err(failure)?;
            sources.push(source(replicas.folders)?);
        }
        Ok(sources)
    }

    /// What is the same of all loads.
    fn target(&self) -> BTreeMap<String, String> {
        let target = [
            ("state", self.state.word()),
            ("order", self.order.word()),
            ("memory", self.memory.word()),
            ("mode", self.mode.word()),
        ];
        let target = target.map(|(name, word)| (name.to_owned(), word.to_owned()));
        let mut target = BTreeMap::from(target);
        target.insert("to".to_owned(), self.to.word());
        target
    }

    /// The best that storage, memory or the way to a GPU did, whichever is the lowest that a load has to pass.
    fn ceiling(&self, context: &StepContext) -> Result<Option<Ceiling>, StepError> {
        let Some(samples) = &self.ceiling else {
            return Ok(None);
        };
        let samples = context.samples(samples);
        let from = match self.state {
            StateChoice::GuestCold => Some("storage"),
            StateChoice::PageCache => Some("memory"),
            StateChoice::HostPool => (self.to == Target::Host).then_some("memory"),
        };
        let gpu = (self.to != Target::Host).then_some("device");
        let tiers = [from, gpu].into_iter().flatten();
        let mut lowest: Option<Ceiling> = None;
        for tier in tiers {
            let own = Ceiling::of(&samples, tier)?;
            lowest = Some(match lowest {
                Some(other) => other.lower(own),
                None => own,
            });
        }
        Ok(lowest)
    }
}

fn source(folders: Vec<PathBuf>) -> Result<Source, StepError> {
    let first = folders
        .first()
        .ok_or_else(|| StepError::new("there are no replicas"))?;
    let contents = Contents::read(first).map_err(failure)?;
    Ok(Source {
        format: contents.format,
        folders,
        contents,
    })
}
