//! Quantiles of plain and of weighted samples, infinities included.
//!
//! Knows two definitions, each named where it is used. *Linear*: the sample at position
//! `q (n - 1)`, interpolated between its neighbours (R's type 7, NumPy's default, hence what
//! most serving benchmarks print). *Nearest rank*: the smallest sample that at least a share
//! `q` of the weight does not exceed; it always is a value that was really observed.

/// Holds samples in ascending order, free of NaN; `+inf` stands for "never".
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts `values`; `None` if one of them is NaN, which has no place in an order.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        if values.iter().any(|value| value.is_nan()) {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        Some(Self(values))
    }

    /// The samples, ascending.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The quantile `q` (clamped to 0..=1) by linear interpolation; `None` without samples.
    ///
    /// Between a finite sample and `+inf` the answer is `+inf`: a position past the last
    /// finite sample has no finite value.
    #[must_use]
    pub fn linear(&self, q: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let position = q.clamp(0.0, 1.0) * last as f64;
        let low = (position.floor() as usize).min(last);
        let fraction = position - low as f64;
        let (a, b) = (self.0[low], self.0[(low + 1).min(last)]);
        if fraction == 0.0 || a == b {
            return Some(a);
        }
        if a.is_infinite() || b.is_infinite() {
            // -inf below and +inf above have no midpoint; the upper one is the honest answer.
            return Some(if b == f64::INFINITY { b } else { a });
        }
        Some(a + (b - a) * fraction)
    }

    /// The quantile `q` (clamped to 0..=1) by nearest rank; `None` without samples.
    #[must_use]
    pub fn nearest_rank(&self, q: f64) -> Option<f64> {
        let n = self.0.len() as f64;
        // 0.07 · 100 is a hair above 7 in binary; the slack keeps that on rank 7.
        let rank = (q.clamp(0.0, 1.0) * n - n * 1e-12).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }
}

/// Holds weighted samples in ascending order: a value that counts `weight` times.
///
/// A token-weighted latency is one gap with as many tokens as arrived after it; storing the
/// weight instead of repeating the value keeps a million tokens cheap, and lets a weight be
/// fractional.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Value and cumulative weight up to and including it.
    steps: Vec<(f64, f64)>,
}

impl Weighted {
    /// Sorts `(value, weight)` pairs and leaves out weights of zero. `None` if a value is NaN
    /// or a weight is negative or not finite.
    #[must_use]
    pub fn new(mut pairs: Vec<(f64, f64)>) -> Option<Self> {
        let sound =
            |(value, weight): &(f64, f64)| !value.is_nan() && weight.is_finite() && *weight >= 0.0;
        if !pairs.iter().all(sound) {
            return None;
        }
        pairs.retain(|(_, weight)| *weight > 0.0);
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut total = 0.0;
        for (_, weight) in &mut pairs {
            total += *weight;
            *weight = total;
        }
        Some(Self { steps: pairs })
    }

    /// The sum of all weights.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.steps.last().map_or(0.0, |(_, total)| *total)
    }

    /// The weighted mean; `+inf` as soon as one value is, `None` without weight.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let total = self.weight();
        if total == 0.0 {
            return None;
        }
        let mut before = 0.0;
        let mut sum = 0.0;
        for (value, until) in &self.steps {
            sum += value * (until - before);
            before = *until;
        }
        Some(sum / total)
    }

    /// The weighted quantile `q` (clamped to 0..=1) by nearest rank; `None` without weight.
    #[must_use]
    pub fn nearest_rank(&self, q: f64) -> Option<f64> {
        // Cumulative sums carry rounding error; without the slack a q that falls exactly on
        // a step could be pushed to the next value.
        let total = self.weight();
        let wanted = q.clamp(0.0, 1.0) * total - total * 1e-12;
        let at = self.steps.partition_point(|(_, until)| *until < wanted);
        let last = self.steps.len().checked_sub(1)?;
        Some(self.steps[at.min(last)].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(values: &[f64]) -> Sorted {
        Sorted::new(values.to_vec()).expect("no NaN in a test")
    }

    #[test]
    fn linear_interpolates_like_type_seven() {
        let s = sorted(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(s.linear(0.5), Some(2.5));
        assert_eq!(s.linear(0.0), Some(1.0));
        assert_eq!(s.linear(1.0), Some(4.0));
        assert!((s.linear(0.9).unwrap() - 3.7).abs() < 1e-12);
    }

    #[test]
    fn a_failure_pushes_only_the_tail_to_infinity() {
        let s = sorted(&[1.0, 2.0, 3.0, f64::INFINITY]);
        assert_eq!(s.linear(0.5), Some(2.5));
        assert_eq!(s.linear(2.0 / 3.0), Some(3.0));
        assert_eq!(s.linear(0.9), Some(f64::INFINITY));
        assert_eq!(s.nearest_rank(0.75), Some(3.0));
        assert_eq!(s.nearest_rank(0.76), Some(f64::INFINITY));
    }

    #[test]
    fn nothing_has_no_quantile_and_nan_is_refused() {
        assert_eq!(sorted(&[]).linear(0.5), None);
        assert_eq!(sorted(&[]).nearest_rank(0.5), None);
        assert_eq!(Sorted::new(vec![1.0, f64::NAN]), None);
        assert_eq!(Weighted::new(vec![(1.0, -1.0)]), None);
        assert_eq!(Weighted::new(vec![(1.0, 0.0)]).unwrap().mean(), None);
    }

    #[test]
    fn weights_count_as_repeats() {
        let w = Weighted::new(vec![(10.0, 1.0), (2.0, 3.0)]).unwrap();
        assert_eq!(w.mean(), Some(4.0));
        assert_eq!(w.nearest_rank(0.75), Some(2.0));
        assert_eq!(w.nearest_rank(0.76), Some(10.0));
    }

    /// Counts instead of indexing: the smallest value with at least `q n` samples at or below.
    fn naive_nearest(values: &[f64], q: f64) -> f64 {
        let enough = |x: f64| {
            let below = values.iter().filter(|v| **v <= x).count();
            below >= 1 && below as f64 >= q * values.len() as f64
        };
        values
            .iter()
            .copied()
            .filter(|x| enough(*x))
            .fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn nearest_rank_equals_counting(
            values in proptest::collection::vec(-1e6..1e6f64, 1..60), q in 0.0..=1.0f64,
        ) {
            prop_assert_eq!(sorted(&values).nearest_rank(q), Some(naive_nearest(&values, q)));
        }

        #[test]
        fn weighted_equals_repeating(
            pairs in proptest::collection::vec((-50i32..50, 1u8..6), 1..30), percent in 0u32..=100,
        ) {
            let weighted = pairs.iter().map(|(v, w)| (f64::from(*v), f64::from(*w))).collect();
            let repeated: Vec<f64> = pairs.iter()
                .flat_map(|(v, w)| std::iter::repeat_n(f64::from(*v), usize::from(*w)))
                .collect();
            // Exact arithmetic decides which value is right: compare by integer counts.
            let wanted = (u64::from(percent) * repeated.len() as u64).div_ceil(100).max(1);
            let mut ordered = repeated.clone();
            ordered.sort_by(f64::total_cmp);
            let w = Weighted::new(weighted).unwrap();
            prop_assert_eq!(w.nearest_rank(f64::from(percent) / 100.0), Some(ordered[wanted as usize - 1]));
            let mean = repeated.iter().sum::<f64>() / repeated.len() as f64;
            prop_assert!((w.mean().unwrap() - mean).abs() < 1e-9);
        }

        #[test]
        fn linear_is_monotonic_and_between_its_neighbours(
            values in proptest::collection::vec(-1e6..1e6f64, 1..60), a in 0.0..=1.0f64, b in 0.0..=1.0f64,
        ) {
            let s = sorted(&values);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(s.linear(low) <= s.linear(high));
            prop_assert!(s.linear(low).unwrap() >= s.values()[0]);
            prop_assert!(s.linear(high).unwrap() <= s.values()[values.len() - 1]);
        }
    }
}
