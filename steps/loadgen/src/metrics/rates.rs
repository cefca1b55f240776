//! What happened per second: windows, throughput, goodput, concurrency, counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Records, add,
    latency::{carried, e2el_scheduled, tpot, ttft_scheduled},
};
use crate::{Arrivals, Class, Load, Outcome, Record, Slo};

/// Where a window came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// From the first scheduled instant to the last: new work arrives throughout.
    Steady,
    /// Work arrived over time, but the system fell behind or never settled: there is no steady window,
    /// and no rate of one. It spans what arrived.
    Unsteady,
    /// Nothing arrives over time (all requests come together, or there is one): from the
    /// first dispatch to the last content.
    Whole,
}

/// A span of the run, in nanoseconds since its start. What happens at `start` lies outside,
/// what happens at `end` inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Where it begins.
    pub start: u64,
    /// Where it ends; never before `start`.
    pub end: u64,
    /// How it was chosen.
    pub kind: WindowKind,
}

impl Window {
    /// The steady window: while requests arrive. In a closed loop, whose arrivals are users
    /// becoming free, it ends when the last request is scheduled: from then on users leave.
    pub(super) fn of(records: &[Record]) -> Self {
        let scheduled = || arrived(records.iter()).map(|record| record.scheduled);
        match (scheduled().min(), scheduled().max()) {
            (Some(start), Some(end)) if start < end => Self {
                start,
                end,
                kind: WindowKind::Steady,
            },
            _ => Self::whole(records),
        }
    }

    /// From the first dispatch to the last content.
    pub(super) fn whole(records: &[Record]) -> Self {
        let start = records
            .iter()
            .filter_map(|record| record.dispatched)
            .min()
            .unwrap_or(0);
        let end = records
            .iter()
            .filter_map(Record::last_content)
            .max()
            .unwrap_or(start);
        Self {
            start,
            end: end.max(start),
            kind: WindowKind::Whole,
        }
    }

    /// Its length in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1e9
    }

    fn holds(&self, at: u64) -> bool {
        self.start < at && at <= self.end
    }

    /// `amount` per second of the window; `None` for an empty window, and for one that is not steady.
    fn rate(&self, amount: f64) -> Option<f64> {
        (self.end > self.start && self.kind != WindowKind::Unsteady)
            .then(|| amount / self.seconds())
    }
}

/// Requests that were not dropped.
pub(super) fn arrived<'a>(records: impl Records<'a>) -> impl Records<'a> {
    records.filter(|record| record.outcome != Outcome::Dropped)
}

fn completed<'a>(records: impl Records<'a>) -> impl Records<'a> {
    records.filter(|record| record.completed())
}

/// Rates within one window, per second; absent where the window is empty. Only completed
/// requests deliver anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// The window.
    pub window: Window,
    /// Requests whose last content lies inside.
    pub requests: Option<f64>,
    /// Output tokens whose event lies inside.
    pub output_tokens: Option<f64>,
    /// Those, and the prompt tokens of requests whose first content lies inside.
    pub total_tokens: Option<f64>,
}

impl Throughput {
    pub(super) fn within<'a>(window: Window, records: impl Records<'a>) -> Self {
        let (mut requests, mut output, mut input) = (0.0, 0.0, 0.0);
        for record in completed(records) {
            let inside = |at: Option<u64>| at.is_some_and(|at| window.holds(at));
            requests += f64::from(u8::from(inside(record.last_content())));
            if inside(record.first_content()) {
                input += record.prompt_tokens() as f64;
            }
            let events = carried(record).filter(|event| window.holds(event.at));
            output += events.map(|event| event.tokens).sum::<f64>();
        }
        Self {
            window,
            requests: window.rate(requests),
            output_tokens: window.rate(output),
            total_tokens: window.rate(input + output),
        }
    }

    /// Appends `request_throughput` and the like, each name followed by `suffix`.
    pub(super) fn values(&self, suffix: &str, to: &mut Vec<(String, f64)>) {
        add(to, format!("request_throughput{suffix}"), self.requests);
        add(to, format!("output_throughput{suffix}"), self.output_tokens);
        add(to, format!("total_throughput{suffix}"), self.total_tokens);
    }
}

/// How many requests ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests that the client began to send.
    pub sent: u64,
    /// Requests whose answer was finished.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests cut off by an interruption, and turns that were never sent because their conversation
    /// could not go on.
    pub dropped: u64,
    /// Requests by outcome, under its text form.
    pub by_outcome: BTreeMap<String, u64>,
    /// Requests that were sent again because their pooled connection was closed.
    pub resent: u64,
    /// Prompt tokens of completed requests.
    pub input_tokens: u64,
    /// Answer tokens of completed requests.
    pub output_tokens: u64,
}

impl Counts {
    pub(super) fn of<'a>(records: impl Records<'a>) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.arrived += 1;
            counts.sent += u64::from(record.dispatched.is_some());
            counts.resent += u64::from(record.attempts > 1);
            *counts
                .by_outcome
                .entry(record.outcome.to_string())
                .or_default() += 1;
            match record.outcome {
                Outcome::Completed => {
                    counts.completed += 1;
                    counts.input_tokens += record.prompt_tokens();
                    counts.output_tokens += record.answer_tokens();
                }
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Dropped => counts.dropped += 1,
            }
        }
        counts
    }

    /// Failed requests ÷ completed and failed ones.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        share(self.failed as f64, (self.failed + self.completed) as f64)
    }

    /// Requests that the server broke off because they would miss their objective: status 408.
    #[must_use]
    pub fn aborted(&self) -> u64 {
        let outcome = Outcome::Failed(Class::HttpStatus(408)).to_string();
        self.by_outcome.get(&outcome).copied().unwrap_or(0)
    }

    /// Appends `requests`, `completed`, `failed`, `aborted` and `error_rate`.
    pub(super) fn values(&self, to: &mut Vec<(String, f64)>) {
        add(to, "requests", Some((self.completed + self.failed) as f64));
        add(to, "completed", Some(self.completed as f64));
        add(to, "failed", Some(self.failed as f64));
        add(to, "aborted", Some(self.aborted() as f64));
        add(to, "error_rate", self.error_rate());
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Results against the objectives that requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloResults {
    /// Requests with objectives that arrived.
    pub requests: u64,
    /// Those that completed and met every one.
    pub met: u64,
    /// Requests that met theirs and whose last content lies in the window, per second.
    pub goodput: Option<f64>,
    /// `met` ÷ `requests`.
    pub attainment: Option<f64>,
    /// The same with each request weighted by the answer length it asked for.
    pub token_attainment: Option<f64>,
}

impl SloResults {
    pub(super) fn of<'a>(window: Window, records: impl Records<'a>) -> Option<Self> {
        let judged = || {
            arrived(records.clone()).filter_map(|record| {
                let slo = record.slo.filter(|slo| *slo != Slo::default())?;
                Some((record, met(record, slo)))
            })
        };
        let tokens = |record: &Record| f64::from(record.output_tokens.get());
        let met = || judged().filter(|(_, met)| *met).map(|(record, _)| record);
        let (requests, met_count) = (judged().count() as u64, met().count() as u64);
        let inside = met().filter(|r| r.last_content().is_some_and(|at| window.holds(at)));
        (requests > 0).then(|| Self {
            requests,
            met: met_count,
            goodput: window.rate(inside.count() as f64),
            attainment: share(met_count as f64, requests as f64),
            token_attainment: share(
                met().map(tokens).sum(),
                judged().map(|(r, _)| tokens(r)).sum(),
            ),
        })
    }

    /// Appends `goodput`, `attainment` and `token_attainment`, where there are objectives.
    pub(super) fn values(results: Option<&Self>, to: &mut Vec<(String, f64)>) {
        let Some(results) = results else { return };
        add(to, "goodput", results.goodput);
        add(to, "attainment", results.attainment);
        add(to, "token_attainment", results.token_attainment);
    }
}

/// An answer of one token has no time per token and cannot miss an objective for it.
fn met(record: &Record, slo: Slo) -> bool {
    let within = |value: Option<f64>, bound: Option<std::time::Duration>| match (value, bound) {
        (Some(value), Some(bound)) => value <= bound.as_secs_f64() * 1e3,
        _ => true,
    };
    record.completed()
        && within(ttft_scheduled(record), slo.ttft)
        && within(tpot(record), slo.tpot)
        && within(e2el_scheduled(record), slo.e2el)
}

/// Arrivals per second as scheduled and as dispatched: (n − 1) ÷ (last − first). Both absent
/// where requests do not arrive by themselves over time.
pub(super) fn offered_and_achieved(load: &Load, records: &[Record]) -> (Option<f64>, Option<f64>) {
    if !matches!(load, Load::Open { arrivals, .. } if *arrivals != Arrivals::AllAtOnce) {
        return (None, None);
    }
    let scheduled = arrived(records.iter()).map(|record| record.scheduled);
    (
        rate(scheduled),
        rate(arrived(records.iter()).filter_map(|record| record.dispatched)),
    )
}

fn rate(instants: impl Iterator<Item = u64> + Clone) -> Option<f64> {
    let span = instants.clone().max()? - instants.clone().min()?;
    (span > 0).then(|| (instants.count() - 1) as f64 / (span as f64 / 1e9))
}

/// Over completed requests whose server says how much of the prompt was cached.
pub(super) fn cache_hit_rate<'a>(records: impl Records<'a>) -> Option<f64> {
    let reported = completed(records).filter_map(|record| {
        let usage = record.usage?;
        Some((
            f64::from(usage.cached_tokens?),
            f64::from(usage.prompt_tokens),
        ))
    });
    let (cached, prompt) = reported.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    share(cached, prompt)
}

/// Over completed requests whose workload says how much of the prompt could have been cached.
pub(super) fn cache_hit_rate_ideal<'a>(records: impl Records<'a>) -> Option<f64> {
    let known = completed(records).filter_map(|record| {
        let cacheable = f64::from(record.cacheable_tokens?);
        Some((cacheable, f64::from(record.input_tokens)))
    });
    let (cacheable, prompt) = known.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    share(cacheable, prompt)
}

/// Mean number of spans, each `(from, to)`, that are open at a time within the window.
pub(crate) fn open_mean(window: Window, spans: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let overlap =
        |(from, to): (u64, u64)| to.min(window.end).saturating_sub(from.max(window.start));
    share(
        spans.map(overlap).sum::<u64>() as f64,
        (window.end - window.start) as f64,
    )
}

/// Mean requests between dispatch and end, over the window.
pub(super) fn in_flight_mean(window: Window, records: &[Record]) -> Option<f64> {
    open_mean(
        window,
        records
            .iter()
            .filter_map(|record| Some((record.dispatched?, record.done))),
    )
}

/// A request that ends when another is dispatched is not in flight with it.
pub(super) fn in_flight_peak(records: &[Record]) -> u32 {
    let mut changes = Vec::with_capacity(2 * records.len());
    for record in records {
        let Some(dispatched) = record.dispatched else {
            continue;
        };
        changes.push((dispatched, 1));
        changes.push((record.done, -1));
    }
    changes.sort_unstable();
    let mut now = 0_i64;
    let peak = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    peak.max()
        .map_or(0, |peak| u32::try_from(peak).unwrap_or(0))
}
