//! Reading typed values out of tables; what does not fit becomes a problem. Knows no plan keys.

use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::Place;
use crate::value::{Key, Kind, Table, Value};

/// Reads values and collects problems.
pub(super) struct Reader<'a> {
    pub(super) problems: &'a mut Problems,
    /// What is being read, for messages.
    pub(super) what: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(problems: &'a mut Problems, what: &str) -> Self {
        Self {
            problems,
            what: what.to_owned(),
        }
    }

    /// Reports every key of `table` that is not in `known`.
    pub(super) fn only(&mut self, table: &Table, known: &[&str]) {
        for (key, _) in &table.entries {
            if !known.contains(&key.name.as_str()) {
                let message = format!("{} has no key `{}`", self.what, key.name);
                let help = did_you_mean(&key.name, known.iter().copied());
                self.problems
                    .push(Problem::at(&key.place, message, "unknown key").help(help));
            }
        }
    }

    /// Reports a value of another type than expected, and returns nothing.
    pub(super) fn wrong<T>(&mut self, value: &Value, expected: &str) -> Option<T> {
        // An empty template stands for something that was reported already.
        if !matches!(&value.kind, Kind::Template(pieces) if pieces.is_empty()) {
            let message = format!("expected {expected}, found {}", value.type_name());
            let label = format!("this is {}", value.type_name());
            let problem = Problem::at(&value.place, message, label);
            self.problems.push(problem.help(value.mend(expected)));
        }
        None
    }

    pub(super) fn text(&mut self, table: &Table, name: &str) -> Option<String> {
        let value = table.get(name)?;
        match &value.kind {
            Kind::Text(t) => Some(t.clone()),
            _ => self.wrong(value, "a string"),
        }
    }

    /// Reads a boolean, which is false if it is not there.
    pub(super) fn boolean(&mut self, table: &Table, name: &str) -> bool {
        match table.get(name) {
            None => false,
            Some(value) => match value.kind {
                Kind::Bool(b) => b,
                _ => self.wrong(value, "`true` or `false`").unwrap_or_default(),
            },
        }
    }

    pub(super) fn table(&mut self, table: &Table, name: &str) -> Option<Table> {
        let value = table.get(name)?;
        match &value.kind {
            Kind::Table(t) => Some(t.clone()),
            _ => self.wrong(value, "a table"),
        }
    }

    /// Reads a table of tables.
    pub(super) fn tables(&mut self, table: &Table, name: &str) -> Vec<(Key, Table, Place)> {
        let all = self.table(table, name).unwrap_or_default();
        let mut found = Vec::new();
        for (key, value) in all.entries {
            match value.kind {
                Kind::Table(inner) => found.push((key, inner, value.place)),
                _ => {
                    self.wrong::<()>(&value, "a table");
                }
            }
        }
        found
    }

    pub(super) fn number(&mut self, table: &Table, name: &str) -> Option<f64> {
        let value = table.get(name)?;
        match value.kind {
            #[expect(
                clippy::cast_precision_loss,
                reason = "limits in plans are far below 2^53"
            )]
            Kind::Int(i) => Some(i as f64),
            Kind::Float(f) => Some(f),
            _ => self.wrong(value, "a number"),
        }
    }

    /// Reads a list, which is empty if it is not there.
    pub(super) fn list(&mut self, table: &Table, name: &str, of: &str) -> Vec<Value> {
        let Some(value) = table.get(name) else {
            return Vec::new();
        };
        match &value.kind {
            Kind::List(list) => list.clone(),
            _ => {
                self.wrong::<()>(value, &format!("a list of {of}"));
                Vec::new()
            }
        }
    }

    pub(super) fn names(&mut self, table: &Table, name: &str) -> Vec<(String, Place)> {
        let list = self.list(table, name, "names");
        list.iter().filter_map(|item| self.name(item)).collect()
    }

    pub(super) fn name(&mut self, item: &Value) -> Option<(String, Place)> {
        match &item.kind {
            Kind::Text(t) => Some((t.clone(), item.place.clone())),
            _ => self.wrong(item, "a name"),
        }
    }

    /// Reports a key that could not stand in a reference.
    pub(super) fn check_name(&mut self, key: &Key) {
        let sound = key
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !sound || key.name.is_empty() {
            let problem = Problem::at(
                &key.place,
                format!("`{}` cannot be a name", key.name),
                "not a name",
            );
            self.problems
                .push(problem.help("use letters, digits, `_` and `-`"));
        }
    }
}
