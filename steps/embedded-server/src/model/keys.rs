//! Typed look-up in a JSON object, and what can be wrong with a configuration.
//!
//! It knows JSON types and bounds, but no model.

use serde_json::{Map, Value};

/// What is wrong with a model configuration, by key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigProblem {
    /// The document is no JSON object.
    #[error("the document is {found}, expected an object")]
    NotAnObject {
        /// JSON type found.
        found: &'static str,
    },
    /// A required key is absent or null.
    #[error("key `{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong JSON type or out of range.
    #[error("key `{key}` is `{found}`, expected {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The value, as JSON.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A value that is well-formed, but asks for something that is not implemented.
    #[error("key `{key}` is `{found}`, supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// The accepted values.
        supported: &'static str,
    },
    /// Two sizes that do not divide.
    #[error("key `{key}` is {value}, which is not a multiple of `{divisor_key}`, {divisor}")]
    NotDivisible {
        /// Key of the dividend.
        key: &'static str,
        /// The dividend.
        value: usize,
        /// Key of the divisor.
        divisor_key: &'static str,
        /// The divisor.
        divisor: usize,
    },
}

/// A JSON object that is read by typed keys. A null value counts as absent.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self, ConfigProblem> {
        let object = value.as_object();
        object.map(Keys).ok_or(ConfigProblem::NotAnObject {
            found: type_name(value),
        })
    }

    pub(super) fn value(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn object(self, key: &'static str) -> Result<Option<Keys<'a>>, ConfigProblem> {
        self.typed(key, "an object", |value| value.as_object().map(Keys))
    }

    /// A positive integer, if the key is there.
    pub(super) fn size(self, key: &'static str) -> Result<Option<usize>, ConfigProblem> {
        // Beyond 2^32 no dimension is meant, and products of two would overflow.
        let size = |value: &Value| value.as_u64().filter(|n| (1..1 << 32).contains(n));
        Ok(self
            .typed(key, "a positive integer", size)?
            .map(|n| n as usize))
    }

    pub(super) fn required_size(self, key: &'static str) -> Result<usize, ConfigProblem> {
        self.size(key)?.ok_or(ConfigProblem::Missing { key })
    }

    /// A positive, finite number, if the key is there.
    pub(super) fn number(self, key: &'static str) -> Result<Option<f64>, ConfigProblem> {
        let number = |value: &Value| value.as_f64().filter(|n| *n > 0.0 && n.is_finite());
        self.typed(key, "a positive number", number)
    }

    pub(super) fn required_number(self, key: &'static str) -> Result<f64, ConfigProblem> {
        self.number(key)?.ok_or(ConfigProblem::Missing { key })
    }

    pub(super) fn flag(self, key: &'static str) -> Result<Option<bool>, ConfigProblem> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(self, key: &'static str) -> Result<Option<&'a str>, ConfigProblem> {
        self.typed(key, "a string", Value::as_str)
    }

    /// One token id or a list of them; none when the key is absent.
    pub(super) fn token_ids(self, key: &'static str) -> Result<Vec<u32>, ConfigProblem> {
        let id = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = |value: &Value| match value {
            Value::Array(list) => list.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        Ok(self
            .typed(key, "a token id or a list of them", ids)?
            .unwrap_or_default())
    }

    fn typed<T>(
        self,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigProblem> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(ConfigProblem::WrongType {
                key,
                found: abridged(value),
                expected,
            }),
        }
    }
}

/// A value as JSON, cut to a length that fits a message.
fn abridged(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
