//! Another configuration from one that exists: keys that are set, removed and scaled.
//!
//! Keys are dotted where objects lie within each other. What depends on the number of layers
//! follows it. Everything that is wrong is found at once. Knows no file.

mod lists;
mod paths;

pub use lists::decoder_layers;
pub(crate) use lists::{LAYER_KEYS, LayerList, layer_lists};
pub use paths::known_keys;

use crate::fields::short;
use crate::shapes::newly_impossible;
use crate::{Architecture, Inventory, Problem};
use paths::look_up;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// The kinds of changes, by the options that plans give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// A new value.
    Set,
    /// No value.
    Unset,
    /// The old value times a factor.
    Scale,
}

impl Part {
    /// The name of the option.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Set => "set",
            Part::Unset => "unset",
            Part::Scale => "scale",
        }
    }
}

/// What is to become of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// New values by key; a key that the base lacks has a `+` before it.
    pub set: &'a Map<String, Value>,
    /// Keys that are removed.
    pub unset: &'a [String],
    /// Factors by key.
    pub scale: &'a BTreeMap<String, f64>,
}

impl<'a> Changes<'a> {
    /// Every change with its key as written.
    fn all(&self) -> impl Iterator<Item = (Part, &'a str)> + use<'a> {
        let set = self.set.keys().map(|key| (Part::Set, key.as_str()));
        let unset = self.unset.iter().map(|key| (Part::Unset, key.as_str()));
        let scale = self.scale.keys().map(|key| (Part::Scale, key.as_str()));
        set.chain(unset).chain(scale)
    }

    /// Keys that the base lacks and that are not marked as new.
    #[must_use]
    pub fn unknown(&self, base: &Map<String, Value>) -> Vec<(Part, &'a str)> {
        let is_unknown = |part: Part, key: &str| {
            let is_new = part == Part::Set && key.starts_with('+');
            !is_new && look_up(base, key).is_none()
        };
        self.all()
            .filter(|(part, key)| is_unknown(*part, key))
            .collect()
    }
}

/// A configuration that was derived.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// The configuration.
    pub config: Map<String, Value>,
    /// What followed from the changes: a phrase each, such as `` `layer_types` cut to 2 of 24 ``.
    pub notes: Vec<String>,
}

/// Applies `changes` to `base`, which stays as it is, and fits what depends on the number of layers.
///
/// Removed keys go first, then values are scaled, then set.
///
/// # Errors
/// Every conflict between changes, every value that cannot be scaled, every shape that is
/// impossible afterwards and was not in `base`, and two names of its architecture that became two
/// architectures. Unknown keys are not among them: [`Changes::unknown`] finds those first, and they
/// are passed over here.
pub fn derive(base: &Map<String, Value>, changes: &Changes<'_>) -> Result<Derived, Vec<Problem>> {
    let mut problems = conflicts(changes);
    let mut config = base.clone();
    for key in changes.unset {
        paths::remove(&mut config, key);
    }
    for (key, factor) in changes.scale {
        let Some(value) = look_up(base, key) else {
            continue;
        };
        match scaled(key, value, *factor) {
            Ok(value) => problems.extend(paths::put(&mut config, key, value).err()),
            Err(problem) => problems.push(problem),
        }
    }
    for (key, value) in changes.set {
        let key = key.trim_start_matches('+');
        problems.extend(paths::put(&mut config, key, value.clone()).err());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let notes = lists::fit(&mut config, base, &|key| is_set(changes, key));
    let mut impossible = newly_impossible(&config, base);
    if impossible.is_empty() {
        impossible.extend(lost(base, &config));
    }
    if impossible.is_empty() {
        Ok(Derived { config, notes })
    } else {
        Err(impossible)
    }
}

/// Finds what keeps the weights of `config` from being known although those of `base` are: a key
/// that was removed or became something else, or two names of its architecture that contradict each
/// other. An architecture whose weights are not known may be meant, and so may ways to quantise them.
fn lost(base: &Map<String, Value>, config: &Map<String, Value>) -> Option<Problem> {
    Inventory::of(&shallow(base)).ok()?;
    if let Err(problem) = Architecture::of(config) {
        return (problem.keys.len() > 1).then_some(problem);
    }
    let problem = Inventory::of(&shallow(config)).err()?;
    (problem.keys != ["quantization_config"]).then_some(problem)
}

/// The same configuration with one layer, whose weights are quickly listed.
fn shallow(config: &Map<String, Value>) -> Map<String, Value> {
    let mut config = config.clone();
    for (key, value) in &mut config {
        match value {
            Value::Object(inner) => *inner = shallow(inner),
            Value::Number(_) if LAYER_KEYS.contains(&key.as_str()) => *value = 1.into(),
            _ => {}
        }
    }
    config
}

fn is_set(changes: &Changes<'_>, key: &str) -> bool {
    let mut keys = changes.set.keys();
    keys.any(|k| k.trim_start_matches('+') == key)
}

/// Finds keys that two changes are about, or one of which lies within another.
fn conflicts(changes: &Changes<'_>) -> Vec<Problem> {
    let all: Vec<_> = changes.all().collect();
    let mut problems = Vec::new();
    for (i, (part, written)) in all.iter().enumerate() {
        let key = written.trim_start_matches('+');
        for (other, earlier) in &all[..i] {
            let earlier = earlier.trim_start_matches('+');
            if !overlap(earlier, key) {
                continue;
            }
            let message = match (*part == *other, earlier == key) {
                (true, true) => format!("`{key}` is in `{}` twice", part.name()),
                (false, true) => {
                    format!("`{key}` is in `{}` and in `{}`", other.name(), part.name())
                }
                (_, false) => format!(
                    "`{key}` in `{}` and `{earlier}` in `{}` overlap",
                    part.name(),
                    other.name()
                ),
            };
            problems.push(Problem::new([*written], message, "keep one of them").of(*part));
        }
    }
    problems
}

fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    within(one, other) || within(other, one)
}

/// How far from a whole number a product may be for rounding to explain it, as a share of it.
const ROUNDING: f64 = 1e-9;

fn scaled(key: &str, value: &Value, factor: f64) -> Result<Value, Problem> {
    let wrong = |message, help: String| Err(Problem::new([key], message, help).of(Part::Scale));
    let Value::Number(number) = value else {
        let message = format!("`{key}` is `{}`, which has no multiples", short(value));
        return wrong(
            message,
            format!("write its new value in `set`: `{key} = …`"),
        );
    };
    let product = number.as_f64().unwrap_or(f64::NAN) * factor;
    if number.is_f64() {
        return match Number::from_f64(product) {
            Some(product) => Ok(Value::Number(product)),
            None => wrong(
                format!("`{key}`, {number}, times {factor} is no number"),
                "write a smaller factor".to_owned(),
            ),
        };
    }
    let whole = product.round();
    let is_whole = (product - whole).abs() <= ROUNDING * product.abs().max(1.0);
    if !is_whole || whole == 0.0 || whole.abs() >= 2_f64.powi(53) {
        let message = format!(
            "`{key}`, {number}, times {factor} is {product}, expected a whole number above 0"
        );
        let help = "write the number itself in `set`, or a factor that makes a whole one";
        return wrong(message, help.to_owned());
    }
    let whole = whole as i64;
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    struct Change(Map<String, Value>, Vec<String>, BTreeMap<String, f64>);

    impl Change {
        fn new(set: Value, unset: &[&str], scale: &[(&str, f64)]) -> Self {
            let unset = unset.iter().map(|k| (*k).to_owned()).collect();
            let scale = scale.iter().map(|(k, f)| ((*k).to_owned(), *f)).collect();
            Self(object(set), unset, scale)
        }

        fn changes(&self) -> Changes<'_> {
            Changes {
                set: &self.0,
                unset: &self.1,
                scale: &self.2,
            }
        }
    }

    fn base() -> Map<String, Value> {
        object(json!({
            "hidden_size": 896, "num_attention_heads": 14, "num_hidden_layers": 4,
            "rms_norm_eps": 1e-6, "sliding_window": 4096, "rope_scaling": null,
            "layer_types": ["a", "b", "c", "d"], "mlp_only_layers": [1, 3],
            "max_window_layers": 3, "eos_token_id": [1, 2, 3, 4],
            "vision_config": {"num_hidden_layers": 3, "layer_types": ["x", "y", "z"]},
        }))
    }

    fn derived(change: &Change) -> Derived {
        derive(&base(), &change.changes()).expect("sound changes")
    }

    fn wrong(change: &Change) -> Vec<String> {
        let problems = derive(&base(), &change.changes()).expect_err("unsound changes");
        let told = |p: Problem| format!("{}; {}", p.message, p.help);
        problems.into_iter().map(told).collect()
    }

    #[test]
    fn values_are_set_removed_and_scaled_also_within_objects() {
        let change = Change::new(
            json!({"vision_config.num_hidden_layers": 2, "+new.key": 7}),
            &["sliding_window"],
            &[
                ("hidden_size", 0.5),
                ("num_attention_heads", 0.5),
                ("rms_norm_eps", 10.0),
            ],
        );
        let config = derived(&change).config;
        assert_eq!(config["hidden_size"], json!(448));
        assert_eq!(config["num_attention_heads"], json!(7));
        assert!((config["rms_norm_eps"].as_f64().unwrap() - 1e-5).abs() < 1e-18);
        assert!(!config.contains_key("sliding_window"));
        assert_eq!(config["vision_config"]["num_hidden_layers"], json!(2));
        assert_eq!(config["vision_config"]["layer_types"], json!(["x", "y"]));
        assert_eq!(config["new"]["key"], json!(7));
        assert_eq!(config["layer_types"], base()["layer_types"]);
    }

    #[test]
    fn what_depends_on_the_number_of_layers_follows_it_and_is_told() {
        let derived = derived(&Change::new(json!({"num_hidden_layers": 2}), &[], &[]));
        assert_eq!(derived.config["layer_types"], json!(["a", "b"]));
        assert_eq!(derived.config["mlp_only_layers"], json!([1]));
        assert_eq!(derived.config["max_window_layers"], json!(2));
        assert_eq!(derived.config["eos_token_id"], base()["eos_token_id"]);
        assert_eq!(
            derived.notes,
            [
                "`layer_types` cut to 2 of 4",
                "`mlp_only_layers` cut to 1 of 2",
                "`max_window_layers` lowered from 3 to 2",
            ]
        );
    }

    #[test]
    fn lists_that_were_set_are_taken_as_they_are() {
        let set = json!({"num_hidden_layers": 2, "layer_types": ["b", "a"]});
        let derived = derived(&Change::new(set, &[], &[]));
        assert_eq!(derived.config["layer_types"], json!(["b", "a"]));
        let more = Change::new(json!({"num_hidden_layers": 6}), &[], &[]);
        assert_eq!(
            wrong(&more),
            [
                "`layer_types` has 4 entries for 6 layers; give it one entry per layer, or mend \
                 `num_hidden_layers`"
            ]
        );
    }

    #[test]
    fn models_as_published_are_derived_with_fewer_layers() {
        let cut = |base: Value| {
            let change = Change::new(json!({"num_hidden_layers": 2}), &[], &[]);
            derive(&object(base.clone()), &change.changes())
                .unwrap_or_else(|problems| panic!("{base}: {problems:?}"))
        };
        // Llama-4, Granite, RecurrentGemma and InternVL.
        for base in [
            json!({"num_hidden_layers": 48, "no_rope_layers": []}),
            json!({"num_hidden_layers": 40, "num_local_experts": 0, "num_experts_per_tok": 0}),
            json!({"num_hidden_layers": 26, "block_types": ["r", "r", "a"]}),
            json!({"num_hidden_layers": 4, "vision_config": {"image_size": [448, 448]}}),
        ] {
            let derived = cut(base.clone());
            assert_eq!(derived.notes, [""; 0], "{base}");
        }
        // Gemma-3n.
        let derived = cut(json!({"num_hidden_layers": 3, "intermediate_size": [8, 16, 24]}));
        assert_eq!(derived.config["intermediate_size"], json!([8, 16]));
        assert_eq!(derived.notes, ["`intermediate_size` cut to 2 of 3"]);
    }

    #[test]
    fn changes_that_contradict_each_other_are_refused() {
        let change = Change::new(
            json!({"hidden_size": 8, "vision_config.num_hidden_layers": 1}),
            &["vision_config"],
            &[("hidden_size", 2.0)],
        );
        assert_eq!(
            wrong(&change),
            [
                "`vision_config` in `unset` and `vision_config.num_hidden_layers` in `set` \
                 overlap; keep one of them",
                "`hidden_size` is in `set` and in `scale`; keep one of them",
            ]
        );
        let twice = Change::new(json!({}), &["sliding_window", "sliding_window"], &[]);
        assert_eq!(
            wrong(&twice),
            ["`sliding_window` is in `unset` twice; keep one of them"]
        );
    }

    #[test]
    fn what_has_no_such_multiple_is_refused() {
        let scale: &[(&str, f64)] = &[("hidden_size", 0.3), ("layer_types", 2.0)];
        assert_eq!(
            wrong(&Change::new(json!({}), &[], scale)),
            [
                "`hidden_size`, 896, times 0.3 is 268.8, expected a whole number above 0; write \
                 the number itself in `set`, or a factor that makes a whole one",
                "`layer_types` is `[\"a\",\"b\",\"c\",\"d\"]`, which has no multiples; write its \
                 new value in `set`: `layer_types = …`",
            ]
        );
        // 0.1 is a little more than a tenth, and its multiples still count as whole.
        let tenth = Change::new(json!({}), &[], &[("sliding_window", 0.125 / 4.096)]);
        assert_eq!(derived(&tenth).config["sliding_window"], json!(125));
    }

    #[test]
    fn shapes_that_became_impossible_are_refused() {
        let change = Change::new(json!({}), &[], &[("num_attention_heads", 1.5)]);
        assert_eq!(
            wrong(&change),
            [
                "`hidden_size` is 896, which `num_attention_heads`, 21, does not divide; write a \
                 multiple of 21, such as 882 or 903"
            ]
        );
    }

    #[test]
    fn what_the_weights_follow_from_cannot_be_removed() {
        let mut base = base();
        let more = json!({
            "model_type": "qwen2", "intermediate_size": 128, "num_key_value_heads": 2,
            "vocab_size": 64,
        });
        base.extend(object(more));
        let told = |change: &Change| {
            derive(&base, &change.changes()).map_err(|problems| problems[0].message.clone())
        };
        let less = Change::new(json!({}), &["intermediate_size"], &[]);
        let message = "the configuration has no `intermediate_size`";
        assert_eq!(told(&less), Err(message.to_owned()));
        let set = json!({"attention_bias": "yes"});
        let message = "`attention_bias` is `\"yes\"`, expected true or false";
        assert_eq!(told(&Change::new(set, &[], &[])), Err(message.to_owned()));
        let named = json!({"+architectures": ["LlamaForCausalLM"]});
        let message = "`architectures` begins with `LlamaForCausalLM`, but `model_type` is `qwen2`";
        assert_eq!(told(&Change::new(named, &[], &[])), Err(message.to_owned()));
        for fine in [
            json!({"model_type": "of my own", "num_key_value_heads": 7}),
            json!({"+quantization_config": {"quant_method": "awq"}}),
        ] {
            assert!(told(&Change::new(fine, &[], &[])).is_ok());
        }
    }

    #[test]
    fn only_unmarked_new_keys_are_unknown() {
        let set = json!({"hidden_size": 2, "+b": 3, "c": 4, "vision_config.x": 1});
        let change = Change::new(set, &["d"], &[("e", 2.0)]);
        assert_eq!(
            change.changes().unknown(&base()),
            [
                (Part::Set, "c"),
                (Part::Set, "vision_config.x"),
                (Part::Unset, "d"),
                (Part::Scale, "e")
            ]
        );
        assert!(known_keys(&base()).contains(&"vision_config.layer_types".to_owned()));
    }
}
