//! A file of comma-separated values whose header names axes and whose rows are combinations.
//!
//! Fields as RFC 4180 has them: plain, or in double quotes, which are doubled within. A column is
//! of one type: booleans, integers, numbers, or text.

use super::Placed;
use crate::problem::{Problem, Problems};
use crate::source::{Place, SourceId};
use crate::value::{Kind, Value};

/// A file as read.
pub(super) struct Grid {
    pub(super) names: Vec<(String, Place)>,
    pub(super) rows: Vec<Placed>,
}

struct Field {
    text: String,
    place: Place,
    quoted: bool,
}

/// Reads the text of `source`; nothing if it is no such file.
pub(super) fn read(source: SourceId, text: &str, problems: &mut Problems) -> Option<Grid> {
    let records = match records(source, text) {
        Ok(records) => records,
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    let mut records = records.into_iter();
    let header = records.next();
    let (Some(header), true) = (header, records.len() > 0) else {
        let place = Place::new(source, 0..text.len());
        let problem = Problem::at(&place, "the file holds no combination", "no rows");
        problems.push(problem.help("write names of axes in the first line, values in the others"));
        return None;
    };
    let rows: Vec<Vec<Field>> = records.collect();
    let is_sound = check_header(&header, problems) & check_rows(&header, &rows, problems);
    is_sound.then(|| grid(header, rows))
}

fn check_header(header: &[Field], problems: &mut Problems) -> bool {
    let mut sound = true;
    for (i, field) in header.iter().enumerate() {
        let is_name = !field.text.is_empty()
            && field
                .text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let is_new = header[..i].iter().all(|other| other.text != field.text);
        let problem = match (is_name, is_new) {
            (true, true) => continue,
            (false, _) => Problem::at(
                &field.place,
                format!("`{}` cannot be the name of an axis", field.text),
                "not a name",
            )
            .help("use letters, digits, `_` and `-`"),
            (true, false) => Problem::at(
                &field.place,
                format!("the column `{}` is there twice", field.text),
                "the same name again",
            )
            .help("give one of them another name"),
        };
        problems.push(problem);
        sound = false;
    }
    sound
}

fn check_rows(header: &[Field], rows: &[Vec<Field>], problems: &mut Problems) -> bool {
    let mut sound = true;
    for row in rows.iter().filter(|row| row.len() != header.len()) {
        let message = format!(
            "this row has {} values, and there are {} columns",
            row.len(),
            header.len()
        );
        let problem = Problem::at(&row[0].place, message, "this row");
        problems.push(problem.help("give every axis one value; put text with a comma in quotes"));
        sound = false;
    }
    sound
}

fn grid(header: Vec<Field>, rows: Vec<Vec<Field>>) -> Grid {
    let kinds: Vec<fn(&Field) -> Kind> = (0..header.len())
        .map(|column| reader_of(rows.iter().map(|row| &row[column])))
        .collect();
    let value = |(field, kind): (&Field, &fn(&Field) -> Kind)| Value {
        kind: kind(field),
        place: field.place.clone(),
    };
    let placed = rows.iter().map(|row| {
        let values = row.iter().zip(&kinds).map(value).collect();
        (row[0].place.clone(), values)
    });
    Grid {
        rows: placed.collect(),
        names: header.into_iter().map(|f| (f.text, f.place)).collect(),
    }
}

/// Chooses the narrowest type that every field of a column has.
fn reader_of<'a>(column: impl Iterator<Item = &'a Field> + Clone) -> fn(&Field) -> Kind {
    let readers: [fn(&Field) -> Option<Kind>; 3] = [boolean, integer, number];
    let all = |reader: fn(&Field) -> Option<Kind>| column.clone().all(|f| reader(f).is_some());
    if all(readers[0]) {
        return |field| boolean(field).unwrap_or_else(|| text(field));
    }
    if all(readers[1]) {
        return |field| integer(field).unwrap_or_else(|| text(field));
    }
    if all(readers[2]) {
        return |field| number(field).unwrap_or_else(|| text(field));
    }
    text
}

fn boolean(field: &Field) -> Option<Kind> {
    match (field.quoted, field.text.as_str()) {
        (false, "true") => Some(Kind::Bool(true)),
        (false, "false") => Some(Kind::Bool(false)),
        _ => None,
    }
}

fn integer(field: &Field) -> Option<Kind> {
    let number = field.text.parse().ok().filter(|_| !field.quoted)?;
    Some(Kind::Int(number))
}

fn number(field: &Field) -> Option<Kind> {
    let number: f64 = field.text.parse().ok().filter(|_| !field.quoted)?;
    number.is_finite().then_some(Kind::Float(number))
}

fn text(field: &Field) -> Kind {
    Kind::Text(field.text.clone())
}

/// Splits a text into records; empty lines are none.
fn records(source: SourceId, text: &str) -> Result<Vec<Vec<Field>>, Problem> {
    let mut records = Vec::new();
    let mut record: Vec<Field> = Vec::new();
    let mut at = if text.starts_with('\u{feff}') { 3 } else { 0 };
    loop {
        let (field, end) = field(source, text, at)?;
        record.push(field);
        if text[end..].starts_with(',') {
            at = end + 1;
            continue;
        }
        let is_blank = matches!(record.as_slice(), [only] if only.text.is_empty() && !only.quoted);
        let done = std::mem::take(&mut record);
        if !is_blank {
            records.push(done);
        }
        let rest = &text[end..];
        let line_break = rest.find('\n').map(|n| end + n + 1);
        match line_break.filter(|next| *next < text.len()) {
            Some(next) => at = next,
            None => return Ok(records),
        }
    }
}

/// Reads one field from byte `at`, and says where it ends.
fn field(source: SourceId, text: &str, at: usize) -> Result<(Field, usize), Problem> {
    let rest = &text[at..];
    let length = rest.find([',', '\n']).unwrap_or(rest.len());
    let plain = &rest[..length];
    let start = at + (plain.len() - plain.trim_start().len());
    if !plain.trim_start().starts_with('"') {
        let trimmed = plain.trim();
        let field = Field {
            text: trimmed.to_owned(),
            place: Place::new(source, start..start + trimmed.len()),
            quoted: false,
        };
        return Ok((field, at + length));
    }
    let unclosed = || {
        let place = Place::new(source, start..at + length);
        Problem::at(
            &place,
            "these quotes are never closed, or something follows them",
            "here",
        )
        .help("write `\"text\"`, with `\"\"` for quotes within")
    };
    let (said, end) = quoted(text, start).ok_or_else(unclosed)?;
    let after = text[end..]
        .find([',', '\n'])
        .map_or(text.len(), |n| end + n);
    if !text[end..after].trim().is_empty() {
        return Err(unclosed());
    }
    let field = Field {
        text: said,
        place: Place::new(source, start..end),
        quoted: true,
    };
    Ok((field, after))
}

/// Reads the quoted text that begins at `start`, and says where it ends.
fn quoted(text: &str, start: usize) -> Option<(String, usize)> {
    let mut said = String::new();
    let mut at = start + 1;
    loop {
        let close = at + text[at..].find('"')?;
        said.push_str(&text[at..close]);
        if !text[close + 1..].starts_with('"') {
            return Some((said, close + 1));
        }
        said.push('"');
        at = close + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Sources;
    use proptest::prelude::*;

    fn grid_of(text: &str) -> Result<Grid, Vec<String>> {
        let mut sources = Sources::default();
        let id = sources.add("grid.csv", text);
        let mut problems = Problems::default();
        let grid = read(id, text, &mut problems);
        let messages = |p: Problems| p.into_sorted().into_iter().map(|p| p.message).collect();
        grid.ok_or_else(|| messages(problems))
    }

    fn lines(text: &str) -> Vec<String> {
        let grid = grid_of(text).expect("a grid");
        let line = |(_, row): &Placed| row.iter().map(Value::to_line).collect::<Vec<_>>().join(" ");
        grid.rows.iter().map(line).collect()
    }

    #[test]
    fn a_column_is_of_the_narrowest_type_that_all_its_fields_have() {
        let text =
            "tp, rate,fast,name,tag\r\n1, 0.5,true,a,\"1\"\r\n\n2,4,false,7,\"x, \"\"y\"\"\"\n";
        assert_eq!(
            lines(text),
            [
                "1 0.5 true \"a\" \"1\"",
                "2 4.0 false \"7\" \"x, \\\"y\\\"\""
            ]
        );
    }

    #[test]
    fn what_is_no_grid_is_a_problem() {
        let first = |text: &str| grid_of(text).err().expect("wrong")[0].clone();
        assert_eq!(first(""), "the file holds no combination");
        assert_eq!(first("a,b\n"), "the file holds no combination");
        assert_eq!(first("a,a\n1,2"), "the column `a` is there twice");
        assert_eq!(first("a,b c\n1,2"), "`b c` cannot be the name of an axis");
        assert_eq!(
            first("a,b\n1"),
            "this row has 1 values, and there are 2 columns"
        );
        let open = "these quotes are never closed, or something follows them";
        assert_eq!(first("a\n\"1"), open);
        assert_eq!(first("a\n\"1\"2"), open);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_as_it_was(fields in prop::collection::vec("[a-z,\"\n ]{0,6}", 1..5)) {
            let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            let text = format!("a\n{}", quoted.join("\n"));
            let grid = grid_of(&text).expect("a grid");
            let read: Vec<Kind> = grid.rows.into_iter().map(|(_, row)| row[0].kind.clone()).collect();
            prop_assert_eq!(read, fields.into_iter().map(Kind::Text).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_makes_it_fall_over(text in "[a,\"\n\rä ]{0,30}") {
            let _ = grid_of(&text);
        }
    }
}
