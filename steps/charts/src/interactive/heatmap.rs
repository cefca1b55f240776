//! Heatmaps as plotly.js draws them: a bar for each cell, so that each is a mark with words of
//! its own. What the colours mean stands beside the figure, not in it.

use plotly::Bar;
use plotly::common::{ConstrainText, Font, HoverInfo, Line, Marker, TextAnchor, TextPosition};
use plotly::layout::{AxisRange, BarMode, Layout, UniformText, UniformTextMode};

use crate::drawing::{Cell, Content, Grid, OffScale};
use crate::interactive::bars::Based;
use crate::interactive::layout::{axis, frame};
use crate::interactive::{Traces, plain, traces::said};
use crate::reading::Grade;

/// Share of its place that a cell fills, along both axes.
const FILLED: f64 = 0.96;
/// Smallest number in a cell, in pixels; where that does not fit there is none.
const SMALLEST: usize = 9;

/// The axes: rows are read from the top.
pub(super) fn layout(grid: &Grid) -> Layout {
    let (low, high) = grid.rows.range;
    let rows = axis(&grid.rows).show_grid(false);
    frame()
        .show_legend(false)
        .bar_mode(BarMode::Overlay)
        .uniform_text(
            UniformText::new()
                .mode(UniformTextMode::Hide)
                .min_size(SMALLEST),
        )
        .x_axis(axis(&grid.columns).show_grid(false))
        .y_axis(rows.range(AxisRange::new(high, low)))
}

/// Cells that are coloured, cells that cannot be believed, and cells without a value.
pub(super) fn traces(grid: &Grid) -> Traces {
    let is_hollow = |cell: &&Cell| cell.grade == Grade::Invalid;
    let (mut solid, mut hollow, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for cell in &grid.cells {
        match &cell.content {
            Content::Value { .. } if is_hollow(&cell) => hollow.push(cell),
            Content::Value { .. } => solid.push(cell),
            Content::OffScale(_) => gaps.push(cell),
        }
    }
    let surface = || Marker::new().color("@surface");
    let edge = || Line::new().color("@grid").width(1.0);
    let looks = [
        // With an edge, because a value at zero has the colour of the surface.
        (solid, Marker::new().line(edge())),
        (
            hollow,
            surface().line(Line::new().color("@muted").width(1.2)),
        ),
        (gaps, surface().line(edge())),
    ];
    looks
        .into_iter()
        .filter(|(cells, _)| !cells.is_empty())
        .map(|(cells, marker)| bars(&cells, coloured(&cells, marker)))
        .collect()
}

/// Colours the cells, if it is colours that they show.
fn coloured(cells: &[&Cell], marker: Marker) -> Marker {
    let token = |cell: &&Cell| match cell.content {
        Content::Value { tint, .. } if cell.grade != Grade::Invalid => Some(tint.token()),
        _ => None,
    };
    match cells.iter().map(token).collect::<Option<Vec<String>>>() {
        Some(tokens) => marker.color_array(tokens),
        None => marker,
    }
}

fn bars(cells: &[&Cell], marker: Marker) -> Box<dyn plotly::Trace> {
    let columns = cells.iter().map(|cell| cell.column as f64).collect();
    let base = cells.iter().map(|cell| cell.row as f64 - FILLED / 2.0);
    let bars = Bar::new(columns, vec![FILLED; cells.len()])
        .width(FILLED)
        .marker(marker)
        .text_array(cells.iter().map(|cell| text(cell)).collect::<Vec<_>>())
        .text_position(TextPosition::Inside)
        .inside_text_anchor(TextAnchor::Middle)
        .constrain_text(ConstrainText::Inside)
        .text_angle(0.0)
        .text_font(Font::new().size(13).color("@text"))
        .hover_text_array(
            cells
                .iter()
                .map(|cell| said(&cell.words))
                .collect::<Vec<_>>(),
        )
        .hover_info(HoverInfo::Text);
    Based::trace(*bars, base.collect())
}

/// The number and, if it is doubted, how far.
fn text(cell: &Cell) -> String {
    match (&cell.content, cell.grade) {
        (Content::Value { text, .. }, Grade::Valid) => plain(text),
        (Content::Value { text, .. }, grade) => format!("{}<br>{}", plain(text), grade.word()),
        (Content::OffScale(OffScale::Infinite), _) => "∞".to_owned(),
        (Content::OffScale(OffScale::Missing), _) => "×".to_owned(),
        (Content::OffScale(OffScale::NotPositive), _) => "≤ 0".to_owned(),
    }
}
