//! Parameters: their defaults, overridden by a variant, overridden by the command line.

use crate::plan::{Param, ParamKind, Plan};
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::Sources;
use crate::value::{Kind, Value, parse_argument};
use std::collections::BTreeMap;

/// What the command line says of a plan.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// `--set NAME=VALUE`, in order; the last one wins. A name is a parameter's, or the path of a
    /// key of a step or service such as `steps.load.with.requests`.
    pub set: Vec<(String, String)>,
    /// `--variant NAME`.
    pub variant: Option<String>,
}

/// The value of a parameter and whether it is other than the plan's default.
#[derive(Debug, Clone)]
pub struct ParamValue {
    /// The value.
    pub value: Value,
    /// Whether a variant or the command line set it.
    pub set: bool,
}

/// Decides the value of every parameter.
pub fn resolve(
    plan: &Plan,
    settings: &Settings,
    sources: &mut Sources,
    problems: &mut Problems,
) -> BTreeMap<String, ParamValue> {
    let mut values: BTreeMap<String, ParamValue> = BTreeMap::new();
    for param in &plan.params {
        let Some(default) = &param.default else {
            continue;
        };
        check(param, default, problems);
        values.insert(
            param.key.name.clone(),
            ParamValue {
                value: default.clone(),
                set: false,
            },
        );
    }
    for (name, value) in variant(plan, settings, problems) {
        override_one(plan, &mut values, &name, value, problems);
    }
    for (name, text) in &settings.set {
        let name = name.strip_prefix("params.").unwrap_or(name);
        let value = parse_argument(sources, name, text);
        override_one(plan, &mut values, name, value, problems);
    }
    values
}

fn variant(plan: &Plan, settings: &Settings, problems: &mut Problems) -> Vec<(String, Value)> {
    let Some(wanted) = &settings.variant else {
        return Vec::new();
    };
    match plan.variants.iter().find(|v| v.key.name == *wanted) {
        Some(variant) => variant
            .params
            .entries
            .iter()
            .map(|(k, v)| (k.name.clone(), v.clone()))
            .collect(),
        None => {
            let help = did_you_mean(wanted, plan.variants.iter().map(|v| v.key.name.as_str()));
            problems.push(Problem::whole(format!("the plan has no variant `{wanted}`")).help(help));
            Vec::new()
        }
    }
}

fn override_one(
    plan: &Plan,
    values: &mut BTreeMap<String, ParamValue>,
    name: &str,
    value: Value,
    problems: &mut Problems,
) {
    let Some(param) = plan.params.iter().find(|p| p.key.name == name) else {
        let help = did_you_mean(name, plan.params.iter().map(|p| p.key.name.as_str()));
        let message = format!("the plan has no parameter `{name}`");
        problems.push(Problem::at(&value.place, message, "set here").help(help));
        return;
    };
    if check(param, &value, problems) {
        values.insert(name.to_owned(), ParamValue { value, set: true });
    }
}

/// Reports a value of another type than the parameter's, and one out of its range.
pub(crate) fn check(param: &Param, value: &Value, problems: &mut Problems) -> bool {
    let name = &param.key.name;
    if !param.kind.accepts(value) {
        let is_list = matches!(
            (&param.kind, &value.kind),
            (ParamKind::List(_), Kind::List(_))
        );
        let found = if is_list {
            "a list with something else in it"
        } else {
            value.type_name()
        };
        let message = format!("parameter `{name}` takes `{}`, found {found}", param.kind);
        problems.push(Problem::at(
            &value.place,
            message,
            format!("expected `{}`", param.kind),
        ));
        return false;
    }
    numbers(value).into_iter().all(|number| {
        let low = param.min.is_some_and(|min| number < min);
        let high = param.max.is_some_and(|max| number > max);
        if low || high {
            let limit = if low {
                format!("at least {}", param.min.unwrap_or(0.0))
            } else {
                format!("at most {}", param.max.unwrap_or(0.0))
            };
            let message = format!("parameter `{name}` must be {limit}, found {number}");
            problems.push(Problem::at(&value.place, message, "out of range"));
        }
        !(low || high)
    })
}

fn numbers(value: &Value) -> Vec<f64> {
    match &value.kind {
        #[expect(
            clippy::cast_precision_loss,
            reason = "numbers in plans are far below 2^53"
        )]
        Kind::Int(i) => vec![*i as f64],
        Kind::Float(f) => vec![*f],
        Kind::List(list) => list.iter().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}
