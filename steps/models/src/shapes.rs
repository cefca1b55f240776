//! What must divide what: shapes that no model of any architecture can have.
//!
//! Looks at keys by the names that most configurations use, so that it also judges architectures
//! whose weights are not known. Every object of a configuration is judged by itself, and what a
//! base breaks already is no rule for what is derived from it: publishers name quantities alike that
//! are not.

use crate::Problem;
use crate::derive::{LAYER_KEYS, LayerList, layer_lists};
use crate::fields::{Fields, MAX_SIZE};
use serde_json::{Map, Value};

/// Names of each quantity, in the order in which they are looked for.
const HIDDEN: &[&str] = &["hidden_size", "n_embd"];
const HEADS: &[&str] = &["num_attention_heads", "n_head"];
const KV_HEADS: &[&str] = &["num_key_value_heads", "num_kv_heads", "n_head_kv"];
const EXPERTS: &[&str] = &["num_experts", "num_local_experts", "n_routed_experts"];
const PER_TOKEN: &[&str] = &["num_experts_per_tok"];
const GROUPS: &[&str] = &["n_group"];
const CHOSEN_GROUPS: &[&str] = &["topk_group"];

/// What says that the elements of heads are rotated by their positions.
const ROTATION: &[&str] = &["rope_theta", "rope_parameters", "rope_scaling"];

/// What says that only a part of each head is.
const PARTLY: &[&str] = &["partial_rotary_factor", "rotary_pct", "rotary_dim"];

/// Layers that predict further tokens.
const PREDICTORS: &[&str] = &["num_nextn_predict_layers"];

/// The most layers, and the most experts of a layer: no model has a tenth of that, and one that a
/// slip describes must not fill the memory with names of tensors.
const MOST: u64 = 1 << 16;

/// The most experts of all layers, for the same reason.
const MOST_EXPERTS: u64 = 1 << 20;

/// Quantities that are positive integers wherever they stand, or lists of such: one for each layer,
/// or for height and width.
const SIZES: &[&[&str]] = &[
    HIDDEN,
    HEADS,
    KV_HEADS,
    LAYER_KEYS,
    &["head_dim"],
    &["intermediate_size"],
    &["moe_intermediate_size"],
    &["vocab_size"],
    &["kv_lora_rank"],
    &["patch_size"],
    &["image_size"],
];

/// Quantities that are zero where a model has none.
const COUNTS: &[&[&str]] = &[EXPERTS, PER_TOKEN, GROUPS, CHOSEN_GROUPS];

/// Tokens that stand for what is no text.
const PLACEHOLDERS: &[&str] = &[
    "image_token_index",
    "video_token_index",
    "image_token_id",
    "video_token_id",
];

/// Finds what makes the shapes of `config`, a `config.json`, impossible; nothing if they are sound.
#[must_use]
pub fn impossible_shapes(config: &Map<String, Value>) -> Vec<Problem> {
    judged(config, config)
}

/// Finds what makes the shapes of `config` impossible though those of `base`, from which it was
/// derived, are not so in the same keys.
pub(crate) fn newly_impossible(
    config: &Map<String, Value>,
    base: &Map<String, Value>,
) -> Vec<Problem> {
    let broken = impossible_shapes(base);
    let is_new = |p: &Problem| !broken.iter().any(|known| known.keys == p.keys);
    judged(config, base).into_iter().filter(is_new).collect()
}

/// Finds more layers or experts than can be listed, in `fields` and in the objects within.
///
/// # Errors
/// The first key that says so.
pub(crate) fn bounded(fields: &Fields<'_>) -> Result<(), Problem> {
    let mut problems = Vec::new();
    bounds(fields, &mut problems);
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let inner = fields.object().iter();
    inner
        .filter_map(|(key, value)| Some(fields.within(key, value.as_object()?)))
        .try_for_each(|inner| bounded(&inner))
}

fn judged(config: &Map<String, Value>, base: &Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    judge(&Fields::new(config), base, &mut problems);
    placeholders(config, &mut problems);
    problems
}

/// Returns the width of a head: what the configuration says, or `absent`, or the hidden size
/// divided among the heads.
///
/// # Errors
/// If a key is missing or malformed, or the heads do not divide the hidden size.
pub(crate) fn head_width(fields: &Fields<'_>, absent: Option<u64>) -> Result<u64, Problem> {
    if let Some(width) = fields.size("head_dim")?.or(absent) {
        return Ok(width);
    }
    let (hidden, heads) = (fields.need_any(HIDDEN)?, fields.need_any(HEADS)?);
    if hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    let named = |keys| Named::find(fields, keys).map_or(fields.name("head_dim"), |n: Named| n.key);
    Err(uneven(&named(HIDDEN), hidden, &named(HEADS), heads))
}

/// A quantity and the key under which it was found.
struct Named {
    key: String,
    value: u64,
}

impl Named {
    /// The first of several keys that holds a positive integer.
    fn find(fields: &Fields<'_>, keys: &[&str]) -> Option<Self> {
        keys.iter().find_map(|key| {
            let value = fields.value(key)?.as_u64().filter(|n| *n > 0)?;
            let key = fields.name(key);
            Some(Self { key, value })
        })
    }
}

fn judge(fields: &Fields<'_>, base: &Map<String, Value>, problems: &mut Vec<Problem>) {
    sizes(fields, problems);
    bounds(fields, problems);
    heads(fields, problems);
    experts(fields, problems);
    layers(fields, base, problems);
    patches(fields, problems);
    for (key, value) in fields.object() {
        if let Value::Object(inner) = value {
            let base = base.get(key).and_then(Value::as_object).unwrap_or(inner);
            judge(&fields.within(key, inner), base, problems);
        }
    }
}

fn sizes(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    for key in SIZES.iter().copied().flatten() {
        problems.extend(fields.sizes(key).err());
    }
    for key in COUNTS.iter().copied().flatten() {
        problems.extend(fields.count(key).err());
    }
}

fn bounds(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    let before = problems.len();
    for key in [LAYER_KEYS, PREDICTORS, EXPERTS].concat() {
        if let Some(Named { key, value }) = Named::find(fields, &[key])
            && value > MOST
        {
            let message = format!("`{key}` is {value}, expected at most {MOST}");
            problems.push(Problem::new(
                [key],
                message,
                format!("write at most {MOST}"),
            ));
        }
    }
    let (Some(layers), Some(experts)) = (
        Named::find(fields, LAYER_KEYS),
        Named::find(fields, EXPERTS),
    ) else {
        return;
    };
    let further = Named::find(fields, PREDICTORS).map_or(0, |n| n.value);
    let all = (layers.value.saturating_add(further)).saturating_mul(experts.value);
    if problems.len() == before && all > MOST_EXPERTS {
        let message = format!(
            "`{}` is {} and `{}` {}, which makes more than {MOST_EXPERTS} experts",
            experts.key, experts.value, layers.key, layers.value
        );
        let help = "write fewer layers or fewer experts";
        problems.push(Problem::new([experts.key, layers.key], message, help));
    }
}

fn heads(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    let Some(heads) = Named::find(fields, HEADS) else {
        return;
    };
    let has_width = ["head_dim", "kv_lora_rank"]
        .iter()
        .any(|key| fields.value(key).is_some());
    if let (Some(hidden), false) = (Named::find(fields, HIDDEN), has_width) {
        if !hidden.value.is_multiple_of(heads.value) {
            problems.push(uneven(&hidden.key, hidden.value, &heads.key, heads.value));
        } else if is_rotated(fields) && !(hidden.value / heads.value).is_multiple_of(2) {
            problems.push(odd_share(&hidden, &heads));
        }
    }
    if let Some(kv) = Named::find(fields, KV_HEADS)
        && !heads.value.is_multiple_of(kv.value)
    {
        problems.push(uneven(&heads.key, heads.value, &kv.key, kv.value));
    }
    if let Some(width) = Named::find(fields, &["head_dim"])
        && is_rotated(fields)
        && !width.value.is_multiple_of(2)
    {
        let Named { key, value } = width;
        let message = format!("`{key}` is {value}, but rotation takes its elements in pairs");
        let help = format!("write an even number, such as {}", value + 1);
        problems.push(Problem::new([key], message, help));
    }
}

/// Whether all elements of each head are rotated.
fn is_rotated(fields: &Fields<'_>) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| fields.value(key).is_some());
    has(ROTATION) && !has(PARTLY)
}

/// Each head has an odd share of the hidden size.
fn odd_share(hidden: &Named, heads: &Named) -> Problem {
    let (width, pairs) = (hidden.value / heads.value, 2 * heads.value);
    let message = format!(
        "`{}` is {}, {width} for each of `{}`, {}, but rotation takes elements in pairs",
        hidden.key, hidden.value, heads.key, heads.value
    );
    let above = hidden.value.div_ceil(pairs) * pairs;
    let help = format!("write a multiple of {pairs}, such as {above}");
    Problem::new([&hidden.key, &heads.key], message, help)
}

fn experts(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    let Some(experts) = Named::find(fields, EXPERTS) else {
        return;
    };
    let per_token = Named::find(fields, PER_TOKEN);
    if let Some(chosen) = &per_token
        && chosen.value > experts.value
    {
        problems.push(above(chosen, &experts, "experts"));
    }
    let Some(groups) = Named::find(fields, GROUPS) else {
        return;
    };
    if !experts.value.is_multiple_of(groups.value) {
        let (n, by) = (experts.value, groups.value);
        problems.push(uneven(&experts.key, n, &groups.key, by));
        return;
    }
    let Some(chosen) = Named::find(fields, CHOSEN_GROUPS) else {
        return;
    };
    if chosen.value > groups.value {
        problems.push(above(&chosen, &groups, "groups"));
        return;
    }
    let within = experts.value / groups.value * chosen.value;
    if let Some(per_token) = per_token.filter(|n| n.value > within && n.value <= experts.value) {
        let message = format!(
            "`{}` is {}, but the {} groups that a token may use hold {within} experts",
            per_token.key, per_token.value, chosen.value
        );
        let help = format!("write at most {within}, or raise `{}`", chosen.key);
        problems.push(Problem::new([per_token.key, chosen.key], message, help));
    }
}

/// Lists that depend on the number of layers.
fn layers(fields: &Fields<'_>, base: &Map<String, Value>, problems: &mut Vec<Problem>) {
    let Some(layers) = Named::find(fields, LAYER_KEYS) else {
        return;
    };
    let n = layers.value;
    for (key, list) in layer_lists(fields.object(), base) {
        let key = fields.name(key);
        let (message, help) = match list {
            LayerList::PerLayer(length) if length as u64 != n => (
                format!("`{key}` has {length} entries for {n} layers"),
                format!("give it one entry per layer, or mend `{}`", layers.key),
            ),
            LayerList::Indices(Some(last)) if last >= n => (
                format!("`{key}` names layer {last} of {n}, which are counted from 0"),
                format!("name layers below {n}, or mend `{}`", layers.key),
            ),
            // A bound above the number of layers means all of them: Qwen2.5-14B's is 70 of 48.
            _ => continue,
        };
        problems.push(Problem::new([key, layers.key.clone()], message, help));
    }
}

fn patches(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    let image = Named::find(fields, &["image_size"]);
    let patch = Named::find(fields, &["patch_size"]);
    if let (Some(image), Some(patch)) = (image, patch)
        && image.value < patch.value
    {
        let message = format!(
            "`{}` is {}, less than the {} of `{}`",
            image.key, image.value, patch.value, patch.key
        );
        let help = format!("write at least {}", patch.value);
        problems.push(Problem::new([image.key, patch.key], message, help));
    }
}

/// Tokens that stand for images must be in the decoder's vocabulary.
fn placeholders(config: &Map<String, Value>, problems: &mut Vec<Problem>) {
    let Some(Value::Object(text)) = config.get("text_config") else {
        return;
    };
    let Some(vocab) = text.get("vocab_size").and_then(Value::as_u64) else {
        return;
    };
    for key in PLACEHOLDERS {
        let id = config.get(*key).and_then(Value::as_u64);
        if let Some(id) = id.filter(|id| *id >= vocab && *id < MAX_SIZE) {
            let message = format!("`{key}` is {id}, but the vocabulary has {vocab} tokens");
            let help = format!("set `{key}` below {vocab} too");
            problems.push(Problem::new(
                [*key, "text_config.vocab_size"],
                message,
                help,
            ));
        }
    }
}

fn uneven(key: &str, value: u64, by_key: &str, by: u64) -> Problem {
    let message = format!("`{key}` is {value}, which `{by_key}`, {by}, does not divide");
    let above = value.div_ceil(by) * by;
    let below = value / by * by;
    let help = if below == 0 {
        format!("write a multiple of {by}, such as {above}")
    } else {
        format!("write a multiple of {by}, such as {below} or {above}")
    };
    Problem::new([key, by_key], message, help)
}

fn above(few: &Named, all: &Named, what: &str) -> Problem {
    let message = format!(
        "`{}` is {}, but `{}` says that there are {} {what}",
        few.key, few.value, all.key, all.value
    );
    let help = format!("write at most {}, or raise `{}`", all.value, all.key);
    Problem::new([&few.key, &all.key], message, help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(config: Value) -> Vec<String> {
        let config = config.as_object().expect("an object");
        impossible_shapes(config)
            .into_iter()
            .map(|p| format!("{}; {}", p.message, p.help))
            .collect()
    }

    #[test]
    fn each_impossible_shape_is_named_with_its_mend() {
        for (config, expected) in [
            (
                json!({"hidden_size": 100, "num_attention_heads": 3}),
                "`hidden_size` is 100, which `num_attention_heads`, 3, does not divide; \
                 write a multiple of 3, such as 99 or 102",
            ),
            (
                json!({"num_attention_heads": 14, "num_key_value_heads": 4}),
                "`num_attention_heads` is 14, which `num_key_value_heads`, 4, does not divide; \
                 write a multiple of 4, such as 12 or 16",
            ),
            (
                json!({"num_local_experts": 4, "num_experts_per_tok": 8}),
                "`num_experts_per_tok` is 8, but `num_local_experts` says that there are 4 \
                 experts; write at most 4, or raise `num_local_experts`",
            ),
            (
                json!({"n_routed_experts": 16, "n_group": 8, "topk_group": 2,
                       "num_experts_per_tok": 8}),
                "`num_experts_per_tok` is 8, but the 2 groups that a token may use hold 4 \
                 experts; write at most 4, or raise `topk_group`",
            ),
            (
                json!({"num_hidden_layers": 65_537}),
                "`num_hidden_layers` is 65537, expected at most 65536; write at most 65536",
            ),
            (
                json!({"text_config": {"n_layer": 1024, "num_experts": 4096}}),
                "`text_config.num_experts` is 4096 and `text_config.n_layer` 1024, which makes \
                 more than 1048576 experts; write fewer layers or fewer experts",
            ),
            (
                json!({"num_hidden_layers": 2, "mlp_only_layers": [0, 2]}),
                "`mlp_only_layers` names layer 2 of 2, which are counted from 0; name layers \
                 below 2, or mend `num_hidden_layers`",
            ),
            (
                json!({"head_dim": 63, "num_attention_heads": 1, "rope_theta": 1e4}),
                "`head_dim` is 63, but rotation takes its elements in pairs; write an even \
                 number, such as 64",
            ),
            (
                json!({"hidden_size": 36, "num_attention_heads": 4, "rope_theta": 1e4}),
                "`hidden_size` is 36, 9 for each of `num_attention_heads`, 4, but rotation takes \
                 elements in pairs; write a multiple of 8, such as 40",
            ),
            (
                json!({"image_token_index": 32001, "text_config": {"vocab_size": 8192}}),
                "`image_token_index` is 32001, but the vocabulary has 8192 tokens; set \
                 `image_token_index` below 8192 too",
            ),
            (
                json!({"hidden_size": -1}),
                "`hidden_size` is `-1`, expected a positive integer; write a positive integer",
            ),
        ] {
            assert_eq!(found(config.clone()), [expected], "{config}");
        }
    }

    #[test]
    fn zero_experts_and_sizes_by_layer_or_side_are_sound() {
        for config in [
            json!({"num_local_experts": 0, "num_experts_per_tok": 0}),
            json!({"num_hidden_layers": 2, "intermediate_size": [64, 128]}),
            json!({"image_size": [448, 448], "patch_size": [14, 14]}),
            json!({"num_hidden_layers": 26, "block_types": ["r", "r", "a"]}),
        ] {
            assert!(found(config.clone()).is_empty(), "{config}");
        }
        for config in [
            json!({"intermediate_size": []}),
            json!({"image_size": [448, 0]}),
            json!({"num_experts": -1}),
        ] {
            assert_eq!(found(config.clone()).len(), 1, "{config}");
        }
    }

    #[test]
    fn a_rule_that_the_base_breaks_is_no_rule_for_what_comes_of_it() {
        let object = |value: Value| value.as_object().expect("an object").clone();
        let base = object(json!({
            "hidden_size": 100, "num_attention_heads": 3, "vocab_size": {"text": 8},
            "text_config": {"num_hidden_layers": 2, "layer_types": ["a", "b"]},
        }));
        let mut config = base.clone();
        config.insert("hidden_size".to_owned(), json!(101));
        assert_eq!(newly_impossible(&config, &base), []);
        config["text_config"]["layer_types"] = json!(["a"]);
        let found = newly_impossible(&config, &base);
        let found: Vec<&str> = found.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            found,
            ["`text_config.layer_types` has 1 entries for 2 layers"]
        );
    }

    #[test]
    fn latent_attention_and_explicit_widths_need_no_division() {
        for config in [
            json!({"hidden_size": 7168, "num_attention_heads": 100, "kv_lora_rank": 512}),
            json!({"hidden_size": 1000, "num_attention_heads": 3, "head_dim": 64}),
            json!({"num_key_value_heads": null, "num_attention_heads": 3}),
            // Learned positions rotate nothing, and a part of a head may be even.
            json!({"hidden_size": 36, "num_attention_heads": 4}),
            json!({"hidden_size": 36, "num_attention_heads": 4, "rope_theta": 1e4,
                   "partial_rotary_factor": 0.5}),
        ] {
            assert!(found(config).is_empty());
        }
    }
}
