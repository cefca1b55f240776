//! One heatmap in its box: heading, colour scale, cells with their labels, explanations, notes.

use crate::drawing::{Cell, Content, Grid};
use crate::model::Colours;
use crate::reading::Grade;
use crate::svg::axis::{
    CATEGORY, Turn, caption_style, label_beside, label_under, tick_style, widest,
};
use crate::svg::frame::{heading, notes};
use crate::svg::legend;
use crate::svg::marks::{self, NEUTRAL};
use crate::svg::text::{self, Anchor, Ink, Style};
use crate::svg::writer::{Px, Svg};

/// Width of a cell at most, and its height, at least and at most.
const CELL_WIDTH: f64 = 170.0;
const CELL_HEIGHT: (f64, f64) = (38.0, 58.0);
/// Space between cells.
const GAP: f64 = 2.0;
/// Width and height of the colour scale.
const SCALE: (f64, f64) = (260.0, 12.0);
/// How many colours it is made of.
const STEPS: usize = 64;
/// Smallest number in a cell that can still be read.
const SMALLEST: f64 = 8.5;

/// Draws a heatmap and returns the height it takes.
pub(crate) fn draw(svg: &mut Svg, grid: &Grid, (left, top): (f64, f64), width: f64) -> f64 {
    let mut y = top;
    y += heading(svg, (left, y), width, &grid.title, &grid.subtitle);
    y += scale(svg, grid, (left, y + 8.0)) + 8.0;
    let field = Field::new(grid, (left, y), width);
    field.labels(svg, left);
    for cell in &grid.cells {
        field.cell(svg, cell);
    }
    y = field.bottom() + field.below();
    y += legend::meanings(svg, &grid.grades(), &grid.off_scale(), (left, y), width);
    y += notes(svg, (left, y), width, &grid.notes);
    y - top
}

/// Draws what the colours mean and returns the height it takes.
fn scale(svg: &mut Svg, grid: &Grid, (x, y): (f64, f64)) -> f64 {
    let mut taken = svg.paragraph(x, y, f64::INFINITY, &grid.value.caption, caption_style());
    let (below, above) = match &grid.colours {
        Colours::Diverging { below, above } => (below.as_str(), above.as_str()),
        Colours::Sequential => ("", ""),
    };
    let style = tick_style();
    let room = match below {
        "" => 12.0,
        text => text::width(text, style) + 10.0,
    };
    let (from, top) = (x + room, y + taken + 6.0);
    let middle = top + SCALE.1 * 0.5 + 4.0;
    svg.text(from - 10.0, middle, below, style.anchored(Anchor::End));
    svg.text(from + SCALE.0 + 10.0, middle, above, style);
    let step = SCALE.0 / STEPS as f64;
    for i in 0..STEPS {
        let tint = grid.tint((i as f64 + 0.5) / STEPS as f64).hex(svg.palette);
        // Each reaches under the next, so that no seams show.
        let reach = if i + 1 < STEPS { step + 0.6 } else { step };
        rectangle(
            svg,
            (from + i as f64 * step, top),
            (reach, SCALE.1),
            &tint,
            "none",
        );
    }
    rectangle(svg, (from, top), SCALE, "none", svg.palette.axis);
    for tick in &grid.value.ticks {
        let at = from + grid.value.share(tick.at) * SCALE.0;
        svg.line(
            (at, top + SCALE.1),
            (at, top + SCALE.1 + 3.0),
            svg.palette.axis,
            1.0,
        );
        let style = style.anchored(Anchor::Middle);
        svg.text(at, top + SCALE.1 + 15.0, &tick.text, style);
    }
    taken += 6.0 + SCALE.1 + 20.0;
    taken
}

/// Where the cells are.
struct Field<'a> {
    grid: &'a Grid,
    left: f64,
    top: f64,
    cell: (f64, f64),
}

impl<'a> Field<'a> {
    fn new(grid: &'a Grid, (left, top): (f64, f64), width: f64) -> Self {
        let labels = widest(&grid.rows).min(CATEGORY) + 12.0;
        let caption = if grid.rows.caption.is_empty() {
            8.0
        } else {
            26.0
        };
        let n_columns = grid.columns.ticks.len().max(1) as f64;
        let cell = ((width - labels) / n_columns).clamp(GAP + 1.0, CELL_WIDTH);
        Self {
            grid,
            left: left + labels,
            top: top + caption,
            cell: (cell, (cell * 0.6).clamp(CELL_HEIGHT.0, CELL_HEIGHT.1)),
        }
    }

    fn bottom(&self) -> f64 {
        self.top + self.grid.rows.ticks.len() as f64 * self.cell.1
    }

    fn width(&self) -> f64 {
        self.grid.columns.ticks.len() as f64 * self.cell.0
    }

    fn turn(&self) -> Turn {
        Turn::of_categories(&self.grid.columns, self.width())
    }

    /// Height of what stands under the cells: labels and caption.
    fn below(&self) -> f64 {
        let caption = if self.grid.columns.caption.is_empty() {
            4.0
        } else {
            26.0
        };
        self.turn().height(&self.grid.columns) + caption
    }

    /// The middle of a cell; ticks of categories are at their index.
    fn middle(&self, column: f64, row: f64) -> (f64, f64) {
        (
            self.left + (column + 0.5) * self.cell.0,
            self.top + (row + 0.5) * self.cell.1,
        )
    }

    fn labels(&self, svg: &mut Svg, left: f64) {
        for tick in &self.grid.rows.ticks {
            label_beside(
                svg,
                (self.left, self.middle(0.0, tick.at).1),
                &tick.text,
                CATEGORY,
            );
        }
        for tick in &self.grid.columns.ticks {
            let x = self.middle(tick.at, 0.0).0;
            label_under(svg, (x, self.bottom()), &tick.text, self.turn());
        }
        let style = caption_style();
        svg.text(left, self.top - 13.0, &self.grid.rows.caption, style);
        let middle = self.left + self.width() / 2.0;
        let y = self.bottom() + self.below() - 12.0;
        svg.text(
            middle,
            y,
            &self.grid.columns.caption,
            style.anchored(Anchor::Middle),
        );
    }

    /// Draws one value as one element of class `point`.
    fn cell(&self, svg: &mut Svg, cell: &Cell) {
        let class = match cell.content {
            Content::Value { .. } => format!("point {}", cell.grade.word()),
            Content::OffScale(why) => format!("point off-scale {}", why.word()),
        };
        svg.open("g", &[("class", &class)]);
        svg.hint(&cell.words);
        let middle = self.middle(cell.column as f64, cell.row as f64);
        let size = (self.cell.0 - GAP, self.cell.1 - GAP);
        let corner = (middle.0 - size.0 / 2.0, middle.1 - size.1 / 2.0);
        match &cell.content {
            Content::Value { tint, text } => {
                let fill = match cell.grade {
                    // Hollow, as everything that cannot be believed.
                    Grade::Invalid => svg.palette.surface.to_owned(),
                    _ => tint.hex(svg.palette),
                };
                ground(svg, corner, size, &fill, cell.grade);
                number(svg, middle, size.0, text);
            }
            Content::OffScale(why) => {
                ground(svg, corner, size, svg.palette.surface, Grade::Valid);
                marks::off_scale(svg, middle, NEUTRAL, *why);
            }
        }
        let has_mark = cell.grade != Grade::Valid && matches!(cell.content, Content::Value { .. });
        if has_mark {
            marks::dot(
                svg,
                (corner.0 + size.0 - 9.0, corner.1 + 9.0),
                NEUTRAL,
                cell.grade,
            );
        }
        svg.close("g");
    }
}

/// Draws what a cell stands on.
fn ground(svg: &mut Svg, corner: (f64, f64), size: (f64, f64), fill: &str, grade: Grade) {
    let (stroke, dash) = match grade {
        Grade::Invalid => (svg.palette.muted, "4 3"),
        _ => (svg.palette.grid, "none"),
    };
    svg.leaf(
        "rect",
        &[
            ("x", &Px(corner.0 + 0.5)),
            ("y", &Px(corner.1 + 0.5)),
            ("width", &Px(size.0 - 1.0)),
            ("height", &Px(size.1 - 1.0)),
            ("fill", &fill),
            ("stroke", &stroke),
            ("stroke-dasharray", &dash),
        ],
    );
}

fn rectangle(svg: &mut Svg, corner: (f64, f64), size: (f64, f64), fill: &str, stroke: &str) {
    svg.leaf(
        "rect",
        &[
            ("x", &Px(corner.0)),
            ("y", &Px(corner.1)),
            ("width", &Px(size.0)),
            ("height", &Px(size.1)),
            ("fill", &fill),
            ("stroke", &stroke),
        ],
    );
}

/// Writes the number of a cell as large as it fits; not at all if it could not be read.
fn number(svg: &mut Svg, (x, y): (f64, f64), room: f64, number: &str) {
    let style = |size| Style::new(size, Ink::Text).anchored(Anchor::Middle);
    let size = (13.0 * (room - 6.0) / text::width(number, style(13.0))).min(13.0);
    if size >= SMALLEST {
        svg.text(x, y + size * 0.35, number, style(size));
    }
}
