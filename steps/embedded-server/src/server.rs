//! The server's life: bind, load, serve, stop.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::clock::{Clock, MonotonicClock};
use crate::controller;
use crate::device::{Device, Shortage};
use crate::engine::{self, EngineHandle, EngineParts, Home, MoveLog, Pace, Status};
use crate::executor::cpu::CpuError;
use crate::executor::{CacheShape, Executor};
use crate::faults::Faults;
use crate::fleet::{Fleet, Model, Timeline};
use crate::http::{self, App, Served, ServiceParts};
use crate::load::{Computing, LoadedModel, load};
use crate::metrics::Metrics;
use crate::model::{ConfigError, WeightsError};
use crate::options::{ModelFacts, ServerOptions};
use crate::scheduler::Door;
use crate::steplog::{self, StepLog};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::trace::Trace;

/// How long the engine's last step may take once the server stops.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves the models that `options` name, on the caller's tokio runtime, until `shutdown`
/// resolves.
///
/// The address is bound first, and told to `on_listening`; until the models are loaded,
/// every route answers 503. When `shutdown` resolves, new requests are refused, running ones are
/// broken off with an error in their stream, and connections get five seconds to be read to
/// their end. Dropping the future stops the server without that courtesy.
///
/// # Errors
/// [`ServeError`], naming the address, file or option that has to change.
pub async fn serve(
    options: ServerOptions,
    shutdown: impl Future,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let for_load = options.clone();
    serve_loaded(options, move || load(&for_load), shutdown, on_listening).await
}

/// As [`serve`], with models of the caller's, in the order of the options: `load` runs on a blocking thread, after the
/// address has been bound.
///
/// # Errors
/// As [`serve`], and whatever `load` answers.
pub async fn serve_loaded<L>(
    options: ServerOptions,
    load: L,
    shutdown: impl Future,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError>
where
    L: FnOnce() -> Result<Vec<LoadedModel>, ServeError> + Send + 'static,
{
    let options = options.with_device()?;
    options.check()?;
    let listener = bind(&options).await?;
    let address = listener
        .local_addr()
        .map_err(|source| ServeError::bind(&options, source))?;
    let app = Arc::new(App::new(options.max_body_bytes));
    let (stop, stopped) = watch::channel(false);
    // A set, because it ends its task when this future is dropped.
    let mut connections = JoinSet::new();
    connections.spawn(http::accept(
        listener,
        http::router(Arc::clone(&app)),
        stopped,
    ));
    on_listening(address);
    let outcome = {
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            loaded = tokio::task::spawn_blocking(load) => match loaded {
                Ok(Ok(models)) => run(&options, models, &app, shutdown.as_mut()).await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ServeError::LoadPanicked),
            },
            _ = shutdown.as_mut() => Ok(()),
        }
    };
    // Connections bound their own end.
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
    outcome
}

async fn bind(options: &ServerOptions) -> Result<TcpListener, ServeError> {
    TcpListener::bind((options.host.as_str(), options.port))
        .await
        .map_err(|source| ServeError::bind(options, source))
}

/// Serves loaded models until `shutdown` resolves or an engine ends.
async fn run(
    options: &ServerOptions,
    models: Vec<LoadedModel>,
    app: &App,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    let mut threads = OnThreads(JoinSet::new());
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
    let (fleet, served) = assemble(options, models, &clock, &mut threads)?;
    let OnThreads(mut ended) = threads;
    let engines = StopOnDrop(Arc::clone(&fleet));
    let trace = open_trace(options)?;
    let _trace = trace.clone().map(FlushOnDrop);
    app.become_ready(ServiceParts {
        served,
        fleet: Arc::clone(&fleet),
        trace,
        faults: Faults::new(&options.faults, options.fault_seed),
        seed: options.seed,
    });
    // A set, because it ends its tasks when this future is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(controller::sample(Arc::clone(&fleet)));
    if fleet.models.len() > 1 {
        let (rules, period) = (options.swap, options.swap_period);
        tasks.spawn(controller::control(fleet, rules, period));
    }
    tokio::select! {
        _ = ended.join_next() => return Err(ServeError::EngineEnded),
        _ = shutdown => {}
    }
    drop(engines);
    drop(tasks);
    let all = async { while ended.join_next().await.is_some() {} };
    match tokio::time::timeout(STEP_TIMEOUT, all).await {
        Ok(()) => Ok(()),
        Err(_) => Err(ServeError::EngineStuck),
    }
}

/// Brings an engine to life.
pub(crate) trait Launch {
    /// One that computes.
    fn engine(&mut self, parts: EngineParts) -> Result<EngineHandle, ServeError>;
    /// One that tells tokens at a stated pace.
    fn paced(
        &mut self,
        pace: Pace,
        options: &ServerOptions,
        shared: Shared,
    ) -> Result<EngineHandle, ServeError>;
}

/// Engines on threads of their own; a task each, which ends with it.
struct OnThreads(JoinSet<()>);

impl OnThreads {
    fn started(
        &mut self,
        started: std::io::Result<(EngineHandle, oneshot::Receiver<()>)>,
    ) -> Result<EngineHandle, ServeError> {
        let (handle, ended) = started.map_err(|source| ServeError::Thread { source })?;
        self.0.spawn(async move {
            // Resolves, with an error, when the engine's thread has ended.
            let _ = ended.await;
        });
        Ok(handle)
    }
}

impl Launch for OnThreads {
    fn engine(&mut self, parts: EngineParts) -> Result<EngineHandle, ServeError> {
        self.started(engine::start(parts))
    }

    fn paced(
        &mut self,
        pace: Pace,
        options: &ServerOptions,
        shared: Shared,
    ) -> Result<EngineHandle, ServeError> {
        let Shared {
            tokenizer, metrics, ..
        } = shared;
        self.started(engine::start_paced(
            pace,
            tokenizer,
            options.queue_limit,
            metrics,
        ))
    }
}

/// Launches an engine per model on one device.
pub(crate) fn assemble(
    options: &ServerOptions,
    models: Vec<LoadedModel>,
    clock: &Arc<dyn Clock>,
    launch: &mut dyn Launch,
) -> Result<(Arc<Fleet>, Vec<Served>), ServeError> {
    let device = Device::new(options.device_memory_bytes);
    let moves = Arc::new(MoveLog::default());
    let mut fleet = Fleet {
        models: Vec::new(),
        device: Arc::clone(&device),
        moves: Arc::clone(&moves),
        timeline: Timeline::default(),
    };
    let mut all_served = Vec::new();
    for (model, (options, is_active)) in models.into_iter().zip(options.each()) {
        let home = Home {
            model: model.name.clone(),
            place: Arc::new(device.place(options.mem_fraction_static)),
            is_active,
            most_blocks: 0,
            link: options.swap_bandwidth,
            moves: Arc::clone(&moves),
        };
        let (model, served) = assemble_one(&options, model, home, clock, launch)?;
        fleet.models.push(Arc::new(model));
        all_served.push(served);
    }
    Ok((Arc::new(fleet), all_served))
}

/// Launches the engine of one model, on the device or off it.
fn assemble_one(
    options: &ServerOptions,
    loaded: LoadedModel,
    home: Home,
    clock: &Arc<dyn Clock>,
    launch: &mut dyn Launch,
) -> Result<(Model, Served), ServeError> {
    let LoadedModel {
        name,
        computing,
        tokenizer,
        max_positions,
    } = loaded;
    let executor_name = computing.name();
    let place = Arc::clone(&home.place);
    let context_length = options.context_for(max_positions)?;
    let shared = Shared {
        tokenizer: Arc::new(tokenizer),
        metrics: Arc::new(Metrics::default()),
        steps: Arc::new(StepLog::new(steplog::CAPACITY)),
        status: Status::begin(home.is_active, &**clock),
    };
    let started = match computing {
        Computing::Paced(pace) => {
            let engine = launch.paced(pace, options, shared.clone())?;
            paced(options, engine, &shared, context_length)
        }
        Computing::Model(executor) => {
            start_engine(options, executor, shared.clone(), home, clock, launch)?
        }
    };
    let served = Served {
        model_name: name.clone(),
        door: Door::new(context_length, started.shape),
        vocab_size: started.vocab_size,
        image_tokens: options.image_tokens,
        tokenizer: shared.tokenizer,
    };
    let facts = ModelFacts {
        vocab_size: served.vocab_size,
        tokenizer_vocab_size: served.tokenizer.vocab_size(),
        context_length,
    };
    let model = Model {
        info: options.info(executor_name, &facts, started.shape, started.n_host_blocks),
        name,
        engine: started.engine,
        metrics: shared.metrics,
        steps: shared.steps,
        status: shared.status,
        place,
    };
    Ok((model, served))
}

/// An engine that has been started, and what it serves.
struct Started {
    engine: EngineHandle,
    vocab_size: usize,
    /// The cache that it has; off the device, the one that it would have alone there.
    shape: CacheShape,
    n_host_blocks: u32,
}

/// What an engine and its server share.
#[derive(Clone)]
pub(crate) struct Shared {
    tokenizer: Arc<Tokenizer>,
    metrics: Arc<Metrics>,
    steps: Arc<StepLog>,
    status: Arc<Status>,
}

fn paced(
    options: &ServerOptions,
    engine: EngineHandle,
    shared: &Shared,
    context_length: usize,
) -> Started {
    let n_blocks = context_length.div_ceil(options.block_tokens);
    Started {
        engine,
        vocab_size: shared.tokenizer.vocab_size(),
        // Without a cache there is as much of it as one request can ask for.
        shape: CacheShape {
            n_blocks: u32::try_from(n_blocks).unwrap_or(u32::MAX),
            block_tokens: u32::try_from(options.block_tokens).unwrap_or(u32::MAX),
            bytes_per_token: 0,
        },
        n_host_blocks: 0,
    }
}

fn start_engine(
    options: &ServerOptions,
    mut executor: Box<dyn Executor>,
    shared: Shared,
    mut home: Home,
    clock: &Arc<dyn Clock>,
    launch: &mut dyn Launch,
) -> Result<Started, ServeError> {
    let alone = executor.cache_shape();
    home.most_blocks = u64::from(alone.n_blocks);
    let shape = if home.is_active {
        let no_room = |shortage: Shortage| ServeError::NoRoom {
            model: home.model.clone(),
            shortage,
        };
        let block_bytes = alone
            .bytes_per_token
            .saturating_mul(u64::from(alone.block_tokens));
        let weight_bytes = executor.weight_bytes();
        home.place.begin();
        home.place.take_weights(weight_bytes).map_err(no_room)?;
        let taken = home
            .place
            .take_cache(weight_bytes, block_bytes, home.most_blocks);
        let n_blocks = taken.map_err(no_room)?;
        CacheShape {
            n_blocks: u32::try_from(n_blocks).unwrap_or(u32::MAX),
            ..alone
        }
    } else {
        executor.resize_cache(0);
        alone
    };
    if home.is_active && shape != alone {
        executor.resize_cache(shape.n_blocks);
    }
    let vocab_size = executor.vocab_size();
    let n_host_blocks = executor.n_host_blocks();
    let engine = launch.engine(EngineParts {
        executor,
        tokenizer: shared.tokenizer,
        limits: options.limits(n_host_blocks),
        host_bandwidth: options.hicache_bandwidth,
        home,
        status: shared.status,
        aborts_late: options.aborts_late,
        queue_limit: options.queue_limit,
        clock: Arc::clone(clock),
        metrics: shared.metrics,
        steps: shared.steps,
    })?;
    Ok(Started {
        engine,
        vocab_size,
        shape,
        n_host_blocks,
    })
}

fn open_trace(options: &ServerOptions) -> Result<Option<Arc<Trace>>, ServeError> {
    let open = |path: &PathBuf| {
        Trace::create(path)
            .map(Arc::new)
            .map_err(|source| ServeError::Option {
                name: "trace",
                problem: format!("cannot write `{}`: {source}", path.display()),
            })
    };
    options.trace.as_ref().map(open).transpose()
}

/// Stops all engines however the server ends.
struct StopOnDrop(Arc<Fleet>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.models.iter().for_each(|model| model.engine.stop());
    }
}

/// Writes out what is traced, however the server ends.
struct FlushOnDrop(Arc<Trace>);

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        // Whoever reads the trace finds out what is missing.
        let _ = self.0.flush();
    }
}

/// A server that could not start, or did not stay.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process listens there.
    #[error("address {address} is in use; choose another `port`, or 0 for any free one")]
    AddressInUse {
        /// Host and port.
        address: String,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// Host and port.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An option is out of its range.
    #[error("option `{name}`: {problem}")]
    Option {
        /// The option.
        name: &'static str,
        /// What was found, and what was expected.
        problem: String,
    },
    /// There is no such folder.
    #[error("model folder `{}` does not exist; set `model_path` to one that does", path.display())]
    ModelFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// `config.json` is missing or cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `tokenizer.json` is missing or cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The weights cannot be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The executor cannot be made.
    #[error(transparent)]
    Executor(#[from] CpuError),
    /// The tokenizer has ids that the model does not embed.
    #[error(
        "the tokenizer has {tokenizer} ids but the model's `vocab_size` is {model}; generate a \
         tokenizer of the model's size, or raise `vocab_size`"
    )]
    VocabularyMismatch {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Ids of the model.
        model: usize,
    },
    /// The model does not fit.
    #[error(
        "not enough memory: {} MiB of weights and {} MiB of key-value cache are needed, {} MiB are \
         available; lower `max_total_tokens` or use a smaller model",
        weight_bytes >> 20, cache_bytes >> 20, available_bytes >> 20
    )]
    NotEnoughMemory {
        /// Bytes of the weights; of two copies, where several models come and go.
        weight_bytes: u64,
        /// Bytes of the key-value cache.
        cache_bytes: u64,
        /// Bytes available.
        available_bytes: u64,
    },
    /// A model does not fit beside those that came before it.
    #[error(
        "model `{model}` does not fit on the device beside those before it: {shortage}; raise \
         `device_memory`, or lower the shares of the others"
    )]
    NoRoom {
        /// The model.
        model: String,
        /// What is missing.
        shortage: Shortage,
    },
    /// No thread for the engine.
    #[error("cannot start the engine's thread: {source}")]
    Thread {
        /// Why not.
        source: std::io::Error,
    },
    /// Loading panicked.
    #[error("loading the model failed unexpectedly; its message is on standard error")]
    LoadPanicked,
    /// The engine's thread ended while the server was running.
    #[error("the engine ended unexpectedly; its message is on standard error")]
    EngineEnded,
    /// The last forward step did not end.
    #[error("the engine did not finish its last step within {} s", STEP_TIMEOUT.as_secs())]
    EngineStuck,
}

impl ServeError {
    fn bind(options: &ServerOptions, source: std::io::Error) -> Self {
        let address = format!("{}:{}", options.host, options.port);
        match source.kind() {
            std::io::ErrorKind::AddrInUse => ServeError::AddressInUse { address },
            _ => ServeError::Bind { address, source },
        }
    }
}
