//! When requests arrive: absolute instants, all computed before the run.
//!
//! Knows no clock. An arrival process is a function of its parameters and a seed, so two
//! servers can be given the same arrivals. Gaps of a Poisson process are true exponential
//! draws: the last arrival is *not* moved to where it was expected, since that would take away
//! the bursts that make queues.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

/// How many requests arrive per second: positive and finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

/// A rate was not a positive, finite number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "a request rate of {0} per second; expected a positive number; help: use all-at-once arrivals for an infinite rate"
)]
pub struct RateError(pub f64);

impl Rate {
    /// Takes a rate in requests per second.
    ///
    /// # Errors
    ///
    /// [`RateError`] unless `rate` is positive and finite.
    pub fn per_second(rate: f64) -> Result<Self, RateError> {
        if rate.is_finite() && rate > 0.0 {
            Ok(Self(rate))
        } else {
            Err(RateError(rate))
        }
    }

    /// The rate in requests per second.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Rate {
    type Error = RateError;

    fn try_from(rate: f64) -> Result<Self, RateError> {
        Self::per_second(rate)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// An arrival process of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Independent exponential gaps, the first one before the first arrival.
    Poisson {
        /// Mean arrivals per second.
        rate: Rate,
    },
    /// Equal gaps; the first request arrives at once.
    Constant {
        /// Arrivals per second.
        rate: Rate,
    },
    /// Every request at the start.
    AllAtOnce,
    /// The instants that the workload itself lists, each divided by `speed`.
    Listed {
        /// 2 plays the list twice as fast.
        speed: Rate,
    },
}

/// The instants, after the start, of endless arrivals with equal gaps.
pub(crate) fn constant(rate: Rate) -> impl Iterator<Item = Duration> {
    // A product, not a sum: a million gaps must not drift.
    (0_u64..).map(move |i| seconds(i as f64 / rate.get()))
}

/// The instants, after the start, of an endless Poisson process.
pub(crate) fn poisson(rate: Rate, seed: u64) -> impl Iterator<Item = Duration> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut at = 0.0;
    std::iter::repeat_with(move || {
        // 53 random bits in 0..1; 1 - u is never zero, so the logarithm is finite.
        let u = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        at += -(-u).ln_1p() / rate.get();
        seconds(at)
    })
}

/// Saturates: an instant beyond 584 billion years is as good as never.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(value: f64) -> Rate {
        Rate::per_second(value).unwrap()
    }

    fn take(arrivals: impl Iterator<Item = Duration>, n: usize) -> Vec<f64> {
        arrivals.take(n).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn poisson_gaps_are_exponential_and_never_rescaled() {
        let at = take(poisson(rate(50.0), 3), 20_000);
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = statistics::mean(&gaps).unwrap();
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "mean {mean}");
        // An exponential's deviation equals its mean, its median is mean · ln 2.
        assert!((statistics::standard_deviation(&gaps).unwrap() / mean - 1.0).abs() < 0.05);
        let median = statistics::median(&gaps).unwrap();
        assert!((median / mean - std::f64::consts::LN_2).abs() < 0.03);
        // Rescaling would put the n-th arrival at n / rate whatever the seed.
        let other = take(poisson(rate(50.0), 4), 20_000);
        assert_ne!(at.last(), other.last());
        assert_eq!(at, take(poisson(rate(50.0), 3), 20_000));
    }

    #[test]
    fn constant_gaps_do_not_drift() {
        let at = take(constant(rate(3.0)), 3_000_001);
        assert_eq!(at[0], 0.0);
        assert_eq!(at[3_000_000], 1e6);
    }

    #[test]
    fn a_rate_is_positive_and_finite() {
        for bad in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(Rate::per_second(bad).is_err());
        }
        assert!(serde_json::from_str::<Rate>("0").is_err());
        let json = serde_json::to_string(&Arrivals::Poisson { rate: rate(4.0) }).unwrap();
        assert_eq!(json, r#"{"poisson":{"rate":4.0}}"#);
    }
}
