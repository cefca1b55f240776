//! Samples as one table, and groups of it as points with their spread.
//!
//! A point is the median over samples, with the range between the smallest and the largest: two
//! or three samples carry no interval that would deserve the name. Invalid samples enter no point
//! unless there are no others; such a point is drawn hollow.

use crate::breakdown;
use crate::files;
use crate::result::{Definition, MeasuredFile, Row, definition, stamp};
use charts::{Axis, Grade, Reading};
use engine::problem::did_you_mean;
use engine::step::{self, Sample, StepError};
use statistics::Sorted;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tables::{Column, Table, Value};

engine::choices! {
    /// What the parts of a load differ in.
    pub enum PartsChoice {
        /// The number of the turn in its conversation, counted from 0.
        Turn = "turn",
        /// The model that was asked.
        Model = "model",
        /// The group.
        Group = "group",
    }
}

engine::choices! {
    /// What the whisker of a value spans.
    pub enum SpreadChoice {
        /// From the smallest to the largest.
        Range = "range",
        /// From the tenth of a hundred to the ninetieth, by nearest rank: for sets of ten values or more.
        Deciles = "p10_p90",
    }
}

/// A group of rows by the labels that they share, and what was made of it.
pub(super) type Grouped<T> = (Vec<Label>, T);

/// Grade of a row's sample, 0 valid to 2 invalid: a column of the table.
const GRADE: &str = "verdict";

/// Rows of all samples.
pub(super) struct Points {
    table: Table,
    definitions: Vec<Definition>,
    /// Columns that are axes of the plan.
    axes: BTreeSet<String>,
    /// What stands under the title where samples were simulated; else empty.
    stamp: String,
    /// A sentence about samples that have no such parts.
    undivided: Option<String>,
}

/// A cell while the table is put together.
enum Cell {
    Number(f64),
    Text(String),
}

/// One row: its cells by their columns.
type Cells = BTreeMap<String, Cell>;

impl Points {
    /// Reads the results of all samples, or of the parts that each load has by turn, model or group:
    /// then one row for each part, which has its value in a column of that name.
    ///
    /// # Errors
    /// If a sample left no result, or none has such parts.
    pub(super) fn read(samples: &[Sample], parts: Option<PartsChoice>) -> Result<Self, StepError> {
        let mut rows: Vec<Cells> = Vec::new();
        let mut definitions: Vec<Definition> = Vec::new();
        let mut axes: BTreeSet<String> = parts.iter().map(|by| by.word().to_owned()).collect();
        let mut simulated: Vec<Option<String>> = Vec::new();
        let mut n_undivided = 0;
        for sample in samples {
            let file: MeasuredFile = files::read_json(output(sample, "result")?)?;
            let how = file.simulated().map(str::to_owned);
            for new in &file.definitions {
                if !definitions.iter().any(|d| d.name == new.name) {
                    definitions.push(new.clone());
                }
            }
            axes.extend(sample.axes.iter().map(|(name, _)| name.clone()));
            let own = match parts {
                None => whole(&file),
                Some(by) => parted(output(sample, "breakdown")?, by)?,
            };
            n_undivided += usize::from(own.is_empty());
            rows.extend(own.into_iter().map(|mut cells| {
                cells.extend(of_sample(sample, how.as_deref()));
                cells
            }));
            simulated.push(how);
        }
        if rows.is_empty() {
            return Err(nothing_to_plot(parts));
        }
        let table = to_table(&rows).map_err(failed)?;
        Ok(Self {
            table,
            definitions,
            axes,
            stamp: stamp(simulated.iter().map(Option::as_deref)),
            undivided: parts.filter(|_| n_undivided > 0).map(|by| {
                let by = by.word();
                format!("{n_undivided} of {} samples are not here: their requests do not differ in their {by}.", samples.len())
            }),
        })
    }

    /// A sentence about samples that have no parts and are not drawn; `None` if there are none.
    pub(super) fn undivided(&self) -> Option<&str> {
        self.undivided.as_deref()
    }

    /// What has to stand under the title: whether samples were simulated.
    pub(super) fn stamp(&self) -> &str {
        &self.stamp
    }

    /// Says that a column is not there, with the nearest that is.
    pub(super) fn require(&self, name: &str, what: &str) -> Result<(), StepError> {
        if self.table.column(name).is_ok() {
            return Ok(());
        }
        Err(StepError::new(format!(
            "`{what} = \"{name}\"` names nothing that was measured"
        ))
        .help(did_you_mean(name, self.table.names())))
    }

    /// Refuses values of different units, which no single axis can show.
    pub(super) fn require_one_unit(&self, y: &[String]) -> Result<(), StepError> {
        let unit = |name: &String| self.axis(name).unit;
        let Some(other) = y.iter().find(|name| unit(name) != unit(&y[0])) else {
            return Ok(());
        };
        let message = format!(
            "`y` mixes `{}` in {} with `{other}` in {}",
            y[0],
            unit(&y[0]),
            unit(other)
        );
        Err(StepError::new(message).help("draw one chart for each unit"))
    }

    /// Titles an axis with a column's name and unit.
    pub(super) fn axis(&self, name: &str) -> Axis {
        let unit = definition(&self.definitions, name).map_or("", |d| d.unit.as_str());
        let is_rate = self.axes.contains(name) && name.ends_with("rate");
        let unit = if unit.is_empty() && is_rate {
            "requests/s"
        } else {
            unit
        };
        Axis::new(title(name), unit)
    }

    /// Label and unit of an axis in one text.
    pub(super) fn caption(&self, name: &str) -> String {
        let axis = self.axis(name);
        match axis.unit.as_str() {
            "" => axis.label,
            unit => format!("{} ({unit})", axis.label),
        }
    }

    /// Groups rows by `keys`, in order of their values, and summarises `value` of each group.
    pub(super) fn groups(
        &self,
        keys: &[&str],
        value: &str,
    ) -> Result<Vec<(Vec<Label>, Reading)>, StepError> {
        self.groups_with(keys, value, SpreadChoice::Range)
    }

    /// The same with another spread.
    pub(super) fn groups_with(
        &self,
        keys: &[&str],
        value: &str,
        spread: SpreadChoice,
    ) -> Result<Vec<(Vec<Label>, Reading)>, StepError> {
        let summed = |group: &Table| reading(group, value, spread);
        self.summed(keys, &summed)
    }

    /// The values of each group, from the smallest to the largest: of samples that can be believed, if there are
    /// any.
    pub(super) fn values(
        &self,
        keys: &[&str],
        value: &str,
    ) -> Result<Vec<Grouped<Vec<f64>>>, StepError> {
        let values = |group: &Table| {
            let mut values = used(&graded(group, value)?);
            values.sort_by(f64::total_cmp);
            Ok(values)
        };
        self.summed(keys, &values)
    }

    /// Groups rows by `keys`, in order of their values, and makes something of each group.
    fn summed<T>(
        &self,
        keys: &[&str],
        sum: &dyn Fn(&Table) -> Result<T, tables::TableError>,
    ) -> Result<Vec<Grouped<T>>, StepError> {
        let sorted = self
            .table
            .sort_by(
                keys.iter()
                    .map(|k| (*k, tables::Order::Ascending))
                    .collect::<Vec<_>>()
                    .as_slice(),
            )
            .map_err(failed)?;
        let mut found = Vec::new();
        for group in sorted.group_by(keys).map_err(failed)?.tables() {
            let labels = keys
                .iter()
                .map(|k| group.column(k).map(|c| label(c.get(0))))
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed)?;
            found.push((labels, sum(&group).map_err(failed)?));
        }
        Ok(found)
    }

    /// The values of a key, each once, in order.
    pub(super) fn labels(&self, key: &str) -> Result<Vec<Label>, StepError> {
        let sorted = self
            .table
            .sort_by(&[(key, tables::Order::Ascending)])
            .map_err(failed)?;
        let groups = sorted.group_by(&[key]).map_err(failed)?;
        let first = |group: Table| Ok(label(group.column(key).map_err(failed)?.get(0)));
        groups.tables().map(first).collect()
    }

    /// Says that a key has no such value, with the nearest that it has.
    pub(super) fn require_value(
        &self,
        key: &str,
        value: &str,
        what: &str,
    ) -> Result<(), StepError> {
        let labels = self.labels(key)?;
        if labels.iter().any(|label| label.text == value) {
            return Ok(());
        }
        let known = labels.iter().map(|label| label.text.as_str());
        Err(StepError::new(format!(
            "`{what}` names `{value}`, which is no value of `{key}`"
        ))
        .help(did_you_mean(value, known)))
    }

    /// A sentence about axes that vary within what one point shows; `None` if none does.
    pub(super) fn mixture(&self, keys: &[&str]) -> Result<Option<String>, StepError> {
        let mut mixed: Vec<&str> = Vec::new();
        for group in self.table.group_by(keys).map_err(failed)?.tables() {
            for axis in self.axes.iter().map(String::as_str) {
                if mixed.contains(&axis) || keys.contains(&axis) {
                    continue;
                }
                let column = group.column(axis).map_err(failed)?;
                let first = label(column.get(0));
                if (1..group.n_rows()).any(|row| label(column.get(row)) != first) {
                    mixed.push(axis);
                }
            }
        }
        mixed.sort_unstable();
        let names: Vec<String> = mixed.iter().map(|axis| format!("`{axis}`")).collect();
        Ok((!names.is_empty()).then(|| {
            let names = names.join(" and ");
            format!("Each value is a median over all values of {names}, too.")
        }))
    }

    /// The table as CSV.
    pub(super) fn to_csv(&self) -> String {
        self.table.to_csv()
    }
}

fn nothing_to_plot(parts: Option<PartsChoice>) -> StepError {
    let Some(by) = parts else {
        return StepError::new("there are no samples to plot");
    };
    let by = by.word();
    let message = format!("`parts = \"{by}\"`: the requests of no sample differ in their {by}");
    StepError::new(message).help("leave `parts` out, or make a workload with several of them")
}

fn output<'a>(sample: &'a Sample, name: &str) -> Result<&'a Path, StepError> {
    let path = sample.outputs.get(name).map(PathBuf::as_path);
    path.ok_or_else(|| StepError::new(format!("`{}` left no {name}", sample.node)))
}

/// The rows of a result.
fn whole(file: &MeasuredFile) -> Vec<Cells> {
    let row = |row: &Row| {
        let values = row.values.iter();
        let values =
            values.map(|(name, value)| (name, Cell::Number(value.unwrap_or(f64::INFINITY))));
        let labels = row.labels.iter();
        let labels = labels.map(|(name, value)| (name, Cell::Text(value.clone())));
        let cells = values.chain(labels);
        cells.map(|(name, cell)| (name.clone(), cell)).collect()
    };
    file.rows.iter().map(row).collect()
}

/// The rows of a load's parts, without that of those that have none of their own.
fn parted(path: &Path, by: PartsChoice) -> Result<Vec<Cells>, StepError> {
    let parts = breakdown::read(path)?.into_iter();
    let own = parts.filter(|part| part.by == by.word() && part.n_values == 1);
    let row = |part: breakdown::Part| {
        let title = part.title();
        // A name that merely looks like a number is one.
        let number = title.parse().ok().filter(|_| by == PartsChoice::Turn);
        let value = number.map_or(Cell::Text(title), Cell::Number);
        let values = part.values.into_iter();
        let values = values.map(|(name, value)| (name, Cell::Number(value)));
        values.chain([(by.word().to_owned(), value)]).collect()
    };
    Ok(own.map(row).collect())
}

/// What all rows of a sample have in common.
fn of_sample(sample: &Sample, simulated: Option<&str>) -> Cells {
    let axes = sample.axes.iter();
    let axes = axes.map(|(name, value)| (name.clone(), axis_cell(value)));
    let how = simulated.map(|how| ("simulated".to_owned(), Cell::Text(how.to_owned())));
    let grade = f64::from(grade_rank(sample.verdict.grade));
    let own = [
        ("sample".to_owned(), Cell::Number(sample.index.into())),
        (GRADE.to_owned(), Cell::Number(grade)),
    ];
    axes.chain(how).chain(own).collect()
}

fn failed(error: tables::TableError) -> StepError {
    StepError::new(error.to_string())
}

/// The value of a key: a number keeps its place on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Label {
    /// As text.
    pub(super) text: String,
    /// As a number, if it is one.
    pub(super) number: Option<f64>,
}

fn label(value: Value<'_>) -> Label {
    match value {
        Value::Text(text) => Label {
            text: text.to_owned(),
            number: None,
        },
        other => {
            let number = other.number();
            Label {
                text: number.map_or_else(|| "–".to_owned(), engine::types::number_text),
                number,
            }
        }
    }
}

fn axis_cell(value: &step::AxisValue) -> Cell {
    match value {
        step::AxisValue::Number(n) => Cell::Number(*n),
        other => Cell::Text(other.to_string()),
    }
}

fn grade_rank(grade: step::Grade) -> u8 {
    match grade {
        step::Grade::Valid => 0,
        step::Grade::Degraded => 1,
        step::Grade::Invalid => 2,
    }
}

fn to_table(rows: &[Cells]) -> Result<Table, tables::TableError> {
    let names: BTreeSet<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
    let columns = names.into_iter().map(|name| {
        let is_text = rows
            .iter()
            .any(|r| matches!(r.get(name), Some(Cell::Text(_))));
        let column = if is_text {
            Column::Text(rows.iter().map(|r| r.get(name).map(cell_text)).collect())
        } else {
            Column::F64(
                rows.iter()
                    .map(|r| {
                        if let Some(Cell::Number(n)) = r.get(name) {
                            Some(*n)
                        } else {
                            None
                        }
                    })
                    .collect(),
            )
        };
        (name.clone(), column)
    });
    Table::new(columns.collect::<Vec<_>>())
}

fn cell_text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => engine::types::number_text(*number),
    }
}

/// Summarises one group of rows.
fn reading(
    group: &Table,
    value: &str,
    spread: SpreadChoice,
) -> Result<Reading, tables::TableError> {
    Ok(summary(&graded(group, value)?, spread))
}

/// One value of each row that has it, with how far it can be believed.
fn graded(group: &Table, value: &str) -> Result<Vec<(f64, Grade)>, tables::TableError> {
    let (values, grades) = (group.column(value)?, group.column(GRADE)?);
    let row = |i: usize| {
        let grade = match grades.get(i).number() {
            Some(0.0) => Grade::Valid,
            Some(1.0) => Grade::Degraded,
            _ => Grade::Invalid,
        };
        Some((values.get(i).number()?, grade))
    };
    Ok((0..group.n_rows()).filter_map(row).collect())
}

/// The values that can be believed, or all of them if none can.
fn used(rows: &[(f64, Grade)]) -> Vec<f64> {
    let values = |is_used: &dyn Fn(Grade) -> bool| -> Vec<f64> {
        let used = rows.iter().filter(|(_, grade)| is_used(*grade));
        used.map(|(value, _)| *value).collect()
    };
    let valid = values(&|grade| grade != Grade::Invalid);
    match valid.is_empty() {
        true => values(&|_| true),
        false => valid,
    }
}

/// Summarises one value of several samples: the median of those that can be believed, and their
/// range.
pub(crate) fn believed(rows: &[(f64, Grade)]) -> Reading {
    summary(rows, SpreadChoice::Range)
}

fn summary(rows: &[(f64, Grade)], spread: SpreadChoice) -> Reading {
    let used = used(rows);
    let Some(median) = statistics::median(&used) else {
        return Reading::missing("not measured");
    };
    let grades = rows.iter().map(|(_, grade)| *grade);
    let worst = grades.filter(|grade| *grade != Grade::Invalid).max();
    let (low, high) = match spread {
        SpreadChoice::Range => (0.0, 1.0),
        SpreadChoice::Deciles => (0.1, 0.9),
    };
    let sorted = Sorted::new(used.clone());
    let rank = |q| sorted.as_ref().and_then(|sorted| sorted.nearest_rank(q));
    let low = rank(low).unwrap_or(f64::INFINITY);
    let high = rank(high).unwrap_or(f64::INFINITY);
    let mut reading = Reading::new(median)
        .samples(used.len() as u64)
        .grade(worst.unwrap_or(Grade::Invalid));
    if used.len() > 1 && low.is_finite() {
        reading = reading.interval(low, high);
    }
    match rows.len() - used.len() {
        0 => reading,
        left_out => reading.note(format!("{left_out} invalid left out")),
    }
}

/// Writes a column's name for people: `ttft_p50_ms` as `TTFT p50`.
pub(super) fn title(name: &str) -> String {
    let base = ["_ms", "_per_s"]
        .iter()
        .fold(name, |n, suffix| n.strip_suffix(suffix).unwrap_or(n));
    let words: Vec<String> = base
        .split('_')
        .map(|word| match word {
            "ttft" | "tpot" | "itl" | "e2el" | "kv" => word.to_uppercase(),
            "mlp" => "MLP".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{points, row, samples};
    use super::*;

    #[test]
    fn values_of_a_key_are_in_order_and_unknown_ones_are_refused() {
        let points = points(&[
            row("swap", 1.0, 8.0, 5.0),
            row("single", 1.0, 16.0, 5.0),
            row("swap", 1.0, 8.0, 6.0),
        ]);
        let texts = |key| -> Vec<String> {
            let labels = points.labels(key).expect("labels");
            labels.into_iter().map(|label| label.text).collect()
        };
        assert_eq!(texts("mode"), ["single", "swap"]);
        assert_eq!(texts("rate"), ["8", "16"]);
        let error = points
            .require_value("mode", "singel", "relative_to")
            .expect_err("unknown");
        assert!(error.message.contains("`relative_to` names `singel`"));
        assert_eq!(error.help.as_deref(), Some("did you mean `single`?"));
    }

    #[test]
    fn axes_that_vary_within_a_point_are_told_of() {
        let points = points(&[
            row("swap", 0.5, 8.0, 5.0),
            row("swap", 1.0, 8.0, 5.0),
            row("single", 1.0, 16.0, 5.0),
        ]);
        let mixture = points
            .mixture(&["rate"])
            .expect("a mixture")
            .expect("alpha");
        assert!(mixture.contains("`alpha`") && !mixture.contains("`mode`"));
        assert_eq!(points.mixture(&["rate", "alpha"]).expect("a mixture"), None);
    }

    #[test]
    fn parts_of_loads_are_rows_of_their_own() {
        let [folder, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let mut samples = samples(folder.path(), &[row("swap", 1.0, 8.0, 5.0)]);
        let path = folder.path().join("breakdown.parquet");
        let text =
            |values: [Option<&str>; 4]| Column::Text(values.map(|v| v.map(str::to_owned)).to_vec());
        let table = Table::new([
            (
                "by",
                text([Some("turn"), Some("turn"), Some("model"), Some("turn")]),
            ),
            ("value", text([Some("1"), Some("10"), Some("a"), None])),
            ("values", Column::u64([1, 1, 1, 7])),
            ("ttft_p50_ms", Column::f64([30.0, 20.0, 9.0, 1.0])),
        ]);
        tables::write_parquet(&table.expect("a table"), &path).expect("a file");
        samples[0].outputs.insert("breakdown".to_owned(), path);
        let points = Points::read(&samples, Some(PartsChoice::Turn)).expect("parts");
        // What holds the others together is no turn.
        let groups = points
            .groups(&["mode", "turn"], "ttft_p50_ms")
            .expect("groups");
        let found: Vec<_> = groups.iter().map(|(l, r)| (l[1].number, r.value)).collect();
        assert_eq!(found, [(Some(1.0), Some(30.0)), (Some(10.0), Some(20.0))]);
        let mixture = points.mixture(&["mode"]).expect("a mixture");
        assert!(mixture.is_some_and(|text| text.contains("`turn`")));
        assert_eq!(points.undivided(), None);
        // A load without parts is not drawn, and told of.
        let whole = row("single", 1.0, 8.0, 5.0);
        let mut both = samples.clone();
        both.extend(super::super::made_up::samples(other.path(), &[whole]));
        let path = other.path().join("breakdown.parquet");
        let none = Table::new([
            ("by", Column::Text(Vec::new())),
            ("value", Column::Text(Vec::new())),
            ("values", Column::u64([])),
        ]);
        tables::write_parquet(&none.expect("a table"), &path).expect("a file");
        both[1].outputs.insert("breakdown".to_owned(), path);
        let points = Points::read(&both, Some(PartsChoice::Turn)).expect("parts");
        assert!(
            points
                .undivided()
                .is_some_and(|text| text.starts_with("1 of 2 samples"))
        );
        let error = Points::read(&samples, Some(PartsChoice::Group)).err();
        let message = error.expect("no groups").message;
        assert_eq!(
            message,
            "`parts = \"group\"`: the requests of no sample differ in their group"
        );
    }

    fn group(values: &[(f64, f64)]) -> Table {
        Table::new([
            ("v", Column::f64(values.iter().map(|(v, _)| *v))),
            (GRADE, Column::f64(values.iter().map(|(_, g)| *g))),
        ])
        .expect("a table")
    }

    #[test]
    fn an_invalid_sample_enters_no_point_that_has_others() {
        let reading = range(&[(10.0, 0.0), (12.0, 0.0), (900.0, 2.0)]);
        assert_eq!(reading.value, Some(11.0));
        assert_eq!(reading.samples, Some(2));
        assert_eq!(reading.grade, Grade::Valid);
        assert!(reading.note.is_some());
    }

    #[test]
    fn a_point_of_invalid_samples_alone_is_invalid() {
        assert_eq!(range(&[(900.0, 2.0)]).grade, Grade::Invalid);
    }

    fn range(values: &[(f64, f64)]) -> Reading {
        reading(&group(values), "v", SpreadChoice::Range).expect("a reading")
    }

    #[test]
    fn whiskers_span_all_values_or_those_in_the_middle() {
        let values: Vec<(f64, f64)> = (1..=20).map(|n| (f64::from(n), 0.0)).collect();
        let span = |spread| {
            let reading = reading(&group(&values), "v", spread).expect("a reading");
            reading.interval.map(|i| (i.low, i.high))
        };
        assert_eq!(span(SpreadChoice::Range), Some((1.0, 20.0)));
        assert_eq!(span(SpreadChoice::Deciles), Some((2.0, 18.0)));
    }

    #[test]
    fn names_are_written_as_the_field_writes_them() {
        assert_eq!(title("ttft_p50_ms"), "TTFT p50");
        assert_eq!(title("output_throughput"), "output throughput");
    }
}
