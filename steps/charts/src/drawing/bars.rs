//! Bar charts: where each bar stands and between which values it reaches.

use crate::drawing::ruler::{Ruler, Zero};
use crate::drawing::{Drawing, Mark, OffScale, Place, Strokes, words};
use crate::model::{Arrangement, BarChart, Scale};
use crate::reading::Reading;
use crate::theme::Ink;

/// Share of a category's width that its bars take up together.
const FILLED: f64 = 0.74;

pub(crate) fn draw(chart: &BarChart) -> Drawing {
    let spans = spans(chart);
    let shown = spans.iter().flatten().flat_map(|span| span.shown());
    let value = Ruler::of_values(chart.value.caption(), chart.value.scale, shown, Zero::Shown);
    let series = spans
        .iter()
        .enumerate()
        .map(|(i, spans)| strokes(chart, &value, i, spans))
        .collect();
    let mut notes = chart.notes.clone();
    notes.extend(surplus(chart));
    Drawing {
        title: chart.title.clone(),
        subtitle: chart.subtitle.clone(),
        base: Ruler::of_categories(chart.category_label.clone(), &chart.categories),
        value,
        direction: chart.direction,
        stacked: chart.arrangement == Arrangement::Stacked,
        series,
        references: Vec::new(),
        notes,
    }
}

/// One bar between its values, before the axis is known.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Where the bar starts; zero unless it stands on another.
    from: f64,
    /// Where it ends, or why it has no end.
    to: Result<f64, OffScale>,
    /// Both ends of its interval, moved along with it.
    interval: Option<(f64, f64)>,
}

impl Span {
    /// What the value axis should show.
    fn shown(self) -> impl Iterator<Item = f64> {
        let interval = self.interval.filter(|_| self.to.is_ok());
        self.to
            .ok()
            .into_iter()
            .chain(interval.into_iter().flat_map(|(low, high)| [low, high]))
    }
}

/// All bars, by series and then category. Stacked values pile up away from zero, the negative
/// ones downwards; what is off the scale adds nothing.
fn spans(chart: &BarChart) -> Vec<Vec<Span>> {
    let mut tops = vec![(0.0, 0.0); chart.categories.len()];
    let holds = |v: f64| chart.value.scale == Scale::Linear || v > 0.0;
    let span = |reading: &Reading, (up, down): &mut (f64, f64)| {
        let to = match words::off_scale(reading, holds) {
            Some(why) => Err(why),
            None => reading.known().ok_or(OffScale::Missing),
        };
        let stacked = chart.arrangement == Arrangement::Stacked;
        let from = match to {
            Ok(value) if stacked && value < 0.0 => *down,
            Ok(_) if stacked => *up,
            _ => 0.0,
        };
        if let (Ok(value), true) = (to, stacked) {
            *(if value < 0.0 { down } else { up }) += value;
        }
        let interval = reading
            .known_interval()
            .map(|i| (from + i.low, from + i.high));
        Span {
            from,
            to: to.map(|value| from + value),
            interval,
        }
    };
    let missing = Reading::default();
    chart
        .series
        .iter()
        .map(|series| {
            let bars = series.bars.iter().chain(std::iter::repeat(&missing));
            bars.zip(&mut tops)
                .map(|(bar, top)| span(bar, top))
                .collect()
        })
        .collect()
}

fn strokes(chart: &BarChart, value: &Ruler, index: usize, spans: &[Span]) -> Strokes {
    let series = &chart.series[index];
    let missing = Reading::default();
    let marks = spans
        .iter()
        .enumerate()
        .map(|(category, span)| {
            let reading = series.bars.get(category).unwrap_or(&missing);
            let (at, width) = slot(chart, index, category);
            let name = chart.categories[category].clone();
            Mark {
                place: place(value, at, width, span),
                grade: reading.grade,
                whisker: span
                    .interval
                    .filter(|_| span.to.is_ok())
                    .map(|(low, high)| (value.cut(low), value.cut(high))),
                words: words::about(&series.name, name, &chart.value, reading),
            }
        })
        .collect();
    Strokes {
        name: series.name.clone(),
        ink: Ink::of(index),
        solid: Vec::new(),
        dotted: Vec::new(),
        band: Vec::new(),
        marks,
    }
}

fn place(value: &Ruler, at: f64, width: f64, span: &Span) -> Place {
    match span.to {
        Ok(to) => Place::Bar {
            at,
            width,
            from: value.cut(span.from),
            to,
        },
        Err(why) => Place::OffScale { at, why },
    }
}

/// Middle and width of a bar along the category axis, where categories are one apart.
fn slot(chart: &BarChart, series: usize, category: usize) -> (f64, f64) {
    let centre = category as f64;
    match chart.arrangement {
        Arrangement::Stacked => (centre, FILLED * 0.8),
        Arrangement::Grouped => {
            let n = chart.series.len().max(1) as f64;
            let width = FILLED / n;
            (
                centre - FILLED / 2.0 + (series as f64 + 0.5) * width,
                width * 0.94,
            )
        }
    }
}

/// Sentences about series that have more bars than there are categories.
fn surplus(chart: &BarChart) -> impl Iterator<Item = String> {
    let n = chart.categories.len();
    chart
        .series
        .iter()
        .filter(move |series| series.bars.len() > n)
        .map(move |series| {
            let extra = series.bars.len() - n;
            let values = if extra == 1 {
                "value belongs"
            } else {
                "values belong"
            };
            format!(
                "{extra} {values} to no category and could not be drawn ({})",
                series.name
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Axis;

    fn chart() -> BarChart {
        BarChart::new("t", Axis::new("y", ""), ["a", "b"])
            .series("one", [1.0, 2.0])
            .series("two", [3.0, -4.0])
    }

    fn bar(drawing: &Drawing, series: usize, category: usize) -> (f64, f64) {
        match drawing.series[series].marks[category].place {
            Place::Bar { from, to, .. } => (from, to),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn grouped_bars_start_at_zero_and_do_not_overlap() {
        let drawing = draw(&chart());
        assert_eq!(bar(&drawing, 0, 0), (0.0, 1.0));
        assert_eq!(bar(&drawing, 1, 1), (0.0, -4.0));
        assert!(drawing.value.range.0 <= -4.0 && drawing.value.range.1 >= 3.0);
        let mut edges: Vec<(f64, f64)> = drawing
            .marks()
            .filter_map(|mark| match mark.place {
                Place::Bar { at, width, .. } => Some((at - width / 2.0, at + width / 2.0)),
                _ => None,
            })
            .collect();
        edges.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(edges.len(), 4);
        assert!(edges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn stacked_bars_pile_up_away_from_zero() {
        let drawing = draw(&chart().series("three", [1.0, -1.0]).stacked());
        assert_eq!(bar(&drawing, 1, 0), (1.0, 4.0));
        assert_eq!(bar(&drawing, 2, 0), (4.0, 5.0));
        assert_eq!(bar(&drawing, 1, 1), (0.0, -4.0));
        assert_eq!(bar(&drawing, 2, 1), (-4.0, -5.0));
    }

    #[test]
    fn what_is_off_the_scale_adds_nothing_to_a_stack() {
        let chart = BarChart::new("t", Axis::new("y", ""), ["a"])
            .series("one", [f64::INFINITY])
            .series("two", [2.0])
            .series("three", Vec::<f64>::new())
            .stacked();
        let drawing = draw(&chart);
        assert_eq!(drawing.off_scale(), [OffScale::Infinite, OffScale::Missing]);
        assert_eq!(bar(&drawing, 1, 0), (0.0, 2.0));
        assert_eq!(drawing.marks().count(), 3);
    }

    #[test]
    fn surplus_values_are_told_of() {
        let chart = BarChart::new("t", Axis::new("y", ""), ["a"]).series("one", [1.0, 2.0]);
        assert!(draw(&chart).notes[0].contains("1 value belongs to no category"));
    }
}
