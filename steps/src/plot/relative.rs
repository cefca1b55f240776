//! Readings set against each other: differences of medians, and medians as multiples of another.
//!
//! What comes of it is as doubtful as the worst reading in it and rests on as many samples as the
//! one with the fewest. A partner that is missing makes the whole missing, and says so.

use charts::{Axis, Grade, Interval, Reading, format_number};

/// What stands behind the title of a chart of multiples.
pub(super) fn relative_to(heading: String, base: Option<&str>) -> String {
    match base {
        Some(base) => format!("{heading}, relative to {base}"),
        None => heading,
    }
}

/// The axis of a chart of multiples: its unit is the base.
pub(super) fn in_multiples(mut axis: Axis, base: Option<&str>) -> Axis {
    if let Some(base) = base {
        axis.unit = format!("× {base}");
    }
    axis
}

/// A reading and what it is called: `swap` and what was measured with it, if anything was.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) reading: Option<&'a Reading>,
}

impl<'a> Named<'a> {
    pub(super) fn new(name: &'a str, reading: Option<&'a Reading>) -> Self {
        Self { name, reading }
    }

    /// The reading and its value, or what a reader is told in their place: what is invalid is
    /// compared with nothing.
    fn known(self) -> Result<(&'a Reading, f64), Reading> {
        let value = self
            .reading
            .and_then(|reading| Some((reading, reading.value?)));
        match value {
            None => Err(Reading::missing(format!(
                "`{}` was not measured there",
                self.name
            ))),
            Some((reading, _)) if reading.grade == Grade::Invalid => {
                Err(Reading::missing(format!(
                    "`{}` is invalid there, and compared with nothing",
                    self.name
                )))
            }
            Some(known) => Ok(known),
        }
    }

    /// `swap 8.2 (degraded, 1 invalid left out)`.
    fn text(self, reading: &Reading, value: f64) -> String {
        let grade = (reading.grade != Grade::Valid).then(|| reading.grade.word());
        let doubts: Vec<&str> = grade.into_iter().chain(reading.note.as_deref()).collect();
        let text = format!("{} {}", self.name, format_number(value));
        match doubts.is_empty() {
            true => text,
            false => format!("{text} ({})", doubts.join(", ")),
        }
    }
}

/// What was measured, as a multiple of the median of another.
pub(super) fn quotient(one: Named<'_>, base: Named<'_>) -> Reading {
    let read = || Ok((one.known()?, base.known()?));
    let ((reading, value), (under, divisor)) = match read() {
        Ok(known) => known,
        Err(missing) => return missing,
    };
    let note = format!(
        "{}, {}",
        one.text(reading, value),
        base.text(under, divisor)
    );
    match divided(reading, under) {
        Some(divided) => divided.note(note),
        None => undefined(base.name, divisor),
    }
}

/// The first less the second.
pub(super) fn difference(one: Named<'_>, other: Named<'_>) -> Reading {
    let read = || Ok((one.known()?, other.known()?));
    let ((first, a), (second, b)) = match read() {
        Ok(known) => known,
        Err(missing) => return missing,
    };
    if (a - b).is_nan() {
        let (one, other) = (one.name, other.name);
        return Reading::missing(format!("`{one}` and `{other}` are both infinite there"));
    }
    let note = format!("{}, {}", one.text(first, a), other.text(second, b));
    let mut reading = joined(a - b, first, second).note(note);
    if first.interval.is_some() || second.interval.is_some() {
        let ends = |reading: &Reading, value| {
            let interval = reading.interval;
            interval.unwrap_or(Interval {
                low: value,
                high: value,
            })
        };
        let (first, second) = (ends(first, a), ends(second, b));
        reading = reading.interval(first.low - second.high, first.high - second.low);
    }
    reading
}

/// The first less the second, as a multiple of the median of a third.
pub(super) fn relative_difference(one: Named<'_>, other: Named<'_>, base: Named<'_>) -> Reading {
    let difference = difference(one, other);
    if difference.value.is_none() {
        return difference;
    }
    let (under, divisor) = match base.known() {
        Ok(known) => known,
        Err(missing) => return missing,
    };
    let said = difference.note.as_deref().unwrap_or_default();
    let note = format!("{said}, {}", base.text(under, divisor));
    match divided(&difference, under) {
        Some(divided) => divided.note(note),
        None => undefined(base.name, divisor),
    }
}

/// A reading divided by the median of another; `None` if nothing can be divided by that.
fn divided(reading: &Reading, base: &Reading) -> Option<Reading> {
    let divisor = base.value.filter(|v| *v != 0.0 && v.is_finite())?;
    let mut divided = joined(reading.value? / divisor, reading, base);
    if let Some(interval) = reading.interval {
        let (a, b) = (interval.low / divisor, interval.high / divisor);
        divided = divided.interval(a.min(b), a.max(b));
    }
    Some(divided)
}

fn undefined(name: &str, value: f64) -> Reading {
    let value = format_number(value);
    Reading::missing(format!(
        "`{name}` is {value} there, and nothing is a multiple of that"
    ))
}

/// A value that rests on two readings.
fn joined(value: f64, one: &Reading, other: &Reading) -> Reading {
    let joined = Reading::new(value).grade(one.grade.max(other.grade));
    match (one.samples, other.samples) {
        (Some(a), Some(b)) => joined.samples(a.min(b)),
        _ => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(value: f64, samples: u64) -> Reading {
        Reading::new(value)
            .interval(value - 1.0, value + 1.0)
            .samples(samples)
    }

    #[test]
    fn a_line_over_another_keeps_its_spread_and_the_worse_grade() {
        let (swap, single) = (
            reading(8.0, 3),
            reading(10.0, 2)
                .grade(Grade::Degraded)
                .note("1 invalid left out"),
        );
        let found = quotient(
            Named::new("swap", Some(&swap)),
            Named::new("single", Some(&single)),
        );
        assert_eq!(found.value, Some(0.8));
        assert_eq!(
            found.interval,
            Some(Interval {
                low: 0.7,
                high: 0.9
            })
        );
        assert_eq!((found.samples, found.grade), (Some(2), Grade::Degraded));
        assert_eq!(
            found.note.as_deref(),
            Some("swap 8, single 10 (degraded, 1 invalid left out)")
        );
    }

    #[test]
    fn a_difference_reaches_from_the_least_to_the_most_that_its_parts_allow() {
        let (swap, collocate, single) = (reading(9.0, 3), reading(6.0, 3), Reading::new(12.0));
        let (swap, collocate) = (
            Named::new("swap", Some(&swap)),
            Named::new("collocate", Some(&collocate)),
        );
        let plain = difference(swap, collocate);
        assert_eq!(plain.value, Some(3.0));
        assert_eq!(
            plain.interval,
            Some(Interval {
                low: 1.0,
                high: 5.0
            })
        );
        let relative = relative_difference(swap, collocate, Named::new("single", Some(&single)));
        assert_eq!(relative.value, Some(0.25));
        assert_eq!(
            relative.note.as_deref(),
            Some("swap 9, collocate 6, single 12")
        );
        assert_eq!(relative.samples, None);
    }

    #[test]
    fn a_missing_partner_is_named() {
        let (there, lost) = (reading(9.0, 1), Reading::missing("not measured"));
        let swap = Named::new("swap", Some(&there));
        for base in [None, Some(&lost)] {
            let found = quotient(swap, Named::new("single", base));
            assert_eq!(found.value, None);
            assert_eq!(
                found.note.as_deref(),
                Some("`single` was not measured there")
            );
        }
        let found = relative_difference(swap, swap, Named::new("single", None));
        assert_eq!(
            found.note.as_deref(),
            Some("`single` was not measured there")
        );
        assert_eq!(difference(Named::new("swap", None), swap).value, None);
    }

    #[test]
    fn what_is_invalid_is_compared_with_nothing() {
        let (fine, broken) = (reading(9.0, 1), reading(3.0, 1).grade(Grade::Invalid));
        let (fine, broken) = (
            Named::new("swap", Some(&fine)),
            Named::new("single", Some(&broken)),
        );
        for found in [
            quotient(fine, broken),
            quotient(broken, fine),
            difference(fine, broken),
            relative_difference(fine, fine, broken),
        ] {
            assert_eq!(found.value, None);
            assert_eq!(
                found.note.as_deref(),
                Some("`single` is invalid there, and compared with nothing")
            );
        }
    }

    #[test]
    fn nothing_is_a_multiple_of_zero_or_of_infinity() {
        let (some, zero, endless) = (
            Reading::new(2.0),
            Reading::new(0.0),
            Reading::new(f64::INFINITY),
        );
        let over = |a, b| quotient(Named::new("a", Some(a)), Named::new("b", Some(b)));
        assert_eq!(over(&some, &zero).value, None);
        assert_eq!(over(&some, &endless).value, None);
        assert!(
            over(&some, &zero)
                .note
                .is_some_and(|note| note.starts_with("`b` is 0"))
        );
        assert_eq!(over(&endless, &some).value, Some(f64::INFINITY));
        let endless = Named::new("a", Some(&endless));
        assert_eq!(difference(endless, endless).value, None);
    }
}
