//! Parameters: their defaults, overridden by a variant, overridden by the command line.

use crate::plan::{Param, ParamKind, Plan};
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::Sources;
use crate::value::{Kind, Value, parse_argument};
use std::collections::BTreeMap;

/// Sections of a plan that take values of parameters, and none from the command line.
const FIXED: &[&str] = &["axes", "resources", "secrets"];

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
        let _ = check_is_plain(param, default, problems) && check(param, default, problems);
        values.insert(
            param.key.name.clone(),
            ParamValue {
                value: default.clone(),
                set: false,
            },
        );
    }
    check_variants(plan, settings, problems);
    for (name, value) in variant(plan, settings, problems) {
        override_one(plan, &mut values, &name, value, problems);
    }
    for (name, text) in &settings.set {
        let name = name.strip_prefix("params.").unwrap_or(name);
        let mut value = parse_argument(sources, name, text);
        let is_text = |p: &&Param| p.key.name == name && p.kind == ParamKind::Text;
        if plan.params.iter().any(|p| is_text(&p)) && !matches!(value.kind, Kind::Text(_)) {
            // `--set year=2024` means the text, and shells take quotes away.
            value.kind = Kind::Text(text.clone());
        }
        override_one(plan, &mut values, name, value, problems);
    }
    values
}

/// Reports what is wrong in variants that are not chosen: they are to be sound, too.
fn check_variants(plan: &Plan, settings: &Settings, problems: &mut Problems) {
    let chosen = settings.variant.as_deref();
    let others = plan.variants.iter();
    for variant in others.filter(|v| chosen != Some(v.key.name.as_str())) {
        for (key, value) in &variant.params.entries {
            let mut nowhere = BTreeMap::new();
            override_one(plan, &mut nowhere, &key.name, value.clone(), problems);
        }
    }
}

/// Reports a reference in a value: parameters come before everything that one could name.
fn check_is_plain(param: &Param, value: &Value, problems: &mut Problems) -> bool {
    match &value.kind {
        Kind::Text(text) if text.contains("${") => {
            let message = format!("the value of parameter `{}` is a reference", param.key.name);
            let problem = Problem::at(&value.place, message, "not looked up");
            problems.push(problem.help("write the value; a step or service refers to others"));
            false
        }
        Kind::List(list) => list.iter().all(|v| check_is_plain(param, v, problems)),
        _ => true,
    }
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
        let section = name.split_once('.').map_or("", |(section, _)| section);
        if FIXED.contains(&section) {
            let message = format!("`{section}` cannot be set from the command line");
            let help = "write `${params.NAME}` there in the plan, and set the parameter";
            problems.push(Problem::at(&value.place, message, "set here").help(help));
            return;
        }
        let help = did_you_mean(name, plan.params.iter().map(|p| p.key.name.as_str()));
        let message = format!("the plan has no parameter `{name}`");
        problems.push(Problem::at(&value.place, message, "set here").help(help));
        return;
    };
    if check_is_plain(param, &value, problems) && check(param, &value, problems) {
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
        let label = format!("expected `{}`", param.kind);
        let help = match &param.default {
            Some(default) if param.kind.accepts(default) && default.place != value.place => {
                let default = default.to_line();
                format!(
                    "{}; the default is `{default}`",
                    value.mend(&param.kind.phrase())
                )
            }
            _ => value.mend(&param.kind.phrase()),
        };
        problems.push(Problem::at(&value.place, message, label).help(help));
        return false;
    }
    check_range(param, value, problems)
}

/// Reports numbers that are out of a parameter's range, in lists too.
pub(crate) fn check_range(param: &Param, value: &Value, problems: &mut Problems) -> bool {
    let name = &param.key.name;
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
            let problem = Problem::at(&value.place, message, "out of range");
            problems.push(problem.help(format!("give it {limit}")));
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
