//! Sends a workload to an LLM inference server and says what came back, when.
//!
//! The way through: a [`Workload`] says *what* is asked, a [`Load`] *when*, a [`Target`]
//! *whom* and how; [`run`] does it and yields raw [`Record`]s. [`Metrics`] is a function of
//! those records and [`Verdict`] one of both, so that a definition can change without a new
//! run. Nothing here knows plans, pipelines, files of results or terminals.
//!
//! Time is monotonic nanoseconds since the start of the run wherever it is stored, and
//! `Duration` wherever it is configured.

#![forbid(unsafe_code)]

mod slo;
mod workload;

mod arrivals;
mod plan;
mod schedule;
mod target;
mod trust;

mod record;
#[cfg(test)]
mod samples;

mod client;
mod protocol;
mod sse;

mod clock;
mod run;

mod metrics;

mod calibration;
mod causality;
mod verdict;
pub mod views;

pub use arrivals::{Arrivals, Process, Profile, Rate, RateError, Stage};
pub use calibration::{ClientError, Distortion, Truth};
pub use causality::{Causality, Link, Margin};
pub use client::{Address, AddressError};
pub use metrics::{
    Better, Breakdown, By, Counts, Definition, Distribution, Metrics, Moment, Part, Second,
    SloResults, Summary, Throughput, Window, WindowKind, moments,
};
pub use plan::{
    EventTime, Load, PlanError, ReadyOrder, Reuse, Rounds, RunPlan, Stop, Think, Threads,
};
pub use protocol::Protocol;
pub use record::{Class, Event, Outcome, ParseOutcomeError, Record, Usage};
pub use run::{
    ClientUse, Ended, NoObserver, Observer, ObserverError, OfflineServer, Piece, Progress, Run,
    RunError, RunInfo, Told, run, run_offline,
};
pub use slo::Slo;
pub use sse::{SseError, SseEvent, SseParser};
pub use target::{
    Generation, HttpVersion, IMAGE_TOKEN, Limits, OutputLength, Secret, Target, Timeouts,
};
pub use trust::{Trust, TrustError};
pub use verdict::{Check, Grade, Note, Reason, Thresholds, Verdict, client_error, judge};
pub use workload::{
    ImageError, Images, Prefixes, Prompt, Request, Workload, WorkloadError, image_name,
};
