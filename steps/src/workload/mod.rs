//! Workloads that are made, one file per maker: what each asks, in which order, and how much of it a
//! prefix cache could hold; what makers draw with; and the share of memory that goes with a trace.

// Prompts that are drawn.
pub(crate) mod prompts;

mod mix;
mod multi_turn;
mod random_ids;
mod shared_prefix;

// Conversations that were held, out of published data sets.
pub(crate) mod tokens;

mod below;
mod records;
mod talks;

mod published;

mod chat;
mod contexts;
mod longbench;
mod loogle;
mod nextqa;
mod python_literal;
mod sharegpt;
mod ultrachat;

// Traces.
mod trace;

mod memory_fraction;
mod multi_model;

// Random numbers of others.
mod mersenne;
mod numpy;
mod python_random;

pub(crate) use chat::WorkloadChat;
pub(crate) use longbench::WorkloadLongbenchV2;
pub(crate) use loogle::WorkloadLoogle;
pub(crate) use memory_fraction::WorkloadMemoryFraction;
pub(crate) use mix::WorkloadMix;
pub(crate) use multi_model::WorkloadMultiModel;
pub(crate) use multi_turn::WorkloadMultiTurn;
pub(crate) use nextqa::WorkloadNextqa;
pub(crate) use random_ids::WorkloadRandomIds;
pub(crate) use shared_prefix::WorkloadSharedPrefix;
pub(crate) use sharegpt::WorkloadSharegpt;
pub(crate) use trace::WorkloadTrace;
pub(crate) use ultrachat::WorkloadUltrachat;

use engine::options::Parser;
use engine::source::Place;
use engine::step::{FailureClass, OutputSpec, StepContext, StepError};
use engine::value::Table;
use loadgen::{Request, Workload};
use std::num::NonZeroU32;

/// What every maker leaves.
pub(crate) const OUTPUT: &[OutputSpec] = &[OutputSpec {
    name: "workload",
    file: "workload.jsonl",
    kind: "workload",
    doc: "The requests, one JSON line each.",
}];

/// More prompt tokens than any run of a day needs; they are kept in memory while they are made.
const MOST_TOKENS: u64 = 500_000_000;

/// Says how many of `all` parts are made; an error where nobody wants the rest.
pub(crate) fn made(
    context: &StepContext,
    what: &str,
    done: u32,
    all: NonZeroU32,
) -> Result<(), StepError> {
    context.done(what, done.into(), all.get().into());
    match context.is_cancelled() {
        true => Err(StepError::new("interrupted").class(FailureClass::Interrupted)),
        false => Ok(()),
    }
}

/// Checks the requests and writes them down.
pub(crate) fn write(context: &StepContext, requests: Vec<Request>) -> Result<Workload, StepError> {
    let workload = Workload::new(requests).map_err(|e| StepError::new(e.to_string()))?;
    workload
        .write(&context.output("workload.jsonl"))
        .map_err(|e| StepError::new(e.to_string()))?;
    Ok(workload)
}

/// The same for requests that show images of another workload, which are copied; without one there are
/// none.
pub(crate) fn write_beside(
    context: &StepContext,
    images: Option<&Workload>,
    requests: Vec<Request>,
) -> Result<Workload, StepError> {
    let Some(images) = images else {
        return write(context, requests);
    };
    let failed = |e: loadgen::WorkloadError| StepError::new(e.to_string());
    let workload = images.with_requests(requests).map_err(failed)?;
    workload
        .write(&context.output("workload.jsonl"))
        .map_err(failed)?;
    Ok(workload)
}

/// Says how much of the prompts a prefix cache without limits would hold.
pub(crate) fn ideal_text(workload: &Workload) -> String {
    match workload.ideal_cache_hit_rate() {
        Some(share) => format!(", {:.1} % cacheable", share * 100.0),
        None => String::new(),
    }
}

/// The shortest and the longest of some lengths.
pub(crate) fn tokens_text(workload: &Workload, of: impl Fn(&Request) -> u32) -> String {
    let lengths: Vec<u32> = workload.requests().iter().map(of).collect();
    match (lengths.iter().min(), lengths.iter().max()) {
        (Some(least), Some(most)) if least == most => format!("{most} tokens"),
        (Some(least), Some(most)) => format!("{least} to {most} tokens"),
        _ => "no tokens".to_owned(),
    }
}

/// Reports more prompt tokens than can be made; `option` is what could be smaller.
pub(crate) fn check_tokens(
    tokens: u64,
    option: &str,
    (table, place): (&Table, &Place),
    parser: &mut Parser<'_>,
) {
    if tokens > MOST_TOKENS {
        let at = table.get(option).map_or(place, |v| &v.place);
        let message = format!("{tokens} prompt tokens are more than {MOST_TOKENS}");
        let help = "make fewer or shorter requests; a load can reuse a workload of single requests with `reuse = \"cycle\"`";
        parser.wrong::<()>(at, message, "too many", help);
    }
}

/// Reports a `range_ratio` that is no share.
pub(crate) fn check_ratio(ratio: f64, (table, place): (&Table, &Place), parser: &mut Parser<'_>) {
    if !(ratio > 0.0 && ratio <= 1.0) {
        let at = table.get("range_ratio").map_or(place, |v| &v.place);
        let message = format!("expected a share above 0 and up to 1, found {ratio}");
        let help = "1.0 makes every request as long as asked for";
        parser.wrong::<()>(at, message, "out of range", help);
    }
}
