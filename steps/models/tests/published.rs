//! Every configuration that ships, against what its publisher says of its size.
//!
//! Counts of two layers were computed by hand from the figures, not by the code that is tested.

use models::{Changes, Inventory, Role, Tensor, derive, impossible_shapes};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A model as published.
struct Published {
    /// The folder below `model_conf/`.
    folder: &'static str,
    /// Parameters; each README says where the figure was published.
    parameters: u64,
    /// How far the count may be from that, as a share: 0 where an exact figure was published.
    tolerance: f64,
    /// The mutation to two layers.
    two_layers: &'static [&'static str],
    /// Parameters with two layers.
    parameters_of_two: u64,
}

const fn exact(folder: &'static str, parameters: u64, parameters_of_two: u64) -> Published {
    Published {
        folder,
        parameters,
        tolerance: 0.0,
        two_layers: &["num_hidden_layers"],
        parameters_of_two,
    }
}

const fn about(folder: &'static str, parameters: u64, parameters_of_two: u64) -> Published {
    let mut model = exact(folder, parameters, parameters_of_two);
    // A figure in words has two digits or three.
    model.tolerance = 0.008;
    model
}

fn published() -> Vec<Published> {
    vec![
        exact("llama-2-7b", 6_738_415_616, 666_914_816),
        exact("llama-3-8b", 8_030_261_248, 1_486_901_248),
        exact("llama-3-70b", 70_553_706_496, 3_812_663_296),
        exact("llama-3.1-8b", 8_030_261_248, 1_486_901_248),
        exact("llama-3.1-70b", 70_553_706_496, 3_812_663_296),
        exact("qwen2.5-0.5b", 494_032_768, 165_960_320),
        exact("qwen2.5-14b", 14_770_033_664, 2_107_677_696),
        exact("qwen3-32b", 32_762_123_264, 2_531_026_432),
        exact("qwen3-30b-a3b", 30_532_122_624, 1_868_573_184),
        exact("mistral-7b", 7_241_732_096, 698_372_096),
        exact("mixtral-8x7b", 46_702_792_704, 3_164_688_384),
        about("deepseek-v3", 671_000_000_000, 3_020_332_032),
        exact("gemma-7b", 8_537_680_896, 1_340_095_488),
        Published {
            // The name has two digits and leaves the third off: 41.3 billion.
            tolerance: 0.035,
            ..about("falcon-40b", 40_000_000_000, 1_891_713_024)
        },
        about("opt-6.7b", 6_700_000_000, 617_078_784),
        about("opt-66b", 66_000_000_000, 2_520_889_344),
        Published {
            two_layers: &["n_layer"],
            ..about("gpt-3-175b", 174_600_000_000, 4_266_946_560)
        },
        about("grok-1", 314_000_000_000, 10_645_297_152),
        Published {
            two_layers: &[
                "text_config.num_hidden_layers",
                "vision_config.num_hidden_layers",
            ],
            ..about("llava-next-video-7b", 7_060_000_000, 714_813_440)
        },
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_conf")
}

fn config(model: &str) -> Map<String, Value> {
    let path = folder().join(model).join("config_full.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn inventory(config: &Map<String, Value>) -> Inventory {
    Inventory::of(config).unwrap_or_else(|problem| panic!("{problem}"))
}

fn changed(config: &Map<String, Value>, set: Value, unset: &[&str]) -> Map<String, Value> {
    let set = set.as_object().expect("an object").clone();
    let unset: Vec<String> = unset.iter().map(|key| (*key).to_owned()).collect();
    let changes = Changes {
        set: &set,
        unset: &unset,
        scale: &BTreeMap::new(),
    };
    assert_eq!(changes.unknown(config), []);
    let derived = derive(config, &changes);
    derived
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .config
}

#[test]
fn every_folder_is_known_and_says_what_it_is() {
    let folders = std::fs::read_dir(folder()).unwrap();
    let found: BTreeSet<String> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = published().iter().map(|m| m.folder.to_owned()).collect();
    assert_eq!(found, known);
    for model in known {
        let readme = std::fs::read_to_string(folder().join(&model).join("README.md")).unwrap();
        for part in ["Parameters: ", &format!("base = \"model_conf/{model}\"")] {
            assert!(readme.contains(part), "{model}: {part}");
        }
    }
}

/// The first number behind `words`, as READMEs write numbers.
fn number_behind(text: &str, words: &str) -> u64 {
    let (_, behind) = text
        .split_once(words)
        .unwrap_or_else(|| panic!("no `{words}`"));
    let end = behind.find(|c: char| !c.is_ascii_digit() && c != ',');
    let digits = behind[..end.unwrap_or(behind.len())].replace(',', "");
    digits.parse().unwrap_or_else(|e| panic!("{words}: {e}"))
}

/// What the example of a README sets.
fn example(readme: &str) -> Map<String, Value> {
    let (_, set) = readme
        .split_once("set = { ")
        .expect("an example that sets something");
    let (set, _) = set.split_once(" }").expect("its end");
    let one = |entry: &str| {
        let (key, value) = entry.split_once(" = ").expect("a key and a value");
        let value = value.parse::<u64>().expect("a number");
        (key.trim_matches('"').to_owned(), json!(value))
    };
    set.split(", ").map(one).collect()
}

#[test]
fn figures_that_are_written_down_are_those_that_are_counted() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let table = std::fs::read_to_string(&table).unwrap();
    for model in published() {
        let name = model.folder;
        let readme = std::fs::read_to_string(folder().join(name).join("README.md")).unwrap();
        let config = config(name);
        let all = inventory(&config).parameters();
        assert_eq!(number_behind(&readme, "Parameters: "), all, "{name}");
        let (_, block) = readme.split_once("```toml").expect("an example");
        let two = changed(&config, Value::Object(example(block)), &[]);
        let two = inventory(&two).parameters();
        let text = readme.replace('\n', " ");
        assert_eq!(number_behind(&text, "with two layers "), two, "{name}");
        let is_it = |line: &&str| line.starts_with('|') && line.contains(&format!("`{name}`"));
        let row = table
            .lines()
            .find(is_it)
            .unwrap_or_else(|| panic!("no row of {name}"));
        let written: Vec<u64> = row
            .split('|')
            .skip(2)
            .take(2)
            .map(|c| number_behind(c, " "))
            .collect();
        assert_eq!(written, [all, two], "{name}");
    }
}

/// Servers need more than a configuration for these: code, and a processor's configuration.
#[test]
fn what_servers_do_not_run_as_it_is_says_so() {
    for model in published() {
        let readme = std::fs::read_to_string(folder().join(model.folder).join("README.md"));
        let readme = readme.unwrap().replace('\n', " ");
        let lacks = ["grok-1", "llava-next-video-7b"].contains(&model.folder);
        assert_eq!(readme.contains("do not run it as it is"), lacks);
    }
}

#[test]
fn full_models_have_the_published_numbers_of_parameters() {
    for model in published() {
        let config = config(model.folder);
        assert_eq!(impossible_shapes(&config), [], "{}", model.folder);
        let count = inventory(&config).parameters();
        let error = (count as f64 / model.parameters as f64 - 1.0).abs();
        let (folder, expected) = (model.folder, model.parameters);
        assert!(
            error <= model.tolerance,
            "{folder}: {count}, not {expected}"
        );
    }
}

#[test]
fn mutations_to_two_layers_have_the_computed_numbers_of_parameters() {
    for model in published() {
        let set: Map<String, Value> = model
            .two_layers
            .iter()
            .map(|key| ((*key).to_owned(), json!(2)))
            .collect();
        let config = changed(&config(model.folder), Value::Object(set), &[]);
        let count = inventory(&config).parameters();
        assert_eq!(count, model.parameters_of_two, "{}", model.folder);
    }
}

#[test]
fn names_of_tensors_are_distinct_and_copies_are_of_something() {
    for model in published() {
        let inventory = inventory(&config(model.folder));
        let names: BTreeSet<&str> = inventory.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names.len(), inventory.tensors.len(), "{}", model.folder);
        for tensor in &inventory.tensors {
            if let Some(original) = &tensor.copy_of {
                assert!(names.contains(original.as_str()), "{}", tensor.name);
            }
        }
    }
}

/// What indices on the hub list: number of tensors, and bytes of all where that is known.
#[test]
fn checkpoints_have_as_many_tensors_as_the_hubs() {
    for (model, n, bytes) in [
        ("llama-3-8b", 291, 16_060_522_496),
        ("qwen2.5-0.5b", 290, 988_065_536),
        ("qwen3-32b", 707, 65_524_246_528),
        ("qwen3-30b-a3b", 18_867, 61_064_245_248),
        ("mixtral-8x7b", 995, 93_405_585_408),
        // Of 40B the hub counts 41,835,970,560 weights: the head is stored.
        ("falcon-40b", 484, 2 * 41_835_970_560),
    ] {
        let inventory = inventory(&config(model));
        assert_eq!(
            (inventory.tensors.len(), inventory.bytes()),
            (n, bytes),
            "{model}"
        );
    }
}

/// All weights of a checkpoint, further prediction included, scales of quantised blocks not.
fn stored_weights(inventory: &Inventory) -> u64 {
    let weights = inventory.tensors.iter().filter(|t| t.role != Role::Scale);
    weights.map(Tensor::elements).sum()
}

#[test]
fn deepseeks_further_layer_and_its_eight_bits_are_counted_as_published() {
    let full = config("deepseek-v3");
    let inventory = inventory(&full);
    // 671B, and 685B with 14B of the further layer (README.md of deepseek-ai/DeepSeek-V3).
    assert_eq!(inventory.parameters(), 671_026_419_200);
    assert_eq!(stored_weights(&inventory), 684_489_845_504);
    // 688.6 GB in eight bits, as loaders that were measured with it report.
    assert_eq!(inventory.bytes(), 688_574_839_360);
    let plain = changed(
        &full,
        json!({"num_nextn_predict_layers": 0}),
        &["quantization_config"],
    );
    let plain = self::inventory(&plain);
    assert_eq!(stored_weights(&plain), 671_026_419_200);
    // The choice of experts has a bias in 32 bits.
    assert_eq!(plain.bytes(), 2 * 671_026_419_200 + 2 * 58 * 256);
    // A layer with experts among two.
    let two = changed(
        &full,
        json!({"num_hidden_layers": 2, "first_k_dense_replace": 1}),
        &[],
    );
    assert_eq!(self::inventory(&two).parameters(), 13_944_134_912);
}

#[test]
fn active_parameters_are_those_of_a_token() {
    for (model, published, tolerance) in [
        ("mixtral-8x7b", 12.9e9, 0.003),
        ("qwen3-30b-a3b", 3.3e9, 0.02),
        ("deepseek-v3", 37e9, 0.02),
        ("llama-2-7b", 6.738_415_616e9, 0.0),
    ] {
        let active = inventory(&config(model)).active_parameters() as f64;
        assert!(
            (active / published - 1.0).abs() <= tolerance,
            "{model}: {active}"
        );
    }
}

#[test]
fn more_experts_for_a_token_than_there_are_leave_none_out() {
    let set = json!({"num_experts_per_tok": 9});
    let mut config = config("mixtral-8x7b");
    config.extend(set.as_object().expect("an object").clone());
    let inventory = inventory(&config);
    assert_eq!(inventory.active_parameters(), inventory.parameters());
}

/// Names and shapes, one of each kind, as files on the hub have them.
#[test]
fn tensors_are_called_and_shaped_as_on_the_hub() {
    for (model, name, shape) in [
        (
            "llama-2-7b",
            "model.layers.31.self_attn.q_proj.weight",
            &[4096, 4096][..],
        ),
        ("llama-2-7b", "lm_head.weight", &[32000, 4096]),
        (
            "mistral-7b",
            "model.layers.0.self_attn.k_proj.weight",
            &[1024, 4096],
        ),
        (
            "qwen2.5-0.5b",
            "model.layers.23.self_attn.v_proj.bias",
            &[128],
        ),
        (
            "qwen3-32b",
            "model.layers.0.self_attn.q_norm.weight",
            &[128],
        ),
        (
            "qwen3-32b",
            "model.layers.0.self_attn.o_proj.weight",
            &[5120, 8192],
        ),
        (
            "qwen3-30b-a3b",
            "model.layers.47.mlp.experts.127.down_proj.weight",
            &[2048, 768],
        ),
        (
            "qwen3-30b-a3b",
            "model.layers.0.mlp.gate.weight",
            &[128, 2048],
        ),
        (
            "mixtral-8x7b",
            "model.layers.0.block_sparse_moe.experts.7.w2.weight",
            &[4096, 14336],
        ),
        (
            "deepseek-v3",
            "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
            &[576, 7168],
        ),
        (
            "deepseek-v3",
            "model.layers.0.self_attn.q_b_proj.weight_scale_inv",
            &[192, 12],
        ),
        (
            "deepseek-v3",
            "model.layers.60.mlp.gate.e_score_correction_bias",
            &[256],
        ),
        (
            "deepseek-v3",
            "model.layers.61.eh_proj.weight",
            &[7168, 14336],
        ),
        (
            "gemma-7b",
            "model.layers.0.self_attn.o_proj.weight",
            &[3072, 4096],
        ),
        (
            "falcon-40b",
            "transformer.h.0.self_attention.query_key_value.weight",
            &[9216, 8192],
        ),
        ("falcon-40b", "transformer.h.59.ln_mlp.bias", &[8192]),
        (
            "opt-6.7b",
            "model.decoder.embed_positions.weight",
            &[2050, 4096],
        ),
        ("gpt-3-175b", "h.0.attn.c_attn.weight", &[12288, 36864]),
        (
            "grok-1",
            "model.layers.0.moe_block.experts.0.linear_v.weight",
            &[32768, 6144],
        ),
        ("grok-1", "model.layers.63.post_moe_norm.scale", &[6144]),
        (
            "llava-next-video-7b",
            "multi_modal_projector.linear_1.weight",
            &[4096, 1024],
        ),
        (
            "llava-next-video-7b",
            "vision_tower.vision_model.embeddings.patch_embedding.weight",
            &[1024, 3, 14, 14],
        ),
        (
            "llava-next-video-7b",
            "language_model.lm_head.weight",
            &[32064, 4096],
        ),
    ] {
        let inventory = inventory(&config(model));
        let tensor = inventory.tensors.iter().find(|tensor| tensor.name == name);
        let found = tensor.unwrap_or_else(|| panic!("{model} has no {name}"));
        assert_eq!(found.shape, shape, "{model}: {name}");
    }
}
