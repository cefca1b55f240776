//! Random checkpoints as the safetensors library reads them.

use models::{Checkpoint, Fit, Inventory, Recipe, WriteError, write};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

fn config(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Small models of every layout.
fn small() -> Vec<Map<String, Value>> {
    let decoder = json!({
        "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 128,
        "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
        "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "num_nextn_predict_layers": 1, "q_lora_rank": 24, "kv_lora_rank": 16,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "ffn_dim": 96,
        "n_embd": 64, "n_layer": 2, "n_positions": 128, "num_kv_heads": 2,
        "new_decoder_architecture": true,
    });
    let kinds = [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "mixtral",
        "deepseek_v3",
        "gemma",
        "falcon",
        "opt",
        "gpt2",
        "grok-1",
        "llava_next_video",
    ];
    let with = |kind: &&str| {
        let mut config = config(decoder.clone());
        config.insert("model_type".to_owned(), json!(kind));
        if *kind == "deepseek_v3" {
            let fp8 = json!({"quant_method": "fp8", "weight_block_size": [16, 16]});
            config.insert("quantization_config".to_owned(), fp8);
        }
        if *kind == "llava_next_video" {
            let mut text = config.clone();
            text.insert("model_type".to_owned(), json!("llama"));
            config.insert("text_config".to_owned(), Value::Object(text));
            let tower = json!({
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
            });
            config.insert("vision_config".to_owned(), tower);
        }
        config
    };
    kinds.iter().map(with).collect()
}

fn recipe() -> Recipe {
    Recipe {
        seed: 42,
        std: 0.02,
        max_shard_bytes: 5_000_000_000,
        threads: None,
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn every_layout_is_read_back_as_listed() {
    for config in small() {
        let inventory = Inventory::of(&config).unwrap_or_else(|problem| panic!("{problem}"));
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path(), &inventory, &recipe(), &|_| true).unwrap();
        let files = files(folder.path());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["model.safetensors"]);
        let bytes = &files["model.safetensors"];
        assert_eq!(bytes.len() as u64, written.bytes);
        let read = SafeTensors::deserialize(bytes).expect("a safetensors file");
        assert_eq!(read.len(), inventory.tensors.len());
        for tensor in &inventory.tensors {
            let found = read.tensor(&tensor.name).expect("the tensor");
            let shape: Vec<u64> = found.shape().iter().map(|n| *n as u64).collect();
            assert_eq!(shape, tensor.shape, "{}", tensor.name);
            assert_eq!(format!("{:?}", found.dtype()), tensor.dtype.name());
        }
        let checkpoint = Checkpoint::read(folder.path()).unwrap().expect("weights");
        assert_eq!(checkpoint.fit(&inventory), Fit::Fits { idle: 0 });
    }
}

#[test]
fn threads_shards_and_their_order_change_no_value() {
    let inventory = Inventory::of(&small()[2]).unwrap();
    let in_folder = |threads, max_shard_bytes| {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            threads: NonZeroUsize::new(threads),
            max_shard_bytes,
            ..recipe()
        };
        write(folder.path(), &inventory, &recipe, &|_| true).unwrap();
        files(folder.path())
    };
    let (one, five) = (in_folder(1, 40_000), in_folder(5, 40_000));
    assert_eq!(one, five);
    let names: Vec<&String> = one.keys().collect();
    assert_eq!(names[0], "model-00001-of-00006.safetensors", "{names:?}");
    let index: Value = serde_json::from_slice(&one["model.safetensors.index.json"]).unwrap();
    assert_eq!(index["metadata"]["total_size"], json!(inventory.bytes()));
    let whole = in_folder(2, u64::MAX);
    let whole = SafeTensors::deserialize(&whole["model.safetensors"]).unwrap();
    for tensor in &inventory.tensors {
        let file = index["weight_map"][&tensor.name].as_str().expect("a file");
        let shard = SafeTensors::deserialize(&one[file]).unwrap();
        let part = shard.tensor(&tensor.name).unwrap();
        assert_eq!(part.data(), whole.tensor(&tensor.name).unwrap().data());
    }
}

#[test]
fn data_begins_where_readers_that_bypass_the_cache_can_begin() {
    let inventory = Inventory::of(&small()[0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &inventory, &recipe(), &|_| true).unwrap();
    let bytes = &files(folder.path())["model.safetensors"];
    let (header, _) = SafeTensors::read_metadata(bytes).unwrap();
    assert_eq!((header + 8) % 4096, 0);
}

#[test]
fn the_seed_the_deviation_and_the_type_are_what_was_asked_for() {
    let mut config = small()[0].clone();
    config.insert("dtype".to_owned(), json!("float32"));
    let inventory = Inventory::of(&config).unwrap();
    let values = |recipe: &Recipe| -> Vec<f32> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &inventory, recipe, &|_| true).unwrap();
        let bytes = &files(folder.path())["model.safetensors"];
        let read = SafeTensors::deserialize(bytes).unwrap();
        let table = read.tensor("model.embed_tokens.weight").unwrap();
        let (chunks, _) = table.data().as_chunks::<4>();
        chunks
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    let deviation = |values: &[f32]| {
        let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        (square / values.len() as f64).sqrt()
    };
    let usual = values(&recipe());
    assert!((deviation(&usual) / 0.02 - 1.0).abs() < 0.03);
    let wide = values(&Recipe {
        std: 0.1,
        ..recipe()
    });
    assert!((deviation(&wide) / 0.1 - 1.0).abs() < 0.03);
    assert_ne!(
        usual,
        values(&Recipe {
            seed: 1,
            ..recipe()
        })
    );
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_before_anything_is_written() {
    let mut config = small()[0].clone();
    config.insert("vocab_size".to_owned(), json!(2_000_000_000_u64));
    config.insert("hidden_size".to_owned(), json!(1 << 20));
    let inventory = Inventory::of(&config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = write(folder.path(), &inventory, &recipe(), &|_| true).unwrap_err();
    let WriteError::NoSpace { needed, free, .. } = error else {
        panic!("{error}");
    };
    assert!(needed > free && needed > inventory.bytes());
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn models_that_cannot_be_counted_are_refused() {
    for (kind, changes, expected) in [
        (
            0,
            json!({"num_hidden_layers": 1 << 20}),
            "`num_hidden_layers` is 1048576, expected",
        ),
        (
            4,
            json!({"num_experts": 1 << 20}),
            "`num_experts` is 1048576, expected",
        ),
        (
            8,
            json!({"num_attention_heads": 2_000_000_000, "head_dim": 2_000_000_000}),
            "the model has more than",
        ),
    ] {
        let mut config = small()[kind].clone();
        config.extend(self::config(changes));
        let problem = Inventory::of(&config).unwrap_err();
        assert!(problem.message.starts_with(expected), "{}", problem.message);
    }
}

#[test]
fn heads_that_are_no_embeddings_are_stored() {
    for kind in [9, 10] {
        let mut config = small()[kind].clone();
        let heads = |config: &Map<String, Value>| {
            let tensors = Inventory::of(config).unwrap().tensors.into_iter();
            let named = tensors.filter(|t| t.name == "lm_head.weight");
            named.map(|t| t.shape).collect::<Vec<_>>()
        };
        assert!(heads(&config).is_empty());
        config.insert("tie_word_embeddings".to_owned(), json!(false));
        assert_eq!(heads(&config), [[320, 64]]);
    }
}

#[test]
fn files_that_were_cut_off_are_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = Inventory::of(&small()[2]).unwrap();
    write(folder.path(), &inventory, &recipe(), &|_| true).unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = Checkpoint::read(folder.path()).unwrap_err();
    let (is, needed) = (whole.len() - 1, whole.len());
    assert_eq!(
        error.problem,
        format!("it has {is} bytes, but its header asks for {needed}")
    );
}

#[test]
fn writing_ends_when_it_is_told_to() {
    let inventory = Inventory::of(&small()[0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = write(folder.path(), &inventory, &recipe(), &|_| false).unwrap_err();
    assert!(matches!(error, WriteError::Stopped), "{error}");
}

#[test]
fn other_weights_are_told_from_those_of_a_configuration() {
    let full = small()[2].clone();
    let folder = tempfile::tempdir().unwrap();
    let inventory = Inventory::of(&full).unwrap();
    write(folder.path(), &inventory, &recipe(), &|_| true).unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap().expect("weights");
    let fit = |key: &str, value: Value| {
        let mut config = full.clone();
        config.insert(key.to_owned(), value);
        checkpoint.fit(&Inventory::of(&config).unwrap())
    };
    assert_eq!(fit("rope_theta", json!(1e6)), Fit::Fits { idle: 0 });
    assert_eq!(fit("num_hidden_layers", json!(1)), Fit::Fits { idle: 12 });
    let differs = |why: &str| Fit::Differs {
        why: why.to_owned(),
    };
    assert_eq!(
        fit("num_hidden_layers", json!(3)),
        differs("they have no `model.layers.2.input_layernorm.weight`")
    );
    assert_eq!(
        fit("vocab_size", json!(256)),
        differs("`model.embed_tokens.weight` is [320, 64] there and [256, 64] here")
    );
    assert!(Checkpoint::read(Path::new("nowhere")).unwrap().is_none());
}
