//! Plans as a JSON schema, made from the declarations that also read them: what editors need to
//! complete, describe and check a plan while it is written.
//!
//! A schema knows the shape of a plan. What its names mean, and everything that depends on
//! values, is found by [`expand`](crate::expand) alone. The keywords are those of draft 07, which
//! the editors' TOML language servers know; later drafts read them alike.

mod nodes;
mod parts;
mod sections;

use crate::library::Library;
use parts::{closed, described};
use serde_json::{Map, json};

pub use parts::{choice, list_of, or_reference, reference_to};

/// A JSON schema.
pub type Schema = serde_json::Value;

/// Writes the schema of plans that use `library`.
#[must_use]
pub fn plan(library: &Library) -> Schema {
    let mut properties = sections::head();
    properties.extend(sections::values());
    properties.extend([
        ("steps", sections::steps()),
        ("services", sections::services()),
        ("fragment", sections::fragments()),
        ("resources", sections::resources()),
        ("secrets", sections::secrets()),
    ]);
    let mut schema = described(
        closed(properties, &["schema"]),
        "A benchmark plan or a library of fragments for plans.",
    );
    let mut all = Map::new();
    let draft = "http://json-schema.org/draft-07/schema#";
    all.insert("$schema".to_owned(), draft.into());
    all.insert("title".to_owned(), "Benchwright plan".into());
    if let Some(map) = schema.as_object_mut() {
        all.append(map);
    }
    all.insert("definitions".to_owned(), definitions(library));
    all.into()
}

fn definitions(library: &Library) -> Schema {
    let mut all = Map::new();
    all.insert("step".to_owned(), nodes::step(library));
    all.insert("service".to_owned(), nodes::service(library));
    all.insert("param".to_owned(), sections::param());
    for entry in library.steps() {
        all.insert(
            with_name(entry.name),
            nodes::with(entry.summary, &entry.options),
        );
    }
    for entry in library.services() {
        all.insert(
            with_name(entry.name),
            nodes::with(entry.summary, &entry.options),
        );
    }
    all.into()
}

/// Names the definition of the options of one kind of step or service.
fn with_name(name: &str) -> String {
    format!("with.{name}")
}

/// Refers to a definition.
fn definition(name: &str) -> Schema {
    json!({ "$ref": format!("#/definitions/{name}") })
}
