//! The parts of a load by model, by turn and by group: the table `breakdown.parquet` of a sample.
//!
//! One row for each part, under the names that its numbers have in the result of the whole. Where
//! parts differ in nothing the table is there without rows.

use engine::step::StepError;
use loadgen::{Breakdown, Metrics, Record};
use std::collections::BTreeMap;
use std::path::Path;
use tables::{Column, Table, TableError};

/// Columns that are no measured values.
const BY: &str = "by";
const VALUE: &str = "value";
const N_VALUES: &str = "values";

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// What parts differ in: `model`, `turn` or `group`.
    pub(crate) by: String,
    /// The value that the requests have in common; `None` if they have none, or many.
    pub(crate) value: Option<String>,
    /// How many values it holds: more than 1 are all those without a row of their own.
    pub(crate) n_values: u64,
    /// What was measured; failures make latencies infinite.
    pub(crate) values: BTreeMap<String, f64>,
}

impl Part {
    /// What it is called in tables for people.
    pub(crate) fn title(&self) -> String {
        match (&self.value, self.n_values) {
            (Some(value), _) => value.clone(),
            (None, 1) => "(none)".to_owned(),
            (None, n) => format!("({n} others together)"),
        }
    }
}

/// Takes a load apart and writes the table to `path`; if answers were simulated, with how.
pub(crate) fn write(
    path: &Path,
    metrics: &Metrics,
    records: &[Record],
    simulated: Option<&str>,
) -> Result<(), StepError> {
    let part = |by: &'static str| {
        move |part: loadgen::Part| Part {
            by: by.to_owned(),
            values: part.values().into_iter().collect(),
            value: part.value,
            n_values: part.n_values,
        }
    };
    let parts: Vec<Part> = Breakdown::all(metrics, records)
        .into_iter()
        .flat_map(|b| b.parts.into_iter().map(part(b.by.name())))
        .collect();
    let remarks = simulated.map(|how| ("simulated", how));
    let write = |table| tables::write_parquet_with(&table, remarks.as_slice(), path);
    let written = table(&parts).and_then(write);
    written.map_err(|e| StepError::because("could not write the breakdown", e))
}

/// Reads the table at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<Part>, StepError> {
    let table = tables::read_parquet(&[path.to_owned()]);
    table.and_then(|table| rows(&table)).map_err(|e| {
        StepError::because(
            format!("could not read the breakdown `{}`", path.display()),
            e,
        )
    })
}

fn table(parts: &[Part]) -> Result<Table, TableError> {
    let mut table = Table::new([
        (BY, Column::text(parts.iter().map(|p| p.by.clone()))),
        (
            VALUE,
            Column::Text(parts.iter().map(|p| p.value.clone()).collect()),
        ),
        (N_VALUES, Column::u64(parts.iter().map(|p| p.n_values))),
    ])?;
    let mut names: Vec<&String> = parts.iter().flat_map(|p| p.values.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let column = parts.iter().map(|p| p.values.get(name).copied()).collect();
        table.push(name.clone(), Column::F64(column))?;
    }
    Ok(table)
}

fn rows(table: &Table) -> Result<Vec<Part>, TableError> {
    let (by, value, n_values) = (table.texts(BY)?, table.texts(VALUE)?, table.u64s(N_VALUES)?);
    let measured: Vec<&str> = table
        .names()
        .filter(|name| ![BY, VALUE, N_VALUES].contains(name))
        .collect();
    let mut parts: Vec<Part> = (0..table.n_rows())
        .map(|i| Part {
            by: by[i].clone().unwrap_or_default(),
            value: value[i].clone(),
            n_values: n_values[i].unwrap_or(1),
            values: BTreeMap::new(),
        })
        .collect();
    for name in measured {
        for (part, value) in parts.iter_mut().zip(table.f64s(name)?) {
            part.values
                .extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(by: &str, value: Option<&str>, n_values: u64, ttft: Option<f64>) -> Part {
        let ttft = ttft.map(|ttft| ("ttft_p99_ms".to_owned(), ttft));
        Part {
            by: by.to_owned(),
            value: value.map(str::to_owned),
            n_values,
            values: [("requests".to_owned(), 2.0)]
                .into_iter()
                .chain(ttft)
                .collect(),
        }
    }

    #[test]
    fn parts_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("breakdown.parquet");
        let all = [
            part("turn", Some("0"), 1, Some(2.5)),
            part("turn", Some("1"), 1, Some(f64::INFINITY)),
            part("group", None, 1, None),
            part("group", None, 7, Some(1.0)),
        ];
        for parts in [&all[..], &[]] {
            tables::write_parquet(&table(parts).expect("a table"), &path).expect("written");
            assert_eq!(read(&path).expect("read"), parts);
        }
        let titles: Vec<String> = all.iter().map(Part::title).collect();
        assert_eq!(titles, ["0", "1", "(none)", "(7 others together)"]);
    }
}
