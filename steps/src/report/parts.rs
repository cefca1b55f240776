//! What measurements show by model, by turn and by group.

use super::sections::{Data, axis_cell, grade};
use crate::breakdown::Part;
use crate::plot::believed;
use crate::result::definition;
use charts::{Axis, Cell, Chart, Column, LineChart, Point, Section, Series, Table};
use engine::step::Sample;
use std::collections::BTreeMap;

/// Rows of one table, shared by the samples that it shows.
const ROWS: usize = 1000;
/// Rows that a sample has however many others there are.
const LEAST_ROWS: usize = 10;
/// Instances of a measurement that one chart can show apart, by two lines each.
const INSTANCES: usize = 4;

/// What tables show of a part, as far as it was measured.
const COLUMNS: &[&str] = &[
    "requests",
    "failed",
    "aborted",
    "request_throughput",
    "output_throughput",
    "request_throughput_whole",
    "output_throughput_whole",
    "ttft_p50_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "ttft_scheduled_p50_ms",
    "ttft_scheduled_p99_ms",
    "tpot_p50_ms",
    "tpot_p99_ms",
    "e2el_p50_ms",
    "e2el_p99_ms",
    "goodput",
    "attainment",
    "cache_hit_rate",
    "cache_hit_rate_ideal",
];

/// A section with a table for each measurement and for each thing that its requests differ in;
/// `None` if they differ in nothing.
pub(super) fn parts_section(data: &[Data]) -> Option<Section> {
    let section = Section::new("By model, turn and group").paragraph(
        "A part is the requests that have one value in common. Its rates are over the windows of the whole run, so that the rates of all parts add up to those of the run; everything else is defined as for the whole.",
    );
    let mut section = Some(section);
    let mut is_empty = true;
    for data in data {
        for by in ["model", "turn", "group"] {
            let rows = rows(data, by);
            if rows.is_empty() {
                continue;
            }
            is_empty = false;
            section = section.map(|section| add(section, data, by, &rows));
        }
    }
    section.filter(|_| !is_empty)
}

/// The parts of one sample.
type Rows<'a> = (&'a Sample, Vec<&'a Part>);

fn rows<'a>(data: &'a Data, by: &str) -> Vec<Rows<'a>> {
    let of = |(sample, parts): (&'a Sample, &'a [Part])| {
        let parts: Vec<&Part> = parts.iter().filter(|p| p.by == by).collect();
        (!parts.is_empty()).then_some((sample, parts))
    };
    data.parts().filter_map(of).collect()
}

fn add(section: Section, data: &Data, by: &str, rows: &[Rows<'_>]) -> Section {
    let section = section.table(table(data, by, rows));
    if by != "turn" {
        return section;
    }
    match chart(data, rows) {
        Some(chart) => section.chart(Chart::from(chart)),
        None => section.paragraph(format!(
            "{}: more than {INSTANCES} loads have no chart of their turns together.",
            data.name()
        )),
    }
}

fn table(data: &Data, by: &str, rows: &[Rows<'_>]) -> Table {
    let most = (ROWS / rows.len()).max(LEAST_ROWS);
    let longest = rows.iter().map(|(_, parts)| parts.len()).max().unwrap_or(0);
    let of = match data.stamp() {
        stamp if stamp.is_empty() => format!("{} by {by}", data.name()),
        stamp => format!("{} by {by}, {stamp}", data.name()),
    };
    let caption = match longest > most {
        true => format!(
            "{of}: the first {most} of up to {longest} parts of each sample; all are in its breakdown.parquet"
        ),
        false => of,
    };
    let has = |name: &&&str| {
        let mut parts = rows.iter().flat_map(|(_, parts)| parts);
        parts.any(|part| part.values.contains_key(**name))
    };
    let shown: Vec<&str> = COLUMNS.iter().filter(has).copied().collect();
    let mut columns: Vec<Column> = data
        .axes()
        .into_iter()
        .map(|axis| Column::number(axis, ""))
        .collect();
    columns.extend([
        Column::number("sample", ""),
        Column::text("verdict"),
        Column::text(by),
    ]);
    columns.extend(shown.iter().map(|name| measured(data, name)));
    let mut table = Table::new(columns).caption(caption);
    for (sample, parts) in rows {
        for part in parts.iter().take(most) {
            table = table.row(cells(sample, part, &shown));
        }
    }
    table
}

fn measured(data: &Data, name: &str) -> Column {
    let found = definition(data.definitions(), name);
    Column::number(name, found.map_or("", |d| d.unit.as_str()))
        .definition(found.map_or("", |d| d.formula.as_str()))
}

fn cells(sample: &Sample, part: &Part, shown: &[&str]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = sample.axes.iter().map(|(_, v)| axis_cell(v)).collect();
    cells.push(Cell::number(f64::from(sample.index + 1)));
    cells.push(Cell::grade(grade(sample.verdict.grade)).hint(sample.verdict.reasons.join("; ")));
    cells.push(Cell {
        sort: turn(part),
        ..Cell::text(part.title())
    });
    cells.extend(shown.iter().map(|name| {
        let value = part.values.get(*name);
        value.map_or_else(|| Cell::text("–"), |value| Cell::number(*value))
    }));
    cells
}

/// The number of a turn.
fn turn(part: &Part) -> Option<f64> {
    let is_turn = part.by == "turn";
    part.value.as_ref().filter(|_| is_turn)?.parse().ok()
}

/// The time to first token over turns; `None` if more loads were measured than one chart can
/// show apart.
fn chart(data: &Data, rows: &[Rows<'_>]) -> Option<LineChart> {
    let mut instances: BTreeMap<String, Vec<&Rows<'_>>> = BTreeMap::new();
    for row in rows {
        let axes = row.0.axes.iter();
        let name: Vec<String> = axes
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        instances.entry(name.join(", ")).or_default().push(row);
    }
    if instances.len() > INSTANCES {
        return None;
    }
    let mut chart = LineChart::new(
        format!("{}: TTFT by turn", data.name()),
        Axis::new("turn", ""),
        Axis::new("TTFT", "ms"),
    )
    .subtitle(data.stamp());
    for (name, rows) in &instances {
        for percentile in ["p50", "p99"] {
            let name = match name.as_str() {
                "" => percentile.to_owned(),
                name => format!("{percentile}, {name}"),
            };
            chart = chart.series(series(name, &format!("ttft_{percentile}_ms"), rows));
        }
    }
    Some(chart)
}

fn series(name: String, value: &str, rows: &[&Rows<'_>]) -> Series {
    let mut turns: BTreeMap<u64, Vec<(f64, charts::Grade)>> = BTreeMap::new();
    for (sample, parts) in rows {
        for part in parts {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a turn is a count"
            )]
            let turn = turn(part).map(|turn| turn as u64);
            if let (Some(turn), Some(value)) = (turn, part.values.get(value)) {
                let grade = grade(sample.verdict.grade);
                turns.entry(turn).or_default().push((*value, grade));
            }
        }
    }
    let mut series = Series::new(name);
    #[expect(clippy::cast_precision_loss, reason = "no conversation has 2^53 turns")]
    let points = turns
        .iter()
        .map(|(turn, values)| Point::new(*turn as f64, believed(values)));
    series.points.extend(points);
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(by: &str, value: Option<&str>, ttft: f64) -> Part {
        Part {
            by: by.to_owned(),
            value: value.map(str::to_owned),
            n_values: 1,
            values: [("ttft_p50_ms".to_owned(), ttft)].into_iter().collect(),
        }
    }

    #[test]
    fn only_turns_sort_by_their_number() {
        assert_eq!(turn(&part("turn", Some("12"), 1.0)), Some(12.0));
        assert_eq!(turn(&part("group", Some("12"), 1.0)), None);
        assert_eq!(turn(&part("turn", None, 1.0)), None);
    }
}
