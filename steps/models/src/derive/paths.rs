//! Dotted keys in a configuration.

use crate::Problem;
use crate::fields::short;
use serde_json::{Map, Value};

/// Returns what lies under a dotted key, nulls included.
pub(super) fn look_up<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
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
    put_within(config, "", key, value)
}

/// Puts a value under what is left of a key behind `above`, where `config` lies.
fn put_within(
    config: &mut Map<String, Value>,
    above: &str,
    key: &str,
    value: Value,
) -> Result<(), Problem> {
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
        Value::Object(inner) => put_within(inner, &format!("{above}{first}."), rest, value),
        other => {
            let (first, key) = (format!("{above}{first}"), format!("{above}{key}"));
            let found = short(other);
            let message = format!("`{first}` is `{found}`, so that `{key}` cannot lie in it");
            let help = format!("set `{first}` as a whole");
            Err(Problem::new([&key, &format!("+{key}")], message, help))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_lie_in_a_value_is_told_by_its_whole_key() {
        let Value::Object(mut config) = json!({"text_config": {"rope": {"factor": 2}}}) else {
            panic!("an object")
        };
        put(&mut config, "text_config.rope.type", json!("yarn")).unwrap();
        assert_eq!(config["text_config"]["rope"]["type"], json!("yarn"));
        let problem = put(&mut config, "text_config.rope.factor.x", json!(1)).unwrap_err();
        let key = "text_config.rope.factor.x";
        assert_eq!(problem.keys, [key.to_owned(), format!("+{key}")]);
        assert_eq!(
            problem.message,
            "`text_config.rope.factor` is `2`, so that `text_config.rope.factor.x` cannot lie in it"
        );
        assert_eq!(problem.help, "set `text_config.rope.factor` as a whole");
    }
}
