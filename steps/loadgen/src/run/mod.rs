//! Carries a plan out: starts the client's threads, collects records, reports progress.
//!
//! The client runs on threads of its own, so that nothing else in the process delays a
//! dispatch or an instant, and so that its CPU time can be told from the rest. Knows how a
//! run begins and ends; what a record means is not its business.

mod cap;
mod context;
mod gauge;
mod histories;
mod lane;
mod observer;
mod ready;
mod sight;
mod threads;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    EventTime, Images, Load, OutputLength, PlanError, Protocol, Record, Reuse, RunPlan, Stop,
    client::Wire, clock::Clock,
};

pub use lane::{OfflineServer, Piece, Told};
pub use observer::{NoObserver, Observer, ObserverError, Progress};
pub use threads::ClientUse;

use cap::Cap;
use context::Context;
use gauge::Gauge;
use histories::Histories;
use observer::Collector;
pub(crate) use ready::ReadyQueue;
use threads::Threads;

/// Threads and first bodies are made ready in this time, before the first arrival.
const LEAD: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By its own condition.
    Reached,
    /// The workload had no more requests although there was time left.
    Exhausted,
    /// It was cancelled.
    Interrupted,
}

/// What is known about a run besides its requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// When requests were sent.
    pub load: Load,
    /// When the run was to stop.
    pub stop: Stop,
    /// Whether the workload could start over.
    pub reuse: Reuse,
    /// Digest of the workload.
    pub workload_digest: String,
    /// Where the server listened.
    pub address: String,
    /// The model asked for.
    pub model: String,
    /// The wire protocol.
    pub protocol: Protocol,
    /// What the answer length asked for means.
    pub length: OutputLength,
    /// Wall-clock time of the start, in milliseconds since 1970; every other instant is
    /// monotonic.
    pub started_unix_ms: u64,
    /// Whose time events have.
    #[serde(default)]
    pub event_time: EventTime,
    /// What the header `x-request-id` of each request begins with; its index follows.
    #[serde(default)]
    pub request_prefix: String,
    /// The start on the system's monotonic clock, in nanoseconds: what other processes of the
    /// machine write down by that clock can be set beside the records.
    #[serde(default)]
    pub started_monotonic_ns: u64,
    /// From the start to the end of the last request, in nanoseconds.
    pub wall_ns: u64,
    /// How the run ended.
    pub ended: Ended,
    /// What the client itself used.
    pub client: ClientUse,
    /// The integral of requests in flight over time, in request-nanoseconds, counted live and
    /// not from the records: the independent side of Little's law.
    pub in_flight_area_ns: u64,
    /// The most requests that were ever in flight together.
    pub in_flight_peak: u32,
    /// Arrivals that found no conversation ready, and passed unused.
    #[serde(default)]
    pub unused_arrivals: u64,
    /// Different images that were shown.
    #[serde(default)]
    pub images: u64,
    /// Bytes of memory that they took, encoded once before the load.
    #[serde(default)]
    pub image_bytes: u64,
    /// Whether time was made up, and the server in the same process: then the client has added
    /// nothing, and instants are exact.
    #[serde(default)]
    pub is_offline: bool,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What is known about it as a whole.
    pub info: RunInfo,
    /// One record for every request that arrived, in the order of [`Record::index`].
    pub records: Vec<Record>,
}

/// Why a run could not be carried out. That requests failed is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan cannot be run.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The client's threads could not be started.
    #[error("cannot start the load generator's threads")]
    Threads(#[source] std::io::Error),
    /// The observer could not keep the records.
    #[error("cannot keep the records of the run")]
    Observer(#[source] ObserverError),
    /// A part of the client panicked: records are missing.
    #[error("the load generator failed internally: {lost} of {started} requests left no record")]
    Lost {
        /// Requests without a record.
        lost: u64,
        /// Requests that arrived.
        started: u64,
    },
}

/// Sends the plan's requests and waits for the answers. For a warm-up, use a closed load and
/// [`NoObserver`].
///
/// When `cancel` is ready, nothing more is sent, requests in flight are cut off and recorded
/// as dropped, and the run is returned as [`Ended::Interrupted`]; pass
/// [`std::future::pending`] where nobody cancels. Dropping the returned future ends the run at
/// once, without records. Must be called within a tokio runtime with timers, where only the
/// observer is called.
///
/// # Errors
///
/// Any [`RunError`]; only [`RunError::Observer`] and [`RunError::Lost`] come after something
/// was sent.
pub async fn run(
    plan: RunPlan,
    observer: &mut dyn Observer,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Run, RunError> {
    let schedule = plan.prepare()?;
    let planned = schedule.planned(plan.stop);
    // Not bounded by itself: there are as many records as requests, and all are kept.
    let (sender, records) = mpsc::unbounded_channel();
    let request_prefix = request_prefix();
    let context = context(plan, &request_prefix, LEAD).await?;
    // The clock of the run was set just now: what came before may have taken a while.
    let began = Began {
        unix_ms: unix_ms(SystemTime::now() + LEAD),
        monotonic_ns: context.clock.started_monotonic(),
        request_prefix,
    };
    let threads = Threads::start(&context, schedule, sender).map_err(RunError::Threads)?;
    let mut collector = Collector::new(observer, &context, planned);
    let cancel = pin!(cancel);
    let end = collector.collect(records, cancel, || threads.stop());
    let interrupted = end.await.map_err(RunError::Observer)?;
    let records = collector.finish()?;
    let info = describe(&context, &records, began, interrupted, threads.used());
    Ok(Run { info, records })
}

/// What the names of requests in made-up time begin with.
const OFFLINE_PREFIX: &str = "benchwright-0-";

/// Plays the plan to a server in the same process, in time that is made up: a run of minutes takes as long
/// as it takes to compute, and the same plan brings the same run: it begins at 0 on every clock. The
/// address of the plan's target is not connected to. It computes without a pause, but lets others have
/// their turn.
///
/// Once `is_stopped`, requests in flight are recorded as dropped, and the run is returned as
/// [`Ended::Interrupted`].
///
/// # Errors
///
/// [`RunError::Plan`].
pub async fn run_offline(
    plan: RunPlan,
    server: &mut dyn OfflineServer,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Run, RunError> {
    let schedule = plan.prepare()?;
    let context = context(plan, OFFLINE_PREFIX, Duration::ZERO).await?;
    let feed = threads::one_feed(&context, schedule).unwrap_or_else(lane::Feed::nothing);
    let (mut records, interrupted) = lane::play(&context, feed, server, is_stopped).await;
    records.sort_by_key(|record| record.index);
    let began = Began {
        unix_ms: 0,
        monotonic_ns: 0,
        request_prefix: OFFLINE_PREFIX.to_owned(),
    };
    let client = ClientUse::default();
    let info = describe(&context, &records, began, interrupted, client);
    Ok(Run {
        info: RunInfo {
            is_offline: true,
            ..info
        },
        records,
    })
}

async fn context(plan: RunPlan, prefix: &str, lead: Duration) -> Result<Arc<Context>, PlanError> {
    let wire = Wire::new(&plan, prefix).await?;
    let images = encoded(&plan).await?;
    Ok(Arc::new(Context {
        images,
        wire,
        clock: Clock::starting_in(lead),
        gauge: Gauge::default(),
        cap: cap(&plan.load),
        histories: Histories::of(&plan),
        taken: AtomicU64::new(0),
        sessions_taken: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        exhausted: AtomicBool::new(false),
        plan,
    }))
}

/// The images of the workload as they are sent. Encoding them may take a while, and nothing waits for it
/// once the clock runs.
async fn encoded(plan: &RunPlan) -> Result<Images, PlanError> {
    let (workload, limit) = (Arc::clone(&plan.workload), plan.limits.images);
    let encode = tokio::task::spawn_blocking(move || workload.images(limit));
    match encode.await {
        Ok(images) => Ok(images?),
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// What the names of a run's requests begin with: told by the clock, which no two runs of a machine
/// begin by at the same time.
fn request_prefix() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!("benchwright-{:x}-", since.unwrap_or_default().as_nanos())
}

fn cap(load: &Load) -> Option<Cap> {
    match load {
        Load::Open { max_in_flight, .. } => max_in_flight.map(Cap::new),
        Load::Closed { .. } => None,
    }
}

/// Where a run began on the clocks of others, and what its requests are called.
struct Began {
    unix_ms: u64,
    monotonic_ns: u64,
    request_prefix: String,
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn describe(
    context: &Context,
    records: &[Record],
    began: Began,
    interrupted: bool,
    client: ClientUse,
) -> RunInfo {
    let plan = &context.plan;
    RunInfo {
        load: plan.load.clone(),
        stop: plan.stop,
        reuse: plan.reuse,
        workload_digest: plan.workload.digest(),
        address: plan.target.address.to_string(),
        model: plan.target.model.clone(),
        protocol: plan.target.protocol,
        length: plan.target.generation.length,
        started_unix_ms: began.unix_ms,
        event_time: plan.event_time,
        request_prefix: began.request_prefix,
        started_monotonic_ns: began.monotonic_ns,
        wall_ns: records.iter().map(|record| record.done).max().unwrap_or(0),
        ended: match (interrupted, context.exhausted.load(Ordering::Relaxed)) {
            (true, _) => Ended::Interrupted,
            (false, true) => Ended::Exhausted,
            (false, false) => Ended::Reached,
        },
        client,
        in_flight_area_ns: context.gauge.area(),
        in_flight_peak: context.gauge.peak(),
        unused_arrivals: context.gauge.unused.get(),
        images: context.images.len() as u64,
        image_bytes: context.images.bytes(),
        is_offline: false,
    }
}
