//! The pieces that schemas are made of: types that may come from a reference, tables of options,
//! names. Only keywords that every draft since 07 knows, because editors know no others.
//!
//! A keyword such as `minimum` or `pattern` speaks of values of its own type and of no others, so
//! "an integer or a reference" needs no alternatives, and editors show one description for both.

use crate::options::OptionSpec;
use serde_json::{Map, Value, json};

/// A string that is one reference.
const REFERENCE: &str = r"^\$\{[^{}]+\}$";
/// A string with a reference somewhere in it.
const TEMPLATE: &str = r"\$\{[^{}]+\}";
/// A name in a plan.
const NAME: &str = "^[A-Za-z0-9_-]+$";

/// Allows a reference beside the values that `schema` describes.
///
/// A string may also hold a reference among other text, such as `${params.minutes}m`.
#[must_use]
pub fn or_reference(schema: Value) -> Value {
    let Value::Object(mut map) = schema else {
        return schema;
    };
    if map.contains_key("enum") {
        return json!({ "anyOf": [map, { "type": "string", "pattern": TEMPLATE }] });
    }
    let is_text = map.get("type").is_some_and(|t| t == "string");
    match (is_text, map.get("pattern").and_then(Value::as_str)) {
        (true, Some(pattern)) => {
            let either = format!("{pattern}|{TEMPLATE}");
            map.insert("pattern".to_owned(), either.into());
        }
        // Any text is allowed already.
        (true, None) => {}
        (false, _) => {
            let plain = map.get("type").cloned().unwrap_or_default();
            map.insert("type".to_owned(), json!([plain, "string"]));
            map.insert("pattern".to_owned(), REFERENCE.into());
        }
    }
    Value::Object(map)
}

/// Describes a string that is one reference to something below one of `roots`, such as
/// `services`; a parameter of a fragment may stand for it.
#[must_use]
pub fn reference_to(root: &str) -> Value {
    json!({ "type": "string", "pattern": format!(r"^\$\{{ *({root}|params)[.\[][^{{}}]+\}}$") })
}

/// Describes a list of `items`, or a reference to one.
#[must_use]
pub fn list_of(items: Value) -> Value {
    or_reference(json!({ "type": "array", "items": items }))
}

/// Describes one of several words, each with what it means, or a reference to one.
#[must_use]
pub fn choice(words: &[(&str, &str)]) -> Value {
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let docs: Vec<String> = words
        .iter()
        .map(|(_, doc)| doc.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    or_reference(json!({
        "type": "string",
        "enum": names,
        "x-taplo": { "docs": { "enumValues": docs } },
    }))
}

/// Describes a list of plain names.
pub(super) fn names(doc: &str) -> Value {
    described(
        json!({ "type": "array", "items": { "type": "string" } }),
        doc,
    )
}

/// Adds what a value means.
pub(super) fn described(schema: Value, doc: &str) -> Value {
    let Value::Object(map) = schema else {
        return schema;
    };
    let mut all = Map::new();
    all.insert("description".to_owned(), doc.into());
    all.extend(map);
    Value::Object(all)
}

/// Describes a table with the keys `properties` and no others.
pub(super) fn closed(properties: Vec<(&str, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = properties
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let mut table = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

/// Describes a table whose keys are names that the plan chooses.
pub(super) fn named(values: Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAME },
        "additionalProperties": values,
    })
}

/// Describes a table of options as their declarations do.
pub(super) fn options(specs: &[OptionSpec]) -> Value {
    let properties = specs.iter().map(|s| (s.name, option(s))).collect();
    let required: Vec<&str> = specs
        .iter()
        .filter(|s| s.default.is_none())
        .map(|s| s.name)
        .collect();
    closed(properties, &required)
}

/// Describes one option: its type, what it means, its unit and its default.
pub(super) fn option(spec: &OptionSpec) -> Value {
    let mut doc = spec.doc.clone();
    if let Some(unit) = spec.unit {
        doc.push_str(&format!("\n\nUnit: {unit}."));
    }
    match spec.default.as_deref() {
        None => doc.push_str("\n\nRequired."),
        Some("" | "none") => {}
        Some(default) => doc.push_str(&format!("\n\nDefault: `{default}`.")),
    }
    let mut schema = described(spec.schema.clone(), &doc);
    if let Some(default) = default(spec) {
        schema["default"] = default;
    }
    schema
}

/// Returns the default as a value, where its text says which one it is.
fn default(spec: &OptionSpec) -> Option<Value> {
    let text = spec.default.as_deref()?;
    if matches!(text, "" | "none") {
        return None;
    }
    let types = types_of(&spec.schema);
    let is = |name: &str| types.contains(&name);
    if is("integer") || is("number") || is("boolean") {
        return serde_json::from_str(text).ok();
    }
    if is("array") || is("object") {
        return serde_json::from_str(text).ok();
    }
    is("string").then(|| text.into())
}

/// Lists the types that a schema allows; of alternatives, those of the first.
fn types_of(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => schema["anyOf"].get(0).map(types_of).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_string_beside_every_other_type() {
        let integer = or_reference(json!({ "type": "integer", "minimum": 1 }));
        assert_eq!(integer["type"], json!(["integer", "string"]));
        assert_eq!(integer["pattern"], REFERENCE);
        assert_eq!(integer["minimum"], 1);
    }

    #[test]
    fn text_of_a_form_may_hold_a_reference_and_free_text_anything() {
        let duration = or_reference(json!({ "type": "string", "pattern": "^[0-9]+s$" }));
        assert_eq!(duration["pattern"], format!("^[0-9]+s$|{TEMPLATE}"));
        let text = json!({ "type": "string" });
        assert_eq!(or_reference(text.clone()), text);
        let choice = or_reference(json!({ "type": "string", "enum": ["a"] }));
        assert_eq!(choice["anyOf"][0]["enum"], json!(["a"]));
    }

    #[test]
    fn defaults_have_the_type_of_their_option() {
        let spec = |schema: Value, text: &str| OptionSpec {
            name: "x",
            type_name: String::new(),
            schema,
            default: Some(text.to_owned()),
            unit: None,
            doc: String::new(),
        };
        let of = |schema: Value, text: &str| default(&spec(or_reference(schema), text));
        assert_eq!(of(json!({ "type": "integer" }), "4"), Some(json!(4)));
        assert_eq!(of(json!({ "type": "boolean" }), "true"), Some(json!(true)));
        assert_eq!(of(json!({ "type": "array" }), "[]"), Some(json!([])));
        assert_eq!(of(json!({ "type": "string" }), "10s"), Some(json!("10s")));
        assert_eq!(of(json!({ "type": "string" }), "none"), None);
    }
}
