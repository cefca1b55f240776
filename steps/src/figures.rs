//! The few numbers of a measurement that a table has room for: of one sample, and of a set.

use engine::step::Figure;

/// Writes figures in one line, such as `TTFT p50 12 ms, 40 tok/s`.
pub fn line(figures: &[Figure]) -> String {
    let shown = figures.iter().map(|figure| {
        let value = charts::format_number(figure.value);
        let words = match figure.value.is_finite() {
            true => vec![&*figure.name, &value, &*figure.unit],
            false => vec![&*figure.name, &value],
        };
        let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
        words.join(" ")
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Returns the median of each figure that all `samples` have; nothing if there are none.
pub fn medians(samples: &[&[Figure]]) -> Vec<Figure> {
    let Some((first, others)) = samples.split_first() else {
        return Vec::new();
    };
    let of_all = |figure: &Figure| -> Option<Figure> {
        let is_same = |f: &&Figure| f.name == figure.name && f.unit == figure.unit;
        let values = others.iter().map(|s| Some(s.iter().find(is_same)?.value));
        let mut values: Vec<f64> = values.collect::<Option<_>>()?;
        values.push(figure.value);
        Some(Figure {
            // A sample without the number leaves none for the set.
            value: statistics::median(&values).unwrap_or(f64::NAN),
            ..figure.clone()
        })
    };
    first.iter().filter_map(of_all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ttft: f64, failed: f64) -> Vec<Figure> {
        let figure = |name: &str, value, unit: &str| Figure {
            name: name.into(),
            value,
            unit: unit.into(),
        };
        vec![figure("TTFT p50", ttft, "ms"), figure("", failed, "failed")]
    }

    #[test]
    fn a_line_shows_units_only_with_numbers() {
        assert_eq!(line(&sample(12.5, 0.0)), "TTFT p50 12.5 ms, 0 failed");
        assert_eq!(line(&sample(f64::NAN, 3.0)), "TTFT p50 –, 3 failed");
        assert_eq!(line(&sample(f64::INFINITY, 3.0)), "TTFT p50 ∞, 3 failed");
        assert_eq!(line(&[]), "");
    }

    #[test]
    fn medians_are_of_what_all_samples_have_and_survive_json() {
        let samples = [
            sample(10.0, 0.0),
            sample(f64::INFINITY, 2.0),
            sample(30.0, 0.0),
        ];
        let text = serde_json::to_string(&samples).unwrap();
        let samples: Vec<Vec<Figure>> = serde_json::from_str(&text).unwrap();
        let all: Vec<&[Figure]> = samples.iter().map(Vec::as_slice).collect();
        assert_eq!(line(&medians(&all)), "TTFT p50 30 ms, 0 failed");
        assert_eq!(medians(&[&samples[0], &samples[0][..1]]).len(), 1);
        assert!(medians(&[]).is_empty());
    }
}
