//! Heatmaps: which colour and which text each cell has.

use std::collections::BTreeMap;

use crate::drawing::ruler::{Ruler, Tick, Zero};
use crate::drawing::{OffScale, distinct, words};
use crate::model::{Colours, HeatmapChart, Scale};
use crate::number::{format_fixed, format_number};
use crate::reading::{Grade, Reading};
use crate::theme::{Hue, Tint};

/// A heatmap ready to be drawn.
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Left to right.
    pub(crate) columns: Ruler,
    /// Top to bottom.
    pub(crate) rows: Ruler,
    /// What the colours mean.
    pub(crate) value: Ruler,
    pub(crate) colours: Colours,
    /// Exactly one for each pair of a row and a column, row by row.
    pub(crate) cells: Vec<Cell>,
    pub(crate) notes: Vec<String>,
}

/// One value.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) column: usize,
    pub(crate) row: usize,
    pub(crate) content: Content,
    pub(crate) grade: Grade,
    /// What is said about the value, line by line; the first line is the place.
    pub(crate) words: Vec<String>,
}

/// What a cell shows.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Value { tint: Tint, text: String },
    OffScale(OffScale),
}

impl Grid {
    /// The colour at a place along the scale of the values: 0 at its low end, 1 at its high end.
    pub(crate) fn tint(&self, share: f64) -> Tint {
        tint(&self.colours, share)
    }

    /// The grades to be explained among cells that have a value: a valid cell has no mark.
    pub(crate) fn grades(&self) -> Vec<Grade> {
        let has_mark = |cell: &&Cell| {
            matches!(cell.content, Content::Value { .. }) && cell.grade != Grade::Valid
        };
        distinct(self.cells.iter().filter(has_mark).map(|cell| cell.grade))
    }

    /// Which reasons for being off the scale occur.
    pub(crate) fn off_scale(&self) -> Vec<OffScale> {
        distinct(self.cells.iter().filter_map(|cell| match cell.content {
            Content::OffScale(why) => Some(why),
            Content::Value { .. } => None,
        }))
    }
}

pub(crate) fn draw(chart: &HeatmapChart) -> Grid {
    let value = ruler(chart);
    let decimals = decimals(chart);
    let missing = Reading::default();
    let mut cells = Vec::with_capacity(chart.n_points());
    for row in 0..chart.rows.len() {
        for column in 0..chart.columns.len() {
            let reading = reading(chart, row, column).unwrap_or(&missing);
            let content = match words::off_scale(reading, |v| value.holds(v)) {
                Some(why) => Content::OffScale(why),
                None => {
                    let known = reading.known().unwrap_or(f64::NAN);
                    Content::Value {
                        tint: tint(&chart.colours, value.share(known)),
                        text: text(chart, known, decimals),
                    }
                }
            };
            cells.push(Cell {
                column,
                row,
                content,
                grade: reading.grade,
                words: words::about(
                    &place(chart, row, column),
                    String::new(),
                    &chart.value,
                    reading,
                ),
            });
        }
    }
    let mut notes = chart.notes.clone();
    notes.extend(gaps(chart));
    notes.extend(surplus(chart));
    Grid {
        title: chart.title.clone(),
        subtitle: chart.subtitle.clone(),
        columns: Ruler::of_categories(chart.column_label.clone(), &chart.columns),
        rows: Ruler::of_categories(chart.row_label.clone(), &chart.rows),
        value,
        colours: chart.colours.clone(),
        cells,
        notes,
    }
}

fn reading(chart: &HeatmapChart, row: usize, column: usize) -> Option<&Reading> {
    chart.cells.get(row)?.get(column)
}

/// All values that have a place in the grid.
fn readings(chart: &HeatmapChart) -> impl Iterator<Item = &Reading> {
    let rows = chart.cells.iter().take(chart.rows.len());
    rows.flat_map(|row| row.iter().take(chart.columns.len()))
}

fn ruler(chart: &HeatmapChart) -> Ruler {
    let values = readings(chart).filter_map(Reading::known);
    let caption = chart.value.caption();
    let mut ruler = match chart.colours {
        Colours::Sequential => Ruler::of_values(caption, chart.value.scale, values, Zero::IfNear),
        Colours::Diverging { .. } => Ruler::around_zero(caption, values),
    };
    if chart.colours != Colours::Sequential {
        for tick in ruler.ticks.iter_mut().filter(|tick| tick.at > 0.0) {
            tick.text.insert(0, '+');
        }
    }
    thin(&mut ruler);
    ruler
}

/// Leaves out ticks until their labels fit beside each other on a scale of colours; zero stays.
fn thin(ruler: &mut Ruler) {
    /// Share of the scale that a character takes, and that stays free between labels.
    const ROOM: (f64, f64) = (0.028, 0.02);
    let half = |tick: &Tick| tick.text.chars().count() as f64 * ROOM.0 / 2.0;
    let place = |tick: &Tick| ruler.share(tick.at);
    let kept = |step: usize| -> Vec<Tick> {
        let zero = ruler.ticks.iter().position(|tick| tick.at == 0.0);
        let first = zero.unwrap_or(0) % step;
        ruler
            .ticks
            .iter()
            .skip(first)
            .step_by(step)
            .cloned()
            .collect()
    };
    let fits = |ticks: &Vec<Tick>| {
        ticks.windows(2).all(|pair| {
            let apart = place(&pair[1]) - place(&pair[0]);
            apart >= half(&pair[0]) + half(&pair[1]) + ROOM.1
        })
    };
    let found = (1..=ruler.ticks.len()).map(kept).find(fits);
    ruler.ticks = found.unwrap_or_default();
}

fn tint(colours: &Colours, share: f64) -> Tint {
    let (hue, share) = match colours {
        Colours::Sequential => (Hue::Cool, share),
        Colours::Diverging { .. } if share < 0.5 => (Hue::Cool, 1.0 - 2.0 * share),
        Colours::Diverging { .. } => (Hue::Warm, 2.0 * share - 1.0),
    };
    let share = share.clamp(0.0, 1.0);
    Tint { hue, share }
}

/// How many decimals all values have: enough to give the largest three significant digits, but no
/// more than two where it is not small; `None` where values are too different or too small to
/// have equally many.
fn decimals(chart: &HeatmapChart) -> Option<usize> {
    let finite = || {
        let known = readings(chart).filter_map(Reading::known);
        known.filter(|value| value.is_finite())
    };
    let most = finite().map(f64::abs).fold(0.0, f64::max);
    let is_log = chart.colours == Colours::Sequential && chart.value.scale == Scale::Log;
    if is_log || most >= 1e15 || (most > 0.0 && most < 1e-3) {
        return None;
    }
    if finite().all(|value| value.fract() == 0.0) {
        return Some(0);
    }
    // The exponent of the leading digit, between -3 and 14 here.
    let decimals = (2 - most.log10().floor() as i32).max(0) as usize;
    Some(if most < 0.1 {
        decimals
    } else {
        decimals.min(2)
    })
}

/// The number in a cell; signed where the sign is what matters.
fn text(chart: &HeatmapChart, value: f64, decimals: Option<usize>) -> String {
    let text = decimals.map_or_else(|| format_number(value), |n| format_fixed(value, n));
    let is_zero = !text.contains(|c: char| ('1'..='9').contains(&c));
    if chart.colours == Colours::Sequential || is_zero || value < 0.0 {
        text
    } else {
        format!("+{text}")
    }
}

/// `request rate (requests/s) 4, alpha 0.5`.
fn place(chart: &HeatmapChart, row: usize, column: usize) -> String {
    let named = |label: &str, name: &str| format!("{label} {name}").trim().to_owned();
    let column = named(&chart.column_label, &chart.columns[column]);
    let row = named(&chart.row_label, &chart.rows[row]);
    format!("{column}, {row}")
}

/// Sentences about cells without a value, one for each reason that is known.
fn gaps(chart: &HeatmapChart) -> Vec<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reading in readings(chart).filter(|reading| reading.known().is_none()) {
        if let Some(note) = &reading.note {
            *reasons.entry(note).or_default() += 1;
        }
    }
    let sentence = |(reason, n): (&str, usize)| match n {
        1 => format!("1 cell is empty: {reason}"),
        n => format!("{n} cells are empty: {reason}"),
    };
    reasons.into_iter().map(sentence).collect()
}

/// A sentence about values beyond the rows and columns.
fn surplus(chart: &HeatmapChart) -> Option<String> {
    let all: usize = chart.cells.iter().map(Vec::len).sum();
    match all - readings(chart).count() {
        0 => None,
        1 => Some("1 value belongs to no cell and could not be drawn".to_owned()),
        n => Some(format!(
            "{n} values belong to no cell and could not be drawn"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Axis;

    fn chart() -> HeatmapChart {
        HeatmapChart::new("t", Axis::new("gain", "× base"), ["1", "2"]).labels("rate", "alpha")
    }

    fn texts(grid: &Grid) -> Vec<&str> {
        grid.cells
            .iter()
            .filter_map(|cell| match &cell.content {
                Content::Value { text, .. } => Some(text.as_str()),
                Content::OffScale(_) => None,
            })
            .collect()
    }

    fn tint_of(grid: &Grid, cell: usize) -> Tint {
        match grid.cells[cell].content {
            Content::Value { tint, .. } => tint,
            Content::OffScale(why) => panic!("{why:?}"),
        }
    }

    #[test]
    fn differences_are_coloured_by_their_side_and_signed() {
        let grid = draw(
            &chart()
                .diverging("less", "more")
                .row("a", [0.25, -0.4])
                .row("b", [0.0, -0.0004]),
        );
        assert_eq!(texts(&grid), ["+0.25", "−0.40", "0.00", "0.00"]);
        assert_eq!(grid.value.range, (-0.4, 0.4));
        let (warm, cool) = (tint_of(&grid, 0), tint_of(&grid, 1));
        assert_eq!((warm.hue, cool.hue), (Hue::Warm, Hue::Cool));
        assert!((warm.share - 0.625).abs() < 1e-9 && (cool.share - 1.0).abs() < 1e-9);
        assert!(tint_of(&grid, 2).share < 1e-9);
        assert!(grid.value.ticks.iter().any(|tick| tick.text == "+0.2"));
    }

    #[test]
    fn larger_values_have_stronger_colours() {
        let grid = draw(&chart().row("a", [10.0, 40.0]).row("b", [1200.0, 30.0]));
        assert_eq!(texts(&grid), ["10", "40", "1,200", "30"]);
        assert!(tint_of(&grid, 0).share < tint_of(&grid, 1).share);
        assert!(tint_of(&grid, 2).share <= 1.0);
    }

    #[test]
    fn labels_of_the_scale_fit_beside_each_other_and_zero_stays() {
        let texts = |chart: HeatmapChart| -> Vec<String> {
            let ticks = draw(&chart).value.ticks;
            ticks.into_iter().map(|tick| tick.text).collect()
        };
        let long = texts(chart().row("a", [300.0, 26_154.0]));
        assert_eq!(long, ["0", "10,000", "20,000", "30,000"]);
        let short = texts(chart().diverging("", "").row("a", [0.5, -0.6]));
        assert_eq!(short, ["−0.6", "−0.4", "−0.2", "0", "+0.2", "+0.4", "+0.6"]);
        let signed = texts(chart().diverging("", "").row("a", [-29_000.0, 1.0]));
        assert!(signed.contains(&"0".to_owned()) && signed.len() < 7);
    }

    #[test]
    fn every_pair_has_a_cell_and_what_is_empty_says_why() {
        let grid = draw(
            &chart()
                .row(
                    "a",
                    [
                        Reading::missing("no `single` here"),
                        Reading::new(f64::INFINITY),
                    ],
                )
                .row("b", [1.0]),
        );
        let places: Vec<(usize, usize)> = grid.cells.iter().map(|c| (c.row, c.column)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(grid.off_scale(), [OffScale::Infinite, OffScale::Missing]);
        assert_eq!(grid.notes, ["1 cell is empty: no `single` here"]);
        assert_eq!(grid.cells[0].words[0], "rate 1, alpha a");
    }

    #[test]
    fn values_without_a_cell_are_told_of() {
        let grid = draw(&chart().row("a", [1.0, 2.0, 3.0]));
        assert_eq!(grid.cells.len(), 2);
        assert!(grid.notes[0].starts_with("1 value belongs to no cell"));
    }

    #[test]
    fn numbers_too_small_or_too_different_keep_their_own_digits() {
        let grid = draw(&chart().row("a", [0.000_012, 0.000_5]));
        assert_eq!(texts(&grid), ["1.2e−5", "0.0005"]);
        let grid = draw(&chart().diverging("", "").row("a", [0.0123, -0.0004]));
        assert_eq!(texts(&grid), ["+0.0123", "−0.0004"]);
        let mut log = chart().row("a", [0.5, 12_000.0]);
        log.value.scale = Scale::Log;
        assert_eq!(texts(&draw(&log)), ["0.5", "12,000"]);
    }
}
