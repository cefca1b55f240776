//! Rows that share the values of some columns, and one number made of many.

use std::collections::BTreeMap;

use crate::column::{Column, Value};
use crate::error::TableError;
use crate::table::Table;

/// The rows of a table, grouped by the values of some of its columns. Groups stand in the
/// order in which they first occur.
#[derive(Clone, Debug)]
pub struct Groups<'a> {
    table: &'a Table,
    keys: Vec<String>,
    /// Row numbers of each group, ascending.
    rows: Vec<Vec<usize>>,
}

/// A number made of a column's values in each group. Missing values are left out, NaN is not:
/// it makes the result NaN. Infinities take part. The result is missing where no value is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate<'a> {
    /// Number of values that are not missing; column `NAME_count`.
    Count(&'a str),
    /// Smallest; column `NAME_min`.
    Min(&'a str),
    /// Largest; column `NAME_max`.
    Max(&'a str),
    /// Arithmetic mean; column `NAME_mean`.
    Mean(&'a str),
    /// Middle value, or the mean of the two middle ones; column `NAME_median`.
    Median(&'a str),
}

/// A value as a key, so that groups can be found again.
#[derive(Clone, Copy, Debug)]
struct Key<'a>(Value<'a>);

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.order(other.0)
    }
}

impl Table {
    /// Groups the rows that agree in all of `keys`. A missing value agrees with another
    /// missing one, and NaN with NaN. Without keys, all rows are one group.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`] if a key does not exist.
    pub fn group_by(&self, keys: &[&str]) -> Result<Groups<'_>, TableError> {
        let columns = keys
            .iter()
            .map(|name| self.column(name))
            .collect::<Result<Vec<_>, TableError>>()?;
        let mut found: BTreeMap<Vec<Key<'_>>, usize> = BTreeMap::new();
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for row in 0..self.n_rows() {
            let key = columns.iter().map(|column| Key(column.get(row))).collect();
            let group = *found.entry(key).or_insert_with(|| {
                rows.push(Vec::new());
                rows.len() - 1
            });
            rows[group].push(row);
        }
        Ok(Groups {
            table: self,
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            rows,
        })
    }
}

impl Groups<'_> {
    /// Number of groups.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none: the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Row numbers of each group, ascending.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// Each group as a table of its own, with all columns.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = Table> {
        self.rows.iter().map(|rows| self.table.take(rows))
    }

    /// A table with one row for each group: the key columns, then one column for each
    /// aggregate, named `COLUMN_median` and so on. Counts are unsigned integers, all else
    /// floats.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`], [`TableError::Kind`] if a column to be computed with holds no
    /// numbers, [`TableError::Duplicate`] if two results would have the same name.
    pub fn aggregate(&self, aggregates: &[Aggregate<'_>]) -> Result<Table, TableError> {
        let firsts: Vec<usize> = self
            .rows
            .iter()
            .filter_map(|rows| rows.first().copied())
            .collect();
        let mut result = Table::default();
        for key in &self.keys {
            result.push(key.clone(), self.table.column(key)?.take(&firsts))?;
        }
        for aggregate in aggregates {
            result.push(aggregate.title(), self.column(*aggregate)?)?;
        }
        Ok(result)
    }

    fn column(&self, aggregate: Aggregate<'_>) -> Result<Column, TableError> {
        let name = aggregate.name();
        if let Aggregate::Count(_) = aggregate {
            let column = self.table.column(name)?;
            let present = |row: &&usize| column.get(**row) != Value::Missing;
            let counts = self
                .rows
                .iter()
                .map(|rows| rows.iter().filter(present).count() as u64);
            return Ok(Column::u64(counts));
        }
        let numbers = self.table.numbers(name)?;
        let of_group =
            |rows: &Vec<usize>| aggregate.of(rows.iter().filter_map(|row| numbers[*row]).collect());
        Ok(Column::F64(self.rows.iter().map(of_group).collect()))
    }
}

impl Aggregate<'_> {
    fn name(&self) -> &str {
        match self {
            Aggregate::Count(name)
            | Aggregate::Min(name)
            | Aggregate::Max(name)
            | Aggregate::Mean(name)
            | Aggregate::Median(name) => name,
        }
    }

    fn title(&self) -> String {
        let word = match self {
            Aggregate::Count(_) => "count",
            Aggregate::Min(_) => "min",
            Aggregate::Max(_) => "max",
            Aggregate::Mean(_) => "mean",
            Aggregate::Median(_) => "median",
        };
        format!("{}_{word}", self.name())
    }

    /// The aggregate of numbers.
    fn of(self, mut values: Vec<f64>) -> Option<f64> {
        if values.is_empty() {
            return None;
        }
        if values.iter().any(|value| value.is_nan()) {
            return Some(f64::NAN);
        }
        values.sort_by(f64::total_cmp);
        let n = values.len();
        match self {
            Aggregate::Count(_) => Some(n as f64),
            Aggregate::Min(_) => values.first().copied(),
            Aggregate::Max(_) => values.last().copied(),
            Aggregate::Mean(_) => Some(values.iter().sum::<f64>() / n as f64),
            Aggregate::Median(_) => Some(middle(values[(n - 1) / 2], values[n / 2])),
        }
    }
}

/// Half way between two numbers. The same one twice is itself, infinite ones too.
fn middle(a: f64, b: f64) -> f64 {
    if a == b { a } else { a / 2.0 + b / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new([
            (
                "cache",
                Column::Text(["on", "off", "on", "on"].map(|s| Some(s.to_owned())).into()),
            ),
            (
                "rate",
                Column::F64(vec![Some(4.0), Some(4.0), Some(4.0), None]),
            ),
            (
                "ttft",
                Column::U64(vec![Some(10), Some(30), Some(20), None]),
            ),
        ])
        .unwrap()
    }

    #[test]
    fn groups_stand_in_order_of_occurrence() {
        let table = table();
        let groups = table.group_by(&["cache"]).unwrap();
        assert_eq!(groups.rows().collect::<Vec<_>>(), [&[0, 2, 3][..], &[1]]);
        assert_eq!(
            groups.tables().map(|t| t.n_rows()).collect::<Vec<_>>(),
            [3, 1]
        );
        assert_eq!(table.group_by(&["cache", "rate"]).unwrap().len(), 3);
        assert_eq!(table.group_by(&[]).unwrap().len(), 1);
    }

    #[test]
    fn aggregates_leave_missing_values_out() {
        let table = table();
        let all = [
            Aggregate::Count("ttft"),
            Aggregate::Min("ttft"),
            Aggregate::Max("ttft"),
            Aggregate::Mean("ttft"),
            Aggregate::Median("ttft"),
        ];
        let result = table.group_by(&["cache"]).unwrap().aggregate(&all).unwrap();
        let names: Vec<&str> = result.names().collect();
        let expected = [
            "cache",
            "ttft_count",
            "ttft_min",
            "ttft_max",
            "ttft_mean",
            "ttft_median",
        ];
        assert_eq!(names, expected);
        assert_eq!(result.u64s("ttft_count").unwrap(), [Some(2), Some(1)]);
        assert_eq!(result.f64s("ttft_min").unwrap(), [Some(10.0), Some(30.0)]);
        assert_eq!(result.f64s("ttft_max").unwrap(), [Some(20.0), Some(30.0)]);
        assert_eq!(result.f64s("ttft_mean").unwrap(), [Some(15.0), Some(30.0)]);
        assert_eq!(
            result.f64s("ttft_median").unwrap(),
            [Some(15.0), Some(30.0)]
        );
    }

    #[test]
    fn infinities_take_part_and_nan_shows() {
        let median = |values: &[f64]| Aggregate::Median("x").of(values.to_vec());
        assert_eq!(
            median(&[f64::INFINITY, 1.0, f64::INFINITY]),
            Some(f64::INFINITY)
        );
        assert_eq!(median(&[1.0, f64::INFINITY, 3.0]), Some(3.0));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(
            median(&[f64::MAX, f64::MAX / 2.0]).map(f64::is_finite),
            Some(true)
        );
        assert!(median(&[1.0, f64::NAN]).unwrap().is_nan());
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_group_without_values_has_none() {
        let table = table();
        let groups = table.group_by(&["rate"]).unwrap();
        let result = groups
            .aggregate(&[Aggregate::Mean("ttft"), Aggregate::Count("ttft")])
            .unwrap();
        assert_eq!(result.f64s("ttft_mean").unwrap()[1], None);
        assert_eq!(result.u64s("ttft_count").unwrap()[1], Some(0));
    }

    #[test]
    fn text_has_no_mean() {
        let table = table();
        let groups = table.group_by(&["rate"]).unwrap();
        assert!(matches!(
            groups.aggregate(&[Aggregate::Mean("cache")]),
            Err(TableError::Kind { .. })
        ));
        assert!(table.group_by(&["nothing"]).is_err());
    }

    #[test]
    fn an_empty_table_has_no_groups() {
        let empty = Table::new([("x", Column::f64([]))]).unwrap();
        let groups = empty.group_by(&[]).unwrap();
        assert!(groups.is_empty());
        assert_eq!(
            groups.aggregate(&[Aggregate::Mean("x")]).unwrap().n_rows(),
            0
        );
    }
}
