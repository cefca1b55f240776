//! Intervals for what happened inside one run, where neighbours resemble each other.
//!
//! Latencies follow the queue they met, so treating them as independent makes intervals far
//! too narrow. Both answers here keep neighbours together: batches as long as the memory of
//! the process, or blocks resampled whole. Which length that is, the caller knows.

use crate::{Interval, Sorted, mean_interval};

/// Splits `series` (in time order) into `batches` equal parts, takes `statistic` of each and
/// returns Student's interval over those. The remainder at the *front* is left out: that is
/// where a ramp would be.
///
/// `None` for fewer than two batches, for batches of fewer than two values, or where the
/// statistic of a batch is missing or infinite.
#[must_use]
pub fn batch_means(
    series: &[f64],
    batches: usize,
    level: f64,
    statistic: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Interval> {
    let length = series.len().checked_div(batches)?;
    if batches < 2 || length < 2 {
        return None;
    }
    let tail = &series[series.len() - batches * length..];
    let values: Option<Vec<f64>> = tail.chunks_exact(length).map(&statistic).collect();
    mean_interval(&values?, level)
}

/// The percentile interval of `statistic` over `resamples` series, each put together from
/// randomly placed blocks of `block` neighbouring values and cut to the length of `series`.
///
/// `None` if the series is shorter than two blocks, if `block` or `resamples` is zero, if
/// `level` lies outside 0..1, or if the statistic of a resample is missing.
#[must_use]
pub fn moving_block_bootstrap(
    series: &[f64],
    block: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Interval> {
    let enough = block > 0 && resamples > 0 && series.len() >= 2 * block;
    if !(enough && level > 0.0 && level < 1.0) {
        return None;
    }
    let mut random = SplitMix(seed);
    let starts = (series.len() - block + 1) as u64;
    let mut resampled = Vec::with_capacity(series.len() + block);
    let mut statistics = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        resampled.clear();
        while resampled.len() < series.len() {
            let start = random.below(starts) as usize;
            resampled.extend_from_slice(&series[start..start + block]);
        }
        resampled.truncate(series.len());
        statistics.push(statistic(&resampled)?);
    }
    let sorted = Sorted::new(statistics)?;
    let tail = (1.0 - level) / 2.0;
    Some(Interval {
        low: sorted.linear(tail)?,
        high: sorted.linear(1.0 - tail)?,
        level,
    })
}

/// SplitMix64: tiny, seedable, and good enough to choose blocks.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, by multiplication; the bias is below `bound` / 2⁶⁴.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mean;

    /// Long waves: 20 values up, 20 values down.
    fn waves() -> Vec<f64> {
        (0..400)
            .map(|i| if (i / 20) % 2 == 0 { 1.0 } else { 0.0 })
            .collect()
    }

    #[test]
    fn blocks_see_the_correlation_that_single_values_hide() {
        let series = waves();
        let width = |block| {
            let i = moving_block_bootstrap(&series, block, 0.95, 500, 1, mean).unwrap();
            i.high - i.low
        };
        assert!(width(20) > 2.0 * width(1), "{} {}", width(20), width(1));
    }

    #[test]
    fn batches_leave_out_the_front() {
        // 5 values in 2 batches: the first value is left out, the batch means are 2 and 4.
        let interval = batch_means(&[100.0, 1.0, 3.0, 3.0, 5.0], 2, 0.95, mean).unwrap();
        assert!((0.5 * (interval.low + interval.high) - 3.0).abs() < 1e-12);
        assert_eq!(batch_means(&[1.0, 2.0, 3.0], 2, 0.95, mean), None);
        assert_eq!(batch_means(&[1.0, 2.0], 0, 0.95, mean), None);
    }

    #[test]
    fn too_short_a_series_has_no_interval() {
        assert_eq!(
            moving_block_bootstrap(&[1.0; 5], 3, 0.95, 10, 1, mean),
            None
        );
        assert_eq!(
            moving_block_bootstrap(&[1.0; 5], 0, 0.95, 10, 1, mean),
            None
        );
        let flat = moving_block_bootstrap(&[1.0; 6], 3, 0.95, 10, 1, mean).unwrap();
        assert_eq!((flat.low, flat.high), (1.0, 1.0));
    }
}
