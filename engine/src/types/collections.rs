//! Options that hold others: lists, tables, optional values, free-form tables.

use crate::graph::Link;
use crate::options::{OptionType, Options, Parser, Walk};
use crate::schema::{Schema, list_of};
use crate::value::{Kind, Value};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

impl<T: OptionType> OptionType for Vec<T> {
    fn type_name() -> String {
        format!("list<{}>", T::type_name())
    }

    fn schema() -> Schema {
        list_of(T::schema())
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::List(list) = &value.kind else {
            return parser.mismatch(value, &Self::type_name());
        };
        let read: Vec<Option<T>> = list.iter().map(|v| T::parse(v, parser)).collect();
        read.into_iter().collect()
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.is_empty() {
            walk.value(path, "[]");
        }
        for (i, item) in self.iter().enumerate() {
            item.walk(&join(path, &i.to_string()), walk);
        }
    }
}

impl<T: OptionType> OptionType for BTreeMap<String, T> {
    fn type_name() -> String {
        format!("table<{}>", T::type_name())
    }

    fn schema() -> Schema {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Table(table) = &value.kind else {
            return parser.mismatch(value, &Self::type_name());
        };
        let read: Vec<Option<(String, T)>> = table
            .entries
            .iter()
            .map(|(k, v)| T::parse(v, parser).map(|v| (k.name.clone(), v)))
            .collect();
        read.into_iter().collect()
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.is_empty() {
            walk.value(path, "{}");
        }
        for (key, item) in self {
            item.walk(&join(path, key), walk);
        }
    }
}

impl<T: OptionType> OptionType for Option<T> {
    fn type_name() -> String {
        T::type_name()
    }

    fn schema() -> Schema {
        T::schema()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        T::parse(value, parser).map(Some)
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Some(item) => item.walk(path, &mut Present { path, walk }),
            None => walk.value(path, ABSENT),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A table of options within options.
#[derive(Debug, Clone)]
pub struct Nested<T>(pub T);

impl<T: Options> OptionType for Nested<T> {
    fn type_name() -> String {
        "table".to_owned()
    }

    fn schema() -> Schema {
        let options = T::describe();
        let required: Vec<&str> = options
            .iter()
            .filter(|option| option.default.is_none())
            .map(|option| option.name)
            .collect();
        let properties: serde_json::Map<String, Schema> = options
            .into_iter()
            .map(|option| (option.name.to_owned(), option.schema))
            .collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Table(table) = &value.kind else {
            return parser.mismatch(value, "a table");
        };
        T::parse(table, &value.place, parser).map(Self)
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        self.0.walk(&mut Below { path, walk });
    }
}

/// A walk over what stands below a path.
struct Below<'a> {
    path: &'a str,
    walk: &'a mut dyn Walk,
}

impl Walk for Below<'_> {
    fn value(&mut self, path: &str, text: &str) {
        self.walk.value(&join(self.path, path), text);
    }

    fn link(&mut self, path: &str, link: &Link) {
        self.walk.link(&join(self.path, path), link);
    }

    fn file(&mut self, path: &str, file: &Path) {
        self.walk.file(&join(self.path, path), file);
    }
}

/// What the walk over an optional value says where there is none.
const ABSENT: &str = "none";

/// A walk over an optional value that is there: text that reads as if it were not is put in quotes.
struct Present<'a> {
    path: &'a str,
    walk: &'a mut dyn Walk,
}

impl Walk for Present<'_> {
    fn value(&mut self, path: &str, text: &str) {
        if path == self.path && text.trim_matches('"') == ABSENT {
            self.walk.value(path, &format!("\"{text}\""));
        } else {
            self.walk.value(path, text);
        }
    }

    fn link(&mut self, path: &str, link: &Link) {
        self.walk.link(path, link);
    }

    fn file(&mut self, path: &str, file: &Path) {
        self.walk.file(path, file);
    }
}

/// A free-form table of plain values, such as overrides of a configuration file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Json(pub serde_json::Map<String, serde_json::Value>);

impl OptionType for Json {
    fn type_name() -> String {
        "table".to_owned()
    }

    fn schema() -> Schema {
        json!({ "type": "object", "additionalProperties": true })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match to_json(value, parser)? {
            serde_json::Value::Object(map) => Some(Self(map)),
            _ => parser.mismatch(value, "a table"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.0.is_empty() {
            return walk.value(path, "{}");
        }
        for (key, value) in &self.0 {
            walk.value(&join(path, key), &value.to_string());
        }
    }
}

fn to_json(value: &Value, parser: &mut Parser<'_>) -> Option<serde_json::Value> {
    Some(match &value.kind {
        Kind::Text(t) => t.clone().into(),
        Kind::Int(i) => (*i).into(),
        Kind::Float(f) => (*f).into(),
        Kind::Bool(b) => (*b).into(),
        Kind::List(list) => list
            .iter()
            .map(|v| to_json(v, parser))
            .collect::<Option<Vec<_>>>()?
            .into(),
        Kind::Table(table) => {
            let mut map = serde_json::Map::new();
            for (key, value) in &table.entries {
                map.insert(key.name.clone(), to_json(value, parser)?);
            }
            map.into()
        }
        Kind::Template(_) => return parser.mismatch(value, "a plain value"),
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(value: &Option<String>) -> String {
        struct Seen(Vec<String>);
        impl Walk for Seen {
            fn value(&mut self, path: &str, text: &str) {
                self.0.push(format!("{path}={text}"));
            }
            fn link(&mut self, _: &str, _: &Link) {}
            fn file(&mut self, _: &str, _: &Path) {}
        }
        let mut seen = Seen(Vec::new());
        value.walk("with.x", &mut seen);
        seen.0.join(" ")
    }

    #[test]
    fn text_is_told_from_its_absence() {
        assert_eq!(walked(&None), "with.x=none");
        assert_eq!(walked(&Some("some".into())), "with.x=some");
        assert_eq!(walked(&Some("none".into())), "with.x=\"none\"");
        assert_eq!(walked(&Some("\"none\"".into())), "with.x=\"\"none\"\"");
    }
}
