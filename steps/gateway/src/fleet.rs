//! All models with their servers and their requests, and what is told of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use embedded_server::clock::{Clock, MonotonicClock, Nanos};
use embedded_server::engine::{MOST_MOVES, Way};
use embedded_server::swapping::{ModelState, Reason};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::backend::{Backend, Moved};
use crate::config::{Config, ConfigError, ModelConfig, Standing};
use crate::queue::{Queue, Refusal};

/// Samples of the time line that are remembered: an hour at four a second.
const N_SAMPLES: usize = 14_400;

/// A model and its server.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) backend: Backend,
    pub(crate) queue: Arc<Queue>,
    pub(crate) found: Standing,
    pub(crate) begins: Standing,
    memory_bytes: Option<u64>,
    /// What is known of the server once it was met.
    met: OnceLock<Met>,
    broken: OnceLock<Broken>,
}

/// What a server told when it was met.
struct Met {
    /// Its own name for the model, where that is another.
    alias: Option<String>,
    /// What it says of itself.
    info: Value,
}

/// A model whose server failed to bring it or to take it away: for good, since nobody knows where it
/// is.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) reason: String,
    /// Whether it may still hold the device.
    pub(crate) holds_device: bool,
}

impl Model {
    fn new(config: &ModelConfig, queue_limit: usize) -> Result<Self, ConfigError> {
        let state = match config.found {
            Standing::Active => ModelState::InTransit,
            Standing::Off => ModelState::Off,
        };
        Ok(Model {
            name: config.name.clone(),
            backend: Backend::new(&config.url, config.release)?,
            queue: Queue::new(state, queue_limit, Arc::new(MonotonicClock)),
            found: config.found,
            begins: config.begins,
            memory_bytes: config.memory_bytes,
            met: OnceLock::new(),
            broken: OnceLock::new(),
        })
    }

    /// The name by which its server is asked, where that is another than requests have.
    pub(crate) fn alias(&self) -> Option<&str> {
        self.met.get()?.alias.as_deref()
    }

    /// What its server says of itself.
    pub(crate) fn info(&self) -> Option<&Value> {
        self.met.get().map(|met| &met.info)
    }

    /// Notes the names that its server has for models, and what it says of itself.
    pub(crate) fn meet(&self, names: Vec<String>, info: Value) {
        let is_known = names.contains(&self.name);
        let alias = names.into_iter().next().filter(|_| !is_known);
        // It is met once.
        let _ = self.met.set(Met { alias, info });
    }

    pub(crate) fn broken(&self) -> Option<&Broken> {
        self.broken.get()
    }

    /// Gives the model up: whoever waits for it is told why.
    pub(crate) fn break_(&self, broken: Broken) {
        self.queue.become_(match broken.holds_device {
            true => ModelState::InTransit,
            false => ModelState::Off,
        });
        let reason = broken.reason.clone();
        self.queue.close(&Refusal::Broken { reason });
        // The first failure is its last.
        let _ = self.broken.set(broken);
    }

    /// Whether another finds less room because of it.
    pub(crate) fn holds_device(&self) -> bool {
        match self.broken() {
            Some(broken) => broken.holds_device,
            None => self.queue.figures().state != ModelState::Off,
        }
    }
}

/// A model that came onto the device or left it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Move {
    pub(crate) model: String,
    pub(crate) direction: Way,
    pub(crate) reason: Reason,
    pub(crate) began_ns: Nanos,
    pub(crate) ended_ns: Nanos,
    /// What is known of its parts.
    #[serde(flatten)]
    pub(crate) moved: Moved,
}

/// A move that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Failure {
    pub(crate) model: String,
    pub(crate) direction: Way,
    pub(crate) reason: Reason,
    pub(crate) began_ns: Nanos,
    pub(crate) ended_ns: Nanos,
    /// What went wrong.
    pub(crate) error: String,
}

/// How a model fared at an instant. What only its server knows is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct ModelSample {
    state: ModelState,
    running: usize,
    waiting: usize,
    arrived: u64,
    /// Where the plan says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_weights_memory: Option<u64>,
}

/// How all models fared at an instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    at_ns: Nanos,
    models: Vec<ModelSample>,
}

/// Is told what goes wrong, in words.
pub(crate) type OnFailure = Box<dyn Fn(&str) + Send + Sync>;

/// How many times models were brought to where they begin.
#[derive(Debug, Clone, Default)]
struct Resets {
    n: u64,
    /// What kept the last time from it.
    trouble: Option<String>,
}

/// All models.
pub(crate) struct Fleet {
    pub(crate) config: Config,
    pub(crate) models: Vec<Model>,
    moves: Log<Move>,
    failures: Log<Failure>,
    samples: Log<Sample>,
    /// Set once every model is where it shall begin.
    ready: OnceLock<()>,
    /// How many resets were asked for.
    asked: watch::Sender<u64>,
    /// Those of them that are over.
    reset: watch::Sender<Resets>,
    /// Whether the gateway is ending.
    stop: watch::Sender<bool>,
    on_failure: OnFailure,
}

impl Fleet {
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn new(config: Config, on_failure: OnFailure) -> Result<Self, ConfigError> {
        config.check()?;
        let models = config.models.iter();
        let models = models.map(|model| Model::new(model, config.queue_limit));
        Ok(Fleet {
            models: models.collect::<Result<_, _>>()?,
            moves: Log::new(MOST_MOVES),
            failures: Log::new(MOST_MOVES),
            samples: Log::new(N_SAMPLES),
            ready: OnceLock::new(),
            asked: watch::Sender::new(0),
            reset: watch::Sender::default(),
            stop: watch::Sender::new(false),
            on_failure,
            config,
        })
    }

    /// The model of that name; without a name, the only one.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Model> {
        match name {
            Some(name) => self.models.iter().find(|model| model.name == name),
            None => self.models.first().filter(|_| self.models.len() == 1),
        }
    }

    /// The models that are not given up.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(|model| model.broken().is_none())
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.models.iter().map(|model| &*model.name).collect()
    }

    pub(crate) fn become_ready(&self) {
        self.ready.get_or_init(|| ());
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.get().is_some()
    }

    /// Whether a further model fits onto the device.
    pub(crate) fn has_room(&self) -> bool {
        let held = self.models.iter().filter(|model| model.holds_device());
        held.count() < self.config.most_active
    }

    /// Whether no model can come any more: all room is held by some that failed to leave.
    pub(crate) fn is_blocked(&self) -> bool {
        let can_leave = |model: &Model| model.broken().is_none() && model.holds_device();
        !self.has_room() && !self.models.iter().any(can_leave)
    }

    /// Ends all waiting.
    pub(crate) fn close(&self) {
        for model in &self.models {
            model.queue.close(&Refusal::Stopping);
        }
        self.stop.send_replace(true);
    }

    /// Whether the gateway is ending, now and later.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns once the gateway is ending.
    pub(crate) async fn closed(&self) {
        // An error would say that the fleet is gone.
        let _ = self.stopped().wait_for(|is_stopped| *is_stopped).await;
    }

    /// Has every model brought to where it begins; tells what kept one from it.
    ///
    /// # Errors
    /// [`Refusal::Stopping`].
    pub(crate) async fn reset(&self) -> Result<Option<String>, Refusal> {
        let mut over = self.reset.subscribe();
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        tokio::select! {
            over = over.wait_for(|over| over.n >= mine) => {
                over.map(|over| over.trouble.clone()).map_err(|_| Refusal::Stopping)
            }
            () = self.closed() => Err(Refusal::Stopping),
        }
    }

    /// Resets that are asked for, in numbers.
    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// As many resets as that are over.
    pub(crate) fn was_reset(&self, n: u64) {
        let trouble = self.misplaced();
        self.reset.send_replace(Resets { n, trouble });
    }

    /// The first model that is not where it begins, and why, in words.
    fn misplaced(&self) -> Option<String> {
        let is_misplaced = |model: &&Model| {
            if model.broken().is_some() {
                return true;
            }
            let is_there = model.queue.figures().state == ModelState::Active;
            is_there != (model.begins == Standing::Active)
        };
        let model = self.models.iter().find(is_misplaced)?;
        let broken = model.broken().map(|broken| broken.reason.clone());
        let failed = || self.failures.since(|failure| failure.model == model.name);
        let why = broken.or_else(|| Some(failed().pop()?.error));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!(
            "model `{}` is not where it begins{why}",
            model.name
        ))
    }

    /// Says what went wrong.
    pub(crate) fn tell_trouble(&self, what: &str) {
        (self.on_failure)(what);
    }

    pub(crate) fn moved(&self, moved: Move) {
        self.moves.push(moved);
    }

    /// Moves that ended at an instant or later.
    pub(crate) fn moves_since(&self, instant: Nanos) -> Vec<Move> {
        self.moves.since(|moved| moved.ended_ns >= instant)
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failures.push(failure);
    }

    /// Moves that failed at an instant or later.
    pub(crate) fn failures_since(&self, instant: Nanos) -> Vec<Failure> {
        self.failures.since(|failure| failure.ended_ns >= instant)
    }

    /// Notes how every model fares.
    pub(crate) fn sample(&self) {
        let sampled = |model: &Model| {
            let figures = model.queue.figures();
            ModelSample {
                state: figures.state,
                running: figures.n_running,
                waiting: figures.n_waiting,
                arrived: figures.n_arrived,
                model_weights_memory: model.memory_bytes.map(|bytes| match figures.state {
                    ModelState::Active => bytes,
                    ModelState::InTransit | ModelState::Off => 0,
                }),
            }
        };
        self.samples.push(Sample {
            at_ns: MonotonicClock.now(),
            models: self.models.iter().map(sampled).collect(),
        });
    }

    /// Samples of an instant and later.
    pub(crate) fn samples_since(&self, instant: Nanos) -> Vec<Sample> {
        self.samples.since(|sample| sample.at_ns >= instant)
    }
}

/// Entries in their order, the oldest forgotten where they are too many.
struct Log<T> {
    capacity: usize,
    entries: Mutex<VecDeque<T>>,
}

impl<T: Clone> Log<T> {
    fn new(capacity: usize) -> Self {
        Log {
            capacity,
            entries: Mutex::default(),
        }
    }

    fn push(&self, entry: T) {
        let mut entries = self.lock();
        if entries.len() == self.capacity {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn since(&self, is_later: impl Fn(&T) -> bool) -> Vec<T> {
        let entries = self.lock();
        let from = entries.partition_point(|entry| !is_later(entry));
        entries.range(from..).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // What is pushed is whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Release;

    fn fleet(names: &[&str]) -> Fleet {
        let model = |name: &&str| ModelConfig {
            name: (*name).to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            release: Release::Sglang,
            memory_bytes: Some(7),
            found: Standing::Off,
            begins: Standing::Off,
        };
        let config = Config {
            models: names.iter().map(model).collect(),
            ..Config::default()
        };
        Fleet::new(config, Box::new(|_| {})).unwrap()
    }

    #[test]
    fn one_that_failed_to_leave_leaves_no_room_and_one_that_is_gone_does() {
        let fleet = fleet(&["a", "b"]);
        assert!(fleet.has_room() && !fleet.is_blocked());
        fleet.models[0].queue.become_(ModelState::Active);
        assert!(!fleet.has_room() && !fleet.is_blocked());
        let broken = |holds_device| Broken {
            reason: "x".to_owned(),
            holds_device,
        };
        fleet.models[0].break_(broken(true));
        assert!(!fleet.has_room() && fleet.is_blocked());
        fleet.models[1].break_(broken(false));
        assert!(fleet.is_blocked());
        let other = self::fleet(&["a"]);
        other.models[0].queue.become_(ModelState::Active);
        other.models[0].break_(broken(false));
        assert!(other.has_room() && !other.is_blocked());
    }

    #[test]
    fn a_server_that_has_another_name_for_the_model_is_asked_by_that() {
        let fleet = fleet(&["a", "b"]);
        fleet.models[0].meet(vec!["x".into(), "a".into()], Value::Null);
        fleet.models[1].meet(vec!["x".into(), "y".into()], Value::Null);
        assert_eq!(fleet.models[0].alias(), None);
        assert_eq!(fleet.models[1].alias(), Some("x"));
    }

    #[test]
    fn a_log_forgets_its_oldest_entries() {
        let log = Log::new(3);
        for n in 0..5 {
            log.push(n);
        }
        assert_eq!(log.since(|_| true), [2, 3, 4]);
        assert_eq!(log.since(|n| *n >= 4), [4]);
        assert_eq!(log.since(|_| false), Vec::<i32>::new());
    }

    #[test]
    fn memory_is_told_of_models_that_are_there() {
        let fleet = fleet(&["a", "b"]);
        fleet.models[1].queue.become_(ModelState::Active);
        fleet.sample();
        let samples = fleet.samples_since(Nanos(0));
        let memory = samples[0].models.iter().map(|m| m.model_weights_memory);
        assert_eq!(memory.collect::<Vec<_>>(), [Some(0), Some(7)]);
    }

    #[tokio::test]
    async fn a_reset_tells_which_model_is_not_where_it_begins() {
        let fleet = fleet(&["a", "b"]);
        let reset = fleet.reset();
        let mut reset = std::pin::pin!(reset);
        // Asked for by being polled.
        assert!(is_pending(reset.as_mut()));
        assert_eq!(*fleet.asked().borrow(), 1);
        fleet.models[1].queue.become_(ModelState::Active);
        fleet.was_reset(1);
        let trouble = reset.await.unwrap().unwrap();
        assert_eq!(trouble, "model `b` is not where it begins");
        fleet.close();
        assert_eq!(fleet.reset().await, Err(Refusal::Stopping));
    }

    fn is_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.poll(&mut context).is_pending()
    }
}
