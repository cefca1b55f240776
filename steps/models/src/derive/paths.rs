//! Dotted keys in a configuration.

use crate::Problem;
use serde_json::{Map, Value};

/// Returns what lies under a dotted key, nulls included.
#[must_use]
pub fn look_up<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    if let Some(value) = config.get(key) {
        return Some(value);
    }
    let (first, rest) = key.split_once('.')?;
    look_up(config.get(first)?.as_object()?, rest)
}

/// Lists every key of a configuration, those of objects within dotted.
#[must_use]
pub fn known_keys(config: &Map<String, Value>) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in config {
        keys.push(key.clone());
        if let Value::Object(inner) = value {
            keys.extend(known_keys(inner).into_iter().map(|k| format!("{key}.{k}")));
        }
    }
    keys
}

/// Puts a value under a dotted key; objects on the way are made.
pub(super) fn put(config: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Problem> {
    let (first, rest) = match key.split_once('.') {
        Some(parts) if !config.contains_key(key) => parts,
        _ => {
            config.insert(key.to_owned(), value);
            return Ok(());
        }
    };
    let inner = config
        .entry(first)
        .or_insert_with(|| Value::Object(Map::new()));
    if inner.is_null() {
        *inner = Value::Object(Map::new());
    }
    match inner {
        Value::Object(inner) => put(inner, rest, value),
        other => {
            let message = format!("`{first}` is `{other}`, so that `{key}` cannot lie in it");
            let help = format!("set `{first}` as a whole");
            Err(Problem::new([key, &format!("+{key}")], message, help))
        }
    }
}

/// Removes what lies under a dotted key.
pub(super) fn remove(config: &mut Map<String, Value>, key: &str) {
    if config.contains_key(key) {
        // The other keys keep their order.
        config.shift_remove(key);
    } else if let Some((first, rest)) = key.split_once('.')
        && let Some(Value::Object(inner)) = config.get_mut(first)
    {
        remove(inner, rest);
    }
}
