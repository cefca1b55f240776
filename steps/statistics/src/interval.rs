//! Confidence intervals over few independent samples, one per run.
//!
//! Knows nothing of what happens inside a run: values that follow each other in time belong
//! to [`crate::blocks`]. Where the samples cannot carry the level asked for, the answer is
//! `None`; two samples carry a Student interval, and it is as wide as it should be
//! (12.7 standard errors at 95 %).

use crate::{Sorted, mean, standard_deviation, student_quantile};

/// Says between which values a quantity lies, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end, in the unit of the samples.
    pub low: f64,
    /// The upper end, in the unit of the samples.
    pub high: f64,
    /// The confidence that the interval really has, 0..1; for a distribution-free interval
    /// it is at least, and usually above, what was asked for.
    pub level: f64,
}

/// Student's interval for the mean, which assumes samples near a normal distribution.
///
/// `None` for fewer than two samples, for samples that are not finite, and for a `level`
/// outside 0..1.
#[must_use]
pub fn mean_interval(values: &[f64], level: f64) -> Option<Interval> {
    if !(level > 0.0 && level < 1.0) {
        return None;
    }
    let spread = standard_deviation(values)?;
    let n = values.len() as f64;
    let half = student_quantile(0.5 + level / 2.0, n - 1.0) * spread / n.sqrt();
    let centre = mean(values)?;
    Some(Interval {
        low: centre - half,
        high: centre + half,
        level,
    })
}

/// Wilson's interval for a share of which `met` of `of` are known, which are taken to be independent.
///
/// `None` where nothing is known, and for a `level` outside 0..1.
#[must_use]
pub fn wilson(met: u64, of: u64, level: f64) -> Option<Interval> {
    /// Enough for Student's distribution to be the normal one.
    const MANY: f64 = 1e9;
    if of == 0 || met > of || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let z = student_quantile(0.5 + level / 2.0, MANY);
    let (n, share) = (of as f64, met as f64 / of as f64);
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Some(Interval {
        low: ((centre - half) * scale).max(0.0),
        high: ((centre + half) * scale).min(1.0),
        level,
    })
}

/// The distribution-free interval for the median, from the sign test: the k-th smallest and
/// the k-th largest sample, with the largest k that still covers `level`.
///
/// `None` while even the extremes do not: at 95 % that takes six samples, since n samples all
/// on one side of the median have a chance of 2 · 2⁻ⁿ. Infinite samples are welcome.
#[must_use]
pub fn median_interval(values: &[f64], level: f64) -> Option<Interval> {
    let sorted = Sorted::new(values.to_vec())?;
    let n = values.len();
    let mut chosen = None;
    let mut probability = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut missed = probability;
    for k in 1..=n / 2 {
        let covered = 1.0 - 2.0 * missed;
        if covered < level {
            break;
        }
        let (low, high) = (sorted.values()[k - 1], sorted.values()[n - k]);
        chosen = Some(Interval {
            low,
            high,
            level: covered,
        });
        probability *= (n - k + 1) as f64 / k as f64;
        missed += probability;
    }
    chosen
}

/// The percentile bootstrap for the mean of independent samples, with `resamples` draws from
/// a generator started at `seed`, so that a report is the same every time.
///
/// `None` below eight samples: with fewer, resampling only repeats what little is there and
/// the interval comes out too narrow; take [`mean_interval`] then.
#[must_use]
pub fn bootstrap_mean(values: &[f64], level: f64, resamples: usize, seed: u64) -> Option<Interval> {
    const FEWEST: usize = 8;
    if values.len() < FEWEST {
        return None;
    }
    crate::moving_block_bootstrap(values, 1, level, resamples, seed, mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_s_interval_is_that_of_the_tables() {
        // 15 of 20 at 95 %: 0.531 to 0.888.
        let interval = wilson(15, 20, 0.95).unwrap();
        assert!((interval.low - 0.531).abs() < 5e-4 && (interval.high - 0.888).abs() < 5e-4);
        let all = wilson(1000, 1000, 0.95).unwrap();
        assert!(all.high >= 1.0 - 1e-12 && all.low > 0.996, "{all:?}");
        assert_eq!(wilson(0, 0, 0.95), None);
    }

    #[test]
    fn two_samples_give_the_wide_interval_they_deserve() {
        let interval = mean_interval(&[99.0, 101.0], 0.95).unwrap();
        // s = √2, standard error 1, t = 12.7062.
        assert!((interval.low - (100.0 - 12.7062)).abs() < 1e-3);
        assert!((interval.high - (100.0 + 12.7062)).abs() < 1e-3);
        assert_eq!(mean_interval(&[100.0], 0.95), None);
        assert_eq!(mean_interval(&[100.0, f64::INFINITY], 0.95), None);
        assert_eq!(mean_interval(&[1.0, 2.0], 1.0), None);
    }

    #[test]
    fn the_median_needs_six_samples_at_95_percent() {
        assert_eq!(median_interval(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95), None);
        let six = median_interval(&[6.0, 1.0, 2.0, 3.0, 4.0, 5.0], 0.95).unwrap();
        assert_eq!((six.low, six.high), (1.0, 6.0));
        assert!((six.level - (1.0 - 2.0 / 64.0)).abs() < 1e-12);
        // n = 9: k = 2 misses 2 (1 + 9) / 512 = 3.9 %, k = 3 would miss 18 %.
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let nine = median_interval(&nine, 0.95).unwrap();
        assert_eq!((nine.low, nine.high), (2.0, 8.0));
        assert!((nine.level - (1.0 - 20.0 / 512.0)).abs() < 1e-12);
    }

    #[test]
    fn a_failed_run_widens_the_median_interval_to_infinity() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, f64::INFINITY];
        assert_eq!(median_interval(&values, 0.95).unwrap().high, f64::INFINITY);
    }

    #[test]
    fn the_bootstrap_is_repeatable_and_refuses_few_samples() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let once = bootstrap_mean(&values, 0.9, 400, 7);
        assert_eq!(once, bootstrap_mean(&values, 0.9, 400, 7));
        let once = once.unwrap();
        assert!(once.low < 9.5 && 9.5 < once.high && once.low > 5.0 && once.high < 14.0);
        assert_eq!(bootstrap_mean(&values[..7], 0.9, 400, 7), None);
    }
}
