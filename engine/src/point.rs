//! The values that one instance has on the axes of its plan, shared by everything that has them.
//!
//! A plan has few values and many instances: each value is kept once, and a point is a list of
//! them. Knows neither how axes are declared nor how they are combined.

use crate::step::AxisValue;
use crate::value::Kind;
use std::ops::Deref;
use std::sync::Arc;

/// One value of one axis.
#[derive(Debug)]
pub struct Coordinate {
    /// The axis.
    pub axis: Arc<str>,
    /// The value as references to the axis see it.
    pub kind: Kind,
    /// The value as names show it; `None` if it cannot be one of an axis, which is a problem.
    pub shown: Option<AxisValue>,
    /// Equal values have equal ids, however they are written.
    pub id: u32,
    /// `axis=value`, as in names.
    label: String,
}

impl Coordinate {
    /// Builds the coordinate of a value.
    pub fn new(axis: Arc<str>, kind: Kind, shown: Option<AxisValue>, id: u32) -> Self {
        let label = match &shown {
            Some(value) => format!("{axis}={value}"),
            None => String::new(),
        };
        Self {
            axis,
            kind,
            shown,
            id,
            label,
        }
    }
}

/// The coordinates of one instance, in the order of the plan.
#[derive(Debug, Clone, Default)]
pub struct Point(Arc<[Arc<Coordinate>]>);

/// The ids of some coordinates: equal where the values are equal.
pub(crate) type PointKey = Box<[u32]>;

impl Point {
    /// Returns the coordinate on `axis`, if it has one.
    pub fn get(&self, axis: &str) -> Option<&Arc<Coordinate>> {
        self.iter().find(|c| *c.axis == *axis)
    }

    /// Returns its axes and values.
    pub fn values(&self) -> Vec<(String, AxisValue)> {
        let value = |c: &Arc<Coordinate>| Some((c.axis.to_string(), c.shown.clone()?));
        self.iter().filter_map(value).collect()
    }

    /// Returns what equals the key of another point if all values are equal.
    pub(crate) fn key(&self) -> PointKey {
        self.iter().map(|c| c.id).collect()
    }

    /// Returns the key of the part that lies on `axes`.
    pub(crate) fn key_on(&self, axes: &[Arc<str>]) -> PointKey {
        let ids = axes.iter().filter_map(|axis| self.get(axis));
        ids.map(|c| c.id).collect()
    }

    /// Returns `axis=value` of every axis, sorted as names sort them.
    pub(crate) fn labels(&self) -> Vec<&str> {
        let shown = self.iter().filter(|c| c.shown.is_some());
        let mut labels: Vec<&str> = shown.map(|c| c.label.as_str()).collect();
        labels.sort_unstable();
        labels
    }
}

impl Deref for Point {
    type Target = [Arc<Coordinate>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromIterator<Arc<Coordinate>> for Point {
    fn from_iter<I: IntoIterator<Item = Arc<Coordinate>>>(coordinates: I) -> Self {
        Self(coordinates.into_iter().collect())
    }
}
