//! The axes of a plan: how they vary, what is left out and added, and every combination of those
//! that a declaration has.

mod csv;

mod read;

use crate::source::Place;
use crate::step::AxisValue;
use crate::value::{Kind, Table, Value};
use std::collections::HashSet;

pub(super) use read::read;

/// The values that one instance has on its axes, in the order of the plan.
pub(super) type Point = Vec<(String, Value)>;

/// One row of values of axes that vary together, and where it stands.
type Placed = (Place, Vec<Value>);

/// Axes that vary together, or one that varies alone.
struct Unit {
    names: Vec<String>,
    /// One value for each of the names.
    rows: Vec<Vec<Value>>,
}

/// Axes with their values in the plan's order, and rules for how they are combined.
#[derive(Default)]
pub(super) struct Axes {
    /// In the order of the plan.
    names: Vec<String>,
    /// The first varies slowest.
    units: Vec<Unit>,
    exclude: Vec<Table>,
    include: Vec<Table>,
}

impl Axes {
    /// Returns the names in the plan's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Every combination of the axes' values that is not excluded, and those that are included.
    pub(super) fn product(&self, axes: &[String]) -> Vec<Point> {
        let mut all = self.plain_product(axes);
        if self.include.is_empty() {
            return all;
        }
        let mut known: HashSet<String> = all.iter().map(|p| point_key(p)).collect();
        for rule in &self.include {
            for point in self.included(rule, axes) {
                if known.insert(point_key(&point)) {
                    all.push(point);
                }
            }
        }
        all
    }

    fn plain_product(&self, axes: &[String]) -> Vec<Point> {
        let mut all: Vec<Point> = vec![Vec::new()];
        for unit in &self.units {
            let rows = unit.rows_of(axes);
            if rows.first().is_none_or(|row| !row.is_empty()) {
                all = multiply(&all, &rows);
            }
        }
        all.retain(|point| !self.exclude.iter().any(|rule| excluded(rule, point)));
        for point in &mut all {
            self.sort(point);
        }
        all
    }

    /// What a rule adds to the combinations of `axes`: it takes all values of those that it leaves
    /// open. A rule that names none of them adds nothing.
    fn included(&self, rule: &Table, axes: &[String]) -> Vec<Point> {
        let (named, open): (Vec<String>, Vec<String>) = axes
            .iter()
            .cloned()
            .partition(|axis| rule.get(axis).is_some());
        if named.is_empty() {
            return Vec::new();
        }
        let mut all = self.plain_product(&open);
        for point in &mut all {
            let given = named
                .iter()
                .filter_map(|n| Some((n.clone(), rule.get(n)?.clone())));
            point.extend(given);
            self.sort(point);
        }
        all
    }

    /// Brings the axes of a point into the order of the plan.
    fn sort(&self, point: &mut Point) {
        point.sort_by_key(|(name, _)| self.names.iter().position(|n| n == name));
    }
}

impl Unit {
    /// The different rows on those of its axes that are among `axes`; empty rows if none is.
    fn rows_of(&self, axes: &[String]) -> Vec<Point> {
        let taken: Vec<usize> = (0..self.names.len())
            .filter(|i| axes.contains(&self.names[*i]))
            .collect();
        let row = |row: &Vec<Value>| -> Point {
            let pairs = taken
                .iter()
                .map(|i| (self.names[*i].clone(), row[*i].clone()));
            pairs.collect()
        };
        if taken.is_empty() {
            return vec![Vec::new()];
        }
        let mut seen = HashSet::new();
        let all = self.rows.iter().map(row);
        all.filter(|point| seen.insert(point_key(point))).collect()
    }
}

fn multiply(all: &[Point], rows: &[Point]) -> Vec<Point> {
    let pairs = all
        .iter()
        .flat_map(|head| rows.iter().map(move |row| (head, row)));
    pairs
        .map(|(head, row)| head.iter().chain(row).cloned().collect())
        .collect()
}

/// Writes a point so that equal points, and only those, have equal text.
pub(super) fn point_key(point: &[(String, Value)]) -> String {
    let mut key = String::new();
    for (name, value) in point {
        key.push_str(&format!("{name}={:?};", axis_value(value)));
    }
    key
}

/// Whether two instances have the same values on the axes that both have.
pub(super) fn agree(a: &[(String, Value)], b: &[(String, Value)]) -> bool {
    a.iter().all(|(name, value)| {
        b.iter()
            .find(|(n, _)| n == name)
            .is_none_or(|(_, other)| axis_value(value) == axis_value(other))
    })
}

fn excluded(rule: &Table, combination: &[(String, Value)]) -> bool {
    rule.entries.iter().all(|(key, value)| {
        combination
            .iter()
            .any(|(name, v)| *name == key.name && axis_value(v) == axis_value(value))
    })
}

/// Returns what a value is as a value of an axis, if it can be one.
pub(super) fn axis_value(value: &Value) -> Option<AxisValue> {
    Some(match &value.kind {
        Kind::Bool(b) => AxisValue::Bool(*b),
        #[expect(clippy::cast_precision_loss, reason = "axis values are far below 2^53")]
        Kind::Int(i) => AxisValue::Number(*i as f64),
        // A NaN equals nothing, not even itself; minus zero is zero.
        Kind::Float(f) if f.is_nan() => return None,
        Kind::Float(f) => AxisValue::Number(*f + 0.0),
        Kind::Text(t) => AxisValue::Text(t.clone()),
        _ => return None,
    })
}
