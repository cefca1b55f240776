//! The step library: typed options → a capability → artifacts.
//!
//! One file per family of steps, one line each in [`library`]. The adapters are thin: what they
//! can do is done by the capability crates, which know nothing of plans.

#![forbid(unsafe_code)]

// Shared by the families.
mod kinds;

mod result;

mod breakdown;

mod command;
mod diagnosis;
pub mod figures;
mod files;
mod http;

mod llama_cpp;
mod python;

// The families, in the order in which a plan uses them.
mod model;

mod download;

mod dataset;

mod workload;

mod server;

mod multimodel;

mod load;

mod checks;

mod profile;

mod checkpoint;

mod fit;

mod analyze;

mod plot;

mod report;

mod shell;

/// A store of the tests.
#[cfg(test)]
#[path = "../sllm-store/tests/double/mod.rs"]
#[expect(dead_code, reason = "some of it is for the tests of `sllm-store`")]
mod store_double;

/// A GPU of the tests.
#[cfg(test)]
#[path = "../sllm-store/tests/cuda/mod.rs"]
mod cuda_double;

pub use fetch::catalogue;
pub use load::{Recomputed, recompute};
pub use multimodel::problems;

use engine::library::Library;

/// Returns every kind of step and service that plans can use.
pub fn library() -> Library {
    what_prepares()
        .service::<server::ServerEmbedded>()
        .service::<server::ServerSglang>()
        .service::<server::ServerVllm>()
        .service::<server::ServerLmdeploy>()
        .service::<server::ServerTrtllm>()
        .service::<server::ServerTransformers>()
        .service::<server::ServerLlamaCpp>()
        .service::<server::ServerExternal>()
        .service::<server::ServerCommand>()
        .service::<server::ServerSllmStore>()
        .service::<multimodel::Controller>()
        .step::<load::WorkloadSchedule>()
        .step::<checks::ServerReset>()
        .step::<checks::ServerTest>()
        .step::<load::LoadWarm>()
        .step::<load::LoadCalibrate>()
        .step::<load::LoadTest>()
        .step::<load::LoadSearch>()
        .step::<load::LoadSimulate>()
        .step::<profile::ProfilePhases>()
        .step::<profile::ProfileServer>()
        .step::<checkpoint::CheckpointConvert>()
        .step::<checkpoint::CheckpointReplicate>()
        .step::<checkpoint::CheckpointVerify>()
        .step::<checkpoint::StorageCeiling>()
        .step::<checkpoint::CheckpointLoad>()
        .step::<checkpoint::ServerColdStart>()
        .step::<checkpoint::CheckpointSummary>()
        .step::<fit::ModelFitLatency>()
        .step::<analyze::ComputeCeiling>()
        .step::<analyze::AnalyzeCost>()
        .step::<analyze::AnalyzeLayers>()
        .step::<plot::PlotLines>()
        .step::<plot::PlotBars>()
        .step::<plot::PlotEcdf>()
        .step::<plot::PlotHeatmap>()
        .step::<plot::PlotTimeline>()
        .step::<plot::PlotTelemetry>()
        .step::<plot::PlotRoofline>()
        .step::<report::ReportPage>()
        .step::<shell::ShellRun>()
}

/// Environments, models, data sets and workloads.
fn what_prepares() -> Library {
    Library::default()
        .step::<python::EnvPython>()
        .step::<llama_cpp::EnvLlamaCpp>()
        .step::<model::ModelDerive>()
        .step::<model::ModelWeights>()
        .step::<download::ModelDownload>()
        .step::<download::DatasetFetch>()
        .step::<dataset::DatasetRandom>()
        .step::<dataset::DatasetFile>()
        .step::<workload::WorkloadMultiTurn>()
        .step::<workload::WorkloadMix>()
        .step::<workload::WorkloadSharedPrefix>()
        .step::<workload::WorkloadRandomIds>()
        .step::<workload::WorkloadSharegpt>()
        .step::<workload::WorkloadUltrachat>()
        .step::<workload::WorkloadLoogle>()
        .step::<workload::WorkloadLongbenchV2>()
        .step::<workload::WorkloadNextqa>()
        .step::<workload::WorkloadChat>()
        .step::<workload::WorkloadTrace>()
        .step::<workload::WorkloadMultiModel>()
        .step::<workload::WorkloadMemoryFraction>()
}
