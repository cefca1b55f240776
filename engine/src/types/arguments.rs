//! Arguments of a server as a table: what overlays and plans merge, and what becomes its flags.
//!
//! A key in `snake_case` is the flag `--kebab-case`; `true` is a bare flag and `false` none, a
//! list is one flag with several values, a table is one compact JSON value, and anything else is
//! a flag with its value. Knows no server and no merging.

use super::Text;
use crate::options::{OptionType, Parser, Walk};
use crate::value::{Key, Kind, Table, Value};
use serde_json::json;

/// Named arguments in the order in which they were first written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments {
    entries: Vec<(String, Argument)>,
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A switch.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number with a fraction.
    Float(f64),
    /// Text, perhaps with references.
    Text(Text),
    /// Values in order.
    List(Vec<Argument>),
    /// Named values.
    Table(Vec<(String, Argument)>),
}

impl Arguments {
    /// Goes through the arguments by their key, as written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Argument)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Returns the argument called `key`.
    pub fn get(&self, key: &str) -> Option<&Argument> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Returns the arguments whose key is not one that `leaves` names.
    #[must_use]
    pub fn without(&self, leaves: impl Fn(&str) -> bool) -> Self {
        let entries = self.entries.iter().filter(|(key, _)| !leaves(key));
        Self {
            entries: entries.cloned().collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Renders the flags; `text` puts a text with references together.
    ///
    /// # Errors
    /// The first error of `text`.
    pub fn flags<E>(&self, text: impl FnMut(&Text) -> Result<String, E>) -> Result<Vec<String>, E> {
        self.flags_as(flag, text)
    }

    /// The same for a server that writes the names of its flags in another way.
    ///
    /// # Errors
    /// The first error of `text`.
    pub fn flags_as<E>(
        &self,
        flag: impl Fn(&str) -> String,
        mut text: impl FnMut(&Text) -> Result<String, E>,
    ) -> Result<Vec<String>, E> {
        let mut flags = Vec::new();
        for (key, argument) in &self.entries {
            match argument {
                Argument::Bool(false) => continue,
                Argument::Bool(true) => flags.push(flag(key)),
                Argument::List(list) => {
                    flags.push(flag(key));
                    for item in list {
                        flags.push(item.word(&mut text)?);
                    }
                }
                other => flags.extend([flag(key), other.word(&mut text)?]),
            }
        }
        Ok(flags)
    }

    /// Renders them as one JSON object, for a server that reads a file.
    ///
    /// # Errors
    /// The first error of `text`.
    pub fn json<E>(
        &self,
        mut text: impl FnMut(&Text) -> Result<String, E>,
    ) -> Result<serde_json::Map<String, serde_json::Value>, E> {
        let entries = self.entries.iter();
        entries
            .map(|(key, argument)| Ok((key.clone(), argument.json(&mut text)?)))
            .collect()
    }
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

impl Argument {
    /// Renders one word of a command line.
    fn word<E>(&self, text: &mut impl FnMut(&Text) -> Result<String, E>) -> Result<String, E> {
        match self {
            Argument::Text(t) => text(t),
            other => Ok(other.json(text)?.to_string()),
        }
    }

    fn json<E>(
        &self,
        text: &mut impl FnMut(&Text) -> Result<String, E>,
    ) -> Result<serde_json::Value, E> {
        Ok(match self {
            Argument::Bool(b) => json!(b),
            Argument::Int(i) => json!(i),
            Argument::Float(f) => json!(f),
            Argument::Text(t) => text(t)?.into(),
            Argument::List(list) => {
                let items = list.iter().map(|item| item.json(text));
                items.collect::<Result<Vec<_>, E>>()?.into()
            }
            Argument::Table(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    map.insert(key.clone(), value.json(text)?);
                }
                map.into()
            }
        })
    }

    fn read(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        Some(match &value.kind {
            Kind::Bool(b) => Self::Bool(*b),
            Kind::Int(i) => Self::Int(*i),
            Kind::Float(f) if f.is_finite() => Self::Float(*f),
            Kind::Float(f) => {
                let message = format!("a server cannot be given the number {f}");
                return parser.wrong(&value.place, message, "not finite", "write a finite number");
            }
            Kind::Text(_) | Kind::Template(_) => Self::Text(Text::parse(value, parser)?),
            Kind::List(list) => {
                let read: Vec<Option<Self>> = list.iter().map(|v| Self::read(v, parser)).collect();
                Self::List(read.into_iter().collect::<Option<_>>()?)
            }
            Kind::Table(table) => Self::Table(read_entries(table, parser)?),
        })
    }

    /// Reports one of several values of a flag, each of which is a word.
    fn walk_word(&self, path: &str, in_json: InJson, walk: &mut dyn Walk) {
        match (self, in_json) {
            (Argument::Bool(b), InJson::No) => walk.value(path, &b.to_string()),
            _ => self.walk(path, in_json, walk),
        }
    }

    /// Reports values; where the server gets JSON, text is told from numbers.
    fn walk(&self, path: &str, in_json: InJson, walk: &mut dyn Walk) {
        match (self, in_json) {
            (Argument::Bool(b), InJson::Yes) => walk.value(path, &b.to_string()),
            // Not `true`, which is what the same text would be: a flag has no value.
            (Argument::Bool(true), InJson::No) => walk.value(path, "a flag"),
            (Argument::Bool(false), InJson::No) => walk.value(path, "no flag"),
            (Argument::Int(i), _) => walk.value(path, &i.to_string()),
            (Argument::Float(f), _) => walk.value(path, &format!("{f:?}")),
            (Argument::Text(t), InJson::No) => t.walk(path, walk),
            (Argument::Text(t), InJson::Yes) => {
                // Quotes around the whole: what is inside may be known only later.
                walk.value(path, "\"…\"");
                t.walk(&format!("{path}.text"), walk);
            }
            (Argument::List(list), _) if list.is_empty() => walk.value(path, "[]"),
            (Argument::List(list), _) => {
                if matches!(in_json, InJson::Yes) {
                    walk.value(path, "[…]");
                }
                for (i, item) in list.iter().enumerate() {
                    item.walk_word(&format!("{path}.{i}"), in_json, walk);
                }
            }
            (Argument::Table(entries), _) => {
                if !entries.is_empty() {
                    walk.value(path, "{…}");
                }
                walk_entries(entries, path, InJson::Yes, walk);
            }
        }
    }
}

/// Whether a value is part of a JSON argument.
#[derive(Clone, Copy)]
enum InJson {
    Yes,
    No,
}

fn read_entries(table: &Table, parser: &mut Parser<'_>) -> Option<Vec<(String, Argument)>> {
    let read: Vec<Option<(String, Argument)>> = table
        .entries
        .iter()
        .map(|(k, v)| Argument::read(v, parser).map(|v| (k.name.clone(), v)))
        .collect();
    read.into_iter().collect()
}

/// Goes through entries by name, so that their order is part of no key.
fn walk_entries(entries: &[(String, Argument)], path: &str, in_json: InJson, walk: &mut dyn Walk) {
    if entries.is_empty() {
        return walk.value(path, "{}");
    }
    let mut sorted: Vec<&(String, Argument)> = entries.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (key, value) in sorted {
        let path = match path {
            "" => key.clone(),
            // A dot in a name is not one between names.
            path if key.contains(['.', '"']) => format!("{path}.{key:?}"),
            path => format!("{path}.{key}"),
        };
        value.walk(&path, in_json, walk);
    }
}

impl OptionType for Arguments {
    fn type_name() -> String {
        "table of arguments".to_owned()
    }

    fn schema() -> crate::schema::Schema {
        serde_json::json!({ "type": "object", "additionalProperties": true })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Table(table) = &value.kind else {
            return parser.mismatch(value, "a table of arguments");
        };
        let mut sound = true;
        for (i, (key, value)) in table.entries.iter().enumerate() {
            sound &= check_key(key, &table.entries[..i], parser).is_some();
            sound &= check_list(key, value, parser).is_some();
        }
        let entries = read_entries(table, parser)?;
        sound.then_some(Self { entries })
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk_entries(&self.entries, path, InJson::No, walk);
    }
}

fn check_key(key: &Key, before: &[(Key, Value)], parser: &mut Parser<'_>) -> Option<()> {
    let is_flag = key.name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_flag {
        let message = format!("`{}` cannot be the name of an argument", key.name);
        let help = "write `tensor_parallel_size` for `--tensor-parallel-size`";
        return parser.wrong(&key.place, message, "not a name", help);
    }
    let twin = before
        .iter()
        .find(|(other, _)| flag(&other.name) == flag(&key.name));
    twin.map_or(Some(()), |(other, _)| {
        let message = format!(
            "`{}` and `{}` are the same flag `{}`",
            other.name,
            key.name,
            flag(&key.name)
        );
        parser.wrong(&key.place, message, "the same flag again", "remove one")
    })
}

fn check_list(key: &Key, value: &Value, parser: &mut Parser<'_>) -> Option<()> {
    if !matches!(&value.kind, Kind::List(list) if list.is_empty()) {
        return Some(());
    }
    let message = format!(
        "argument `{}` is a flag with values, and here are none",
        key.name
    );
    let help = "write `false` to leave the flag out";
    parser.wrong(&value.place, message, "an empty list", help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Linked, Linker};
    use crate::problem::{Problem, Problems};
    use crate::source::{Place, Sources};
    use crate::value::{Target, parse};
    use std::convert::Infallible;
    use std::path::{Path, PathBuf};

    struct Nothing;

    impl Linker for Nothing {
        fn link(&self, _: &Target, _: &Place) -> Result<Linked, Option<Problem>> {
            Err(None)
        }
        fn find(&self, _: &str, _: &Place) -> Result<PathBuf, Vec<PathBuf>> {
            Err(Vec::new())
        }
    }

    fn read(text: &str) -> Result<Arguments, Vec<Problem>> {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", text);
        let mut problems = Problems::default();
        let table = parse(&sources, id, &mut problems);
        let value = Value {
            kind: Kind::Table(table),
            place: Place::new(id, 0..0),
        };
        let mut parser = Parser::new("service `s`", &Nothing, &mut problems);
        let read = Arguments::parse(&value, &mut parser);
        read.ok_or_else(|| problems.into_sorted())
    }

    fn flags(text: &str) -> Vec<String> {
        let plain = |text: &Text| match text.parts.as_slice() {
            [crate::types::TextPart::Plain(plain)] => Ok::<_, Infallible>(plain.clone()),
            other => panic!("{other:?}"),
        };
        let arguments = read(text).unwrap_or_else(|p| panic!("{p:#?}"));
        arguments.flags(plain).expect("infallible")
    }

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Walk for Seen {
        fn value(&mut self, path: &str, text: &str) {
            self.0.push(format!("{path}={text}"));
        }
        fn link(&mut self, _: &str, _: &crate::graph::Link) {}
        fn file(&mut self, _: &str, _: &Path) {}
    }

    fn walked(text: &str) -> Vec<String> {
        let mut seen = Seen::default();
        read(text).expect("sound").walk("args", &mut seen);
        seen.0
    }

    #[test]
    fn every_kind_of_value_becomes_its_flag() {
        let text = "tp_size = 8\nmem_fraction = 0.5\nenable_x = true\ndisable_y = false\n\
                    backend = \"fa3\"\ncuda_graph_bs = [1, 2]\nrope = { factor = 4.0, kind = \"yarn\" }";
        assert_eq!(
            flags(text),
            [
                "--tp-size",
                "8",
                "--mem-fraction",
                "0.5",
                "--enable-x",
                "--backend",
                "fa3",
                "--cuda-graph-bs",
                "1",
                "2",
                "--rope",
                r#"{"factor":4.0,"kind":"yarn"}"#,
            ]
        );
    }

    #[test]
    fn names_that_are_no_flags_and_lists_without_values_are_problems() {
        let problems = read("\"--tp\" = 1\na_b = 1\na-b = 2\nc = []\nd = inf").expect_err("wrong");
        let messages: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "`--tp` cannot be the name of an argument",
                "`a_b` and `a-b` are the same flag `--a-b`",
                "argument `c` is a flag with values, and here are none",
                "a server cannot be given the number inf",
            ]
        );
    }

    #[test]
    fn the_order_of_keys_is_part_of_no_key_and_text_in_json_is_not_a_number() {
        assert_eq!(walked("b = 1\na = [2, 3]"), walked("a = [2, 3]\nb = 1"));
        assert_eq!(walked("b = 1\na = [2]"), ["args.a.0=2", "args.b=1"]);
        assert_ne!(walked("a = { b = 1 }"), walked("a = { b = \"1\" }"));
        assert_eq!(walked("a = 1"), walked("a = \"1\""));
    }

    #[test]
    fn what_gives_another_command_line_gives_another_key() {
        for (one, other) in [
            ("a = true", "a = \"true\""),
            ("a = false", "a = \"false\""),
            ("t = { a = { b = 1 } }", "t = { \"a.b\" = 1 }"),
            ("a = [1, 2]", "a = { 0 = 1, 1 = 2 }"),
            ("t = { a = [1, 2] }", "t = { a = { 0 = 1, 1 = 2 } }"),
        ] {
            assert_ne!(flags(one), flags(other));
            assert_ne!(walked(one), walked(other), "{one} and {other}");
        }
        let (one, other) = ("a = [true, 1]", "a = [\"true\", \"1\"]");
        assert_eq!(flags(one), flags(other));
        assert_eq!(walked(one), walked(other));
    }
}
