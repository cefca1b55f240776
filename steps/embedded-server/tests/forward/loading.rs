//! Checkpoints on disk: element types, shards, and what is said when something is missing.

use crate::models::{self, Model};
use crate::runner::{Runner, prompt};
use embedded_server::executor::Executor;
use embedded_server::executor::cpu::{CpuError, CpuExecutor, CpuOptions};
use embedded_server::model::{LoadFormat, Weights, WeightsError};
use safetensors::tensor::Dtype;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::Path;

fn load(model: &Model, dir: &Path) -> Result<Weights, WeightsError> {
    Weights::load(
        &model.config(),
        &LoadFormat::Safetensors {
            dir: dir.to_owned(),
        },
    )
}

fn names(model: &Model) -> Vec<String> {
    model.tensors.keys().cloned().collect()
}

fn logits(weights: Weights) -> Vec<f32> {
    Runner::new(weights, 16, 1).alone(&prompt("loading", 11, 48), 11)
}

/// Two shards and their index.
fn write_shards(model: &Model, dir: &Path) {
    let names = names(model);
    let mut map = serde_json::Map::new();
    for (shard, names) in names.chunks(names.len() / 2 + 1).enumerate() {
        let file = format!("model-0000{shard}-of-00002.safetensors");
        model.write(&dir.join(&file), names, Dtype::F32);
        map.extend(names.iter().map(|name| (name.clone(), json!(file))));
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_and_a_single_file_are_the_same_model() {
    let model = models::llama_with_biases();
    let dir = tempfile::tempdir().unwrap();
    write_shards(&model, dir.path());
    assert_eq!(
        logits(load(&model, dir.path()).unwrap()),
        logits(model.load())
    );
}

#[test]
fn bf16_tensors_are_widened_exactly() {
    let mut model = models::llama_with_biases();
    for tensor in model.tensors.values_mut() {
        for value in &mut tensor.values {
            *value = f32::from_bits(value.to_bits() & 0xffff_0000);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    model.write(
        &dir.path().join("model.safetensors"),
        &names(&model),
        Dtype::BF16,
    );
    assert_eq!(
        logits(load(&model, dir.path()).unwrap()),
        logits(model.load())
    );
}

#[test]
fn fewer_layers_than_the_checkpoint_has_are_loaded() {
    let mut model = models::qwen2();
    let dir = tempfile::tempdir().unwrap();
    model.write(
        &dir.path().join("model.safetensors"),
        &names(&model),
        Dtype::F32,
    );
    model.json["num_hidden_layers"] = json!(1);
    let weights = load(&model, dir.path()).unwrap();
    let found = Runner::new(weights, 16, 1).alone(&[5, 6], 2);
    let expected = crate::reference::logits(&model, &[5, 6]).pop().unwrap();
    assert!(
        found
            .iter()
            .zip(expected)
            .all(|(a, b)| (f64::from(*a) - b).abs() < 2e-4)
    );
}

#[test]
fn a_missing_or_misshapen_tensor_is_named_with_its_file() {
    let model = models::qwen3();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let mut some = names(&model);
    some.retain(|name| name != "model.layers.1.self_attn.q_norm.weight");
    model.write(&file, &some, Dtype::F32);
    let expected = format!(
        "tensor `model.layers.1.self_attn.q_norm.weight` is missing from `{}`",
        file.display()
    );
    assert_eq!(load(&model, dir.path()).unwrap_err().to_string(), expected);

    let mut wide = model.clone();
    wide.json["intermediate_size"] = json!(65);
    model.write(&file, &names(&model), Dtype::F32);
    let expected = format!(
        "tensor `model.layers.0.mlp.gate_proj.weight` in `{}` has shape [64, 48], \
         the configuration implies [65, 48]",
        file.display()
    );
    assert_eq!(load(&wide, dir.path()).unwrap_err().to_string(), expected);
}

#[test]
fn a_shard_that_is_absent_or_no_checkpoint_is_named() {
    let model = models::llama();
    let dir = tempfile::tempdir().unwrap();
    write_shards(&model, dir.path());
    let shard = dir.path().join("model-00001-of-00002.safetensors");
    std::fs::write(&shard, b"not a checkpoint").unwrap();
    let error = load(&model, dir.path()).unwrap_err();
    assert!(
        matches!(&error, WeightsError::Format { path, .. } if *path == shard),
        "{error}"
    );
    std::fs::remove_file(&shard).unwrap();
    let error = load(&model, dir.path()).unwrap_err();
    assert!(
        matches!(&error, WeightsError::Read { path, .. } if *path == shard),
        "{error}"
    );
}

#[test]
fn an_executor_needs_a_block_and_the_weights_of_its_configuration() {
    let model = models::llama();
    let make = |cache_tokens, block_tokens, config| {
        let options = CpuOptions {
            cache_tokens,
            block_tokens,
            host_blocks: 0,
            threads: NonZeroUsize::MIN,
        };
        CpuExecutor::new(config, model.load(), options)
    };
    let config = model.config();
    assert!(matches!(
        make(15, 16, config.clone()),
        Err(CpuError::NoBlocks { .. })
    ));
    assert!(matches!(
        make(15, 0, config.clone()),
        Err(CpuError::NoBlocks { .. })
    ));
    let other = models::qwen2().config();
    assert!(matches!(
        make(64, 16, other),
        Err(CpuError::OtherConfiguration)
    ));
    let executor = make(70, 16, config).unwrap();
    let shape = executor.cache_shape();
    assert_eq!((shape.n_blocks, shape.block_tokens), (4, 16));
    // Two layers of keys and values, two heads of ten floats each.
    assert_eq!(shape.bytes_per_token, 2 * 2 * 20 * 4);
}
