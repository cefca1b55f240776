//! Numbers out of records: a pure function, so a definition can change after the run.
//!
//! The formula of every metric is in [`Metrics::definitions`], which reports print beside the
//! number. Three rules hold throughout. A failed request is a latency of `+inf`; beside each
//! distribution stands the view over completed requests alone. Dropped requests
//! count nowhere but in [`Counts`]. What cannot be computed is absent, never NaN
//! and never 0.

mod definitions;
mod distribution;
mod latency;
mod moments;
mod rates;
mod series;
mod steady;

mod breakdown;

use serde::{Deserialize, Serialize};

use crate::{Record, RunInfo};

pub use breakdown::{Breakdown, By, Part};
pub use definitions::{Better, Definition};
pub use distribution::{Distribution, Summary};
pub use moments::{Moment, moments};
pub use rates::{Counts, SloResults, Throughput, Window, WindowKind};
pub use series::Second;

pub(crate) use rates::open_mean;

/// What a run measured. Latencies are milliseconds, rates are per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// What was counted.
    pub counts: Counts,
    /// The steady window that rates refer to.
    pub window: Window,
    /// First content − dispatched.
    pub ttft: Distribution,
    /// First content − scheduled.
    pub ttft_scheduled: Distribution,
    /// Time per output token after the first event, per request.
    pub tpot: Distribution,
    /// Time per token between content events, pooled and weighted by tokens.
    pub itl: Distribution,
    /// Last content − dispatched.
    pub e2el: Distribution,
    /// Last content − scheduled.
    pub e2el_scheduled: Distribution,
    /// Dispatched − scheduled.
    pub client_lag: Distribution,
    /// Connected − dispatched, over requests that made a connection.
    pub connect: Distribution,
    /// Rates in the steady window.
    pub steady: Throughput,
    /// Rates over the whole run, ramp and drain included.
    pub whole: Throughput,
    /// How fast requests were scheduled to arrive; absent where they all arrive together and
    /// in a closed loop.
    pub offered_rate: Option<f64>,
    /// How fast they were dispatched, likewise.
    pub achieved_rate: Option<f64>,
    /// Results against objectives, if requests have any.
    pub slo: Option<SloResults>,
    /// Cached prompt tokens ÷ prompt tokens, over completed requests whose server reports it.
    pub cache_hit_rate: Option<f64>,
    /// The same for a prefix cache without limits, by the workload's own counts.
    pub cache_hit_rate_ideal: Option<f64>,
    /// Mean requests in flight within the window.
    pub concurrency_mean: Option<f64>,
    /// Most requests in flight together.
    pub concurrency_peak: u32,
    /// The run second by second.
    pub series: Vec<Second>,
}

impl Metrics {
    /// Computes every metric of a run. Records may come in any order.
    #[must_use]
    pub fn of(info: &RunInfo, records: &[Record]) -> Self {
        let window = steady::window(&info.load, records);
        let latencies = latency::Latencies::of(records.iter());
        let (offered_rate, achieved_rate) = rates::offered_and_achieved(&info.load, records);
        Self {
            counts: Counts::of(records.iter()),
            ttft: latencies.ttft,
            ttft_scheduled: latencies.ttft_scheduled,
            tpot: latencies.tpot,
            itl: latency::itl(records),
            e2el: latencies.e2el,
            e2el_scheduled: latencies.e2el_scheduled,
            client_lag: latency::known(records, latency::lag),
            connect: latency::known(records, latency::connect),
            steady: Throughput::within(window, records.iter()),
            whole: Throughput::within(Window::whole(records), records.iter()),
            offered_rate,
            achieved_rate,
            slo: SloResults::of(window, records.iter()),
            cache_hit_rate: rates::cache_hit_rate(records.iter()),
            cache_hit_rate_ideal: rates::cache_hit_rate_ideal(records.iter()),
            concurrency_mean: rates::in_flight_mean(window, records),
            concurrency_peak: rates::in_flight_peak(records),
            series: series::series(records),
            window,
        }
    }

    /// Every number under a flat name, in the order of [`Metrics::definitions`], such as
    /// `ttft_p50_ms`, `ttft_p50_completed_ms` and `output_throughput`. `+inf` stays; what is
    /// absent is left out.
    #[must_use]
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        for (name, distribution) in self.distributions() {
            distribution.values(name, &mut values);
        }
        self.steady.values("", &mut values);
        self.whole.values("_whole", &mut values);
        SloResults::values(self.slo.as_ref(), &mut values);
        add(&mut values, "offered_rate", self.offered_rate);
        add(&mut values, "achieved_rate", self.achieved_rate);
        add(&mut values, "cache_hit_rate", self.cache_hit_rate);
        let ideal = self.cache_hit_rate_ideal;
        add(&mut values, "cache_hit_rate_ideal", ideal);
        add(&mut values, "concurrency_mean", self.concurrency_mean);
        let peak = f64::from(self.concurrency_peak);
        add(&mut values, "concurrency_peak", Some(peak));
        self.counts.values(&mut values);
        values
    }

    /// What each metric means, in the order in which reports show them.
    #[must_use]
    pub fn definitions() -> &'static [Definition] {
        definitions::ALL
    }

    fn distributions(&self) -> [(&'static str, &Distribution); 8] {
        [
            ("ttft", &self.ttft),
            ("ttft_scheduled", &self.ttft_scheduled),
            ("tpot", &self.tpot),
            ("itl", &self.itl),
            ("e2el", &self.e2el),
            ("e2el_scheduled", &self.e2el_scheduled),
            ("client_lag", &self.client_lag),
            ("connect", &self.connect),
        ]
    }
}

/// Records that can be gone through again and again: all of a run, or a part of them.
trait Records<'a>: Iterator<Item = &'a Record> + Clone {}

impl<'a, I: Iterator<Item = &'a Record> + Clone> Records<'a> for I {}

/// Appends a number if there is one; a NaN can only come from a deserialised file.
fn add(to: &mut Vec<(String, f64)>, name: impl Into<String>, value: Option<f64>) {
    to.extend(
        value
            .filter(|value| !value.is_nan())
            .map(|value| (name.into(), value)),
    );
}

/// Nanoseconds as milliseconds.
fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests;
