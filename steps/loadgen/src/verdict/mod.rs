//! Whether to believe a run: valid, degraded or invalid, with reasons.
//!
//! A pure function of what was recorded. It fails closed: where a check cannot be made, that
//! is a reason, too. Knows what can be seen from the client; throttling, foreign processes and
//! server restarts are judged by those who see them.

mod checks;
mod steady;

use serde::{Deserialize, Serialize};

pub use checks::client_error;

use crate::{ClientError, Metrics, Record, RunInfo};

/// How far to trust a result; ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Believe it.
    Valid,
    /// Believe it with the reasons in mind.
    Degraded,
    /// Do not: it enters no comparison.
    Invalid,
}

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The run was interrupted, or no request was sent.
    Complete,
    /// The workload ended before the time did.
    Exhausted,
    /// Share of requests that failed.
    Failures,
    /// Share of requests whose stream reported an error.
    InBandErrors,
    /// Share of requests whose stream was cut.
    Truncated,
    /// Relative distance of the achieved from the offered rate.
    OfferedRate,
    /// Relative shortfall of requests in flight against the users of a closed loop.
    Concurrency,
    /// p99 of the client's lag as a share of the median time to first token.
    ClientLag,
    /// What the client adds by its own calibration, as a share of what was measured.
    ClientError,
    /// Share of the client's processors that it used.
    ClientCpu,
    /// Relative distance of requests in flight from rate × latency.
    LittlesLaw,
    /// Share of answers of another length than asked for.
    OutputLength,
    /// Share of answers whose token count the server did not report.
    Usage,
    /// Length of the steady window in mean latencies.
    WindowLength,
    /// Growth of requests in the system over the second half of the arrivals.
    Backlog,
    /// What contradicts the server's own word: instants out of their order, other counts.
    Causality,
    /// What the server applied of what it was asked for.
    Applied,
    /// What the server counted beyond what its answers have.
    ServerCounts,
}

/// One reason not to trust a result fully.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is about.
    pub check: Check,
    /// How much it takes from the result.
    pub grade: Grade,
    /// The measured value; absent where the reason is that it could not be measured.
    pub measured: Option<f64>,
    /// The threshold that it crossed.
    pub threshold: f64,
    /// What was found, as a sentence for people.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// What a reader should know although it takes nothing from the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Percentiles with fewer than ten requests beyond them: their value is chance.
    UnsupportedPercentiles {
        /// Requests that they would rest on.
        requests: u64,
        /// The percentiles, ascending: `[95, 99]`.
        percentiles: Vec<u8>,
        /// Requests that the first of them needs.
        needed: u64,
    },
    /// No time per output token and no gap exists: answers came in one event each.
    SingleEventAnswers,
}

/// The limits of the checks; shares and relative distances are fractions of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Failed requests: degraded with the first one, invalid above this share.
    pub failures: f64,
    /// In-band errors and cut streams: invalid above this share. Lower than `failures`,
    /// because such a server looks healthy from the outside.
    pub broken_streams: f64,
    /// Distance of the achieved from the offered rate: degraded, invalid.
    pub rate: (f64, f64),
    /// Shortfall of concurrency in a closed loop: degraded, invalid.
    pub concurrency: (f64, f64),
    /// p99 client lag ÷ median time to first token: degraded, invalid.
    pub client_lag: (f64, f64),
    /// What the client adds ÷ what was measured, at the median and at p99: degraded, invalid.
    pub client_error: (f64, f64),
    /// Use of the client's processors: degraded, invalid.
    pub client_cpu: (f64, f64),
    /// Little's law: degraded, invalid.
    pub littles_law: (f64, f64),
    /// Answers of wrong length: degraded with the first one, invalid above this share.
    pub output_length: f64,
    /// Mean latencies that the steady window must hold, else degraded.
    pub window: f64,
    /// Relative growth of the backlog between the third and the fourth quarter of the
    /// arrivals, else degraded.
    pub backlog: f64,
}

impl Default for Thresholds {
    /// 5 % failures; 1 % broken streams; rates 2 % and 10 %; concurrency 5 % and 25 %; lag
    /// 5 % and 25 %; processors 70 % and 95 %; Little's law 2 % and 10 %; wrong length 5 %; a
    /// window of 3 latencies; growth by a quarter. Set by judgement, to be replaced by
    /// measured error budgets where a calibration exists.
    fn default() -> Self {
        Self {
            failures: 0.05,
            broken_streams: 0.01,
            rate: (0.02, 0.10),
            concurrency: (0.05, 0.25),
            client_lag: (0.05, 0.25),
            client_error: (0.05, 0.25),
            client_cpu: (0.70, 0.95),
            littles_law: (0.02, 0.10),
            output_length: 0.05,
            window: 3.0,
            backlog: 0.25,
        }
    }
}

/// Whether to believe a run, and why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst grade of the reasons; valid without any.
    pub grade: Grade,
    /// Worst first.
    pub reasons: Vec<Reason>,
    /// What else to know.
    pub notes: Vec<Note>,
}

impl Verdict {
    /// The same verdict with one more reason.
    #[must_use]
    pub fn with(mut self, reason: Reason) -> Self {
        self.grade = self.grade.max(reason.grade);
        self.reasons.push(reason);
        self.reasons
            .sort_by_key(|reason| std::cmp::Reverse(reason.grade));
        self
    }
}

/// Judges a run. `metrics` must be those of the same `info` and `records`, and `error` what the same
/// client adds under the same load, where that is known.
#[must_use]
pub fn judge(
    info: &RunInfo,
    records: &[Record],
    metrics: &Metrics,
    error: Option<&ClientError>,
    limits: &Thresholds,
) -> Verdict {
    let case = Case {
        info,
        records,
        metrics,
        error,
        limits,
    };
    let mut reasons = case.reasons();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.grade));
    let grade = reasons.first().map_or(Grade::Valid, |reason| reason.grade);
    Verdict {
        grade,
        reasons,
        notes: case.notes(),
    }
}

/// Everything that a check may look at.
struct Case<'a> {
    info: &'a RunInfo,
    records: &'a [Record],
    metrics: &'a Metrics,
    error: Option<&'a ClientError>,
    limits: &'a Thresholds,
}

impl Case<'_> {
    fn notes(&self) -> Vec<Note> {
        let counts = &self.metrics.counts;
        let requests = counts.completed + counts.failed;
        // Ten observations beyond a percentile keep its relative error near a third.
        let needed = |percentile: u8| 1000_u64.div_ceil(100 - u64::from(percentile));
        let unsupported = |percentile: &u8| requests < needed(*percentile);
        let percentiles: Vec<u8> = [50, 90, 95, 99].into_iter().filter(unsupported).collect();
        let mut notes = Vec::new();
        if let Some(first) = percentiles.first() {
            let needed = needed(*first);
            notes.push(Note::UnsupportedPercentiles {
                requests,
                percentiles,
                needed,
            });
        }
        if counts.completed > 0 && self.metrics.itl.completed.mean.is_none() {
            notes.push(Note::SingleEventAnswers);
        }
        notes
    }
}

#[cfg(test)]
mod tests;
