//! The sections of a plan besides steps and services: its head, parameters, variants, axes,
//! fragments, resources and secrets.

use super::parts::{closed, described, named, names};
use super::{Schema, definition, or_reference};
use serde_json::json;

/// Types of parameters: the words that [`ParamKind`](crate::plan::ParamKind) reads.
const PARAM_TYPE: &str = "^(list<)*(int|float|bool|string)>*$";
/// The same with what only parameters of fragments can be.
const FRAGMENT_PARAM_TYPE: &str = "^(list<)*(int|float|bool|string|artifact|service|samples)>*$";

/// What stands at the head of a plan.
pub(super) fn head() -> Vec<(&'static str, Schema)> {
    let text = |doc| described(json!({ "type": "string" }), doc);
    vec![
        (
            "schema",
            json!({ "description": "The form of plans that this one follows: always 1.", "type": "integer", "const": 1 }),
        ),
        (
            "name",
            text("The plan's name: part of the names of runs and of what is kept."),
        ),
        ("description", text("What the plan is for.")),
        (
            "include",
            names("Plan files whose sections this one takes in, relative to this file."),
        ),
    ]
}

/// What gives a plan its values.
pub(super) fn values() -> Vec<(&'static str, Schema)> {
    let variant = closed(
        vec![("params", named_values("Other defaults of parameters."))],
        &[],
    );
    vec![
        (
            "params",
            described(
                named(definition("param")),
                "Values that the command line may set: `--set NAME=VALUE`, and `${params.NAME}`.",
            ),
        ),
        (
            "variant",
            described(
                named(variant),
                "The same plan with other defaults, chosen by `--variant NAME`.",
            ),
        ),
        ("axes", axes()),
    ]
}

fn named_values(doc: &str) -> Schema {
    described(
        named(json!({ "type": ["string", "number", "boolean", "array"] })),
        doc,
    )
}

/// Describes a parameter of a plan.
pub(super) fn param() -> Schema {
    param_of(
        PARAM_TYPE,
        "`int`, `float`, `bool`, `string`, or `list<…>` of them.",
        &["type", "default"],
    )
}

fn param_of(types: &str, doc: &str, required: &[&str]) -> Schema {
    let value = json!({ "type": ["string", "number", "boolean", "array"] });
    let keys = vec![
        (
            "type",
            json!({
                "description": doc,
                "type": "string",
                "pattern": types,
                "examples": ["int", "float", "bool", "string", "list<int>", "list<float>", "list<string>"],
            }),
        ),
        ("default", described(value, "The value when none is set.")),
        (
            "min",
            described(
                json!({ "type": "number" }),
                "The smallest number that is allowed.",
            ),
        ),
        (
            "max",
            described(
                json!({ "type": "number" }),
                "The largest number that is allowed.",
            ),
        ),
        (
            "unit",
            described(json!({ "type": "string" }), "The unit of the value."),
        ),
        (
            "doc",
            described(json!({ "type": "string" }), "What it means."),
        ),
    ];
    closed(keys, required)
}

fn axes() -> Schema {
    let plain = || json!({ "type": ["string", "number", "boolean"] });
    let rules = |doc: &str| {
        let rule = json!({ "type": "object", "minProperties": 1, "additionalProperties": plain() });
        described(json!({ "type": "array", "items": rule }), doc)
    };
    let values = or_reference(json!({ "type": "array", "items": plain(), "minItems": 1 }));
    json!({
        "description": "What varies: every combination of the values is one instance of each step that has these axes.",
        "type": "object",
        "properties": {
            "exclude": rules("Combinations to leave out."),
            "include": rules("Combinations to add."),
            "zip": described(
                json!({ "type": "array", "items": { "type": "array", "items": { "type": "string" }, "minItems": 2 } }),
                "Axes that vary together, value by value, instead of in every combination.",
            ),
            "from": described(
                json!({ "type": "string" }),
                "A CSV file with one column for each axis and one row for each combination.",
            ),
        },
        "additionalProperties": values,
    })
}

/// Describes `[steps]`.
pub(super) fn steps() -> Schema {
    described(
        named(definition("step")),
        "What is done, by name; references order it.",
    )
}

/// Describes `[services]`.
pub(super) fn services() -> Schema {
    described(
        named(definition("service")),
        "What is launched while steps need it, by name.",
    )
}

/// Describes `[fragment]`.
pub(super) fn fragments() -> Schema {
    let mut param = param_of(
        FRAGMENT_PARAM_TYPE,
        "`int`, `float`, `bool`, `string`, `artifact`, `service`, `samples`, or `list<…>` of them.",
        &["type"],
    );
    param["properties"]["optional"] = described(
        json!({ "type": "boolean" }),
        "Whether the fragment can do without it: what would be set to it is then not set.",
    );
    let keys = vec![
        (
            "doc",
            described(json!({ "type": "string" }), "What the fragment is for."),
        ),
        (
            "params",
            described(
                named(param),
                "What a step that uses it gives in `with`; those without a default must be given.",
            ),
        ),
        ("axes", axes()),
        ("steps", steps()),
        ("services", services()),
    ];
    described(
        named(closed(keys, &[])),
        "Parts of plans, used by a step with `use = \"library.NAME\"`.",
    )
}

/// Describes `[resources]`.
pub(super) fn resources() -> Schema {
    let number = json!({ "type": "integer", "minimum": 0 });
    let range = closed(
        vec![("first", number.clone()), ("last", number.clone())],
        &["first", "last"],
    );
    let pool = json!({
        "anyOf": [
            or_reference(number),
            { "type": "array", "items": { "type": ["string", "integer"] }, "uniqueItems": true },
            range,
        ],
    });
    described(
        named(pool),
        "What there is of the machine: a count, a list of devices, or a range of numbers.",
    )
}

/// Describes `[secrets]`.
pub(super) fn secrets() -> Schema {
    let text = |doc| described(json!({ "type": "string" }), doc);
    let secret = closed(
        vec![
            ("env", text("The environment variable that holds it.")),
            ("file", text("The file that holds it.")),
        ],
        &[],
    );
    described(
        named(secret),
        "Where secrets come from: `${secret.NAME}`. Their values are part of no key, log or report.",
    )
}
