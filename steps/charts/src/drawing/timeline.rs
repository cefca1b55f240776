//! Timelines: lines and areas over one axis of time, and the tracks of what happened.

use crate::drawing::ruler::{Ruler, Zero};
use crate::drawing::words;
use crate::model::{
    Axis, Reference, RowArrangement, Scale, Span, SpanFill, TimelineChart, TimelineRow,
};
use crate::number::format_number;

/// A timeline ready to be drawn.
#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) time: Ruler,
    /// Names; the ink of each is that of its index.
    pub(crate) series: Vec<String>,
    /// Top to bottom.
    pub(crate) lanes: Vec<Lane>,
    /// What the spans are; may be empty.
    pub(crate) span_label: String,
    /// One for each series with spans, in the order of series.
    pub(crate) tracks: Vec<Track>,
    pub(crate) notes: Vec<String>,
}

/// One quantity over time.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) value: Ruler,
    pub(crate) threads: Vec<Thread>,
    pub(crate) references: Vec<Reference>,
}

/// One series of a lane.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) series: usize,
    /// Lines: neighbours without a gap between them.
    pub(crate) runs: Vec<Vec<Dot>>,
    /// Areas: runs of `(time, low, high)`.
    pub(crate) band: Vec<Vec<(f64, f64, f64)>>,
}

/// A value of a line.
#[derive(Debug)]
pub(crate) struct Dot {
    pub(crate) at: f64,
    /// Where the line is: in a stack the sum of this series and those below.
    pub(crate) value: f64,
    /// What is said about it, line by line; the first line is the series.
    pub(crate) words: Vec<String>,
}

/// What happened to one series.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) series: usize,
    pub(crate) stretches: Vec<Stretch>,
}

/// A span on its track.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) from: f64,
    /// Not before `from`.
    pub(crate) to: f64,
    pub(crate) label: String,
    pub(crate) fill: SpanFill,
    /// What is said about it, line by line; the first line is the series.
    pub(crate) words: Vec<String>,
}

impl Timeline {
    /// The kinds of spans with their looks, the solid first.
    pub(crate) fn kinds(&self) -> Vec<(&str, SpanFill)> {
        let mut found: Vec<(&str, SpanFill)> = Vec::new();
        for stretch in self.tracks.iter().flat_map(|track| &track.stretches) {
            let kind = (stretch.label.as_str(), stretch.fill);
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
        found.sort_by_key(|(label, fill)| (*fill == SpanFill::Hollow, *label));
        found
    }
}

/// Between which values a series lies: from zero, or on those below it.
type Height = (f64, f64);

pub(crate) fn draw(chart: &TimelineChart) -> Timeline {
    let spans = || chart.placed().flat_map(|span| [span.from, span.to]);
    let times = chart.rows.iter().flat_map(|row| row.times.iter().copied());
    let time = Ruler::of_stretch(chart.time.caption(), times.chain(spans()));
    let tracks = tracks(chart, &time);
    let mut notes = chart.notes.clone();
    notes.extend(surplus(chart));
    Timeline {
        title: chart.title.clone(),
        subtitle: chart.subtitle.clone(),
        time,
        series: chart.series.clone(),
        lanes: chart.rows.iter().map(|row| lane(chart, row)).collect(),
        span_label: chart.span_label.clone(),
        tracks,
        notes,
    }
}

fn lane(chart: &TimelineChart, row: &TimelineRow) -> Lane {
    let mut tops = vec![0.0; row.times.len()];
    let heights: Vec<Vec<Option<Height>>> = (0..chart.series.len())
        .map(|series| heights(row, series, &mut tops))
        .collect();
    let scale = match row.arrangement {
        RowArrangement::Lines => row.value.scale,
        RowArrangement::Stacked => Scale::Linear,
    };
    let shown = heights.iter().flatten().flatten().map(|(_, high)| *high);
    let references = row.references.iter().map(|reference| reference.value);
    let value = Ruler::of_values(
        row.value.caption(),
        scale,
        shown.chain(references),
        Zero::Shown,
    );
    let held = row.references.iter().filter(|r| value.holds(r.value));
    let references = held.cloned().collect();
    let threads = heights
        .iter()
        .enumerate()
        .map(|(series, heights)| thread(chart, row, &value, series, heights))
        .collect();
    Lane {
        value,
        threads,
        references,
    }
}

/// Between which values a series lies at each time. In a stack it lies on those before it.
fn heights(row: &TimelineRow, series: usize, tops: &mut [f64]) -> Vec<Option<Height>> {
    let none = Vec::new();
    let values = row.values.get(series).unwrap_or(&none);
    let known = values.iter().map(|value| value.filter(|v| v.is_finite()));
    known
        .chain(std::iter::repeat(None))
        .zip(tops)
        .map(|(value, top)| match row.arrangement {
            RowArrangement::Lines => value.map(|value| (0.0, value)),
            RowArrangement::Stacked => value.map(|value| {
                let low = *top;
                *top += value;
                (low, *top)
            }),
        })
        .collect()
}

/// Joins neighbours; a missing value is a gap. In a stack what has no height has no line either:
/// it would lie on that of another series.
fn thread(
    chart: &TimelineChart,
    row: &TimelineRow,
    ruler: &Ruler,
    series: usize,
    heights: &[Option<Height>],
) -> Thread {
    let has_height = |at: usize| {
        heights
            .get(at)
            .copied()
            .flatten()
            .is_some_and(|(a, b)| a != b)
    };
    let is_drawn = |i: usize| match row.arrangement {
        RowArrangement::Lines => heights[i].is_some_and(|(_, value)| ruler.holds(value)),
        RowArrangement::Stacked => (i.saturating_sub(1)..=i + 1).any(has_height),
    };
    let dot = |(at, (low, high)): (f64, Height)| Dot {
        at,
        value: high,
        words: said(chart, row, series, at, high - low),
    };
    let lines = runs(&row.times, heights, is_drawn);
    let areas = match row.arrangement {
        RowArrangement::Lines => Vec::new(),
        RowArrangement::Stacked => runs(&row.times, heights, |_| true),
    };
    let area = |run: Vec<(f64, Height)>| {
        run.into_iter()
            .map(|(at, (low, high))| (at, low, high))
            .collect()
    };
    Thread {
        series,
        runs: lines
            .into_iter()
            .map(|run| run.into_iter().map(dot).collect())
            .collect(),
        band: areas.into_iter().map(area).collect(),
    }
}

/// Neighbours that have a value and are drawn, by their index, with their times.
fn runs(
    times: &[f64],
    heights: &[Option<Height>],
    is_drawn: impl Fn(usize) -> bool,
) -> Vec<Vec<(f64, Height)>> {
    let places: Vec<Option<(f64, Height)>> = times
        .iter()
        .zip(heights)
        .enumerate()
        .map(|(i, (at, height))| height.filter(|_| is_drawn(i)).map(|height| (*at, height)))
        .collect();
    places
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().copied().flatten().collect())
        .collect()
}

fn said(
    chart: &TimelineChart,
    row: &TimelineRow,
    series: usize,
    at: f64,
    value: f64,
) -> Vec<String> {
    vec![
        chart.series[series].clone(),
        words::quantity(&chart.time, at),
        words::quantity(&row.value, value),
    ]
}

fn tracks(chart: &TimelineChart, time: &Ruler) -> Vec<Track> {
    let track = |series: usize| {
        let own = chart.placed().filter(|span| span.series == series);
        let stretches: Vec<Stretch> = own.map(|span| stretch(chart, time, span)).collect();
        (!stretches.is_empty()).then_some(Track { series, stretches })
    };
    (0..chart.series.len()).filter_map(track).collect()
}

fn stretch(chart: &TimelineChart, time: &Ruler, span: &Span) -> Stretch {
    // A span that is still going on may have no end.
    let end = |at: f64, open: f64| if at.is_nan() { open } else { time.cut(at) };
    let from = end(span.from, time.range.0);
    let to = end(span.to, time.range.1).max(from);
    let mut words = vec![
        format!("{} {}", chart.series[span.series], span.label),
        between(&chart.time, from, to),
    ];
    words.extend(span.details.iter().cloned());
    Stretch {
        from,
        to,
        label: span.label.clone(),
        fill: span.fill,
        words,
    }
}

/// `from 1.5 to 2.25 s`.
fn between(time: &Axis, from: f64, to: f64) -> String {
    let unit = if time.unit.is_empty() { "" } else { " " };
    format!(
        "from {} to {}{unit}{}",
        format_number(from),
        format_number(to),
        time.unit
    )
}

/// A sentence about spans of no series.
fn surplus(chart: &TimelineChart) -> Option<String> {
    match chart.spans.len() - chart.n_points() {
        0 => None,
        1 => Some("1 span belongs to no series and could not be drawn".to_owned()),
        n => Some(format!(
            "{n} spans belong to no series and could not be drawn"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(row: TimelineRow) -> TimelineChart {
        TimelineChart::new("t", Axis::new("time", "s"), ["a", "b"]).row(row)
    }

    fn row(values: [[Option<f64>; 3]; 2]) -> TimelineRow {
        let values = values.iter().map(|v| v.to_vec()).collect();
        TimelineRow::new(Axis::new("memory", "GiB"), vec![0.0, 1.0, 2.0], values)
    }

    fn span(series: usize, from: f64, to: f64) -> Span {
        Span {
            series,
            from,
            to,
            label: "in".to_owned(),
            fill: SpanFill::Solid,
            details: vec!["for room".to_owned()],
        }
    }

    #[test]
    fn areas_lie_on_each_other_and_a_gap_adds_nothing() {
        let values = [
            [Some(1.0), None, Some(3.0)],
            [Some(2.0), Some(2.0), Some(2.0)],
        ];
        let timeline = draw(&chart(row(values).stacked()));
        let threads = &timeline.lanes[0].threads;
        assert_eq!(threads[0].band.len(), 2);
        assert_eq!(
            threads[1].band,
            [vec![(0.0, 1.0, 3.0), (1.0, 0.0, 2.0), (2.0, 3.0, 5.0)]]
        );
        assert_eq!(
            threads[1].runs[0][2].words,
            ["b", "time: 2 s", "memory: 2 GiB"]
        );
        assert!(timeline.lanes[0].value.range.1 >= 5.0);
    }

    #[test]
    fn what_has_no_height_in_a_stack_has_no_line_on_the_others() {
        let mut row = row([[Some(2.0); 3]; 2]);
        row.times = vec![0.0, 1.0, 2.0, 3.0, 4.0];
        row.values = vec![
            vec![Some(2.0); 5],
            [0.0, 0.0, 0.0, 3.0, 3.0].map(Some).to_vec(),
        ];
        let timeline = draw(&chart(row.stacked()));
        let line: Vec<(f64, f64)> = timeline.lanes[0].threads[1].runs[0]
            .iter()
            .map(|dot| (dot.at, dot.value))
            .collect();
        assert_eq!(line, [(2.0, 2.0), (3.0, 5.0), (4.0, 5.0)]);
        assert_eq!(timeline.lanes[0].threads[0].runs[0].len(), 5);
    }

    #[test]
    fn lines_break_at_gaps_and_have_no_areas() {
        let values = [[Some(1.0), None, Some(3.0)], [None, None, None]];
        let timeline = draw(&chart(row(values)));
        let threads = &timeline.lanes[0].threads;
        let runs: Vec<usize> = threads[0].runs.iter().map(Vec::len).collect();
        assert_eq!(runs, [1, 1]);
        assert!(threads[0].band.is_empty() && threads[1].runs.is_empty());
    }

    #[test]
    fn spans_have_a_track_for_each_series_and_widen_the_time() {
        let values = [[Some(1.0); 3]; 2];
        let chart = chart(row(values)).spans(
            "swaps",
            [span(1, 0.5, 0.75), span(1, 1.5, 2.5), span(9, 0.0, 1.0)],
        );
        let timeline = draw(&chart);
        assert_eq!(timeline.time.range, (0.0, 2.5));
        assert_eq!(timeline.tracks.len(), 1);
        assert_eq!(timeline.tracks[0].series, 1);
        assert_eq!(
            timeline.tracks[0].stretches[0].words,
            ["b in", "from 0.5 to 0.75 s", "for room"]
        );
        assert_eq!(timeline.kinds(), [("in", SpanFill::Solid)]);
        assert_eq!(
            timeline.notes,
            ["1 span belongs to no series and could not be drawn"]
        );
    }

    #[test]
    fn a_span_without_an_end_lasts_to_the_end() {
        let values = [[Some(1.0); 3]; 2];
        let timeline = draw(&chart(row(values)).spans("", [span(0, 1.0, f64::INFINITY)]));
        let stretch = &timeline.tracks[0].stretches[0];
        assert_eq!((stretch.from, stretch.to), (1.0, 2.0));
    }

    #[test]
    fn references_are_on_the_scale() {
        let timeline = draw(&chart(row([[Some(1.0); 3]; 2]).reference(8.0, "all")));
        assert!(timeline.lanes[0].value.range.1 >= 8.0);
        assert_eq!(timeline.lanes[0].references.len(), 1);
    }
}
