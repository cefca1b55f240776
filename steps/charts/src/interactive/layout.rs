//! Axes, legend and behaviour of the interactive figures.

use plotly::Configuration;
use plotly::common::{Anchor, ExponentFormat, Font, Label, Orientation, TickMode, Title};
use plotly::configuration::{
    DisplayModeBar, DoubleClick, ImageButtonFormats, ModeBarButtonName, ToImageButtonOptions,
};
use plotly::layout::{
    Axis, AxisRange, AxisType, BarMode, DragMode, HoverMode, Layout, Legend, Margin, ModeBar,
};

use crate::drawing::{Drawing, Labels, Ruler};
use crate::interactive::plain;
use crate::model::{Direction, Scale};

/// Share of the plot that the scale keeps when there is a strip beside it.
const SCALE_SHARE: f64 = 0.9;
/// Where that strip starts.
const STRIP_FROM: f64 = 0.93;

/// Fonts of the reader's system.
const FONTS: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif";

/// Describes everything but the data.
pub(crate) fn of(drawing: &Drawing) -> Layout {
    let (base, value) = (axis(&drawing.base), value_axis(drawing));
    let layout = frame().bar_mode(if drawing.stacked {
        BarMode::Stack
    } else {
        BarMode::Overlay
    });
    let layout = match drawing.direction {
        Direction::Vertical => layout.x_axis(base.show_grid(false)).y_axis(value),
        Direction::Horizontal => {
            // Categories are read from the top.
            let (low, high) = drawing.base.range;
            layout
                .x_axis(value)
                .y_axis(base.show_grid(false).range(AxisRange::new(high, low)))
        }
    };
    if drawing.off_scale().is_empty() {
        return layout;
    }
    match drawing.direction {
        Direction::Vertical => layout.y_axis2(strip("x")),
        Direction::Horizontal => layout.x_axis2(strip("y")),
    }
}

/// What all figures have in common.
pub(super) fn frame() -> Layout {
    let text = || Font::new().family(FONTS).color("@text");
    Layout::new()
        .auto_size(true)
        .font(text().size(13))
        .paper_background_color("@surface")
        .plot_background_color("@surface")
        .margin(
            Margin::new()
                .left(10)
                .right(14)
                .top(10)
                .bottom(10)
                .auto_expand(true),
        )
        .hover_mode(HoverMode::Closest)
        .hover_label(
            Label::new()
                .background_color("@surface")
                .border_color("@axis")
                .font(text().size(13))
                .align("left"),
        )
        .drag_mode(DragMode::Zoom)
        .mode_bar(
            ModeBar::new()
                .background_color("@surface/0")
                .color("@muted")
                .active_color("@text"),
        )
        .show_legend(true)
        .legend(
            Legend::new()
                .orientation(Orientation::Horizontal)
                .x(0.0)
                .x_anchor(Anchor::Left)
                .y(1.03)
                .y_anchor(Anchor::Bottom)
                .background_color("@surface/0")
                .trace_group_gap(6),
        )
}

pub(super) fn axis(ruler: &Ruler) -> Axis {
    let axis = Axis::new()
        .title(Title::with_text(plain(&ruler.caption)).font(muted(13)))
        .tick_font(muted(12))
        .auto_margin(true)
        .grid_color("@grid")
        .zero_line(false)
        .show_line(true)
        .line_color("@axis")
        .separate_thousands(true)
        .exponent_format(ExponentFormat::None);
    let (low, high) = ruler.range;
    let axis = match ruler.scale {
        Scale::Linear => axis
            .type_(AxisType::Linear)
            .range(AxisRange::new(low, high)),
        Scale::Log => axis
            .type_(AxisType::Log)
            .range(AxisRange::new(low.log10(), high.log10())),
    };
    // On logarithmic axes plotly.js would write `2` and `5` between the decades.
    if ruler.labels == Labels::Numbers && ruler.scale == Scale::Linear {
        return axis;
    }
    axis.tick_mode(TickMode::Array)
        .tick_values(ruler.ticks.iter().map(|tick| tick.at).collect())
        .tick_text(ruler.ticks.iter().map(|tick| broken(&tick.text)).collect())
}

/// A label in lines of about 18 characters, so that long category names leave room for the
/// plot on a phone.
fn broken(label: &str) -> String {
    const LENGTH: usize = 18;
    let mut lines: Vec<String> = Vec::new();
    for word in label.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < LENGTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| plain(line))
        .collect::<Vec<_>>()
        .join("<br>")
}

fn value_axis(drawing: &Drawing) -> Axis {
    let axis = axis(&drawing.value).show_grid(true);
    if drawing.off_scale().is_empty() {
        axis
    } else {
        axis.domain(&[0.0, SCALE_SHARE])
    }
}

/// The axis of the strip for values that their own scale has no place for.
fn strip(anchor: &str) -> Axis {
    Axis::new()
        .anchor(anchor)
        .domain(&[STRIP_FROM, 1.0])
        .range(AxisRange::new(0.0, 1.0))
        .fixed_range(true)
        .show_tick_labels(false)
        .show_grid(false)
        .zero_line(true)
        .zero_line_color("@grid")
}

pub(super) fn muted(size: usize) -> Font {
    Font::new().family(FONTS).size(size).color("@muted")
}

/// Which tools the reader gets.
pub(crate) fn configuration(title: &str) -> Configuration {
    Configuration::new()
        .responsive(true)
        .display_logo(false)
        .typeset_math(false)
        .show_tips(false)
        .display_mode_bar(DisplayModeBar::Hover)
        .double_click(DoubleClick::Reset)
        .mode_bar_buttons_to_remove(vec![
            ModeBarButtonName::Select2d,
            ModeBarButtonName::Lasso2d,
            ModeBarButtonName::AutoScale2d,
            ModeBarButtonName::ZoomIn2d,
            ModeBarButtonName::ZoomOut2d,
        ])
        .to_image_button_options(
            ToImageButtonOptions::new()
                .format(ImageButtonFormats::Png)
                .filename(&file_stem(title))
                .scale(2),
        )
}

/// A title as a file name: lowercase words joined by hyphens.
fn file_stem(title: &str) -> String {
    let words: Vec<String> = title
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    if words.is_empty() {
        "chart".to_owned()
    } else {
        words.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_break_between_words() {
        assert_eq!(
            broken("torch native (reference)"),
            "torch native<br>(reference)"
        );
        assert_eq!(broken("a<b"), "a&lt;b");
        assert_eq!(broken("∞"), "∞");
    }

    #[test]
    fn a_title_becomes_a_file_name() {
        assert_eq!(file_stem("p99 TTFT / rate (1/s)"), "p99-ttft-rate-1-s");
        assert_eq!(file_stem("../.."), "chart");
    }
}
