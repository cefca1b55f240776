//! The server's life: bind, load, serve, stop.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::clock::MonotonicClock;
use crate::engine::{self, EngineHandle, EngineParts};
use crate::executor::CacheShape;
use crate::executor::cpu::CpuError;
use crate::http::{self, App, ServiceParts};
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

/// Serves the model that `options` name, on the caller's tokio runtime, until `shutdown`
/// resolves.
///
/// The address is bound first, and told to `on_listening`; until the model is loaded, every
/// route answers 503. When `shutdown` resolves, new requests are refused, running ones are
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

/// As [`serve`], with a model of the caller's: `load` runs on a blocking thread, after the
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
    L: FnOnce() -> Result<LoadedModel, ServeError> + Send + 'static,
{
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
                Ok(Ok(model)) => run(&options, model, &app, shutdown.as_mut()).await,
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

/// Serves a loaded model until `shutdown` resolves or the engine ends.
async fn run(
    options: &ServerOptions,
    model: LoadedModel,
    app: &App,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    let (parts, mut ended) = prepare(options, model)?;
    let engine = StopOnDrop(parts.engine.clone());
    let _trace = parts.trace.clone().map(FlushOnDrop);
    app.become_ready(parts);
    tokio::select! {
        _ = &mut ended => return Err(ServeError::EngineEnded),
        _ = shutdown => {}
    }
    drop(engine);
    match tokio::time::timeout(STEP_TIMEOUT, ended).await {
        Ok(_) => Ok(()),
        Err(_) => Err(ServeError::EngineStuck),
    }
}

/// An engine that has been started, and what it serves.
struct Started {
    engine: EngineHandle,
    ended: oneshot::Receiver<()>,
    vocab_size: usize,
    shape: CacheShape,
    n_host_blocks: u32,
}

/// What an engine and its server share.
#[derive(Clone)]
struct Shared {
    tokenizer: Arc<Tokenizer>,
    metrics: Arc<Metrics>,
    steps: Arc<StepLog>,
}

/// Starts the engine for `model`.
fn prepare(
    options: &ServerOptions,
    model: LoadedModel,
) -> Result<(ServiceParts, oneshot::Receiver<()>), ServeError> {
    let LoadedModel {
        computing,
        tokenizer,
        max_positions,
    } = model;
    let name = computing.name();
    let shared = Shared {
        tokenizer: Arc::new(tokenizer),
        metrics: Arc::new(Metrics::default()),
        steps: Arc::new(StepLog::new(steplog::CAPACITY)),
    };
    let context_length = options.context_for(max_positions)?;
    let started = start(options, computing, &shared, context_length)
        .map_err(|source| ServeError::Thread { source })?;
    let facts = ModelFacts {
        vocab_size: started.vocab_size,
        tokenizer_vocab_size: shared.tokenizer.vocab_size(),
        context_length,
    };
    let parts = ServiceParts {
        model_name: options.model_name(),
        info: options.info(name, &facts, started.shape, started.n_host_blocks),
        tokenizer: shared.tokenizer,
        door: Door::new(context_length, started.shape),
        vocab_size: started.vocab_size,
        engine: started.engine,
        metrics: shared.metrics,
        steps: shared.steps,
        trace: open_trace(options)?,
        seed: options.seed,
    };
    Ok((parts, started.ended))
}

fn start(
    options: &ServerOptions,
    computing: Computing,
    shared: &Shared,
    context_length: usize,
) -> std::io::Result<Started> {
    let Shared {
        tokenizer,
        metrics,
        steps,
    } = shared.clone();
    match computing {
        Computing::Paced(pace) => {
            let vocab_size = tokenizer.vocab_size();
            let (engine, ended) =
                engine::start_paced(pace, tokenizer, options.queue_limit, metrics)?;
            let n_blocks = context_length.div_ceil(options.block_tokens);
            // Without a cache there is as much of it as one request can ask for.
            let shape = CacheShape {
                n_blocks: u32::try_from(n_blocks).unwrap_or(u32::MAX),
                block_tokens: u32::try_from(options.block_tokens).unwrap_or(u32::MAX),
                bytes_per_token: 0,
            };
            Ok(Started {
                engine,
                ended,
                vocab_size,
                shape,
                n_host_blocks: 0,
            })
        }
        Computing::Model(executor) => {
            let (vocab_size, shape) = (executor.vocab_size(), executor.cache_shape());
            let n_host_blocks = executor.n_host_blocks();
            let (engine, ended) = engine::start(EngineParts {
                executor,
                tokenizer,
                limits: options.limits(n_host_blocks),
                host_bandwidth: options.hicache_bandwidth,
                queue_limit: options.queue_limit,
                clock: Arc::new(MonotonicClock),
                metrics,
                steps,
            })?;
            Ok(Started {
                engine,
                ended,
                vocab_size,
                shape,
                n_host_blocks,
            })
        }
    }
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

/// Stops the engine however the server ends.
struct StopOnDrop(EngineHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
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
        /// Bytes of the weights.
        weight_bytes: u64,
        /// Bytes of the key-value cache.
        cache_bytes: u64,
        /// Bytes available.
        available_bytes: u64,
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
