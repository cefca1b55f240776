//! Steps and services: the keys that all of them have, and for each kind its own options.

use super::parts::{closed, described, names, option, options};
use super::{Schema, definition, or_reference, with_name};
use crate::expand::{
    LivenessOptions, MachineOption, OnFailureOption, ReadyOptions, RetryOptions, SamplesOptions,
    TimeoutOptions,
};
use crate::library::Library;
use crate::options::{OptionSpec, OptionType, Options};
use crate::step::StepKind;
use serde_json::{Map, Value, json};

/// What a fragment is called in `use`.
const FRAGMENT: &str = r"^library\.[A-Za-z0-9_-]+$";

/// Describes a step: what all steps have, and what the one in `use` takes.
pub(super) fn step(library: &Library) -> Schema {
    let kinds: Vec<Kind<'_>> = library
        .steps()
        .map(|e| Kind {
            name: e.name,
            summary: e.summary,
            options: &e.options,
            draws_samples: e.kind == StepKind::Measure,
        })
        .collect();
    node(step_keys(&kinds), &kinds)
}

/// Describes a service: what all services have, and what the one in `use` takes.
pub(super) fn service(library: &Library) -> Schema {
    let kinds: Vec<Kind<'_>> = library
        .services()
        .map(|e| Kind {
            name: e.name,
            summary: e.summary,
            options: &e.options,
            draws_samples: false,
        })
        .collect();
    node(service_keys(&kinds), &kinds)
}

struct Kind<'a> {
    name: &'a str,
    summary: &'a str,
    options: &'a [OptionSpec],
    draws_samples: bool,
}

/// Adds to the keys that all nodes have what holds for those that use one of `kinds`.
///
/// Nested `else`, because language servers complete no keys beside an `allOf`.
fn node(mut keys: Schema, kinds: &[Kind<'_>]) -> Schema {
    let conditions = kinds.iter().rev().fold(fragment(), |others, kind| {
        let mut condition = condition(kind);
        condition["else"] = others;
        condition
    });
    if let (Some(keys), Some(conditions)) = (keys.as_object_mut(), conditions.as_object()) {
        keys.extend(conditions.clone());
    }
    keys
}

/// What holds for a node that uses `kind`.
fn condition(kind: &Kind<'_>) -> Schema {
    let needs_options = kind.options.iter().any(|o| o.default.is_none());
    let mut then = json!({ "properties": { "with": definition(&with_name(kind.name)) } });
    if needs_options {
        then["required"] = json!(["with"]);
    }
    if !kind.draws_samples {
        then["properties"]["samples"] = json!(false);
    }
    then["additionalProperties"] = json!(true);
    json!({
        "if": {
            "properties": { "use": { "const": kind.name } },
            "required": ["use"],
            "additionalProperties": true,
        },
        "then": then,
    })
}

/// What holds for a step that uses a fragment: its parts have settings of their own.
fn fragment() -> Schema {
    let settings = [
        "samples",
        "timeout",
        "retry",
        "on_failure",
        "resources",
        "overlays",
        "unset",
    ];
    let absent: Map<String, Value> = settings
        .iter()
        .map(|name| ((*name).to_owned(), json!(false)))
        .collect();
    json!({
        "if": {
            "properties": { "use": { "pattern": FRAGMENT } },
            "required": ["use"],
            "additionalProperties": true,
        },
        "then": { "properties": absent, "additionalProperties": true },
    })
}

/// Describes the options of one kind of step or service.
pub(super) fn with(summary: &str, specs: &[OptionSpec]) -> Schema {
    described(options(specs), summary)
}

/// Describes the keys that every step has.
fn step_keys(kinds: &[Kind<'_>]) -> Schema {
    let mut keys = shared(kinds);
    keys.extend([
        (
            "after",
            names("Steps that come before this one without bringing it anything."),
        ),
        (
            "samples",
            settings::<SamplesOptions>("How many samples a measurement wants, and which count."),
        ),
        (
            "timeout",
            settings::<TimeoutOptions>("How long the step may take."),
        ),
        (
            "retry",
            settings::<RetryOptions>("When the step is tried again after it failed."),
        ),
        (
            "on_failure",
            described(
                OnFailureOption::schema(),
                "What its failure means for the other steps.\n\nDefault: `stop`.",
            ),
        ),
    ]);
    closed(keys, &["use"])
}

/// Describes the keys that every service has.
fn service_keys(kinds: &[Kind<'_>]) -> Schema {
    let mut keys = shared(kinds);
    keys.extend([
        (
            "ready",
            probed::<ReadyOptions>(
                "When it serves: all that is named here must hold, besides the probe of its kind and a living process.",
            ),
        ),
        (
            "liveness",
            probed::<LivenessOptions>(
                "When a service is taken for dead though its process lives.",
            ),
        ),
        (
            "restarts",
            described(
                u32::schema(),
                "How often it is launched again after it died without any step having ended well on it.",
            ),
        ),
    ]);
    closed(keys, &["use"])
}

/// The keys that steps and services have alike.
fn shared(kinds: &[Kind<'_>]) -> Vec<(&'static str, Schema)> {
    vec![
        ("use", uses(kinds)),
        ("with", any_options(kinds)),
        (
            "axes",
            names(
                "Axes that it varies over, besides those of what it reads: one instance for each value.",
            ),
        ),
        (
            "overlays",
            names("Files whose tables are merged from left to right, below what `with` says."),
        ),
        (
            "unset",
            names(
                "Paths of keys, such as `seed` of `args`, that overlays set and that are taken away again.",
            ),
        ),
        ("resources", demand()),
        (
            "when",
            json!({
                "description": "A condition on parameters and axes, such as `${axes.rate} == 16`: instances for which it does not hold are left out.",
                "type": "string",
            }),
        ),
    ]
}

/// Names the options of all kinds at once, for language servers that do not look behind `if`.
/// What they may be is said for the kind in `use` alone: a fragment has parameters of its own.
fn any_options(kinds: &[Kind<'_>]) -> Schema {
    let mut all: Map<String, Value> = Map::new();
    for kind in kinds {
        for spec in kind.options {
            let doc = format!("`{}`: {}", kind.name, text(&option(spec)));
            let known = all.get(spec.name).map(text);
            let doc = known.map_or(doc.clone(), |known| format!("{known}\n\n{doc}"));
            all.insert(spec.name.to_owned(), json!({ "description": doc }));
        }
    }
    json!({
        "description": "The options of what is used, or the parameters of a fragment.",
        "type": "object",
        "properties": all,
        "additionalProperties": true,
    })
}

fn text(schema: &Schema) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn uses(kinds: &[Kind<'_>]) -> Schema {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let docs: Vec<&str> = kinds.iter().map(|kind| kind.summary).collect();
    json!({
        "description": "The kind of step or service, or a fragment as `library.NAME`; `benchwright steps` lists them.",
        "type": "string",
        "anyOf": [
            { "enum": names, "x-taplo": { "docs": { "enumValues": docs } } },
            { "pattern": FRAGMENT },
        ],
    })
}

fn settings<T: Options>(doc: &str) -> Schema {
    described(options(&T::describe()), doc)
}

/// What a node takes of the machine.
fn demand() -> Schema {
    json!({
        "description": "What it takes of the machine: so much of each pool of `[resources]`, and whether anything may run beside it.",
        "type": "object",
        "properties": {
            "machine": described(
                MachineOption::schema(),
                "How it shares the machine with others; a measurement has it to itself if absent.",
            ),
        },
        "additionalProperties": u32::schema(),
    })
}

/// Settings of a service with an `http` in them, which is a path.
fn probed<T: Options>(doc: &str) -> Schema {
    let mut schema = settings::<T>(doc);
    let path = or_reference(json!({ "type": "string", "pattern": "^/" }));
    schema["properties"]["http"]["pattern"] = path["pattern"].clone();
    schema
}
