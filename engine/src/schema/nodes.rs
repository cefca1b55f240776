//! Steps and services: the keys that all of them have, and for each kind its own options.

use super::parts::{closed, described, names, option, options};
use super::{Schema, definition, or_reference, with_name};
use crate::expand::{ReadyOptions, SamplesOptions, TimeoutOptions};
use crate::library::Library;
use crate::options::{OptionSpec, OptionType, Options};
use crate::step::StepKind;
use serde_json::{Map, Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

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
        ("retry", retry()),
        ("on_failure", on_failure()),
        (
            "when",
            json!({
                "description": "A condition on parameters and axes, such as `${axes.rate} == 16`: instances for which it does not hold are left out.",
                "type": "string",
            }),
        ),
    ]);
    closed(keys, &["use"])
}

/// Describes the keys that every service has.
fn service_keys(kinds: &[Kind<'_>]) -> Schema {
    let mut keys = shared(kinds);
    keys.extend([
        ("ready", ready()),
        ("liveness", liveness()),
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
                "Paths of keys, such as `args.seed`, that overlays set and that are taken away again.",
            ),
        ),
        ("resources", demand()),
    ]
}

/// Describes the options of all kinds at once, for language servers that do not look behind
/// `if`; which of them are right, the kind in `use` decides.
fn any_options(kinds: &[Kind<'_>]) -> Schema {
    let mut all: Map<String, Value> = Map::new();
    for kind in kinds {
        for spec in kind.options {
            let mut own = option(spec);
            own["description"] = format!("`{}`: {}", kind.name, text(&own)).into();
            match all.get_mut(spec.name) {
                Some(known) => {
                    *known = json!({ "description": format!("{}\n\n{}", text(known), text(&own)) });
                }
                None => {
                    all.insert(spec.name.to_owned(), own);
                }
            }
        }
    }
    json!({
        "description": "The options of what is used.",
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

fn retry() -> Schema {
    let classes = ["step", "infrastructure", "timeout"];
    let on = or_reference(json!({
        "type": "array",
        "items": { "type": "string", "enum": classes },
    }));
    let keys = vec![
        (
            "max",
            described(
                u32::schema(),
                "Further tries after the first.\n\nDefault: `0`.",
            ),
        ),
        (
            "on",
            described(
                on,
                "The failures after which it is tried again.\n\nDefault: `[\"infrastructure\"]`.",
            ),
        ),
        (
            "backoff",
            described(
                Duration::schema(),
                "The pause before the first further try; it doubles with every one.\n\nDefault: `10s`.",
            ),
        ),
    ];
    described(
        closed(keys, &[]),
        "When the step is tried again after it failed.",
    )
}

fn on_failure() -> Schema {
    let choice = super::choice(&[
        ("stop", "Nothing new is started; what runs ends."),
        (
            "skip_dependents",
            "What waits for it is skipped, everything else goes on.",
        ),
        (
            "continue",
            "Only what reads its output is skipped; what merely comes after it goes on.",
        ),
    ]);
    described(
        choice,
        "What its failure means for the other steps.\n\nDefault: `stop`.",
    )
}

/// What a node takes of the machine.
fn demand() -> Schema {
    let machine = super::choice(&[
        ("shared", "Others may run beside it."),
        (
            "exclusive",
            "It has the machine to itself, also across runs.",
        ),
    ]);
    json!({
        "description": "What it takes of the machine: so much of each pool of `[resources]`, and whether anything may run beside it.",
        "type": "object",
        "properties": { "machine": described(machine, "How it shares the machine with others.") },
        "additionalProperties": u32::schema(),
    })
}

fn ready() -> Schema {
    let mut schema = settings::<ReadyOptions>(
        "When it serves: all that is named here must hold, besides the probe of its kind and a living process.",
    );
    let text = || json!({ "type": "string" });
    let probes = [
        (
            "http",
            path("A path that must answer with status 200, besides the one that its kind asks."),
        ),
        (
            "tcp",
            described(bool::schema(), "Whether its port must accept connections."),
        ),
        (
            "log",
            described(
                text(),
                "What its log must have said: text, or a regular expression between slashes.",
            ),
        ),
        (
            "command",
            described(
                super::list_of(text()),
                "A program and its arguments that must return status 0; `{url}` and `{port}` stand for where it answers.",
            ),
        ),
    ];
    for (name, probe) in probes {
        schema["properties"][name] = probe;
    }
    schema
}

fn liveness() -> Schema {
    let keys = vec![
        (
            "enabled",
            described(
                bool::schema(),
                "Whether a service that hangs is taken for dead.",
            ),
        ),
        (
            "http",
            path(
                "The path that must answer with status 200; the one that its kind asks if absent.",
            ),
        ),
        (
            "every",
            described(Duration::schema(), "The pause between two questions."),
        ),
        (
            "timeout",
            described(Duration::schema(), "The longest that an answer may take."),
        ),
        (
            "failures",
            described(
                NonZeroU32::schema(),
                "How many questions in a row must fail.",
            ),
        ),
    ];
    described(
        closed(keys, &[]),
        "When a service is taken for dead though its process lives.",
    )
}

fn path(doc: &str) -> Schema {
    let path = or_reference(json!({ "type": "string", "pattern": "^/" }));
    described(path, doc)
}
