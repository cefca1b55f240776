//! Records and runs made by hand, for the tests of what is computed from them.

use std::num::NonZeroU32;

use crate::{
    Arrivals, Class, ClientUse, Ended, Event, Load, Outcome, OutputLength, Process, Protocol, Rate,
    Record, Reuse, Rounds, RunInfo, Stop, Usage,
};

pub(crate) const MS: u64 = 1_000_000;

/// A completed request: instants in milliseconds, events as (instant, tokens). It asked for as
/// many tokens as it got, and ended with its last event.
pub(crate) fn completed(scheduled: u64, dispatched: u64, events: &[(u64, u32)]) -> Record {
    let tokens: u32 = events.iter().map(|(_, tokens)| tokens).sum();
    let at = events.iter().map(|(at, tokens)| Event {
        at: at * MS,
        tokens: *tokens,
    });
    Record {
        index: 0,
        request: "r".into(),
        conversation: None,
        turn: 0,
        group: None,
        model: "m".into(),
        input_tokens: 10,
        cacheable_tokens: None,
        output_tokens: NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN),
        slo: None,
        scheduled: scheduled * MS,
        dispatched: Some(dispatched * MS),
        connected: None,
        headers: events.first().map(|(at, _)| at * MS),
        events: at.collect(),
        done: events.last().map_or(dispatched, |(at, _)| *at) * MS,
        attempts: 1,
        outcome: Outcome::Completed,
        error: None,
        usage: Some(Usage {
            prompt_tokens: 10,
            completion_tokens: tokens,
            cached_tokens: None,
        }),
        finish: Some("length".into()),
        text_digest: None,
    }
}

/// The same, but it failed when `done` milliseconds had passed, and asked for `asked` tokens.
pub(crate) fn failed(class: Class, asked: u32, done: u64, mut record: Record) -> Record {
    record.outcome = Outcome::Failed(class);
    record.error = Some("no reason".into());
    record.usage = None;
    record.finish = None;
    record.output_tokens = NonZeroU32::new(asked).unwrap();
    record.done = done * MS;
    record
}

pub(crate) fn open() -> Load {
    let arrivals = Arrivals::at(Process::Poisson, Rate::per_second(10.0).unwrap());
    Load::Open {
        arrivals,
        seed: 0,
        max_in_flight: None,
        ready_queue: None,
        rounds: Rounds::Overlap,
    }
}

pub(crate) fn closed(users: u32) -> Load {
    Load::closed(NonZeroU32::new(users).unwrap())
}

/// What a perfect client would say about `records`.
pub(crate) fn info(load: Load, records: &[Record]) -> RunInfo {
    let lasted = |record: &Record| record.dispatched.map_or(0, |from| record.done - from);
    let wall_ns = records.iter().map(|record| record.done).max().unwrap_or(0);
    RunInfo {
        load,
        stop: Stop::After(std::time::Duration::from_secs(1)),
        reuse: Reuse::Once,
        workload_digest: String::new(),
        address: "http://h:80".into(),
        model: "m".into(),
        protocol: Protocol::Completions,
        length: OutputLength::Exact,
        started_unix_ms: 0,
        event_time: crate::EventTime::Read,
        request_prefix: String::new(),
        started_monotonic_ns: 0,
        wall_ns,
        ended: Ended::Reached,
        client: ClientUse {
            threads: 2,
            cores: 4,
            cpu_ns: Some(wall_ns / 10),
            wait_ns: Some(0),
        },
        in_flight_area_ns: records.iter().map(lasted).sum(),
        in_flight_peak: 0,
        unused_arrivals: 0,
        images: 0,
        image_bytes: 0,
        is_offline: false,
    }
}
