//! The run second by second, for plots.

use serde::{Deserialize, Serialize};

use super::latency::carried;
use crate::{Outcome, Record};

const SECOND: u64 = 1_000_000_000;

/// A clock that jumped must not make a series of gigabytes: a week is kept.
const LONGEST: u64 = 7 * 24 * 3600;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its start, in seconds since the start of the run.
    pub second: u32,
    /// Requests scheduled in it.
    pub arrivals: u32,
    /// Answers that ended in it.
    pub completed: u32,
    /// Requests that failed in it.
    pub failed: u32,
    /// Output tokens received in it, of all requests, failed ones included.
    pub output_tokens: f64,
    /// Mean requests in flight.
    pub in_flight: f64,
}

/// As many seconds as the run touched, none left out.
pub(super) fn series(records: &[Record]) -> Vec<Second> {
    let Some(end) = records
        .iter()
        .map(|record| record.done.max(record.scheduled))
        .max()
    else {
        return Vec::new();
    };
    let seconds = (end / SECOND + 1).min(LONGEST);
    let mut series: Vec<Second> = (0..seconds)
        .map(|i| Second {
            second: i as u32,
            ..Second::default()
        })
        .collect();
    let last = series.len() - 1;
    let bin = |at: u64| ((at / SECOND) as usize).min(last);
    for record in records {
        series[bin(record.scheduled)].arrivals += 1;
        let ended = &mut series[bin(record.done)];
        match record.outcome {
            Outcome::Completed => ended.completed += 1,
            Outcome::Failed(_) => ended.failed += 1,
            Outcome::Dropped => {}
        }
        for event in carried(record) {
            series[bin(event.at)].output_tokens += event.tokens;
        }
        let Some(dispatched) = record.dispatched else {
            continue;
        };
        let last = bin(record.done.max(dispatched));
        for second in &mut series[bin(dispatched)..=last] {
            let start = u64::from(second.second) * SECOND;
            let inside = record
                .done
                .min(start + SECOND)
                .saturating_sub(dispatched.max(start));
            second.in_flight += inside as f64 / SECOND as f64;
        }
    }
    series
}
