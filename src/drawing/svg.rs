//! A drawing as an SVG picture: data flows from left to right, services are rounded, leases
//! dashed, mere order dotted. Follows the viewer's light or dark theme.

use super::layers::{Layers, Slot, layers};
use super::legend;
use super::{Drawing, NodeBox};
use engine::graph::Edge;

/// Sizes in pixels. The width of a character is that of a 13 px sans-serif font, rounded up.
const CHARACTER: f64 = 7.4;
const BOX_HEIGHT: f64 = 44.0;
/// What a box is higher by if it says how its node does.
const NOTE_HEIGHT: f64 = 16.0;
const ROW_GAP: f64 = 18.0;
const WAYPOINT_HEIGHT: f64 = 8.0;
const COLUMN_GAP: f64 = 72.0;
const MARGIN: f64 = 24.0;
const TITLE_HEIGHT: f64 = 28.0;
const LEGEND_HEIGHT: f64 = 22.0;
const PADDING: f64 = 14.0;

const STYLE: &str = "\
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }\n\
  .title { font-weight: 600; font-size: 15px; }\n\
  .uses, .legend { font-size: 11px; fill: #656d76; }\n\
  .box { fill: #f6f8fa; stroke: #57606a; }\n\
  .service { fill: #ddf4ff; stroke: #0969da; }\n\
  .measure { fill: #fff8c5; stroke: #9a6700; }\n\
  .report { fill: #dafbe1; stroke: #1a7f37; }\n\
  .arrow { fill: none; stroke: #8c959f; stroke-width: 1.3; }\n\
  .leases { stroke: #0969da; stroke-dasharray: 6 4; }\n\
  .after { stroke-dasharray: 1.5 4; }\n\
  .background { fill: #ffffff; }\n\
  .note { font-size: 11px; font-weight: 600; }\n\
  .head { fill: #8c959f; }\n\
  @media (prefers-color-scheme: dark) {\n\
    text { fill: #e6edf3; } .uses, .legend { fill: #9198a1; } .background { fill: #0d1117; }\n\
    .box { fill: #161b22; } .service { fill: #0c2d4d; } .measure { fill: #3a2d07; } .report { fill: #0f2f19; }\n\
  }\n";

/// Writes a drawing as SVG.
pub(crate) fn svg(drawing: &Drawing) -> String {
    let layers = layers(drawing);
    let picture = Picture::lay_out(drawing, &layers);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\" role=\"img\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{states}</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect class=\"background\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{y:.0}\">{title}</text>\n",
        w = picture.width,
        h = picture.height,
        y = MARGIN + 8.0,
        title = escape(&drawing.title),
        states = state_style(drawing),
    );
    for (arrow, path) in drawing.arrows.iter().zip(&layers.paths) {
        let class = match arrow.edge {
            Edge::Needs | Edge::Reads => "arrow",
            Edge::Leases => "arrow leases",
            Edge::After => "arrow after",
        };
        text.push_str(&format!(
            "<path class=\"{class}\" marker-end=\"url(#head)\" d=\"{}\"/>\n",
            picture.curve(path)
        ));
    }
    for (at, column) in layers.columns.iter().enumerate() {
        for (row, slot) in column.iter().enumerate() {
            if let Slot::Box(i) = slot {
                text.push_str(&picture.node(&drawing.boxes[*i], at, row));
            }
        }
    }
    text.push_str(&legend_of_lines(drawing, picture.legend));
    text.push_str(&legend_of_states(drawing, picture.legend + LEGEND_HEIGHT));
    text.push_str("</svg>\n");
    text
}

/// Where everything lies, in pixels.
struct Picture {
    width: f64,
    height: f64,
    /// The height of a box.
    box_height: f64,
    /// Where the legend begins.
    legend: f64,
    /// Left edge and width of each column.
    columns: Vec<(f64, f64)>,
    /// Middle of each slot, by column and row.
    middles: Vec<Vec<f64>>,
}

impl Picture {
    fn lay_out(drawing: &Drawing, layers: &Layers) -> Self {
        let mut columns = Vec::new();
        let mut left = MARGIN;
        for column in &layers.columns {
            let width = column
                .iter()
                .map(|slot| slot_width(drawing, *slot))
                .fold(0.0, f64::max);
            columns.push((left, width));
            left += width + COLUMN_GAP;
        }
        let box_height = box_height(drawing);
        let height_of = |column: &Vec<Slot>| {
            let slots = column.iter().map(|s| slot_height(*s, box_height) + ROW_GAP);
            slots.sum::<f64>() - ROW_GAP
        };
        let tallest = layers.columns.iter().map(height_of).fold(0.0, f64::max);
        let top = MARGIN + TITLE_HEIGHT;
        let n_legends = if drawing.has_states() { 2.0 } else { 1.0 };
        let middles = layers.columns.iter().map(|column| {
            let mut y = top + (tallest - height_of(column)) / 2.0;
            let middle = |slot: &Slot| {
                let height = slot_height(*slot, box_height);
                let middle = y + height / 2.0;
                y += height + ROW_GAP;
                middle
            };
            column.iter().map(middle).collect()
        });
        Self {
            width: (left - COLUMN_GAP + MARGIN).max(legend_width(drawing)),
            height: top + tallest + MARGIN + n_legends * LEGEND_HEIGHT + MARGIN / 2.0,
            legend: top + tallest + MARGIN + LEGEND_HEIGHT / 2.0,
            box_height,
            middles: middles.collect(),
            columns,
        }
    }

    /// From the right edge of the first box through every waypoint to the left edge of the last.
    fn curve(&self, path: &[(usize, usize)]) -> String {
        let mut text = String::new();
        let mut x = 0.0;
        let mut y = 0.0;
        for (i, (column, row)) in path.iter().enumerate() {
            let (left, width) = self.columns[*column];
            let middle = self.middles[*column][*row];
            if i > 0 {
                let bend = (left - x) / 2.0;
                text.push_str(&format!(
                    "C{:.1} {y:.1} {:.1} {middle:.1} {left:.1} {middle:.1}",
                    x + bend,
                    left - bend
                ));
            } else {
                text.push_str(&format!("M{:.1} {middle:.1}", left + width));
            }
            if i > 0 && i + 1 < path.len() {
                text.push_str(&format!("H{:.1}", left + width));
            }
            (x, y) = (left + width, middle);
        }
        text
    }

    fn node(&self, node: &NodeBox, column: usize, row: usize) -> String {
        let (left, width) = self.columns[column];
        let middle = self.middles[column][row];
        let height = self.box_height;
        let radius = if node.is_service() { height / 2.0 } else { 4.0 };
        let (x, top) = (left + width / 2.0, middle - height / 2.0);
        let class = match node.state {
            Some(state) => format!("box state-{}", state.class()),
            None => format!("box {}", node.kind),
        };
        let line = |class: &str, y: f64, words: &str| {
            format!(
                "<text{class} x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                top + y,
                escape(words)
            )
        };
        let mut text = format!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" rx=\"{radius}\"/>"
        );
        text.push_str(&line("", 19.0, &node.name));
        text.push_str(&line(" class=\"uses\"", 35.0, &node.uses));
        if !node.note.is_empty() {
            text.push_str(&line(" class=\"note\"", 51.0, &node.note));
        }
        text.push('\n');
        text
    }
}

fn slot_width(drawing: &Drawing, slot: Slot) -> f64 {
    let Slot::Box(i) = slot else { return 0.0 };
    let node = &drawing.boxes[i];
    let lines = [&node.name, &node.uses, &node.note];
    let longest = lines.map(|line| line.chars().count()).into_iter().max();
    longest.unwrap_or(0) as f64 * CHARACTER + 2.0 * PADDING
}

fn box_height(drawing: &Drawing) -> f64 {
    if drawing.has_states() {
        BOX_HEIGHT + NOTE_HEIGHT
    } else {
        BOX_HEIGHT
    }
}

fn slot_height(slot: Slot, box_height: f64) -> f64 {
    match slot {
        Slot::Box(_) => box_height,
        Slot::Waypoint(_) => WAYPOINT_HEIGHT,
    }
}

/// What one entry of a legend takes from left to right.
fn entry_width(words: &str) -> f64 {
    32.0 + words.chars().count() as f64 * 6.0 + 20.0
}

/// What the wider of the two legends takes.
fn legend_width(drawing: &Drawing) -> f64 {
    let lines = legend::lines(drawing).into_iter();
    let lines: f64 = lines.map(|(_, words)| entry_width(words)).sum();
    let states = legend::states(drawing).into_iter();
    let states: f64 = states.map(|state| entry_width(state.word())).sum();
    lines.max(states) + 2.0 * MARGIN
}

fn legend_of_lines(drawing: &Drawing, y: f64) -> String {
    let mut x = MARGIN;
    let mut text = String::new();
    for (class, words) in legend::lines(drawing) {
        text.push_str(&format!(
            "<path class=\"{class}\" d=\"M{x:.0} {line:.1}h26\"/><text class=\"legend\" x=\"{:.0}\" y=\"{y:.1}\">{words}</text>\n",
            x + 32.0,
            line = y - 4.0,
        ));
        x += entry_width(words);
    }
    text
}

fn legend_of_states(drawing: &Drawing, y: f64) -> String {
    let mut x = MARGIN;
    let mut text = String::new();
    for state in legend::states(drawing) {
        text.push_str(&format!(
            "<rect class=\"box state-{}\" x=\"{x:.0}\" y=\"{:.1}\" width=\"26\" height=\"12\" rx=\"3\"/><text class=\"legend\" x=\"{:.0}\" y=\"{y:.1}\">{}</text>\n",
            state.class(),
            y - 10.0,
            x + 32.0,
            state.word(),
        ));
        x += entry_width(state.word());
    }
    text
}

/// The colours of the states that a drawing has.
fn state_style(drawing: &Drawing) -> String {
    let mut text = String::new();
    for state in legend::states(drawing) {
        let (class, colors) = (state.class(), state.colors());
        let dashes = if state.is_dashed() {
            " stroke-dasharray: 5 3;"
        } else {
            ""
        };
        text.push_str(&format!(
            "  .state-{class} {{ fill: {}; stroke: {};{dashes} }}\n  @media (prefers-color-scheme: dark) {{ .state-{class} {{ fill: {}; }} }}\n",
            colors.fill, colors.line, colors.dark_fill
        ));
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::State;

    #[test]
    fn every_box_and_arrow_is_there_and_no_name_breaks_out() {
        let text = svg(&crate::drawing::sample());
        assert_eq!(text.matches("marker-end").count(), 5);
        assert_eq!(text.matches("<rect class=\"box").count(), 4);
        assert_eq!(text.matches("class=\"arrow leases\" marker-end").count(), 2);
        assert!(text.contains("load[mode=&quot;a&amp;b&quot;]"), "{text}");
        assert!(!text.contains("<plan>"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn states_are_drawn_and_explained_and_only_those_that_there_are() {
        let plain = svg(&crate::drawing::sample());
        assert!(!plain.contains("state-"), "{plain}");
        let text = svg(&crate::drawing::sample().marked(|name| match name {
            "model" => Some((State::Reused, "reused".to_owned())),
            _ => None,
        }));
        assert!(text.contains("<rect class=\"box state-reused\""), "{text}");
        assert!(text.contains("class=\"note\""), "{text}");
        assert_eq!(text.matches(">reused</text>").count(), 2);
        assert!(!text.contains("state-failed"), "{text}");
    }

    #[test]
    fn boxes_of_one_column_do_not_overlap() {
        let drawing = crate::drawing::sample();
        let layers = layers(&drawing);
        let picture = Picture::lay_out(&drawing, &layers);
        for (column, middles) in layers.columns.iter().zip(&picture.middles) {
            for at in 1..column.len() {
                let apart = (slot_height(column[at - 1], BOX_HEIGHT)
                    + slot_height(column[at], BOX_HEIGHT))
                    / 2.0;
                assert!(middles[at] - middles[at - 1] >= apart);
            }
        }
    }
}
