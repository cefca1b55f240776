//! A drawing as an SVG picture: data flows from left to right, services are rounded, leases
//! dashed, mere order dotted. Follows the viewer's light or dark theme.

use super::layers::{Layers, Slot, layers};
use super::{Drawing, NodeBox};
use engine::graph::Edge;

/// Sizes in pixels. The width of a character is that of a 13 px sans-serif font, rounded up.
const CHARACTER: f64 = 7.4;
const BOX_HEIGHT: f64 = 44.0;
const ROW_GAP: f64 = 18.0;
const WAYPOINT_HEIGHT: f64 = 8.0;
const COLUMN_GAP: f64 = 72.0;
const MARGIN: f64 = 24.0;
const TITLE_HEIGHT: f64 = 28.0;
const LEGEND_HEIGHT: f64 = 30.0;
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
         <title>{title}</title>\n<style>\n{STYLE}</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect class=\"background\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{y:.0}\">{title}</text>\n",
        w = picture.width,
        h = picture.height,
        y = MARGIN + 8.0,
        title = escape(&drawing.title),
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
    text.push_str(&legend(picture.height));
    text.push_str("</svg>\n");
    text
}

/// Where everything lies, in pixels.
struct Picture {
    width: f64,
    height: f64,
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
        let height_of = |column: &Vec<Slot>| {
            column
                .iter()
                .map(|s| slot_height(*s) + ROW_GAP)
                .sum::<f64>()
                - ROW_GAP
        };
        let tallest = layers.columns.iter().map(height_of).fold(0.0, f64::max);
        let top = MARGIN + TITLE_HEIGHT;
        let middles = layers.columns.iter().map(|column| {
            let mut y = top + (tallest - height_of(column)) / 2.0;
            let middle = |slot: &Slot| {
                let middle = y + slot_height(*slot) / 2.0;
                y += slot_height(*slot) + ROW_GAP;
                middle
            };
            column.iter().map(middle).collect()
        });
        Self {
            width: (left - COLUMN_GAP + MARGIN).max(460.0),
            height: top + tallest + MARGIN + LEGEND_HEIGHT,
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
        let radius = if node.is_service() {
            BOX_HEIGHT / 2.0
        } else {
            4.0
        };
        let (x, top) = (left + width / 2.0, middle - BOX_HEIGHT / 2.0);
        format!(
            "<rect class=\"box {}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BOX_HEIGHT}\" rx=\"{radius}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"uses\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            node.kind,
            middle - 3.0,
            escape(&node.name),
            middle + 13.0,
            escape(&node.uses),
        )
    }
}

fn slot_width(drawing: &Drawing, slot: Slot) -> f64 {
    let Slot::Box(i) = slot else { return 0.0 };
    let node = &drawing.boxes[i];
    let longest = node.name.chars().count().max(node.uses.chars().count());
    longest as f64 * CHARACTER + 2.0 * PADDING
}

fn slot_height(slot: Slot) -> f64 {
    match slot {
        Slot::Box(_) => BOX_HEIGHT,
        Slot::Waypoint(_) => WAYPOINT_HEIGHT,
    }
}

fn legend(height: f64) -> String {
    let y = height - MARGIN / 2.0 - 4.0;
    let entries = [
        ("arrow", "reads its result"),
        ("arrow leases", "uses the service while it runs"),
        ("arrow after", "only comes later"),
    ];
    let mut x = MARGIN;
    let mut text = String::new();
    for (class, words) in entries {
        text.push_str(&format!(
            "<path class=\"{class}\" d=\"M{x:.0} {line:.1}h26\"/><text class=\"legend\" x=\"{:.0}\" y=\"{y:.1}\">{words}</text>\n",
            x + 32.0,
            line = y - 4.0,
        ));
        x += 32.0 + words.len() as f64 * 6.0 + 20.0;
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
    fn boxes_of_one_column_do_not_overlap() {
        let drawing = crate::drawing::sample();
        let layers = layers(&drawing);
        let picture = Picture::lay_out(&drawing, &layers);
        for (column, middles) in layers.columns.iter().zip(&picture.middles) {
            for at in 1..column.len() {
                let apart = (slot_height(column[at - 1]) + slot_height(column[at])) / 2.0;
                assert!(middles[at] - middles[at - 1] >= apart);
            }
        }
    }
}
