//! How much one set of runs differs from another, relative to the first.
//!
//! Knows pairs and ratios; whether lower is better is the caller's business.

use crate::{Interval, mean, mean_interval};

/// `(candidate − baseline) / |baseline|`: 0.1 says the candidate is 10 % higher. `None` for a
/// baseline of zero and for values that are not finite.
#[must_use]
pub fn relative_difference(baseline: f64, candidate: f64) -> Option<f64> {
    let difference = (candidate - baseline) / baseline.abs();
    (baseline != 0.0 && difference.is_finite() && candidate.is_finite()).then_some(difference)
}

/// A relative difference with what is known about its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// The mean relative difference of the pairs; 0.1 is 10 % more than the baseline.
    pub relative: f64,
    /// Student's interval over the pairs; `None` for a single pair.
    pub interval: Option<Interval>,
    /// The number of pairs.
    pub pairs: usize,
}

/// The relative effect over paired runs: element i of each slice comes from the same block,
/// so what drifts over time touches both.
///
/// `None` without pairs, for slices of different length, or where a pair has no
/// [`relative_difference`].
#[must_use]
pub fn relative_effect(baseline: &[f64], candidate: &[f64], level: f64) -> Option<Effect> {
    if baseline.len() != candidate.len() {
        return None;
    }
    let pairs = baseline.iter().zip(candidate);
    let differences: Option<Vec<f64>> = pairs.map(|(b, c)| relative_difference(*b, *c)).collect();
    let differences = differences?;
    Some(Effect {
        relative: mean(&differences)?,
        interval: mean_interval(&differences, level),
        pairs: differences.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_says_higher_or_lower_even_below_zero() {
        assert_eq!(relative_difference(100.0, 110.0), Some(0.1));
        assert_eq!(relative_difference(-100.0, -110.0), Some(-0.1));
        assert_eq!(relative_difference(0.0, 1.0), None);
        assert_eq!(relative_difference(1.0, f64::INFINITY), None);
        assert_eq!(relative_difference(f64::INFINITY, 1.0), None);
    }

    #[test]
    fn pairing_cancels_what_both_share() {
        // The machine doubles its speed between blocks; the effect stays 10 %.
        let effect = relative_effect(&[100.0, 50.0, 25.0], &[110.0, 55.0, 27.5], 0.95).unwrap();
        assert!((effect.relative - 0.1).abs() < 1e-12);
        let interval = effect.interval.unwrap();
        assert!(interval.high - interval.low < 1e-9);
        assert_eq!(
            relative_effect(&[1.0], &[2.0], 0.95).unwrap().interval,
            None
        );
        assert_eq!(relative_effect(&[1.0], &[], 0.95), None);
        assert_eq!(relative_effect(&[], &[], 0.95), None);
    }
}
