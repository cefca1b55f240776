//! The axes of a plan: how they vary, what is left out and added, and every combination of those
//! that a declaration has.

mod csv;

mod read;

mod unit;

use crate::point::{Coordinate, Point, PointKey};
use crate::source::Place;
use crate::step::AxisValue;
use crate::value::{Kind, Table, Value};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use unit::{Row, Unit, combine};

pub(super) use read::read;

/// One row of values of axes that vary together, and where it stands.
type Placed = (Place, Vec<Value>);

/// Axes that vary together, or one that varies alone, as they are read.
struct Column {
    names: Vec<String>,
    /// One value for each of the names.
    rows: Vec<Vec<Value>>,
}

/// Axes with their values in the plan's order, and rules for how they are combined.
#[derive(Default)]
pub(super) struct Axes {
    /// In the order of the plan.
    names: Vec<Arc<str>>,
    /// The first varies slowest.
    units: Vec<Unit>,
    exclude: Vec<Row>,
    include: Vec<Row>,
}

impl Axes {
    /// Keeps every value once.
    fn new(names: &[String], columns: &[Column], exclude: &[Table], include: &[Table]) -> Self {
        let names: Vec<Arc<str>> = names.iter().map(|n| n.as_str().into()).collect();
        let mut values = Values {
            names: &names,
            ids: HashMap::new(),
            known: HashMap::new(),
        };
        Self {
            units: columns.iter().map(|c| values.unit(c)).collect(),
            exclude: exclude.iter().map(|rule| values.rule(rule)).collect(),
            include: include.iter().map(|rule| values.rule(rule)).collect(),
            names,
        }
    }

    /// Returns the names in the plan's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// Returns the texts among the values of an axis, each once.
    pub(super) fn texts(&self, axis: &str) -> Vec<String> {
        let rows = self.units.iter().flat_map(|unit| &unit.rows);
        let values = rows.chain(&self.include).flatten();
        let texts = values.filter_map(|c| match &c.kind {
            Kind::Text(text) if *c.axis == *axis => Some(text.clone()),
            _ => None,
        });
        texts.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Every combination of the axes' values that is not excluded, and those that are included.
    pub(super) fn product(&self, axes: &[Arc<str>]) -> Vec<Point> {
        let mut all = self.plain_product(axes);
        if self.include.is_empty() {
            return all;
        }
        let mut known: HashSet<PointKey> = all.iter().map(Point::key).collect();
        for rule in &self.include {
            for point in self.included(rule, axes) {
                if known.insert(point.key()) {
                    all.push(point);
                }
            }
        }
        all
    }

    fn plain_product(&self, axes: &[Arc<str>]) -> Vec<Point> {
        let units = self.units.iter().filter_map(|unit| unit.rows_of(axes));
        combine(
            &units.collect::<Vec<_>>(),
            |c| self.position(c),
            |point| !self.exclude.iter().any(|rule| is_within(rule, point)),
        )
    }

    /// What a rule adds to the combinations of `axes`: it takes all values of those that it leaves
    /// open. A rule that names none of them adds nothing.
    fn included(&self, rule: &Row, axes: &[Arc<str>]) -> Vec<Point> {
        let named: Row = rule
            .iter()
            .filter(|c| axes.contains(&c.axis))
            .cloned()
            .collect();
        if named.is_empty() {
            return Vec::new();
        }
        let is_open = |axis: &&Arc<str>| named.iter().all(|c| c.axis != **axis);
        let open: Vec<Arc<str>> = axes.iter().filter(is_open).cloned().collect();
        let whole = |point: Point| {
            let mut whole: Row = point.iter().chain(&named).cloned().collect();
            whole.sort_by_key(|c| self.position(c));
            whole.into_iter().collect()
        };
        self.plain_product(&open).into_iter().map(whole).collect()
    }

    /// Where the axis of a coordinate stands in the plan.
    fn position(&self, coordinate: &Coordinate) -> usize {
        let known = self.names.iter().position(|n| *n == coordinate.axis);
        known.unwrap_or(usize::MAX)
    }
}

/// Whether a combination has all the values that a rule names.
fn is_within(rule: &Row, combination: &[&Arc<Coordinate>]) -> bool {
    rule.iter().all(|named| {
        combination
            .iter()
            .any(|c| c.id == named.id && c.axis == named.axis)
    })
}

/// Every value of every axis, once.
struct Values<'a> {
    names: &'a [Arc<str>],
    /// By what they are.
    ids: HashMap<Option<Same>, u32>,
    /// By axis and how they are written.
    known: HashMap<(Arc<str>, Spelled), Arc<Coordinate>>,
}

/// What two values of axes have in common if they are one value: numbers compare by value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Same {
    Bool(bool),
    /// The bits of the number; there is one zero and no NaN.
    Number(u64),
    Text(String),
}

impl Same {
    fn of(value: &AxisValue) -> Self {
        match value {
            AxisValue::Bool(b) => Same::Bool(*b),
            AxisValue::Number(n) => Same::Number(n.to_bits()),
            AxisValue::Text(t) => Same::Text(t.clone()),
        }
    }
}

/// What two values have in common if whoever refers to them cannot tell one from the other: `4` and
/// `4.0` are one value to names, and two to what is written with them.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Spelled {
    Whole(i64),
    Plain(Same),
    /// No value of an axis, which is a problem.
    Other(String),
}

impl Spelled {
    fn of(kind: &Kind, shown: Option<&AxisValue>) -> Self {
        match (kind, shown) {
            (Kind::Int(i), _) => Spelled::Whole(*i),
            (_, Some(shown)) => Spelled::Plain(Same::of(shown)),
            (kind, None) => Spelled::Other(format!("{kind:?}")),
        }
    }
}

impl Values<'_> {
    fn unit(&mut self, column: &Column) -> Unit {
        let row = |values: &Vec<Value>| {
            let pairs = column.names.iter().zip(values);
            pairs.map(|(name, v)| self.coordinate(name, v)).collect()
        };
        Unit {
            rows: column.rows.iter().map(row).collect(),
            names: column.names.iter().map(|n| n.as_str().into()).collect(),
        }
    }

    fn rule(&mut self, rule: &Table) -> Row {
        let entries = rule.entries.iter();
        entries
            .map(|(key, value)| self.coordinate(&key.name, value))
            .collect()
    }

    fn coordinate(&mut self, axis: &str, value: &Value) -> Arc<Coordinate> {
        let at = self.names.iter().position(|n| **n == *axis);
        let name = at.map_or_else(|| axis.into(), |at| self.names[at].clone());
        let shown = axis_value(value);
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let same = shown.as_ref().map(Same::of);
        let id = *self.ids.entry(same).or_insert(next);
        let spelled = Spelled::of(&value.kind, shown.as_ref());
        let make = || Arc::new(Coordinate::new(name.clone(), value.kind.clone(), shown, id));
        let known = self.known.entry((name.clone(), spelled));
        known.or_insert_with(make).clone()
    }
}

/// Returns what a value is as a value of an axis, if it can be one.
pub(super) fn axis_value(value: &Value) -> Option<AxisValue> {
    Some(match &value.kind {
        Kind::Bool(b) => AxisValue::Bool(*b),
        #[expect(
            clippy::cast_precision_loss,
            reason = "larger ones are a problem already"
        )]
        Kind::Int(i) => AxisValue::Number(*i as f64),
        // A NaN equals nothing, not even itself; minus zero is zero.
        Kind::Float(f) if f.is_nan() => return None,
        Kind::Float(f) => AxisValue::Number(*f + 0.0),
        Kind::Text(t) => AxisValue::Text(t.clone()),
        _ => return None,
    })
}
