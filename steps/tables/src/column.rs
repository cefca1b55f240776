//! One column: values of one kind, some of which may be missing.

use std::cmp::Ordering;
use std::fmt;

/// The values of a column, top to bottom. `None` is a missing value.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Unsigned integers: counts, nanoseconds, identifiers.
    U64(Vec<Option<u64>>),
    /// Signed integers.
    I64(Vec<Option<i64>>),
    /// Numbers. NaN is a value and differs from a missing one; infinities are kept.
    F64(Vec<Option<f64>>),
    /// Text.
    Text(Vec<Option<String>>),
    /// Truth values.
    Bool(Vec<Option<bool>>),
    /// Lists of unsigned integers, for example the instants of a request's events. There is
    /// no missing list; there is an empty one.
    ListU64(Vec<Vec<u64>>),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Column::U64`].
    U64,
    /// See [`Column::I64`].
    I64,
    /// See [`Column::F64`].
    F64,
    /// See [`Column::Text`].
    Text,
    /// See [`Column::Bool`].
    Bool,
    /// See [`Column::ListU64`].
    ListU64,
}

/// One value of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// No value.
    Missing,
    /// From [`Column::U64`].
    U64(u64),
    /// From [`Column::I64`].
    I64(i64),
    /// From [`Column::F64`].
    F64(f64),
    /// From [`Column::Text`].
    Text(&'a str),
    /// From [`Column::Bool`].
    Bool(bool),
    /// From [`Column::ListU64`].
    ListU64(&'a [u64]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::U64 => "unsigned integers",
            Kind::I64 => "signed integers",
            Kind::F64 => "floats",
            Kind::Text => "text",
            Kind::Bool => "booleans",
            Kind::ListU64 => "lists of unsigned integers",
        })
    }
}

impl Column {
    /// A column of unsigned integers, none missing.
    pub fn u64(values: impl IntoIterator<Item = u64>) -> Self {
        Column::U64(values.into_iter().map(Some).collect())
    }

    /// A column of signed integers, none missing.
    pub fn i64(values: impl IntoIterator<Item = i64>) -> Self {
        Column::I64(values.into_iter().map(Some).collect())
    }

    /// A column of numbers, none missing.
    pub fn f64(values: impl IntoIterator<Item = f64>) -> Self {
        Column::F64(values.into_iter().map(Some).collect())
    }

    /// A column of text, none missing.
    pub fn text<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        Column::Text(values.into_iter().map(|text| Some(text.into())).collect())
    }

    /// A column of truth values, none missing.
    pub fn bool(values: impl IntoIterator<Item = bool>) -> Self {
        Column::Bool(values.into_iter().map(Some).collect())
    }

    /// What the column holds.
    pub fn kind(&self) -> Kind {
        match self {
            Column::U64(_) => Kind::U64,
            Column::I64(_) => Kind::I64,
            Column::F64(_) => Kind::F64,
            Column::Text(_) => Kind::Text,
            Column::Bool(_) => Kind::Bool,
            Column::ListU64(_) => Kind::ListU64,
        }
    }

    /// Number of rows, missing values included.
    pub fn len(&self) -> usize {
        match self {
            Column::U64(values) => values.len(),
            Column::I64(values) => values.len(),
            Column::F64(values) => values.len(),
            Column::Text(values) => values.len(),
            Column::Bool(values) => values.len(),
            Column::ListU64(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value in a row; missing as well where there is no such row.
    pub fn get(&self, row: usize) -> Value<'_> {
        let value = match self {
            Column::U64(values) => values.get(row).copied().flatten().map(Value::U64),
            Column::I64(values) => values.get(row).copied().flatten().map(Value::I64),
            Column::F64(values) => values.get(row).copied().flatten().map(Value::F64),
            Column::Text(values) => values.get(row).and_then(|v| v.as_deref()).map(Value::Text),
            Column::Bool(values) => values.get(row).copied().flatten().map(Value::Bool),
            Column::ListU64(values) => values.get(row).map(|v| Value::ListU64(v)),
        };
        value.unwrap_or(Value::Missing)
    }

    /// The rows with the given numbers, in that order. A number beyond the end is skipped.
    pub fn take(&self, rows: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter()
                .filter_map(|row| values.get(*row))
                .cloned()
                .collect()
        }
        match self {
            Column::U64(values) => Column::U64(pick(values, rows)),
            Column::I64(values) => Column::I64(pick(values, rows)),
            Column::F64(values) => Column::F64(pick(values, rows)),
            Column::Text(values) => Column::Text(pick(values, rows)),
            Column::Bool(values) => Column::Bool(pick(values, rows)),
            Column::ListU64(values) => Column::ListU64(pick(values, rows)),
        }
    }

    /// Appends another column of the same kind; `false`, and nothing done, if it is of
    /// another.
    pub(crate) fn append(&mut self, other: Column) -> bool {
        match (self, other) {
            (Column::U64(all), Column::U64(more)) => all.extend(more),
            (Column::I64(all), Column::I64(more)) => all.extend(more),
            (Column::F64(all), Column::F64(more)) => all.extend(more),
            (Column::Text(all), Column::Text(more)) => all.extend(more),
            (Column::Bool(all), Column::Bool(more)) => all.extend(more),
            (Column::ListU64(all), Column::ListU64(more)) => all.extend(more),
            _ => return false,
        }
        true
    }
}

impl Value<'_> {
    /// The value as a number, if it is one. Integers beyond 2^53 are rounded.
    pub fn number(self) -> Option<f64> {
        match self {
            Value::U64(value) => Some(value as f64),
            Value::I64(value) => Some(value as f64),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// A total order of the values of one column: missing ones last, NaN before them, lists by
    /// their first difference.
    pub fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Value::Missing, Value::Missing) => Ordering::Equal,
            (Value::Missing, _) => Ordering::Greater,
            (_, Value::Missing) => Ordering::Less,
            (Value::U64(a), Value::U64(b)) => a.cmp(&b),
            (Value::I64(a), Value::I64(b)) => a.cmp(&b),
            (Value::F64(a), Value::F64(b)) => order_floats(a, b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(&b),
            (Value::ListU64(a), Value::ListU64(b)) => a.cmp(b),
            // Values of different kinds are never in one column.
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    fn rank(self) -> u8 {
        match self {
            Value::U64(_) => 0,
            Value::I64(_) => 1,
            Value::F64(_) => 2,
            Value::Text(_) => 3,
            Value::Bool(_) => 4,
            Value::ListU64(_) => 5,
            Value::Missing => 6,
        }
    }
}

/// Orders numbers with all zeros equal and all NaNs equal and last, as people expect of
/// groups and sorting, which `total_cmp` does not give.
fn order_floats(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_and_nan_come_last() {
        let column = Column::F64(vec![None, Some(f64::NAN), Some(1.0), Some(f64::INFINITY)]);
        let mut rows = [0, 1, 2, 3];
        rows.sort_by(|a, b| column.get(*a).order(column.get(*b)));
        assert_eq!(rows, [2, 3, 1, 0]);
        assert_eq!(Value::F64(0.0).order(Value::F64(-0.0)), Ordering::Equal);
    }

    #[test]
    fn rows_are_taken_in_the_order_asked_for() {
        let column = Column::text(["a", "b", "c"]);
        assert_eq!(column.take(&[2, 0, 9]), Column::text(["c", "a"]));
        assert_eq!(column.get(9), Value::Missing);
    }

    #[test]
    fn columns_of_different_kinds_are_not_mixed() {
        let mut column = Column::u64([1]);
        assert!(!column.append(Column::i64([2])));
        assert_eq!(column, Column::u64([1]));
    }
}
