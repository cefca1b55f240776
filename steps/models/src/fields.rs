//! Typed look-up in an object of a configuration. Knows JSON, bounds and dotted names, no model.

use crate::Problem;
use serde_json::{Map, Value};

/// Beyond this no dimension is meant, and products of two sums of some would overflow.
pub(crate) const MAX_SIZE: u64 = 1 << 31;

/// An object of a configuration that is read by typed keys. A null counts as absent.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// What stands before the names of its keys, such as `text_config.`.
    prefix: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            prefix: String::new(),
        }
    }

    fn below(object: &'a Map<String, Value>, prefix: String) -> Self {
        Self { object, prefix }
    }

    /// An object that lies under `key`.
    pub(crate) fn within(&self, key: &str, object: &'a Map<String, Value>) -> Self {
        Self::below(object, format!("{}.", self.name(key)))
    }

    /// The object itself.
    pub(crate) fn object(&self) -> &'a Map<String, Value> {
        self.object
    }

    /// The key as the whole configuration knows it.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// An object within, which must be there.
    pub(crate) fn inner(&self, key: &str) -> Result<Fields<'a>, Problem> {
        let Some(value) = self.value(key) else {
            return Err(Problem::missing(self.name(key)));
        };
        let object = value.as_object();
        let object = object.ok_or_else(|| self.wrong(key, value, "an object"))?;
        Ok(self.within(key, object))
    }

    /// A positive integer, if the key is there.
    pub(crate) fn size(&self, key: &str) -> Result<Option<u64>, Problem> {
        self.typed(key, "a positive integer", as_size)
    }

    /// One positive integer or a list of some, if the key is there.
    pub(crate) fn sizes(&self, key: &str) -> Result<Option<Vec<u64>>, Problem> {
        self.typed(key, "a positive integer", |value| match value {
            Value::Array(list) if !list.is_empty() => list.iter().map(as_size).collect(),
            value => Some(vec![as_size(value)?]),
        })
    }

    /// An integer that may be zero; absent counts as zero.
    pub(crate) fn count(&self, key: &str) -> Result<u64, Problem> {
        let count = |value: &Value| value.as_u64().filter(|n| *n < MAX_SIZE);
        Ok(self
            .typed(key, "an integer that is not negative", count)?
            .unwrap_or(0))
    }

    /// A positive integer that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<u64, Problem> {
        self.size(key)?
            .ok_or_else(|| Problem::missing(self.name(key)))
    }

    /// The first of several names for the same that is there; one of them must be.
    pub(crate) fn need_any(&self, keys: &[&str]) -> Result<u64, Problem> {
        for key in keys {
            if let Some(size) = self.size(key)? {
                return Ok(size);
            }
        }
        Err(Problem::missing(self.name(keys[0])))
    }

    pub(crate) fn flag(&self, key: &str, absent: bool) -> Result<bool, Problem> {
        Ok(self
            .typed(key, "true or false", Value::as_bool)?
            .unwrap_or(absent))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => Err(self.wrong(key, value, "a string")),
            },
        }
    }

    /// Numbers of layers; none if the key is absent.
    pub(crate) fn indices(&self, key: &str) -> Result<Vec<u64>, Problem> {
        let list = |value: &Value| value.as_array()?.iter().map(Value::as_u64).collect();
        Ok(self
            .typed(key, "a list of layers", list)?
            .unwrap_or_default())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(key, value, expected)),
        }
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Problem {
        let name = self.name(key);
        let message = format!("`{name}` is `{}`, expected {expected}", short(value));
        Problem::new([name], message, format!("write {expected}"))
    }
}

fn as_size(value: &Value) -> Option<u64> {
    value.as_u64().filter(|n| (1..MAX_SIZE).contains(n))
}

/// A value as JSON, cut to a length that fits a message.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
