//! Columns side by side, all equally long.

use std::cmp::Ordering;

use crate::column::{Column, Value};
use crate::error::TableError;

/// Ordered, named columns with the same number of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<(String, Column)>,
}

/// Which way rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Smallest first. Missing values last.
    #[default]
    Ascending,
    /// Largest first. Missing values last all the same.
    Descending,
}

impl Table {
    /// Puts columns together, in the order given.
    ///
    /// # Errors
    ///
    /// [`TableError::Ragged`] if they are not equally long, [`TableError::Duplicate`] if two
    /// have the same name.
    pub fn new<N: Into<String>>(
        columns: impl IntoIterator<Item = (N, Column)>,
    ) -> Result<Self, TableError> {
        let mut table = Self::default();
        for (name, column) in columns {
            table.push(name, column)?;
        }
        Ok(table)
    }

    /// Adds a column on the right.
    ///
    /// # Errors
    ///
    /// [`TableError::Ragged`] if it is not as long as the others, [`TableError::Duplicate`] if
    /// there is one of that name.
    pub fn push(&mut self, name: impl Into<String>, column: Column) -> Result<(), TableError> {
        let name = name.into();
        if self.columns.iter().any(|(other, _)| *other == name) {
            return Err(TableError::Duplicate { column: name });
        }
        if !self.columns.is_empty() && column.len() != self.n_rows() {
            let (found, expected) = (column.len(), self.n_rows());
            return Err(TableError::Ragged {
                column: name,
                found,
                expected,
            });
        }
        self.columns.push((name, column));
        Ok(())
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// Names and columns, left to right.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns
            .iter()
            .map(|(name, column)| (name.as_str(), column))
    }

    /// Column names, left to right.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// The column of that name.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`] if there is none.
    pub fn column(&self, name: &str) -> Result<&Column, TableError> {
        let found = self.columns.iter().find(|(other, _)| other == name);
        found
            .map(|(_, column)| column)
            .ok_or_else(|| TableError::NoColumn {
                column: name.to_owned(),
                present: self.names().map(str::to_owned).collect(),
            })
    }

    /// Unsigned integers of a column.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`], or [`TableError::Kind`] if it holds something else.
    pub fn u64s(&self, name: &str) -> Result<&[Option<u64>], TableError> {
        match self.column(name)? {
            Column::U64(values) => Ok(values),
            other => Err(wrong_kind(name, other, "unsigned integers")),
        }
    }

    /// Signed integers of a column.
    ///
    /// # Errors
    ///
    /// As [`Table::u64s`].
    pub fn i64s(&self, name: &str) -> Result<&[Option<i64>], TableError> {
        match self.column(name)? {
            Column::I64(values) => Ok(values),
            other => Err(wrong_kind(name, other, "signed integers")),
        }
    }

    /// Numbers of a column of floats.
    ///
    /// # Errors
    ///
    /// As [`Table::u64s`].
    pub fn f64s(&self, name: &str) -> Result<&[Option<f64>], TableError> {
        match self.column(name)? {
            Column::F64(values) => Ok(values),
            other => Err(wrong_kind(name, other, "floats")),
        }
    }

    /// Text of a column.
    ///
    /// # Errors
    ///
    /// As [`Table::u64s`].
    pub fn texts(&self, name: &str) -> Result<&[Option<String>], TableError> {
        match self.column(name)? {
            Column::Text(values) => Ok(values),
            other => Err(wrong_kind(name, other, "text")),
        }
    }

    /// Lists of a column.
    ///
    /// # Errors
    ///
    /// As [`Table::u64s`].
    pub fn lists(&self, name: &str) -> Result<&[Vec<u64>], TableError> {
        match self.column(name)? {
            Column::ListU64(values) => Ok(values),
            other => Err(wrong_kind(name, other, "lists of unsigned integers")),
        }
    }

    /// Values of any column of numbers, integers included, as floats.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`], or [`TableError::Kind`] if it holds no numbers.
    pub fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>, TableError> {
        let column = self.column(name)?;
        match column {
            Column::U64(_) | Column::I64(_) | Column::F64(_) => Ok((0..column.len())
                .map(|row| column.get(row).number())
                .collect()),
            other => Err(wrong_kind(name, other, "numbers")),
        }
    }

    /// The rows with the given numbers, in that order. A number beyond the end is skipped.
    pub fn take(&self, rows: &[usize]) -> Self {
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| (name.clone(), column.take(rows)));
        Self {
            columns: columns.collect(),
        }
    }

    /// The rows sorted by the named columns, the first deciding. Equal rows keep their order.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`] if one does not exist.
    pub fn sort_by(&self, keys: &[(&str, Order)]) -> Result<Self, TableError> {
        let keys = keys
            .iter()
            .map(|(name, order)| Ok((self.column(name)?, *order)))
            .collect::<Result<Vec<_>, TableError>>()?;
        let mut rows: Vec<usize> = (0..self.n_rows()).collect();
        rows.sort_by(|a, b| {
            let by_key = keys
                .iter()
                .map(|(column, order)| order.of(column.get(*a), column.get(*b)));
            by_key.fold(Ordering::Equal, Ordering::then)
        });
        Ok(self.take(&rows))
    }

    /// Appends the rows of another table with the same columns in the same order. A table
    /// without columns takes over those of the other.
    ///
    /// # Errors
    ///
    /// [`TableError::Differ`] if they are not the same; nothing is appended then.
    pub fn append(&mut self, other: Table) -> Result<(), TableError> {
        if self.columns.is_empty() {
            *self = other;
            return Ok(());
        }
        let (found, expected) = (other.signature(), self.signature());
        if found != expected {
            return Err(TableError::Differ { found, expected });
        }
        for ((_, all), (_, more)) in self.columns.iter_mut().zip(other.columns) {
            // Kinds were compared above.
            all.append(more);
        }
        Ok(())
    }

    /// Names with kinds.
    fn signature(&self) -> Vec<String> {
        self.columns()
            .map(|(name, column)| format!("{name}: {}", column.kind()))
            .collect()
    }
}

impl Order {
    fn of(self, a: Value<'_>, b: Value<'_>) -> Ordering {
        let missing = |value: Value<'_>| value == Value::Missing;
        match self {
            Order::Descending if !missing(a) && !missing(b) => b.order(a),
            _ => a.order(b),
        }
    }
}

fn wrong_kind(name: &str, column: &Column, expected: &'static str) -> TableError {
    TableError::Kind {
        column: name.to_owned(),
        found: column.kind(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new([
            ("name", Column::text(["b", "a", "b", "a"])),
            ("n", Column::U64(vec![Some(1), None, Some(3), Some(2)])),
        ])
        .unwrap()
    }

    #[test]
    fn columns_must_fit_together() {
        let mut table = table();
        let error = table.push("x", Column::f64([1.0])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "column `x` has 1 rows, expected 4 like the first column"
        );
        assert!(matches!(
            table.push("n", Column::u64([1, 2, 3, 4])),
            Err(TableError::Duplicate { .. })
        ));
        assert_eq!(table.n_columns(), 2);
    }

    #[test]
    fn a_wrong_name_or_kind_is_told_with_what_there_is() {
        let error = table().column("m").unwrap_err().to_string();
        assert_eq!(error, "found no column `m`; there are `name`, `n`");
        let error = table().f64s("n").unwrap_err().to_string();
        assert_eq!(error, "column `n` holds unsigned integers, expected floats");
        assert_eq!(table().numbers("n").unwrap()[2], Some(3.0));
        assert!(table().numbers("name").is_err());
    }

    #[test]
    fn sorting_is_stable_and_puts_missing_values_last() {
        let n = |table: Table| table.u64s("n").unwrap().to_vec();
        let rising = table().sort_by(&[("n", Order::Ascending)]).unwrap();
        assert_eq!(n(rising), [Some(1), Some(2), Some(3), None]);
        let falling = table().sort_by(&[("n", Order::Descending)]).unwrap();
        assert_eq!(n(falling), [Some(3), Some(2), Some(1), None]);
        let by_name = table().sort_by(&[("name", Order::Ascending)]).unwrap();
        assert_eq!(n(by_name), [None, Some(2), Some(1), Some(3)]);
        let both = [("name", Order::Descending), ("n", Order::Descending)];
        assert_eq!(
            n(table().sort_by(&both).unwrap()),
            [Some(3), Some(1), Some(2), None]
        );
    }

    #[test]
    fn only_tables_alike_are_appended() {
        let mut all = Table::default();
        all.append(table()).unwrap();
        all.append(table()).unwrap();
        assert_eq!(all.n_rows(), 8);
        let other = Table::new([("name", Column::u64([1]))]).unwrap();
        let error = all.append(other).unwrap_err().to_string();
        assert!(error.contains("`name: unsigned integers`") && error.contains("`name: text`"));
        assert_eq!(all.n_rows(), 8);
    }
}
