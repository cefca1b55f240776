//! The models that a server serves, the device they share, and how they came to lie on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Nanos;
use crate::device::{Device, Held, Place};
use crate::engine::{EngineHandle, MoveLog, Status};
use crate::metrics::Metrics;
use crate::steplog::StepLog;
use crate::swapping::{ModelState, View};

/// Between samples of a time line.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Samples of the time line that are remembered: an hour's.
pub(crate) const CAPACITY: usize = 14_400;

/// A model that is served.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) engine: EngineHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) steps: Arc<StepLog>,
    /// The unchanging part of `/server_info`.
    pub(crate) info: Value,
    pub(crate) status: Arc<Status>,
    pub(crate) place: Arc<Place>,
}

impl Model {
    /// What the rules of swapping see of it.
    pub(crate) fn view(&self) -> View {
        let (state, since) = self.status.state();
        View {
            state,
            since,
            n_waiting: count(self.metrics.n_queued.get()),
            n_running: count(self.metrics.n_running.get()),
            deadline: self.status.deadline(),
            last_busy: self.status.last_busy(),
            has_room: self.place.has_room(),
        }
    }

    /// What it holds of the device, as SGLang's descendants tell it.
    pub(crate) fn memory(&self) -> Value {
        let held = self.place.held();
        json!({
            "total_used_memory": held.total(),
            "model_weights_memory": held.weights,
            "memory_pool_memory": held.cache,
            "token_to_kv_pool_memory": held.cache,
        })
    }
}

/// All models of a server.
pub(crate) struct Fleet {
    /// At least one.
    pub(crate) models: Vec<Arc<Model>>,
    pub(crate) device: Arc<Device>,
    pub(crate) moves: Arc<MoveLog>,
    pub(crate) timeline: Timeline,
}

impl Fleet {
    /// The model of that name; without a name, the only one.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Arc<Model>> {
        match name {
            Some(name) => self.models.iter().find(|model| model.name == name),
            None => self.models.first().filter(|_| self.models.len() == 1),
        }
    }

    /// What the rules of swapping see of them.
    pub(crate) fn views(&self) -> Vec<View> {
        self.models.iter().map(|model| model.view()).collect()
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.models.iter().map(|model| &*model.name).collect()
    }

    /// Notes how every model fares.
    pub(crate) fn sample(&self, now: Nanos) {
        let sampled = |model: &Arc<Model>| {
            let metrics = &model.metrics;
            ModelSample {
                state: model.status.state().0,
                running: metrics.n_running.get(),
                waiting: metrics.n_queued.get(),
                used_tokens: metrics.n_used_blocks.get() * metrics.block_tokens.get(),
                arrived: metrics.arrived.get(),
                held: model.place.held(),
            }
        };
        self.timeline.push(Sample {
            at_ns: now,
            models: self.models.iter().map(sampled).collect(),
        });
    }
}

/// How a model fared at an instant.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct ModelSample {
    state: ModelState,
    running: u64,
    waiting: u64,
    used_tokens: u64,
    /// Requests since the start.
    arrived: u64,
    #[serde(flatten)]
    held: Held,
}

/// How all models fared at an instant.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Sample {
    at_ns: Nanos,
    models: Vec<ModelSample>,
}

/// Samples, the oldest forgotten where they are too many.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<std::collections::VecDeque<Sample>>);

impl Timeline {
    fn push(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == CAPACITY {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Those of an instant and later.
    pub(crate) fn since(&self, instant: Nanos) -> Vec<Sample> {
        let samples = self.lock();
        let from = samples.partition_point(|sample| sample.at_ns < instant);
        samples.range(from..).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, std::collections::VecDeque<Sample>> {
        // What is pushed is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
