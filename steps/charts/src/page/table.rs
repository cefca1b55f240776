//! Tables: columns that say their unit and meaning, cells that sort by value.

use crate::escape::escape;
use crate::number::format_number;
use crate::page::block::Tone;
use crate::page::write::badge;
use crate::reading::Grade;

/// A table. Rows shorter than the columns are filled up with empty cells.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// A line above the table; may be empty.
    pub caption: String,
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// The rows, top to bottom.
    pub rows: Vec<Vec<Cell>>,
}

/// The head of a column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The unit of its values; may be empty.
    pub unit: String,
    /// What it means, shown when a reader points at it; may be empty.
    pub definition: String,
    /// Which side its cells keep to.
    pub align: Align,
}

/// Which side the cells of a column keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// Left: words.
    #[default]
    Start,
    /// Right: numbers.
    End,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// What it is sorted by, if that is not its text.
    pub sort: Option<f64>,
    /// A badge before the text.
    pub grade: Option<Grade>,
    /// How to take it.
    pub tone: Option<Tone>,
    /// What is shown when a reader points at it; may be empty.
    pub hint: String,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Sets the line above.
    pub fn caption(mut self, text: impl Into<String>) -> Self {
        self.caption = text.into();
        self
    }

    /// Adds a row.
    pub fn row<C: Into<Cell>>(mut self, cells: impl IntoIterator<Item = C>) -> Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }
}

impl Column {
    /// A column of words.
    pub fn text(name: impl Into<String>) -> Self {
        let (name, unit, definition) = (name.into(), String::new(), String::new());
        Self {
            name,
            unit,
            definition,
            align: Align::Start,
        }
    }

    /// A column of numbers. `unit` may be empty.
    pub fn number(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            unit: unit.into(),
            align: Align::End,
            ..Self::text(name)
        }
    }

    /// Sets what it means.
    pub fn definition(mut self, text: impl Into<String>) -> Self {
        self.definition = text.into();
        self
    }
}

impl Cell {
    /// A cell of words.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// A number, written for people and sorted by its value. NaN shows as a dash and is
    /// sorted last.
    pub fn number(value: f64) -> Self {
        Self {
            text: format_number(value),
            sort: Some(value),
            ..Self::default()
        }
    }

    /// A badge, sorted from valid to invalid.
    pub fn grade(grade: Grade) -> Self {
        let rank = f64::from(grade as u8);
        Self {
            grade: Some(grade),
            sort: Some(rank),
            ..Self::default()
        }
    }

    /// Sets how to take it.
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = Some(tone);
        self
    }

    /// Sets what is shown when a reader points at it.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = text.into();
        self
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::number(value)
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        Self::number(value.unwrap_or(f64::NAN))
    }
}

impl From<Grade> for Cell {
    fn from(grade: Grade) -> Self {
        Self::grade(grade)
    }
}

/// Writes a table that scrolls by itself where it is too wide.
pub(crate) fn write(out: &mut String, table: &Table) {
    let label = if table.caption.is_empty() {
        "table"
    } else {
        &table.caption
    };
    out.push_str(&format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table>",
        escape(label)
    ));
    if !table.caption.is_empty() {
        out.push_str(&format!("<caption>{}</caption>", escape(&table.caption)));
    }
    out.push_str("<thead><tr>");
    for column in &table.columns {
        write_head(out, column);
    }
    out.push_str("</tr></thead><tbody>\n");
    let empty = Cell::default();
    for row in &table.rows {
        out.push_str("<tr>");
        for (i, column) in table.columns.iter().enumerate() {
            write_cell(out, row.get(i).unwrap_or(&empty), column.align);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn write_head(out: &mut String, column: &Column) {
    let hint = hint(&column.definition);
    let unit = match column.unit.as_str() {
        "" => String::new(),
        unit => format!(" <span class=\"unit\">{}</span>", escape(unit)),
    };
    let defined = if column.definition.is_empty() {
        ""
    } else {
        " class=\"defined\""
    };
    out.push_str(&format!(
        "<th scope=\"col\"{}{hint}><button type=\"button\"><span{defined}>{}</span>{unit}</button></th>",
        side(column.align),
        escape(&column.name)
    ));
}

fn write_cell(out: &mut String, cell: &Cell, align: Align) {
    let tone = cell.tone.map_or("", Tone::word);
    let classes = match (align, tone) {
        (Align::Start, "") => String::new(),
        (Align::Start, tone) => format!(" class=\"{tone}\""),
        (Align::End, "") => " class=\"end\"".to_owned(),
        (Align::End, tone) => format!(" class=\"end {tone}\""),
    };
    // An empty key is sorted last, in either direction.
    let key = cell.sort.map(|value| match value {
        value if value.is_nan() => " data-sort=\"\"".to_owned(),
        value if value.is_infinite() && value > 0.0 => " data-sort=\"Infinity\"".to_owned(),
        value if value.is_infinite() => " data-sort=\"-Infinity\"".to_owned(),
        value => format!(" data-sort=\"{value}\""),
    });
    let badge = cell.grade.map(badge).unwrap_or_default();
    out.push_str(&format!(
        "<td{classes}{}{}>{badge}{}</td>",
        key.unwrap_or_default(),
        hint(&cell.hint),
        escape(&cell.text)
    ));
}

fn side(align: Align) -> &'static str {
    match align {
        Align::Start => "",
        Align::End => " class=\"end\"",
    }
}

fn hint(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" title=\"{}\"", escape(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table) -> String {
        let mut out = String::new();
        write(&mut out, table);
        out
    }

    #[test]
    fn cells_sort_by_value_and_say_it_for_people() {
        let table = Table::new([Column::number("ttft", "ms").definition("first − sent")])
            .row([1234.5678])
            .row([f64::INFINITY])
            .row([f64::NAN]);
        let html = written(&table);
        assert!(html.contains("<td class=\"end\" data-sort=\"1234.5678\">1,235</td>"));
        assert!(html.contains("data-sort=\"Infinity\">∞"));
        assert!(html.contains("data-sort=\"\">–"));
        assert!(html.contains("title=\"first − sent\""));
        assert!(html.contains("<span class=\"unit\">ms</span>"));
    }

    #[test]
    fn a_table_is_rectangular_and_escaped() {
        let table = Table::new([Column::text("<a>"), Column::text("b")])
            .caption("<c>")
            .row(["<x>"])
            .row(["1", "2", "3"]);
        let html = written(&table);
        assert_eq!(html.matches("<td").count(), 4);
        assert!(!html.contains("<a>") && !html.contains("<x>") && !html.contains("<c>"));
    }

    #[test]
    fn grades_and_tones_are_classes() {
        let table = Table::new([Column::text("verdict"), Column::number("x", "")]).row([
            Cell::grade(Grade::Invalid).hint("a \"reason\""),
            Cell::number(1.0).tone(Tone::Bad),
        ]);
        let html = written(&table);
        assert!(html.contains(
            "data-sort=\"2\" title=\"a &quot;reason&quot;\"><span class=\"badge invalid\">"
        ));
        assert!(html.contains("<td class=\"end bad\" data-sort=\"1\">1</td>"));
    }
}
