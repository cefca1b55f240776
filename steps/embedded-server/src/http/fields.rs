//! Reading a request's JSON field by field, so that every refusal names the field.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::ApiError;

/// The fields of a request body.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(other) => {
                let found = kind(&other);
                Err(ApiError::bad_request(format!(
                    "the body is {found}, expected a JSON object"
                )))
            }
            Err(error) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("malformed JSON: {error}"),
            )
            .code("invalid_json")),
        }
    }

    /// Whether a field is there, and not `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Puts the fields of the object `name` beside the others.
    pub(super) fn flatten(&mut self, name: &'static str) -> Result<(), ApiError> {
        let inner: Option<Map<String, Value>> = self.take(name, "an object")?;
        self.0.extend(inner.unwrap_or_default());
        Ok(())
    }

    /// Takes a field out; absent and `null` are the same. `expected` says what would be right.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.0.remove(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let found = shown(&value);
        serde_json::from_value(value)
            .map(Some)
            .map_err(|_| ApiError::field(name, format!("found {found}, expected {expected}")))
    }

    /// Takes a number out that must lie where `is_right` says.
    pub(super) fn take_number<T: DeserializeOwned + PartialOrd + Copy>(
        &mut self,
        name: &'static str,
        expected: &str,
        is_right: impl Fn(T) -> bool,
    ) -> Result<Option<T>, ApiError> {
        let found = self.0.get(name).map(shown).unwrap_or_default();
        match self.take(name, expected)? {
            Some(number) if !is_right(number) => Err(ApiError::field(
                name,
                format!("found {found}, expected {expected}"),
            )),
            number => Ok(number),
        }
    }

    /// Refuses fields that this server would have to ignore although they change the answer.
    /// Values that ask for nothing are accepted.
    pub(super) fn refuse_unsupported(&self) -> Result<(), ApiError> {
        for (name, neutral) in unsupported() {
            let asked = self.0.get(name).filter(|value| !value.is_null());
            if asked.is_some_and(|value| !is_same(value, &neutral)) {
                let problem =
                    format!("not supported by this server; leave it out or send {neutral}");
                return Err(ApiError::field(name, problem).code("unsupported"));
            }
        }
        Ok(())
    }
}

/// Fields that change the answer and are not implemented, each with the value that asks for
/// nothing.
fn unsupported() -> [(&'static str, Value); 17] {
    [
        ("n", json!(1)),
        ("best_of", json!(1)),
        ("echo", json!(false)),
        ("suffix", json!("")),
        ("logprobs", json!(false)),
        ("top_logprobs", json!(0)),
        ("logit_bias", json!({})),
        ("frequency_penalty", json!(0)),
        ("presence_penalty", json!(0)),
        ("repetition_penalty", json!(1)),
        ("min_p", json!(0)),
        ("tools", json!([])),
        ("functions", json!([])),
        ("response_format", json!({ "type": "text" })),
        ("regex", json!("")),
        ("json_schema", json!("")),
        ("return_logprob", json!(false)),
    ]
}

/// Equality in which `1` and `1.0` are the same.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A value for a message: short ones literally, long ones by their kind.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 40 {
        format!("`{text}`")
    } else {
        kind(value).to_owned()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
