//! Line charts: which neighbours are joined, and how.

use crate::drawing::ruler::{Ruler, Zero};
use crate::drawing::{Drawing, Mark, Place, Strokes, words};
use crate::model::{Direction, IntervalStyle, LineChart, Point, Series};
use crate::reading::Grade;
use crate::theme::Ink;

pub(crate) fn draw(chart: &LineChart) -> Drawing {
    draw_beside(chart, &[chart])
}

/// Draws a chart with the scales that suit `others` of the same axes, too.
pub(crate) fn draw_beside(chart: &LineChart, others: &[&LineChart]) -> Drawing {
    let alike: Vec<&LineChart> = others
        .iter()
        .filter(|other| (&other.x, &other.y) == (&chart.x, &chart.y))
        .copied()
        .collect();
    let (base, value) = rulers(chart, &alike);
    let held = chart.references.iter().filter(|r| value.holds(r.value));
    let mut drawing = Drawing {
        title: chart.title.clone(),
        subtitle: chart.subtitle.clone(),
        references: held.cloned().collect(),
        base,
        value,
        direction: Direction::Vertical,
        stacked: false,
        series: Vec::new(),
        notes: chart.notes.clone(),
    };
    for (i, series) in chart.series.iter().enumerate() {
        let strokes = strokes(chart, &drawing, series, Ink::of(series.ink.unwrap_or(i)));
        let unplaced = strokes
            .marks
            .iter()
            .filter(|m| m.place == Place::Unplaced)
            .count();
        if unplaced > 0 {
            drawing
                .notes
                .push(words::unplaced(&series.name, unplaced, &chart.x));
        }
        drawing.series.push(strokes);
    }
    drawing
}

/// The axes of a chart, with room for all points of `charts`.
fn rulers(chart: &LineChart, charts: &[&LineChart]) -> (Ruler, Ruler) {
    let series = || charts.iter().flat_map(|chart| &chart.series);
    let points = || series().flat_map(|series| &series.points);
    let references = charts.iter().flat_map(|chart| &chart.references);
    let places: Vec<f64> = points().map(|point| point.x).collect();
    let base = Ruler::of_places(chart.x.caption(), chart.x.scale, &places);
    let value = Ruler::of_values(
        chart.y.caption(),
        chart.y.scale,
        points()
            .flat_map(extremes)
            .chain(references.map(|reference| reference.value)),
        Zero::IfNear,
    );
    (base, value)
}

/// Everything about a point that the value axis should show.
fn extremes(point: &Point) -> impl Iterator<Item = f64> {
    let interval = point
        .y
        .known_interval()
        .filter(|_| point.y.known().is_some());
    let ends = interval.map(|i| [i.low, i.high]).into_iter().flatten();
    point.y.known().into_iter().chain(ends)
}

fn strokes(chart: &LineChart, drawing: &Drawing, series: &Series, ink: Ink) -> Strokes {
    let marks = series
        .points
        .iter()
        .map(|point| mark(chart, drawing, series, point))
        .collect();
    let mut strokes = Strokes {
        name: series.name.clone(),
        ink,
        solid: Vec::new(),
        dotted: Vec::new(),
        band: Vec::new(),
        marks,
    };
    join(&mut strokes, &series.points);
    if chart.intervals == IntervalStyle::Band {
        shade(&mut strokes, &series.points);
    }
    strokes
}

fn mark(chart: &LineChart, drawing: &Drawing, series: &Series, point: &Point) -> Mark {
    let value_ruler = &drawing.value;
    let off_scale = words::off_scale(&point.y, |v| value_ruler.holds(v));
    let place = match (drawing.base.place(point.x), off_scale, point.y.known()) {
        (None, ..) => Place::Unplaced,
        (Some(at), None, Some(value)) => Place::Dot { at, value },
        (Some(at), why, _) => Place::OffScale {
            at,
            why: why.unwrap_or(super::OffScale::Missing),
        },
    };
    let whisker = match place {
        Place::Dot { .. } => point
            .y
            .known_interval()
            .map(|i| (value_ruler.cut(i.low), value_ruler.cut(i.high))),
        _ => None,
    };
    let where_ = words::quantity(&chart.x, point.x);
    Mark {
        place,
        grade: point.y.grade,
        whisker,
        words: words::about(&series.name, where_, &chart.y, &point.y),
    }
}

/// Joins neighbours: solid where both ends are to be believed, dotted where one is not, and
/// not at all across a value that is off the scale.
fn join(strokes: &mut Strokes, points: &[Point]) {
    let mut run: Vec<(f64, f64)> = Vec::new();
    let mut before: Option<((f64, f64), bool)> = None;
    for (mark, point) in strokes.marks.iter().zip(points) {
        let here = match mark.place {
            Place::Dot { at, value } => Some((
                (at, value),
                mark.grade != Grade::Invalid && point.x.is_finite(),
            )),
            _ => None,
        };
        match (before, here) {
            (Some((_, true)), Some((to, true))) => run.push(to),
            (Some((from, _)), Some((to, firm))) => {
                strokes.dotted.push([from, to]);
                close(&mut run, &mut strokes.solid);
                run.extend(firm.then_some(to));
            }
            (None, Some((to, firm))) => run.extend(firm.then_some(to)),
            (_, None) => close(&mut run, &mut strokes.solid),
        }
        before = here;
    }
    close(&mut run, &mut strokes.solid);
}

/// Shades the intervals of neighbours that are both to be believed, in place of whiskers.
fn shade(strokes: &mut Strokes, points: &[Point]) {
    let mut run: Vec<(f64, f64, f64)> = Vec::new();
    for (mark, point) in strokes.marks.iter_mut().zip(points) {
        let firm = mark.grade != Grade::Invalid && point.x.is_finite();
        match (mark.place, mark.whisker) {
            (Place::Dot { at, .. }, Some((low, high))) if firm => {
                run.push((at, low, high));
                mark.whisker = None;
            }
            _ => close(&mut run, &mut strokes.band),
        }
    }
    close(&mut run, &mut strokes.band);
}

/// Ends a run; a single point joins nothing.
fn close<T>(run: &mut Vec<T>, runs: &mut Vec<Vec<T>>) {
    let done = std::mem::take(run);
    if done.len() > 1 {
        runs.push(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::OffScale;
    use crate::model::Axis;
    use crate::reading::Reading;

    fn chart(series: Series) -> LineChart {
        LineChart::new("t", Axis::new("x", ""), Axis::new("y", "")).series(series)
    }

    #[test]
    fn lines_break_at_gaps_and_turn_dotted_at_invalid_points() {
        let series = Series::new("s")
            .point(1.0, 1.0)
            .point(2.0, 2.0)
            .point(3.0, f64::INFINITY)
            .point(4.0, 4.0)
            .point(5.0, 5.0)
            .point(6.0, Reading::new(6.0).grade(Grade::Invalid))
            .point(7.0, 7.0);
        let strokes = &draw(&chart(series)).series[0];
        assert_eq!(
            strokes.solid,
            [vec![(1.0, 1.0), (2.0, 2.0)], vec![(4.0, 4.0), (5.0, 5.0)]]
        );
        assert_eq!(
            strokes.dotted,
            [[(5.0, 5.0), (6.0, 6.0)], [(6.0, 6.0), (7.0, 7.0)]]
        );
        assert_eq!(
            strokes.marks[2].place,
            Place::OffScale {
                at: 3.0,
                why: OffScale::Infinite
            }
        );
    }

    #[test]
    fn a_value_off_the_scale_never_becomes_zero() {
        let series = Series::new("s")
            .point(1.0, 5.0)
            .point(2.0, None)
            .point(3.0, 0.0);
        let mut chart = chart(series);
        chart.y.scale = crate::model::Scale::Log;
        let drawing = draw(&chart);
        assert_eq!(
            drawing.off_scale(),
            [OffScale::Missing, OffScale::NotPositive]
        );
        assert!(
            drawing
                .marks()
                .all(|mark| !matches!(mark.place, Place::Dot { value: 0.0, .. }))
        );
    }

    #[test]
    fn a_point_without_a_place_is_counted_in_a_note() {
        let drawing = draw(&chart(
            Series::new("s").point(f64::NAN, 1.0).point(1.0, 1.0),
        ));
        assert_eq!(drawing.marks().count(), 2);
        assert!(drawing.notes[0].starts_with("1 point has no place on the x axis"));
    }

    #[test]
    fn bands_replace_whiskers_only_where_they_are_drawn() {
        let series = Series::new("s")
            .point(1.0, Reading::new(1.0).interval(0.5, 1.5))
            .point(2.0, Reading::new(2.0).interval(1.5, f64::INFINITY))
            .point(
                3.0,
                Reading::new(2.0).interval(1.5, 2.5).grade(Grade::Invalid),
            );
        let drawing = draw(&chart(series).bands());
        let strokes = &drawing.series[0];
        assert_eq!(
            strokes.band,
            [vec![(1.0, 0.5, 1.5), (2.0, 1.5, drawing.value.range.1)]]
        );
        assert_eq!(strokes.marks[0].whisker, None);
        assert_eq!(strokes.marks[2].whisker, Some((1.5, 2.5)));
    }

    #[test]
    fn a_reference_is_on_the_scale_and_series_keep_their_inks() {
        let series = Series::new("s").point(1.0, 2.0).point(2.0, 3.0).ink(4);
        let drawing = draw(&chart(series.clone()).reference(5.0, "most"));
        assert!(drawing.value.range.1 >= 5.0);
        assert_eq!(drawing.series[0].ink, Ink::of(4));
        let mut log = chart(series).reference(0.0, "none");
        log.y.scale = crate::model::Scale::Log;
        assert!(draw(&log).references.is_empty());
    }

    #[test]
    fn charts_beside_each_other_share_scales_if_their_axes_are_alike() {
        let (low, high) = (
            chart(Series::new("s").point(1.0, 1.0)),
            chart(Series::new("s").point(8.0, 900.0)),
        );
        let mut other = chart(Series::new("s").point(64.0, 1e6));
        other.y.unit = "ms".to_owned();
        let all = [&low, &high, &other];
        let (a, b) = (draw_beside(&low, &all), draw_beside(&high, &all));
        assert_eq!(a.value.range, b.value.range);
        assert_eq!((a.base.range, a.base.ticks), (b.base.range, b.base.ticks));
        assert_eq!(b.value.range, (0.0, 1000.0));
        assert!(draw_beside(&other, &all).value.range.1 >= 1e6);
    }

    #[test]
    fn an_infinite_request_rate_stands_at_the_right_edge() {
        let drawing = draw(&chart(
            Series::new("s").point(1.0, 1.0).point(f64::INFINITY, 3.0),
        ));
        assert!(drawing.series[0].solid.is_empty());
        assert_eq!(drawing.series[0].dotted.len(), 1);
        assert!(drawing.notes.is_empty());
    }
}
