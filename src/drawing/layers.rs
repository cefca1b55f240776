//! Where boxes go: in columns from left to right, ordered so that few arrows cross.
//!
//! The method is the layered one of Sugiyama, Tagawa and Toda (1981): longest-path layers, a
//! waypoint in every column that an arrow passes, and sweeps that put each slot near the mean of
//! its neighbours. Knows positions only; sizes in pixels are the writer's.

use super::Drawing;

/// How often the order is improved in both directions; more changes nothing in practice.
const SWEEPS: usize = 8;

/// What takes up a place in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The box at this position.
    Box(usize),
    /// A point that the arrow at this position passes.
    Waypoint(usize),
}

/// Columns of slots from top to bottom.
pub(super) struct Layers {
    pub(super) columns: Vec<Vec<Slot>>,
    /// For each arrow, its slots as column and row, from its first box to its last.
    pub(super) paths: Vec<Vec<(usize, usize)>>,
}

/// Lays a drawing out.
pub(super) fn layers(drawing: &Drawing) -> Layers {
    let depth = depths(drawing);
    let n_columns = depth.iter().max().map_or(0, |d| d + 1);
    let mut columns: Vec<Vec<Slot>> = vec![Vec::new(); n_columns];
    for (i, d) in depth.iter().enumerate() {
        columns[*d].push(Slot::Box(i));
    }
    for (i, arrow) in drawing.arrows.iter().enumerate() {
        for column in &mut columns[depth[arrow.from] + 1..depth[arrow.to]] {
            column.push(Slot::Waypoint(i));
        }
    }
    for _ in 0..SWEEPS {
        for at in 1..n_columns {
            sort_by_neighbours(drawing, &mut columns, &depth, at, at - 1);
        }
        for at in (1..n_columns).rev() {
            sort_by_neighbours(drawing, &mut columns, &depth, at - 1, at);
        }
    }
    let paths = (0..drawing.arrows.len())
        .map(|i| path(drawing, &columns, &depth, i))
        .collect();
    Layers { columns, paths }
}

/// The length of the longest way to each box; boxes come after what points to them.
fn depths(drawing: &Drawing) -> Vec<usize> {
    let mut depth = vec![0; drawing.boxes.len()];
    for to in 0..drawing.boxes.len() {
        let before = drawing
            .arrows
            .iter()
            .filter(|a| a.to == to)
            .map(|a| depth[a.from] + 1);
        depth[to] = before.max().unwrap_or(0);
    }
    depth
}

/// The slot of an arrow in one of the columns that it touches.
fn slot(drawing: &Drawing, depth: &[usize], arrow: usize, column: usize) -> Slot {
    let (from, to) = (drawing.arrows[arrow].from, drawing.arrows[arrow].to);
    match column {
        _ if column == depth[from] => Slot::Box(from),
        _ if column == depth[to] => Slot::Box(to),
        _ => Slot::Waypoint(arrow),
    }
}

/// Orders the column `at` by the mean place of each slot's neighbours in the column `beside`.
fn sort_by_neighbours(
    drawing: &Drawing,
    columns: &mut [Vec<Slot>],
    depth: &[usize],
    at: usize,
    beside: usize,
) {
    let (low, high) = (at.min(beside), at.max(beside));
    let mut means: Vec<(Slot, f64)> = Vec::with_capacity(columns[at].len());
    for (row, own) in columns[at].iter().enumerate() {
        let touching = (0..drawing.arrows.len()).filter(|i| {
            depth[drawing.arrows[*i].from] <= low
                && depth[drawing.arrows[*i].to] >= high
                && slot(drawing, depth, *i, at) == *own
        });
        let rows: Vec<usize> = touching
            .filter_map(|i| {
                columns[beside]
                    .iter()
                    .position(|s| *s == slot(drawing, depth, i, beside))
            })
            .collect();
        // Rows are relative, since columns have different lengths.
        let relative = |row: usize, of: usize| (row as f64 + 0.5) / of as f64;
        let mean = match rows.len() {
            0 => relative(row, columns[at].len()),
            n => {
                rows.iter()
                    .map(|r| relative(*r, columns[beside].len()))
                    .sum::<f64>()
                    / n as f64
            }
        };
        means.push((*own, mean));
    }
    means.sort_by(|a, b| a.1.total_cmp(&b.1));
    columns[at] = means.into_iter().map(|(slot, _)| slot).collect();
}

fn path(
    drawing: &Drawing,
    columns: &[Vec<Slot>],
    depth: &[usize],
    arrow: usize,
) -> Vec<(usize, usize)> {
    let (from, to) = (drawing.arrows[arrow].from, drawing.arrows[arrow].to);
    (depth[from]..=depth[to])
        .filter_map(|column| {
            let own = slot(drawing, depth, arrow, column);
            Some((column, columns[column].iter().position(|s| *s == own)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::{Arrow, NodeBox};
    use engine::graph::Edge;

    #[test]
    fn every_arrow_goes_to_the_right_through_every_column_between() {
        let drawing = crate::drawing::sample();
        let layers = layers(&drawing);
        assert_eq!(layers.columns.len(), 4);
        for (arrow, path) in drawing.arrows.iter().zip(&layers.paths) {
            let columns: Vec<usize> = path.iter().map(|(column, _)| *column).collect();
            assert!(
                columns.windows(2).all(|w| w[1] == w[0] + 1),
                "{arrow:?}: {path:?}"
            );
            assert!(
                matches!(layers.columns[path[0].0][path[0].1], Slot::Box(i) if i == arrow.from)
            );
        }
        let long = drawing
            .arrows
            .iter()
            .position(|a| a.from == 0 && a.to == 3)
            .expect("an arrow");
        assert_eq!(layers.paths[long].len(), 4);
    }

    #[test]
    fn crossed_arrows_are_uncrossed() {
        let boxes = ["a", "b", "c", "d"].map(|n| NodeBox {
            name: n.into(),
            decl: n.into(),
            uses: "x.y".into(),
            kind: "pure",
            state: None,
            note: String::new(),
        });
        let arrow = |from, to| Arrow {
            from,
            to,
            edge: Edge::Needs,
        };
        let drawing = Drawing {
            title: String::new(),
            boxes: boxes.into(),
            arrows: vec![arrow(0, 3), arrow(1, 2)],
        };
        let paths = layers(&drawing).paths;
        let (first, second) = (&paths[0], &paths[1]);
        assert_eq!(
            first[0].1 < second[0].1,
            first[1].1 < second[1].1,
            "{paths:?}"
        );
    }

    #[test]
    fn nothing_is_laid_out_as_nothing() {
        assert!(layers(&Drawing::default()).columns.is_empty());
    }
}
