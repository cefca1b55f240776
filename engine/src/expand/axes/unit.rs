//! Axes that vary together, and how several such groups are multiplied out.

use crate::point::{Coordinate, Point, PointKey};
use std::collections::HashSet;
use std::sync::Arc;

/// Values of different axes.
pub(super) type Row = Vec<Arc<Coordinate>>;

/// Axes that vary together, or one that varies alone.
pub(super) struct Unit {
    pub(super) names: Vec<Arc<str>>,
    /// One value for each of the names.
    pub(super) rows: Vec<Row>,
}

impl Unit {
    /// The different rows on those of its axes that are among `axes`; nothing if none is.
    pub(super) fn rows_of(&self, axes: &[Arc<str>]) -> Option<Vec<Row>> {
        let taken: Vec<usize> = (0..self.names.len())
            .filter(|i| axes.contains(&self.names[*i]))
            .collect();
        if taken.is_empty() {
            return None;
        }
        let mut seen: HashSet<PointKey> = HashSet::new();
        let rows = self.rows.iter();
        let rows = rows.map(|row| -> Row { taken.iter().map(|i| row[*i].clone()).collect() });
        let is_new = |row: &Row| seen.insert(row.iter().map(|c| c.id).collect());
        Some(rows.filter(is_new).collect())
    }
}

/// Every combination of one row of each unit that is `wanted`; the last unit varies fastest.
/// Coordinates are ordered by `position`.
pub(super) fn combine(
    units: &[Vec<Row>],
    position: impl Fn(&Coordinate) -> usize,
    wanted: impl Fn(&[&Arc<Coordinate>]) -> bool,
) -> Vec<Point> {
    if units.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let first: Vec<&Arc<Coordinate>> = units.iter().flat_map(|rows| &rows[0]).collect();
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by_key(|i| position(first[*i]));
    let mut all = Vec::new();
    let mut at = vec![0; units.len()];
    loop {
        let rows = units.iter().zip(&at);
        let row: Vec<&Arc<Coordinate>> = rows.flat_map(|(rows, i)| &rows[*i]).collect();
        if wanted(&row) {
            all.push(order.iter().map(|i| row[*i].clone()).collect());
        }
        if !advance(&mut at, units) {
            return all;
        }
    }
}

/// Moves on to the next combination, if there is one.
fn advance(at: &mut [usize], units: &[Vec<Row>]) -> bool {
    for (i, rows) in at.iter_mut().zip(units).rev() {
        *i += 1;
        if *i < rows.len() {
            return true;
        }
        *i = 0;
    }
    false
}
