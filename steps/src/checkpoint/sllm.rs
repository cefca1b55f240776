//! The ServerlessLLM store as a loader: into its pool in host memory, or from there onto a GPU as well.
//!
//! What is timed begins with the request. A load to the host ends with the line of the store's log that says so,
//! because no call of the store does; one to a GPU ends with the confirmation. Afterwards the store gives the
//! memory back, which is not timed. No Python of ours is between: this side speaks gRPC, as the package's client
//! does, and takes the GPU's memory itself.

mod on_gpu;

use super::failure;
use super::foreign::{Foreign, ForeignLoad};
use crate::server::STORE_LOG;
use checkpoints::{Contents, Format};
use engine::service::Endpoint;
use engine::step::{FailureClass, StepError};
use on_gpu::OnGpu;
use sllm_store::{Config, LoadLog, ServerProcess, Store, StoreError, Tail, gpus};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// What its name in results begins with.
const NAME: &str = "sllm_store";
/// What a call may take that does not wait for a load.
const CALL: Duration = Duration::from_secs(10);
/// How often its log is looked at: a load is known to be done so much too late at most.
const LOOK: Duration = Duration::from_micros(200);
/// How often it is made sure that it still lives.
const ALIVE: Duration = Duration::from_millis(100);

engine::choices! {
    /// Where the ServerlessLLM store loads to.
    pub enum StoreTarget {
        /// Its pool in host memory.
        Host = "host",
        /// The pool and, beside the reading, memory of its first GPU.
        Gpu = "gpu",
    }
}

/// A store that serves.
pub(super) struct SllmStore {
    name: String,
    url: String,
    log: PathBuf,
    process: ServerProcess,
    target: StoreTarget,
    runtime: Handle,
    /// How many copies to GPUs were asked for: each has a name of its own.
    copies: u64,
    /// Folders whose loads were held to their files, if they are.
    checked: Option<BTreeSet<PathBuf>>,
}

/// A load that was asked for, and what its end is known by.
struct Asked<'a> {
    store: Store,
    model: &'a str,
    tail: Tail,
    said: LoadLog,
    until: Instant,
}

impl SllmStore {
    /// Takes the store that a service is, for loads to this target. `is_checked` says whether what the first load of
    /// each folder brought to a GPU is held to the files, outside of the time; what lies in the store's own memory
    /// cannot be. To be called where tokio's runtime is known.
    ///
    /// # Errors
    ///
    /// If it is no `server.sllm_store`, or runs where it cannot be looked at.
    pub(super) fn of(
        endpoint: &Endpoint,
        target: StoreTarget,
        is_checked: bool,
    ) -> Result<Self, StepError> {
        let fact = |name: &str| endpoint.facts.get(name).cloned();
        let log = fact(STORE_LOG).ok_or_else(|| {
            StepError::new("the store's log is not known, by which the end of a load is")
                .help("let it be a `server.sllm_store`")
        })?;
        let port = endpoint.address().map(|(_, port)| port);
        let port = port.ok_or_else(|| {
            StepError::new(format!("`{}` is no address of a store", endpoint.url))
        })?;
        let process = ServerProcess::at_port(port)
            .map_err(|e| StepError::because("could not look at the store", e))?;
        let runtime = Handle::try_current()
            .map_err(|e| StepError::because("the store can be asked within a runtime only", e))?;
        let version = fact("version");
        let words = [Some(NAME.to_owned()), version];
        Ok(Self {
            name: words.into_iter().flatten().collect::<Vec<_>>().join(" "),
            url: endpoint.url.clone(),
            log: log.into(),
            process,
            target,
            runtime,
            copies: 0,
            checked: is_checked.then(BTreeSet::new),
        })
    }

    /// Does one call of the store's. Blocks.
    fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StepError> {
        let answered = self.runtime.block_on(call);
        answered.map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &StoreError) -> StepError {
        let class = match error {
            StoreError::TooLong { .. } => FailureClass::Timeout,
            StoreError::Broken { .. } | StoreError::Unreachable { .. } => {
                FailureClass::Infrastructure
            }
            _ => FailureClass::Step,
        };
        let error = StepError::new(error.to_string()).class(class);
        error.log(&self.log)
    }

    /// Makes sure, before anything is asked for, that the store can do it: it tells nobody when it cannot.
    fn prepare(
        &self,
        store: &mut Store,
        contents: &Contents,
        model: &str,
    ) -> Result<(), StepError> {
        let config: Config = self.ask(store.config())?;
        let bytes = self.ask(store.register(model))?;
        if bytes != contents.file_bytes() {
            let message = format!(
                "the store takes `{model}` for one of {bytes} bytes, and its files have {}: it looks at them once",
                contents.file_bytes()
            );
            let help = "start it again, or write the checkpoint to another folder";
            return Err(StepError::new(message).help(help));
        }
        if !config.has_room_for(bytes) {
            let message = format!(
                "`{model}` has {bytes} bytes, and the store's pool has {}",
                config.pool
            );
            return Err(StepError::new(message).help("give its `pool` more"));
        }
        Ok(())
    }

    /// The UUID of the GPU that is loaded to, if one is: the first that the store says it has.
    fn gpu(&self) -> Result<Option<String>, StepError> {
        if self.target == StoreTarget::Host {
            return Ok(None);
        }
        let log = std::fs::read(&self.log).map_err(|e| {
            StepError::because(format!("could not read `{}`", self.log.display()), e)
        })?;
        let first = gpus(&String::from_utf8_lossy(&log)).into_iter().next();
        first.map(Some).ok_or_else(|| {
            StepError::new("the store sees no GPU")
                .help("give it one: `gpus = 1`")
                .log(&self.log)
        })
    }

    /// Lets the store forget a load that went wrong on this side; one that it waits for itself is left to it.
    fn abandon(&self, asked: &mut Asked<'_>, why: &StepError) {
        let waits = why.class == FailureClass::Timeout;
        if !waits && self.wait(asked, "has loaded", LoadLog::is_done).is_ok() {
            // What went wrong is told, and not this.
            let _ = self.ask(asked.store.unload(asked.model));
        }
    }

    /// Waits until the log says what is waited for. Blocks.
    fn wait(
        &self,
        asked: &mut Asked<'_>,
        what: &str,
        is_it: impl Fn(&LoadLog) -> bool,
    ) -> Result<(), StepError> {
        let mut looked = Instant::now();
        loop {
            asked.look(&self.log)?;
            let now = Instant::now();
            let problem = if let Some(failure) = asked.said.failure() {
                Some((format!("the store failed: {failure}"), FailureClass::Step))
            } else if is_it(&asked.said) {
                return Ok(());
            } else if now > asked.until {
                let message = format!("the store's log does not say in time that it {what}");
                Some((asked.complained(message), FailureClass::Timeout))
            } else if now > looked + ALIVE {
                looked = now;
                let is_dead = !self.process.is_alive();
                let message = format!("the store ended before its log said that it {what}");
                is_dead.then_some((message, FailureClass::Infrastructure))
            } else {
                None
            };
            if let Some((message, class)) = problem {
                return Err(StepError::new(message).class(class).log(&self.log));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Lets the store copy to its first GPU what it reads, until all is there; how long the memory took.
    fn copy(
        &mut self,
        asked: &mut Asked<'_>,
        contents: &Contents,
        gpu: &str,
    ) -> Result<(OnGpu, Duration), StepError> {
        let began = Instant::now();
        let on_gpu = OnGpu::take(gpu, contents)?;
        let handle = on_gpu.handle()?;
        let allocated = began.elapsed();
        self.copies += 1;
        let replica = format!("benchwright-{}-{}", std::process::id(), self.copies);
        self.wait(asked, "reads", LoadLog::has_begun)?;
        let chunks = on_gpu.copies.chunks.clone();
        let (store, model) = (&mut asked.store, asked.model);
        self.ask(store.load_to_gpu(model, &replica, gpu, &handle, chunks))?;
        let left = asked.until.saturating_duration_since(Instant::now());
        let confirmed = self.ask(asked.store.confirm(model, &replica, left));
        confirmed.map_err(|mut error| {
            // It never tells of a copy that failed, and its log does.
            let _ = asked.look(&self.log);
            error.message = asked.complained(error.message);
            error
        })?;
        Ok((on_gpu, allocated))
    }

    /// Holds what is on a GPU to the files, if it is to be and was not yet.
    fn check(&mut self, contents: &Contents, found: &OnGpu) -> Result<(), StepError> {
        let is_new = self
            .checked
            .as_mut()
            .is_some_and(|checked| checked.insert(contents.folder.clone()));
        if is_new && let Some(tensor) = found.first_difference(contents)? {
            let message = format!(
                "the store brought `{tensor}` of `{}` to the GPU with other bytes than its file has",
                contents.folder.display()
            );
            let help = "this is a fault of the store, or of the memory: nothing of it was kept";
            return Err(StepError::new(message).help(help));
        }
        Ok(())
    }
}

impl Asked<'_> {
    /// Takes what the log has said since.
    fn look(&mut self, log: &Path) -> Result<(), StepError> {
        let said = &mut self.said;
        let looked = self.tail.lines(|line| said.read(line));
        looked.map_err(|e| StepError::because(format!("could not read `{}`", log.display()), e))
    }

    /// A message with what the log complained of.
    fn complained(&self, message: String) -> String {
        match self.said.complaint() {
            Some(complaint) => format!("{message}; it says: {complaint}"),
            None => message,
        }
    }
}

impl Foreign for SllmStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn reads(&self, format: Format) -> bool {
        format == Format::Store
    }

    fn loads_into_memory(&self) -> bool {
        true
    }

    fn load(&mut self, folder: &Path, limit: Duration) -> Result<ForeignLoad, StepError> {
        let until = Instant::now() + limit;
        let contents = contents(folder)?;
        let model = contents.folder.to_str().ok_or_else(|| {
            StepError::new(format!(
                "the store cannot be asked for `{}`, which is no text",
                contents.folder.display()
            ))
        })?;
        let mut store = self.ask(Store::connect(&self.url, CALL.min(limit)))?;
        self.prepare(&mut store, &contents, model)?;
        let gpu = self.gpu()?;
        let tail = Tail::from_end(&self.log).map_err(|e| {
            StepError::because(format!("could not open `{}`", self.log.display()), e)
        })?;
        let mut asked = Asked {
            store,
            model,
            tail,
            said: LoadLog::new(model),
            until,
        };
        let gone = |e| StepError::because("the store ended", e).class(FailureClass::Infrastructure);
        let knows_peak = self.process.forget_peak();
        let cpu = self.process.cpu().map_err(gone)?;
        let began = Instant::now();
        self.ask(asked.store.load_to_host(model))?;
        let on_gpu = gpu.map(|gpu| {
            let copied = self.copy(&mut asked, &contents, &gpu);
            copied.inspect_err(|why| self.abandon(&mut asked, why))
        });
        let on_gpu = on_gpu.transpose()?;
        let copied = began.elapsed();
        // A copy may end a moment before the load to the host is called done; it may not be unloaded before.
        self.wait(&mut asked, "has loaded the model", LoadLog::is_done)?;
        let total = match self.target {
            StoreTarget::Host => began.elapsed(),
            StoreTarget::Gpu => copied,
        };
        let cpu = self.process.cpu().map_err(gone)?.saturating_sub(cpu);
        let peak_memory = self.process.peak_memory().filter(|_| knows_peak);
        self.ask(asked.store.unload(model))?;
        if let Some((on_gpu, _)) = &on_gpu {
            self.check(&contents, on_gpu)?;
        }
        Ok(ForeignLoad {
            total,
            parts: parts(&asked.said, on_gpu.map(|(_, allocated)| allocated)),
            bytes: contents.tensor_bytes(),
            cpu,
            peak_memory,
        })
    }
}

/// What is known of stages: the memory that this side took, and the rest by the store's own clock.
fn parts(said: &LoadLog, allocated: Option<Duration>) -> Vec<(&'static str, Duration)> {
    let all = [
        ("allocate_ms", allocated),
        ("read_ms", said.read_time()),
        ("copy_ms", said.copy_time()),
    ];
    let known = all.into_iter();
    known
        .filter_map(|(name, time)| Some((name, time?)))
        .collect()
}

/// What is in a folder of the store's format, by the name that every process has for it.
fn contents(folder: &Path) -> Result<Contents, StepError> {
    let whole = folder.canonicalize();
    let whole = whole
        .map_err(|e| StepError::because(format!("could not find `{}`", folder.display()), e))?;
    // Files that end before the index does are refused here: the store would read what is there, and say nothing.
    let contents = Contents::read(&whole).map_err(failure)?;
    if contents.format != Format::Store {
        let message = format!(
            "`{}` is a checkpoint of safetensors, which the store does not read",
            folder.display()
        );
        return Err(StepError::new(message).help("convert it with `checkpoint.convert`"));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests;
