//! Timelines as plotly.js draws them: one figure with an axis of values for each row, and one
//! for the tracks of spans, all over the same axis of time.

use plotly::common::{
    DashType, Font, HoverInfo, Line, Marker, Mode, Orientation, Position, TextPosition,
};
use plotly::layout::{AxisRange, BarMode, Layout};
use plotly::{Bar, Plot, Trace};
use serde_json::{Value, json};

use crate::drawing::{Labels, Lane, Ruler, Stretch, Thread, Tick, Timeline, Track};
use crate::interactive::bars::Based;
use crate::interactive::layout::{axis, frame};
use crate::interactive::traces::{Numbers, area, group, reference, said, scatter, square, token};
use crate::interactive::{Traces, plain};
use crate::model::{Scale, SpanFill};
use crate::theme::Ink;

/// Relative heights of a row, of the space above it, and of a track.
const HEIGHT: (f64, f64, f64) = (6.0, 1.6, 1.0);
/// Share of its track that a bar fills.
const FILLED: f64 = 0.66;
/// Opacity of areas, and of what shades the rows while a span lasts.
const OPACITY: (f64, f64) = (0.42, 0.13);
/// How the lines of series look whose colours are the same.
const DASHES: [DashType; 3] = [DashType::Solid, DashType::Dash, DashType::Dot];

/// Everything but the axes of rows and tracks, for which see [`with_rows`].
pub(super) fn layout(timeline: &Timeline) -> Layout {
    let time = axis(&timeline.time).show_grid(false);
    let lowest = axis_name(timeline.lanes.len().max(1) - 1);
    frame()
        .bar_mode(BarMode::Overlay)
        .x_axis(time.anchor(lowest.as_str()))
}

/// The traces, those to be hidden by others first.
pub(super) fn traces(timeline: &Timeline) -> Traces {
    let lanes = || timeline.lanes.iter().enumerate();
    let mut traces: Traces = timeline
        .series
        .iter()
        .enumerate()
        .map(|(i, name)| sample(i, name))
        .collect();
    traces.extend(lanes().flat_map(|(row, lane)| areas(row, lane)));
    traces.extend(lanes().flat_map(|(row, lane)| {
        let threads = lane.threads.iter().filter(|thread| !thread.runs.is_empty());
        threads.map(move |thread| line(row, thread))
    }));
    traces.extend(lanes().flat_map(|(row, lane)| {
        let across = move |r| -> Box<dyn Trace> {
            reference(r, timeline.time.range, Position::TopLeft).y_axis(axis_name(row))
        };
        lane.references.iter().map(across)
    }));
    let on = axis_name(timeline.lanes.len());
    for (place, track) in timeline.tracks.iter().enumerate() {
        for fill in [SpanFill::Solid, SpanFill::Hollow] {
            traces.extend(spans(place, track, fill, &on));
        }
    }
    traces
}

/// The name by which traces refer to the axis of the n-th row; the tracks come after the rows.
fn axis_name(n: usize) -> String {
    match n {
        0 => "y".to_owned(),
        n => format!("y{}", n + 1),
    }
}

/// A trace without data that stands in the legend.
fn sample(index: usize, name: &str) -> Box<dyn Trace> {
    scatter(index, vec![None], vec![None])
        .name(plain(name))
        .show_legend(!name.is_empty())
        .mode(Mode::Markers)
        .marker(square(Ink::of(index)))
}

fn areas(row: usize, lane: &Lane) -> Traces {
    let areas = lane.threads.iter().flat_map(|thread| {
        let colour = token(Ink::of(thread.series), OPACITY.0);
        let bands = thread.band.iter();
        bands.map(move |band| area(thread.series, band, colour.clone()))
    });
    areas
        .map(|area| -> Box<dyn Trace> { area.y_axis(axis_name(row)) })
        .collect()
}

/// One line, its runs strung together with a gap after each.
fn line(row: usize, thread: &Thread) -> Box<dyn Trace> {
    let (mut x, mut y, mut words): (Numbers, Numbers, Vec<String>) = Default::default();
    for run in &thread.runs {
        for dot in run {
            x.push(Some(dot.at));
            y.push(Some(dot.value));
            words.push(said(&dot.words));
        }
        x.push(None);
        y.push(None);
        words.push(String::new());
    }
    let ink = Ink::of(thread.series);
    let dash = DASHES[thread.series / Ink::COLOURS % DASHES.len()].clone();
    scatter(thread.series, x, y)
        .y_axis(axis_name(row))
        .mode(Mode::Lines)
        .line(Line::new().color(token(ink, 1.0)).width(2.0).dash(dash))
        .connect_gaps(false)
        .hover_text_array(words)
        .hover_info(HoverInfo::Text)
}

/// The spans of a track that look alike; `None` if there are none.
fn spans(place: usize, track: &Track, fill: SpanFill, on: &str) -> Option<Box<dyn Trace>> {
    let all = track.stretches.iter();
    let chosen: Vec<&Stretch> = all.filter(|stretch| stretch.fill == fill).collect();
    if chosen.is_empty() {
        return None;
    }
    let ink = Ink::of(track.series);
    let inside = match fill {
        SpanFill::Solid => token(ink, 1.0),
        SpanFill::Hollow => "@surface".to_owned(),
    };
    let outline = Line::new().color(token(ink, 1.0)).width(1.4);
    let lengths = chosen.iter().map(|s| s.to - s.from).collect();
    let words: Vec<String> = chosen.iter().map(|s| said(&s.words)).collect();
    let names: Vec<String> = chosen.iter().map(|s| plain(&s.label)).collect();
    let bars = Bar::new(lengths, vec![place as f64; chosen.len()])
        .orientation(Orientation::Horizontal)
        .y_axis(on)
        .width(FILLED)
        .legend_group(group(track.series))
        .show_legend(false)
        .marker(Marker::new().color(inside).line(outline))
        .text_array(names)
        .text_position(TextPosition::Outside)
        .text_font(Font::new().size(11).color("@muted"))
        .hover_text_array(words)
        .hover_info(HoverInfo::Text);
    Some(Based::trace(*bars, chosen.iter().map(|s| s.from).collect()))
}

/// Adds an axis for each row and one for the tracks, captions, and the shades of spans.
pub(super) fn with_rows(plot: &Plot, timeline: &Timeline) -> String {
    let mut plot = serde_json::to_value(plot).unwrap_or_default();
    let (rows, tracks) = domains(timeline);
    let layout = &mut plot["layout"];
    let mut captions = Vec::new();
    for (i, (lane, domain)) in timeline.lanes.iter().zip(&rows).enumerate() {
        captions.push(caption(&lane.value.caption, domain.1));
        let name = axis_name(i).replacen('y', "yaxis", 1);
        let bare = Ruler {
            caption: String::new(),
            ..lane.value.clone()
        };
        layout[name] = standing(axis(&bare).domain(&[domain.0, domain.1]));
    }
    if !timeline.tracks.is_empty() {
        captions.push(caption(&timeline.span_label, tracks.1));
        let name = axis_name(timeline.lanes.len()).replacen('y', "yaxis", 1);
        let (low, high) = (-0.5, timeline.tracks.len() as f64 - 0.5);
        let axis = axis(&names(timeline)).domain(&[tracks.0, tracks.1]);
        // Read from the top.
        layout[name] = standing(axis.show_grid(false).range(AxisRange::new(high, low)));
    }
    layout["annotations"] = Value::Array(captions);
    layout["shapes"] = Value::Array(shades(timeline));
    plot.to_string()
}

fn standing(axis: plotly::layout::Axis) -> Value {
    let mut axis = serde_json::to_value(axis).unwrap_or_default();
    axis["anchor"] = json!("x");
    // Zooming is for time.
    axis["fixedrange"] = json!(true);
    axis
}

/// Where on the figure's height each row is, and where the tracks are: 0 is the bottom.
fn domains(timeline: &Timeline) -> (Vec<(f64, f64)>, (f64, f64)) {
    let (row, space, track) = HEIGHT;
    let n_rows = timeline.lanes.len() as f64;
    let tracks = timeline.tracks.len() as f64 * track;
    let above = if timeline.tracks.is_empty() {
        0.0
    } else {
        space
    };
    let all = (n_rows * (row + space) + tracks + above).max(1.0);
    let rows = (0..timeline.lanes.len()).map(|i| {
        let low = (n_rows - 1.0 - i as f64) * (row + space);
        (low / all, (low + row) / all)
    });
    let low = n_rows * (row + space);
    (rows.collect(), (low / all, (low + tracks) / all))
}

/// The tracks as an axis of names.
fn names(timeline: &Timeline) -> Ruler {
    let tick = |(i, track): (usize, &Track)| Tick {
        at: i as f64,
        text: timeline.series[track.series].clone(),
    };
    Ruler {
        caption: String::new(),
        scale: Scale::Linear,
        range: (-0.5, timeline.tracks.len() as f64 - 0.5),
        ticks: timeline.tracks.iter().enumerate().map(tick).collect(),
        labels: Labels::Categories,
    }
}

/// What a row shows, above its left end.
fn caption(text: &str, top: f64) -> Value {
    json!({
        "text": plain(text), "showarrow": false, "xref": "paper", "yref": "paper",
        "x": 0, "y": top, "xanchor": "left", "yanchor": "bottom",
        "font": { "size": 13, "color": "@muted" },
    })
}

/// Shades all rows and tracks while something happens.
fn shades(timeline: &Timeline) -> Vec<Value> {
    let shade = |series: usize, stretch: &Stretch| {
        json!({
            "type": "rect", "layer": "below", "xref": "x", "yref": "paper",
            "x0": stretch.from, "x1": stretch.to, "y0": 0, "y1": domains(timeline).1.1,
            "fillcolor": token(Ink::of(series), OPACITY.1), "line": { "width": 0 },
        })
    };
    let tracks = timeline.tracks.iter();
    let all = tracks.flat_map(|track| track.stretches.iter().map(|s| (track.series, s)));
    all.map(|(series, stretch)| shade(series, stretch))
        .collect()
}
