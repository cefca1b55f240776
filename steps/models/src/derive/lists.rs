//! What of a configuration depends on its number of layers, and follows it down.

use serde_json::{Map, Value};

/// Names of the number of layers.
pub(crate) const LAYER_KEYS: &[&str] = &["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// Lists with one entry per layer, where they have as many entries as the base has layers: some
/// publishers write a pattern that repeats, none at all, or one number for all layers instead.
const PER_LAYER: &[&str] = &[
    "activation_sparsity_pattern",
    "attention_layers",
    "attn_layer_types",
    "block_types",
    "compress_ratios",
    "ffn_multipliers",
    "indexer_types",
    "intermediate_size",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "no_rope_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_kv_heads",
    "num_query_heads",
];

/// Lists of numbers of layers.
const INDICES: &[&str] = &[
    "attn_layer_indices",
    "cross_attention_layers",
    "deepstack_visual_indexes",
    "full_attn_idxs",
    "fullatt_block_indexes",
    "global_attn_indexes",
    "mlp_only_layers",
    "moe_layers",
];

/// Numbers that are at most the number of layers.
const BOUNDS: &[&str] = &["first_k_dense_replace", "max_window_layers"];

/// Something that depends on the number of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerList {
    /// A list with one entry per layer, and how many it has.
    PerLayer(usize),
    /// A list of numbers of layers, and the greatest.
    Indices(Option<u64>),
    /// A number of layers.
    Bound(u64),
}

/// Finds what depends on the number of layers in one object, which was derived from `base`.
pub(crate) fn layer_lists<'a>(
    config: &'a Map<String, Value>,
    base: &Map<String, Value>,
) -> Vec<(&'a str, LayerList)> {
    let is_per_layer = |key: &str| {
        let list = base.get(key).and_then(Value::as_array);
        list.is_some_and(|list| layers(base) == Some(list.len() as u64))
    };
    let kind = |(key, value): (&'static str, &Value)| {
        let list = match value {
            Value::Array(list) if PER_LAYER.contains(&key) => {
                is_per_layer(key).then_some(LayerList::PerLayer(list.len()))?
            }
            Value::Array(list) if INDICES.contains(&key) => {
                LayerList::Indices(list.iter().filter_map(Value::as_u64).max())
            }
            Value::Number(n) if BOUNDS.contains(&key) => LayerList::Bound(n.as_u64()?),
            _ => return None,
        };
        Some((key, list))
    };
    [PER_LAYER, INDICES, BOUNDS]
        .concat()
        .into_iter()
        .filter_map(|key| kind((key, config.get(key)?)))
        .collect()
}

fn layers(config: &Map<String, Value>) -> Option<u64> {
    LAYER_KEYS.iter().find_map(|key| config.get(*key)?.as_u64())
}

/// Returns the number of layers of a configuration's decoder, by whichever name it has there.
#[must_use]
pub fn decoder_layers(config: &Map<String, Value>) -> Option<u64> {
    let within = || layers(config.get("text_config")?.as_object()?);
    layers(config).or_else(within)
}

/// Cuts what depends on numbers of layers, in `config` and in the objects within it, where those
/// are lower than in `base`; what `is_set` is left alone. Returns what was cut, a phrase each.
pub(super) fn fit(
    config: &mut Map<String, Value>,
    base: &Map<String, Value>,
    is_set: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    fit_object(config, base, "", is_set, &mut notes);
    notes
}

fn fit_object(
    config: &mut Map<String, Value>,
    base: &Map<String, Value>,
    prefix: &str,
    is_set: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) {
    if let (Some(now), Some(before)) = (layers(config), layers(base))
        && now < before
    {
        let lists: Vec<(String, LayerList)> = layer_lists(config, base)
            .into_iter()
            .map(|(key, list)| (key.to_owned(), list))
            .collect();
        for (key, list) in lists {
            let name = format!("{prefix}{key}");
            if !is_set(&name)
                && let Some(value) = config.get_mut(&key)
                && let Some(cut) = fit_value(value, list, now)
            {
                notes.push(format!("`{name}` {cut}"));
            }
        }
    }
    for (key, value) in config {
        if let (Value::Object(inner), Some(Value::Object(base))) = (value, base.get(key)) {
            fit_object(inner, base, &format!("{prefix}{key}."), is_set, notes);
        }
    }
}

/// Cuts one value to `n` layers; returns what was done, if something was.
fn fit_value(value: &mut Value, list: LayerList, n: u64) -> Option<String> {
    match (value, list) {
        (Value::Array(entries), LayerList::PerLayer(before)) => {
            entries.truncate(usize::try_from(n).unwrap_or(usize::MAX));
            let now = entries.len();
            (now < before).then(|| format!("cut to {now} of {before}"))
        }
        (Value::Array(entries), LayerList::Indices(_)) => {
            let before = entries.len();
            entries.retain(|entry| entry.as_u64().is_none_or(|layer| layer < n));
            let now = entries.len();
            (now < before).then(|| format!("cut to {now} of {before}"))
        }
        (value, LayerList::Bound(before)) if before > n => {
            *value = n.into();
            Some(format!("lowered from {before} to {n}"))
        }
        _ => None,
    }
}
