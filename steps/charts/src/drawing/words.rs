//! What is said about a value when a reader points at it.

use crate::drawing::OffScale;
use crate::model::Axis;
use crate::number::format_number;
use crate::reading::{Grade, Reading};

/// The lines said about a value: series, where, how much, samples, and why it is doubted.
pub(crate) fn about(series: &str, place: String, axis: &Axis, reading: &Reading) -> Vec<String> {
    let mut lines = vec![series.to_owned()];
    lines.extend((!place.is_empty()).then_some(place));
    lines.push(measured(axis, reading));
    lines.extend(
        reading
            .samples
            .map(|n| format!("n = {}", format_number(n as f64))),
    );
    let doubt = match (reading.grade, &reading.note) {
        (Grade::Valid, None) => None,
        (Grade::Valid, Some(note)) => Some(note.clone()),
        (grade, None) => Some(grade.word().to_owned()),
        (grade, Some(note)) => Some(format!("{}: {note}", grade.word())),
    };
    lines.extend(doubt);
    lines
}

/// `label: value unit`.
pub(crate) fn quantity(axis: &Axis, value: f64) -> String {
    let number = with_unit(format_number(value), axis);
    if axis.label.is_empty() {
        number
    } else {
        format!("{}: {number}", axis.label)
    }
}

fn measured(axis: &Axis, reading: &Reading) -> String {
    let mut text = match reading.known() {
        Some(value) => quantity(axis, value),
        None if axis.label.is_empty() => "no value".to_owned(),
        None => format!("{}: no value", axis.label),
    };
    if let Some(interval) = reading.known_interval() {
        let (low, high) = (format_number(interval.low), format_number(interval.high));
        text.push_str(&format!(" [{low} to {high}]"));
    }
    text
}

fn with_unit(number: String, axis: &Axis) -> String {
    if axis.unit.is_empty() {
        number
    } else {
        format!("{number} {}", axis.unit)
    }
}

/// Sentence about points that the base axis has no place for.
pub(crate) fn unplaced(series: &str, n: usize, axis: &Axis) -> String {
    let label = if axis.label.is_empty() {
        "x"
    } else {
        &axis.label
    };
    let points = if n == 1 { "point has" } else { "points have" };
    format!("{n} {points} no place on the {label} axis and could not be drawn ({series})")
}

/// Why a reading is not on the value scale, if it is not.
pub(crate) fn off_scale(reading: &Reading, holds: impl Fn(f64) -> bool) -> Option<OffScale> {
    match reading.known() {
        None => Some(OffScale::Missing),
        Some(value) if value.is_infinite() => Some(OffScale::Infinite),
        Some(value) if !holds(value) => Some(OffScale::NotPositive),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_known_is_said() {
        let reading = Reading::new(20.5)
            .interval(18.0, f64::INFINITY)
            .samples(1200)
            .grade(Grade::Degraded)
            .note("client lag");
        let lines = about(
            "cache on",
            "rate: 4 1/s".to_owned(),
            &Axis::new("TTFT", "ms"),
            &reading,
        );
        let expected = [
            "cache on",
            "rate: 4 1/s",
            "TTFT: 20.5 ms [18 to ∞]",
            "n = 1,200",
            "degraded: client lag",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_missing_value_is_called_that() {
        let lines = about(
            "s",
            String::new(),
            &Axis::new("TTFT", "ms"),
            &Reading::default(),
        );
        assert_eq!(lines, ["s", "TTFT: no value"]);
    }
}
