//! What the client adds to what it measures: its records beside what a server of known truth wrote
//! down on the same clock.
//!
//! Pure. The server's word is taken for when it had read a request and when it sent each event; all
//! that lies between is the client's and the network's.

use serde::{Deserialize, Serialize};

use crate::{Record, RunInfo, metrics::Summary};

/// What a server knows of one answer; nanoseconds of the system's monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// The value of the header `x-request-id`.
    pub request: String,
    /// When the request had been read.
    pub received: u64,
    /// When it was first scheduled, if it was.
    pub scheduled: Option<u64>,
    /// Tokens of its prompt that were found in the prefix cache, if it was scheduled.
    pub cached: Option<u64>,
    /// When each token was ready, in the order in which events carry them.
    pub ready: Vec<u64>,
    /// When each event was sent.
    pub sent: Vec<u64>,
    /// How many tokens each event carried.
    pub tokens: Vec<u32>,
    /// Which events have no text, ascending.
    pub silent: Vec<usize>,
    /// Whether the answer went out to its end.
    pub is_finished: bool,
}

/// How far the client's numbers are from the truth, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientError {
    /// Completed requests whose truth is known.
    pub requests: u64,
    /// Completed requests whose truth is not.
    pub unknown: u64,
    /// Time to first token as measured − as it was, over pooled connections.
    pub ttft: Summary,
    /// The same over connections that were made for the request.
    pub ttft_cold: Summary,
    /// Distance of the gaps between events from what they were.
    pub itl: Summary,
    /// When the first event was read − when it was sent.
    pub first_event: Summary,
    /// Dispatched − scheduled.
    pub lag: Summary,
}

/// The number that the client distorts most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// Its name, such as `ttft_p99`.
    pub name: &'static str,
    /// What the client adds to it, in milliseconds.
    pub added_ms: f64,
    /// That as a share of what was measured.
    pub share: f64,
}

impl ClientError {
    /// Finds what is distorted most of what was `measured`, in milliseconds, under the names `ttft_p50`,
    /// `ttft_p99`, `itl_p50` and `itl_p99`.
    #[must_use]
    pub fn worst(&self, measured: impl Fn(&str) -> Option<f64>) -> Option<Distortion> {
        let added = [
            ("ttft_p50", self.ttft.p50),
            ("ttft_p99", self.ttft.p99),
            ("itl_p50", self.itl.p50),
            ("itl_p99", self.itl.p99),
        ];
        let distortion = |(name, added): (&'static str, Option<f64>)| {
            let (added_ms, signal) = (added?, measured(name)?);
            let share = added_ms.abs() / signal.max(f64::MIN_POSITIVE);
            Some(Distortion {
                name,
                added_ms,
                share,
            })
        };
        let all = added.into_iter().filter_map(distortion);
        all.max_by(|a, b| a.share.total_cmp(&b.share))
    }

    /// Sets records beside the truth.
    #[must_use]
    pub fn of(info: &RunInfo, records: &[Record], truths: &[Truth]) -> Self {
        let truths: std::collections::HashMap<&str, &Truth> =
            truths.iter().map(|t| (t.request.as_str(), t)).collect();
        let mut error = Self::default();
        let (mut warm, mut cold, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        let (mut first, mut lag) = (Vec::new(), Vec::new());
        for record in records.iter().filter(|record| record.completed()) {
            let name = format!("{}{}", info.request_prefix, record.index);
            let (Some(truth), Some(dispatched)) = (truths.get(name.as_str()), record.dispatched)
            else {
                error.unknown += 1;
                continue;
            };
            error.requests += 1;
            lag.push(ms(dispatched, record.scheduled));
            let seen: Vec<u64> = record
                .events
                .iter()
                .map(|event| event.at + info.started_monotonic_ns)
                .collect();
            let (Some(seen_first), Some(sent_first)) = (seen.first(), truth.sent.first()) else {
                continue;
            };
            let measured = ms(*seen_first, dispatched + info.started_monotonic_ns);
            let was = ms(*sent_first, truth.received);
            match record.connected {
                Some(_) => cold.push(measured - was),
                None => warm.push(measured - was),
            }
            first.push(ms(*seen_first, *sent_first));
            let pairs = seen.windows(2).zip(truth.sent.windows(2));
            gaps.extend(
                pairs.map(|(seen, sent)| (ms(seen[1], seen[0]) - ms(sent[1], sent[0])).abs()),
            );
        }
        error.ttft = Summary::linear(warm);
        error.ttft_cold = Summary::linear(cold);
        error.itl = Summary::linear(gaps);
        error.first_event = Summary::linear(first);
        error.lag = Summary::linear(lag);
        error
    }

    /// Every number under a flat name, such as `client_error_ttft_p99_ms`.
    #[must_use]
    pub fn values(&self) -> Vec<(String, f64)> {
        let all = [
            ("ttft", &self.ttft),
            ("ttft_cold", &self.ttft_cold),
            ("itl", &self.itl),
            ("first_event", &self.first_event),
            ("lag", &self.lag),
        ];
        let mut values = Vec::new();
        for (name, summary) in all {
            for (statistic, value) in summary.statistics() {
                let named = |v| (format!("client_error_{name}_{statistic}_ms"), v);
                values.extend(value.map(named));
            }
        }
        values
    }

    /// What each of [`Self::values`] means: the stem of its name, and how it is computed.
    #[must_use]
    pub fn definitions() -> [(&'static str, &'static str); 5] {
        [
            (
                "client_error_ttft",
                "(first content - dispatched) - (first event sent - request read), pooled connections, paced server",
            ),
            (
                "client_error_ttft_cold",
                "the same over fresh connections, whose making is part of it",
            ),
            (
                "client_error_itl",
                "|gap between events as read - gap as sent|, paced server",
            ),
            (
                "client_error_first_event",
                "first content read - first event sent, paced server",
            ),
            ("client_error_lag", "dispatched - scheduled, paced server"),
        ]
    }
}

/// The distance of two instants, in milliseconds.
fn ms(later: u64, earlier: u64) -> f64 {
    later as f64 / 1e6 - earlier as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{MS, closed, completed, info};

    #[test]
    fn errors_are_what_the_client_added() {
        let warm = completed(0, 1, &[(12, 1), (22, 1)]);
        let mut cold = completed(0, 1, &[(12, 1)]);
        cold.index = 1;
        cold.connected = Some(5 * MS);
        let mut lost = completed(0, 1, &[(3, 1)]);
        lost.index = 2;
        let records = [warm, cold, lost];
        let mut info = info(closed(1), &records);
        info.started_monotonic_ns = 1000 * MS;
        info.request_prefix = "x-".into();
        let truth = |index: u64, received: u64, sent: &[u64]| Truth {
            request: format!("x-{index}"),
            received: received * MS,
            sent: sent.iter().map(|at| at * MS).collect(),
            ..Truth::default()
        };
        let truths = [truth(0, 1002, &[1010, 1021]), truth(1, 1006, &[1011])];
        let error = ClientError::of(&info, &records, &truths);
        assert_eq!((error.requests, error.unknown), (2, 1));
        // Measured 11 ms, was 8 ms; the gap was 11 ms and looked like 10.
        let near = |value: Option<f64>, wanted: f64| (value.unwrap() - wanted).abs() < 1e-6;
        assert!(near(error.ttft.p50, 3.0) && near(error.itl.p99, 1.0));
        assert!(near(error.ttft_cold.mean, 6.0));
        assert!(near(error.lag.mean, 1.0));
    }
}
