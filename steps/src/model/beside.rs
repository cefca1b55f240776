//! What lies beside a configuration in a model's folder: what each file is, by its name.
//!
//! Reads no file. How files come into another folder is `placing`'s.

use engine::step::StepError;
use std::path::Path;

/// What a file of a model's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The configuration.
    Config,
    /// Weights, or which file holds which.
    Weights,
    /// The tokenizer, and what speaks of its ids.
    Tokenizer,
    /// Code, and whatever else a server may look for.
    Other,
    /// For people.
    Reading,
}

const WEIGHTS: &[&str] = &[
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".tflite",
    ".npz",
    ".ckpt",
    ".pdparams",
];

const TOKENIZERS: &[&str] = &[
    "tokenizer",
    "tokenization_",
    "tekken.",
    "tiktoken.",
    "vocab.",
    "merges.",
    "spiece.",
    "sentencepiece.",
    "special_tokens_map.",
    "added_tokens.",
    "chat_template.",
    "generation_config.",
];

/// Tells what a file is by its name.
pub(super) fn content(name: &str) -> Content {
    if super::CONFIGS.contains(&name) {
        Content::Config
    } else if name.starts_with('.') || name.ends_with(".md") || name.starts_with("LICENSE") {
        Content::Reading
    } else if WEIGHTS.iter().any(|end| name.ends_with(end)) || name.contains(".ckpt.") {
        // TensorFlow has `model.ckpt.index` and the like.
        Content::Weights
    } else if TOKENIZERS.iter().any(|start| name.starts_with(start)) || name.ends_with(".tiktoken")
    {
        Content::Tokenizer
    } else {
        Content::Other
    }
}

/// The files of a folder with what they are, by name; folders within are left out.
pub(super) fn list(folder: &Path) -> Result<Vec<(String, Content)>, StepError> {
    let failed = |e| StepError::because(format!("could not list `{}`", folder.display()), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.is_file()) {
            found.push((name.to_owned(), content(name)));
        }
    }
    found.sort_by(|a: &(String, Content), b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (name, expected) in [
            ("config.json", Content::Config),
            ("config_full.json", Content::Config),
            ("model-00001-of-00002.safetensors", Content::Weights),
            ("model.safetensors.index.json", Content::Weights),
            ("pytorch_model.bin", Content::Weights),
            ("tokenizer.model", Content::Tokenizer),
            ("vocab.json", Content::Tokenizer),
            ("generation_config.json", Content::Tokenizer),
            ("tekken.json", Content::Tokenizer),
            ("tiktoken.model", Content::Tokenizer),
            ("qwen.tiktoken", Content::Tokenizer),
            ("tokenization_qwen.py", Content::Tokenizer),
            ("rust_model.ot", Content::Weights),
            ("64.tflite", Content::Weights),
            ("weights.npz", Content::Weights),
            ("model.ckpt", Content::Weights),
            ("model.ckpt.data-00000-of-00001", Content::Weights),
            ("model.pdparams", Content::Weights),
            ("preprocessor_config.json", Content::Other),
            ("modeling_deepseek.py", Content::Other),
            ("README.md", Content::Reading),
            (".gitattributes", Content::Reading),
        ] {
            assert_eq!(content(name), expected, "{name}");
        }
    }
}
