//! When requests arrive: absolute instants, all computed before the run.
//!
//! Knows no clock. An arrival process is a function of its parameters and a seed, so two
//! servers can be given the same arrivals. Gaps of a Poisson process are true exponential
//! draws: the last arrival is *not* moved to where it was expected, since that would take away
//! the bursts that make queues.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution, Gamma};
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

/// When the requests of an open loop arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// At a rate that may change over time.
    Paced {
        /// How gaps vary around their mean.
        process: Process,
        /// How many arrive per second, and when.
        rate: Profile,
    },
    /// Every request at the start.
    AllAtOnce,
    /// The instants that the workload itself lists, each divided by `speed`.
    Listed {
        /// 2 plays the list twice as fast.
        speed: Rate,
    },
}

impl Arrivals {
    /// Arrivals at one rate.
    #[must_use]
    pub fn at(process: Process, rate: Rate) -> Self {
        let rate = Profile::constant(rate);
        Self::Paced { process, rate }
    }

    /// The instants after the start, ascending; what a workload lists itself is not known here, and
    /// counts as nothing.
    #[must_use]
    pub fn instants(&self, seed: u64) -> Box<dyn Iterator<Item = Duration>> {
        match self {
            Self::Paced { process, rate } => Box::new(paced(*process, rate, seed)),
            Self::AllAtOnce => Box::new(std::iter::repeat(Duration::ZERO)),
            Self::Listed { .. } => Box::new(std::iter::empty()),
        }
    }
}

/// How the gaps between arrivals vary: independent of each other, with the mean that the rate says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// Not at all; the first request arrives at once.
    Constant,
    /// Evenly between nothing and twice the mean.
    Uniform,
    /// Exponentially: the next arrival does not depend on the last one.
    Poisson,
    /// As a gamma distribution of this shape: below 1 arrivals come in bursts, 1 is Poisson, above
    /// 1 they are more even. The coefficient of variation is 1 ÷ √burstiness.
    Gamma {
        /// The shape, positive and finite.
        burstiness: Rate,
    },
}

/// A rate over time: stages that follow each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile(Vec<Stage>);

/// A time during which a rate stays as it is or changes evenly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The rate at its beginning.
    pub from: Rate,
    /// The rate at its end.
    pub to: Rate,
    /// How long it lasts; without an end if absent, and then it is the last.
    pub lasts: Option<Duration>,
}

impl Profile {
    /// One rate without an end.
    #[must_use]
    pub fn constant(rate: Rate) -> Self {
        Self(vec![Stage {
            from: rate,
            to: rate,
            lasts: None,
        }])
    }

    /// Stages one after the other.
    #[must_use]
    pub fn stages(stages: Vec<Stage>) -> Self {
        Self(stages)
    }

    /// The rate at the very beginning; `None` without a stage.
    pub(crate) fn first(&self) -> Option<Rate> {
        self.0.first().map(|stage| stage.from)
    }

    /// The highest rate; `None` without a stage.
    pub(crate) fn highest(&self) -> Option<f64> {
        let rates = self
            .0
            .iter()
            .map(|stage| stage.from.get().max(stage.to.get()));
        rates.reduce(f64::max)
    }

    /// How long all stages last together; `None` if they have no end.
    #[must_use]
    pub fn lasts(&self) -> Option<Duration> {
        self.0.iter().map(|stage| stage.lasts).sum()
    }

    /// The instant, in seconds, at which so many arrivals are expected to have come; `None` if so
    /// many never come. `expected` must not fall from one call to the next.
    fn instants(&self) -> impl FnMut(f64) -> Option<f64> + use<> {
        let mut stages = self.0.clone().into_iter();
        let mut stage = stages.next();
        // What came before the stage: seconds, expected arrivals.
        let (mut before, mut came) = (0.0, 0.0);
        move |expected| loop {
            let Stage { from, to, lasts } = stage?;
            let (from, to) = (from.get(), to.get());
            let Some(lasts) = lasts.map(|d| d.as_secs_f64()) else {
                return Some(before + (expected - came) / from);
            };
            let whole = (from + to) / 2.0 * lasts;
            let wanted = expected - came;
            if wanted < whole {
                // from·t + (to − from)/(2·lasts)·t² = wanted, in a form without cancellation.
                let slope = (to - from) / lasts;
                let root = (from * from + 2.0 * slope * wanted).max(0.0).sqrt();
                return Some(before + 2.0 * wanted / (from + root));
            }
            (before, came) = (before + lasts, came + whole);
            stage = stages.next();
        }
    }
}

/// The instants, after the start, of the arrivals of a process: those of rate 1, moved to where the
/// rate over time puts them.
pub(crate) fn paced(
    process: Process,
    rate: &Profile,
    seed: u64,
) -> impl Iterator<Item = Duration> + use<> {
    let mut gaps = gaps(process, seed);
    let mut instants = rate.instants();
    let mut expected = 0.0;
    let mut n = 0_u64;
    std::iter::from_fn(move || {
        match &mut gaps {
            // A product, not a sum: a million gaps must not drift.
            None => expected = n as f64,
            Some(gap) => expected += gap(),
        }
        n += 1;
        instants(expected).map(seconds)
    })
}

/// Draws gaps of mean 1; `None` where there is nothing to draw.
fn gaps(process: Process, seed: u64) -> Option<Box<dyn FnMut() -> f64 + Send>> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    match process {
        Process::Constant => None,
        Process::Uniform => Some(Box::new(move || 2.0 * unit(&mut random))),
        // 1 − u is never zero, so the logarithm is finite.
        Process::Poisson => Some(Box::new(move || -(-unit(&mut random)).ln_1p())),
        Process::Gamma { burstiness } => {
            let shape = burstiness.get();
            match Gamma::new(shape, 1.0 / shape) {
                Ok(gamma) => Some(Box::new(move || gamma.sample(&mut random))),
                // A shape near zero or infinity: gaps are as even as they can be.
                Err(_) => None,
            }
        }
    }
}

/// A number from 0 up to and without 1, of 53 random bits.
pub(crate) fn unit(random: &mut ChaCha12Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
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

    fn take(process: Process, profile: &Profile, seed: u64, n: usize) -> Vec<f64> {
        let arrivals = paced(process, profile, seed);
        arrivals.take(n).map(|at| at.as_secs_f64()).collect()
    }

    fn gaps_of(process: Process, seed: u64) -> Vec<f64> {
        let at = take(process, &Profile::constant(rate(50.0)), seed, 20_001);
        at.windows(2)
            .map(|pair| (pair[1] - pair[0]) * 50.0)
            .collect()
    }

    /// The largest distance of the values' distribution from one that is known.
    fn kolmogorov_smirnov(mut values: Vec<f64>, known: impl Fn(f64) -> f64) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let distance = |(i, v): (usize, &f64)| {
            let expected = known(*v);
            (expected - i as f64 / n)
                .abs()
                .max(((i + 1) as f64 / n - expected).abs())
        };
        values.iter().enumerate().map(distance).fold(0.0, f64::max)
    }

    /// What the distance of 20,000 values exceeds by chance once in a thousand times.
    const LIMIT: f64 = 1.95 / 141.4;

    #[test]
    fn gaps_have_the_distribution_that_they_are_called_by() {
        let exponential = |x: f64| 1.0 - (-x).exp();
        assert!(kolmogorov_smirnov(gaps_of(Process::Poisson, 3), exponential) < LIMIT);
        let even = |x: f64| (x / 2.0).clamp(0.0, 1.0);
        assert!(kolmogorov_smirnov(gaps_of(Process::Uniform, 4), even) < LIMIT);
        // Of shape 1 it is exponential; of shape 2 its distribution has a closed form, too.
        let gamma = |shape| Process::Gamma {
            burstiness: rate(shape),
        };
        assert!(kolmogorov_smirnov(gaps_of(gamma(1.0), 5), exponential) < LIMIT);
        let second = |x: f64| 1.0 - (-2.0 * x).exp() * (1.0 + 2.0 * x);
        assert!(kolmogorov_smirnov(gaps_of(gamma(2.0), 6), second) < LIMIT);
        let bursts = gaps_of(gamma(0.25), 7);
        let variation =
            statistics::standard_deviation(&bursts).unwrap() / statistics::mean(&bursts).unwrap();
        assert!((variation - 2.0).abs() < 0.15, "{variation}");
    }

    #[test]
    fn arrivals_are_never_rescaled_and_repeat_exactly() {
        let constant = Profile::constant(rate(50.0));
        let at = take(Process::Poisson, &constant, 3, 20_000);
        // Rescaling would put the n-th arrival at n / rate whatever the seed.
        assert_ne!(
            at.last(),
            take(Process::Poisson, &constant, 4, 20_000).last()
        );
        assert_eq!(at, take(Process::Poisson, &constant, 3, 20_000));
        // What a seed means must not change with a version: two arms replay it.
        let first: Vec<u64> = at[..3].iter().map(|at| (at * 1e9) as u64).collect();
        assert_eq!(first, FIRST_OF_SEED_3);
    }

    const FIRST_OF_SEED_3: [u64; 3] = [2_001_030, 10_693_379, 14_756_404];

    #[test]
    fn constant_gaps_do_not_drift() {
        let at = take(
            Process::Constant,
            &Profile::constant(rate(3.0)),
            0,
            3_000_001,
        );
        assert_eq!(at[0], 0.0);
        assert_eq!(at[3_000_000], 1e6);
    }

    #[test]
    fn stages_bring_as_many_as_their_rates_say() {
        let stage = |from, to, lasts| Stage {
            from: rate(from),
            to: rate(to),
            lasts: Some(Duration::from_secs(lasts)),
        };
        // 10 s at 2, then 10 s from 2 to 6: 20 and 40 arrivals, and then none.
        let profile = Profile::stages(vec![stage(2.0, 2.0, 10), stage(2.0, 6.0, 10)]);
        assert_eq!(profile.lasts(), Some(Duration::from_secs(20)));
        let at = take(Process::Constant, &profile, 0, 1000);
        assert_eq!(at.len(), 60);
        assert_eq!((at[0], at[10], at[20]), (0.0, 5.0, 10.0));
        assert!(at.is_sorted() && at[59] < 20.0);
        // In the middle of the ramp the rate is 4, and 15 of its 40 have come.
        assert!((at[35] - 15.0).abs() < 1e-9, "{}", at[35]);
        // Poisson arrivals of the ramp are uniform once time is counted in expected arrivals.
        let fast = Profile::stages(vec![stage(100.0, 2000.0, 20)]);
        let at = take(Process::Poisson, &fast, 1, 100_000);
        let expected = |t: f64| (100.0 * t + 1900.0 / 40.0 * t * t) / 21_000.0;
        let distance = kolmogorov_smirnov(at.iter().map(|t| expected(*t)).collect(), |x| {
            x.clamp(0.0, 1.0)
        });
        assert!(distance < 1.95 / (at.len() as f64).sqrt(), "{distance}");
        assert_eq!(Profile::constant(rate(1.0)).lasts(), None);
    }

    #[test]
    fn a_rate_is_positive_and_finite() {
        for bad in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(Rate::per_second(bad).is_err());
        }
        assert!(serde_json::from_str::<Rate>("0").is_err());
        let json = serde_json::to_string(&Arrivals::at(Process::Poisson, rate(4.0))).unwrap();
        assert_eq!(
            json,
            r#"{"paced":{"process":"poisson","rate":[{"from":4.0,"to":4.0,"lasts":null}]}}"#
        );
    }
}
