//! Text in columns, as wide as they need to be. Knows nothing of what stands in them.

use crate::terminal::Ink;

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    ink: Ink,
}

impl Cell {
    /// Builds a cell.
    pub(crate) fn new(ink: Ink, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ink,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(Ink::Plain, text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(Ink::Plain, text)
    }
}

/// Rows of cells.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    titles: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Builds columns under `titles`.
    pub(crate) fn titled(titles: &[&str]) -> Self {
        Self {
            titles: titles.iter().map(|t| Cell::new(Ink::Dim, *t)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes every row as a line behind `indent`, two blanks between columns and none at the end.
    /// A column in which no row says anything is left out.
    pub(crate) fn lines(&self, indent: &str, color: bool) -> Vec<String> {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..n_columns).map(|at| self.width(at)).collect();
        let titles = Some(&self.titles).filter(|titles| !titles.is_empty());
        titles
            .into_iter()
            .chain(&self.rows)
            .map(|row| line(indent, row, &widths, color))
            .collect()
    }

    fn width(&self, at: usize) -> usize {
        let length = |row: &Vec<Cell>| row.get(at).map_or(0, |cell| cell.text.chars().count());
        match self.rows.iter().map(length).max().unwrap_or(0) {
            0 => 0,
            widest => widest.max(length(&self.titles)),
        }
    }
}

fn line(indent: &str, row: &[Cell], widths: &[usize], color: bool) -> String {
    let mut line = String::from(indent);
    let mut owed = 0;
    for (cell, width) in row.iter().zip(widths).filter(|(_, width)| **width > 0) {
        let length = cell.text.chars().count();
        if length > 0 {
            line.push_str(&" ".repeat(owed));
            line.push_str(&cell.ink.paint(&cell.text, color));
            owed = 0;
        }
        owed += width - length + 2;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() {
        let mut columns = Columns::titled(&["step", "state", "why"]);
        columns.row(vec!["model".into(), "done".into(), "".into()]);
        columns.row(vec!["a".into(), "".into(), "b".into()]);
        assert_eq!(
            columns.lines(" ", false),
            [" step   state  why", " model  done", " a             b"]
        );
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out_with_its_title() {
        let mut columns = Columns::titled(&["step", "samples", "time"]);
        columns.row(vec!["a".into(), "".into(), "1 s".into()]);
        assert_eq!(columns.lines("", false), ["step  time", "a     1 s"]);
    }
}
