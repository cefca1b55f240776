//! Mean, median and spread of a handful of numbers; knows no intervals.

use crate::Sorted;

/// The arithmetic mean; `+inf` as soon as one value is, `None` for no values or for a mix
/// without a mean (NaN, or both infinities).
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (!mean.is_nan()).then_some(mean)
}

/// The median (the middle sample, or the mean of the two middle ones); `None` for no values
/// or a NaN among them.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    Sorted::new(values.to_vec())?.linear(0.5)
}

/// The unbiased sample variance (divided by n − 1); `None` for fewer than two values or for
/// values that are not finite.
#[must_use]
pub fn variance(values: &[f64]) -> Option<f64> {
    if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Some(squares / (values.len() - 1) as f64)
}

/// The square root of [`variance`], in the unit of the values.
#[must_use]
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    variance(values).map(f64::sqrt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_by_hand() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Some(5.0));
        assert_eq!(median(&values), Some(4.5));
        assert!((variance(&values).unwrap() - 32.0 / 7.0).abs() < 1e-12);
        assert!((standard_deviation(&values).unwrap() - 2.138_089_935).abs() < 1e-9);
    }

    #[test]
    fn infinities_stay_and_nan_never_leaves() {
        assert_eq!(mean(&[1.0, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(mean(&[f64::NEG_INFINITY, f64::INFINITY]), None);
        assert_eq!(variance(&[1.0, f64::INFINITY]), None);
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(variance(&[1.0]), None);
    }
}
