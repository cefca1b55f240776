//! Where ticks go and how far an axis reaches. Pure arithmetic: knows no pixels.

/// Multiples of a power of ten that make readable ticks.
const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// The smallest readable step that cuts `span` into about `target` parts.
///
/// `span` must be positive and finite.
pub(crate) fn step(span: f64, target: usize) -> f64 {
    let rough = span / target.max(1) as f64;
    let decade = 10f64.powf(rough.log10().floor());
    // The comparison is relative, so that 0.30000000000000004 does not skip to the next step.
    let multiple = STEPS
        .into_iter()
        .find(|m| m * decade >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0);
    multiple * decade
}

/// Multiples of a readable step inside `[low, high]`.
pub(crate) fn linear(low: f64, high: f64, target: usize) -> Vec<f64> {
    if !(low.is_finite() && high.is_finite() && high > low) {
        return Vec::new();
    }
    let step = step(high - low, target);
    let slack = step * 1e-6;
    let first = ((low - slack) / step).ceil();
    let last = ((high + slack) / step).floor();
    let n = (last - first).max(-1.0) as usize + 1;
    // Multiplying keeps the ticks exact where adding would let errors pile up.
    (0..n)
        .map(|i| clean((first + i as f64) * step, step))
        .collect()
}

/// Ticks of a logarithmic axis inside `[low, high]`, both positive: whole decades, with 2 and
/// 5 between them where the decades are few, and linear ticks within a single one.
pub(crate) fn log(low: f64, high: f64, target: usize) -> Vec<f64> {
    if !(low > 0.0 && high.is_finite() && high > low) {
        return Vec::new();
    }
    let decades = (high / low).log10();
    if decades < 0.7 {
        return linear(low, high, target);
    }
    let within: &[f64] = if decades * 3.0 <= target as f64 * 1.5 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let stride = (decades / target.max(1) as f64).ceil().max(1.0) as i32;
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last)
        .filter(|exponent| exponent.rem_euclid(stride) == 0)
        .flat_map(|exponent| within.iter().map(move |m| m * 10f64.powi(exponent)))
        .filter(|v| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9))
        .collect()
}

/// Widens `[low, high]` to multiples of the step its ticks will have.
pub(crate) fn widen_linear(low: f64, high: f64, target: usize) -> (f64, f64) {
    let step = step(high - low, target);
    let slack = 1e-9;
    let from = (low / step + slack).floor() * step;
    let to = (high / step - slack).ceil() * step;
    (clean(from, step), clean(to, step))
}

/// Widens `[low, high]`, both positive, to 1, 2 or 5 times a power of ten.
pub(crate) fn widen_log(low: f64, high: f64) -> (f64, f64) {
    let decade = |v: f64| 10f64.powf(v.log10().floor());
    let below = |v: f64| {
        let d = decade(v);
        [5.0, 2.0, 1.0]
            .into_iter()
            .map(|m| m * d)
            .find(|t| *t <= v * (1.0 + 1e-9))
            .unwrap_or(d)
    };
    let above = |v: f64| {
        let d = decade(v);
        STEPS
            .into_iter()
            .map(|m| m * d)
            .find(|t| *t >= v * (1.0 - 1e-9))
            .unwrap_or(10.0 * d)
    };
    let (from, to) = (below(low), above(high));
    if to > from {
        (from, to)
    } else {
        (from / 2.0, to * 2.0)
    }
}

/// Rounds away what binary fractions leave behind, and minus zero.
fn clean(value: f64, step: f64) -> f64 {
    let decimals = (2.0 - step.log10().floor()).clamp(0.0, 15.0) as i32;
    let scale = 10f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded == 0.0 {
        0.0
    } else if rounded.is_finite() {
        rounded
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_readable_and_inside() {
        assert_eq!(linear(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(linear(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(linear(-3.0, 3.0, 6), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(linear(9.7, 12.2, 5), [10.0, 10.5, 11.0, 11.5, 12.0]);
    }

    #[test]
    fn an_empty_or_infinite_span_has_no_ticks() {
        assert!(linear(1.0, 1.0, 5).is_empty());
        assert!(linear(0.0, f64::INFINITY, 5).is_empty());
        assert!(log(0.0, 10.0, 5).is_empty());
        assert!(log(1.0, f64::INFINITY, 5).is_empty());
    }

    #[test]
    fn log_ticks_thin_out_with_the_number_of_decades() {
        assert_eq!(log(1.0, 100.0, 6), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(log(1.0, 1e6, 6), [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6]);
        assert!(log(1e-6, 1e12, 6).len() <= 8);
        assert_eq!(log(20.0, 40.0, 5), [20.0, 25.0, 30.0, 35.0, 40.0]);
    }

    #[test]
    fn ranges_grow_to_ticks_and_never_shrink() {
        assert_eq!(widen_linear(0.0, 93.0, 5), (0.0, 100.0));
        assert_eq!(widen_linear(0.0, 100.0, 5), (0.0, 100.0));
        assert_eq!(widen_linear(-1.5, 1.5, 4), (-2.0, 2.0));
        assert_eq!(widen_log(3.0, 700.0), (2.0, 1000.0));
        assert_eq!(widen_log(10.0, 10.0), (5.0, 20.0));
        assert_eq!(widen_log(0.03, 0.2), (0.02, 0.2));
    }

    #[test]
    fn tiny_and_huge_spans_are_cut_too() {
        assert_eq!(linear(0.0, 4e-9, 4).len(), 5);
        assert_eq!(linear(0.0, 4e18, 4).len(), 5);
        let (low, high) = widen_linear(1e-12, 3.2e-12, 5);
        assert!(low <= 1e-12 && high >= 3.2e-12);
    }
}
