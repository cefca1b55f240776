//! A measured value together with what it rests on: interval, sample count, grade and note.
//! Knows nothing of axes or of drawing.

use serde::{Deserialize, Serialize};

use crate::number;

/// How far a value can be believed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing speaks against it. Drawn solid.
    #[default]
    Valid,
    /// Usable with care. Drawn half-tone.
    Degraded,
    /// Not to be compared with anything. Drawn hollow and not joined by a solid line.
    Invalid,
}

impl Grade {
    /// The lowercase word used in reports, data files and CSS classes.
    pub fn word(self) -> &'static str {
        match self {
            Grade::Valid => "valid",
            Grade::Degraded => "degraded",
            Grade::Invalid => "invalid",
        }
    }
}

/// The closed range that a value is thought to lie in, in the value's own unit.
///
/// An end may be infinite; it is then drawn as running out of the plot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    #[serde(with = "number::exact")]
    pub low: f64,
    /// Upper end.
    #[serde(with = "number::exact")]
    pub high: f64,
}

/// One measured value and its validity.
///
/// `value` is `None` where nothing was measured; it may be infinite, for example a percentile
/// that falls among failed requests. Both are drawn as marked gaps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value in its axis' unit; `None` (or NaN) when there is none.
    #[serde(default, with = "number::exact_option")]
    pub value: Option<f64>,
    /// Its interval, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// How many samples it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// How far it can be believed.
    #[serde(default)]
    pub grade: Grade,
    /// Why, or anything else that a reader should see when pointing at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Reading {
    /// A valid value with nothing else known about it.
    pub fn new(value: f64) -> Self {
        Self {
            value: (!value.is_nan()).then_some(value),
            ..Self::default()
        }
    }

    /// A value that was not obtained, and why.
    pub fn missing(note: impl Into<String>) -> Self {
        Self {
            grade: Grade::Invalid,
            note: Some(note.into()),
            ..Self::default()
        }
    }

    /// Sets the interval.
    pub fn interval(mut self, low: f64, high: f64) -> Self {
        self.interval = Some(Interval { low, high });
        self
    }

    /// Sets the number of samples.
    pub fn samples(mut self, n: u64) -> Self {
        self.samples = Some(n);
        self
    }

    /// Sets the grade.
    pub fn grade(mut self, grade: Grade) -> Self {
        self.grade = grade;
        self
    }

    /// Sets the note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The value unless it is missing or NaN.
    pub(crate) fn known(&self) -> Option<f64> {
        self.value.filter(|v| !v.is_nan())
    }

    /// The interval unless one of its ends is NaN.
    pub(crate) fn known_interval(&self) -> Option<Interval> {
        self.interval
            .filter(|i| !i.low.is_nan() && !i.high.is_nan())
    }
}

impl From<f64> for Reading {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl From<Option<f64>> for Reading {
    fn from(value: Option<f64>) -> Self {
        value.map_or_else(Self::default, Self::new)
    }
}
