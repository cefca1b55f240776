//! The data of charts as tables to unfold, for those who cannot or would not read a drawing.

use crate::model::{BarChart, Chart, HeatmapChart, LineChart, Panel, TimelineChart, TimelineRow};
use crate::page::table::{self, Cell, Column, Table};
use crate::reading::Reading;

/// Writes the data of a chart.
pub(crate) fn write(out: &mut String, chart: &Chart) {
    out.push_str("<details class=\"data\"><summary>Data</summary>\n");
    let tables = match chart {
        Chart::Line(chart) => vec![line_table(chart)],
        Chart::Bar(chart) => vec![bar_table(chart)],
        Chart::Heatmap(chart) => vec![heatmap_table(chart)],
        Chart::Timeline(chart) => timeline_tables(chart),
        Chart::Panels(panels) => panels.panels.iter().flat_map(panel_tables).collect(),
    };
    for table in &tables {
        table::write(out, table);
    }
    out.push_str("</details>\n");
}

/// The tables of one of several charts, each with its chart's title.
fn panel_tables(panel: &Panel) -> Vec<Table> {
    match panel {
        Panel::Line(chart) => vec![line_table(chart).caption(&chart.title)],
        Panel::Bar(chart) => vec![bar_table(chart).caption(&chart.title)],
        Panel::Heatmap(chart) => vec![heatmap_table(chart).caption(&chart.title)],
        Panel::Timeline(chart) => timeline_tables(chart),
    }
}

fn line_table(chart: &LineChart) -> Table {
    let mut table = Table::new(columns(
        Column::text("series"),
        Column::number(or(&chart.x.label, "x"), &chart.x.unit),
        Column::number(or(&chart.y.label, "value"), &chart.y.unit),
    ));
    for series in &chart.series {
        for point in &series.points {
            table
                .rows
                .push(row(&series.name, Cell::number(point.x), &point.y));
        }
    }
    table
}

fn bar_table(chart: &BarChart) -> Table {
    let mut table = Table::new(columns(
        Column::text("series"),
        Column::text(or(&chart.category_label, "category")),
        Column::number(or(&chart.value.label, "value"), &chart.value.unit),
    ));
    for series in &chart.series {
        for (category, reading) in chart.categories.iter().zip(&series.bars) {
            table
                .rows
                .push(row(&series.name, Cell::text(category), reading));
        }
    }
    table
}

fn heatmap_table(chart: &HeatmapChart) -> Table {
    let mut table = Table::new(columns(
        Column::text(or(&chart.row_label, "row")),
        Column::text(or(&chart.column_label, "column")),
        Column::number(or(&chart.value.label, "value"), &chart.value.unit),
    ));
    for (name, cells) in chart.rows.iter().zip(&chart.cells) {
        for (column, reading) in chart.columns.iter().zip(cells) {
            table.rows.push(row(name, Cell::text(column), reading));
        }
    }
    table
}

/// The spans, then each row with a column for each series.
fn timeline_tables(chart: &TimelineChart) -> Vec<Table> {
    let unit = &chart.time.unit;
    let mut spans = Table::new([
        Column::text("series"),
        Column::text("what"),
        Column::number("from", unit),
        Column::number("to", unit),
        Column::text("details"),
    ]);
    for span in chart.placed() {
        spans.rows.push(vec![
            Cell::text(&chart.series[span.series]),
            Cell::text(&span.label),
            Cell::number(span.from),
            Cell::number(span.to),
            Cell::text(span.details.join("; ")),
        ]);
    }
    let has_spans = !spans.rows.is_empty();
    let spans = has_spans.then(|| spans.caption(or(&chart.span_label, "spans")));
    let rows = chart.rows.iter().map(|row| timeline_table(chart, row));
    spans.into_iter().chain(rows).collect()
}

fn timeline_table(chart: &TimelineChart, row: &TimelineRow) -> Table {
    let time = Column::number(or(&chart.time.label, "time"), &chart.time.unit);
    let series = chart
        .series
        .iter()
        .map(|name| Column::number(name, &row.value.unit));
    let mut table = Table::new([time].into_iter().chain(series));
    for (i, at) in row.times.iter().enumerate() {
        let value = |series: usize| row.values.get(series).and_then(|v| *v.get(i)?);
        let values = (0..chart.series.len()).map(|series| Cell::from(value(series)));
        table
            .rows
            .push([Cell::number(*at)].into_iter().chain(values).collect());
    }
    table.caption(row.value.caption())
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn columns(series: Column, place: Column, value: Column) -> [Column; 7] {
    let unit = value.unit.clone();
    [
        series,
        place,
        value,
        Column::number("low", &unit).definition("lower end of the interval"),
        Column::number("high", &unit).definition("upper end of the interval"),
        Column::number("n", "").definition("number of samples"),
        Column::text("grade"),
    ]
}

fn row(series: &str, place: Cell, reading: &Reading) -> Vec<Cell> {
    let interval = reading.known_interval();
    let note = reading.note.clone().unwrap_or_default();
    vec![
        Cell::text(series),
        place,
        Cell::from(reading.known()),
        Cell::from(interval.map(|i| i.low)),
        Cell::from(interval.map(|i| i.high)),
        Cell::from(reading.samples.map(|n| n as f64)),
        Cell {
            text: note,
            ..Cell::grade(reading.grade)
        },
    ]
}
