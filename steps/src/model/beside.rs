//! What lies beside a configuration in a model's folder, and how it comes into another folder.
//!
//! By hard links, so that weights are neither copied nor touched; by copies where the file systems
//! differ. A step's folder may hold no link that leads out of it, since what it holds goes into the
//! store, which keeps each content once however many folders have it.

use crate::files;
use engine::step::StepError;
use std::path::{Path, PathBuf};

/// What a file of a model's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
];

const TOKENIZERS: &[&str] = &[
    "tokenizer",
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
pub(super) fn kind(name: &str) -> Kind {
    if super::CONFIGS.contains(&name) {
        Kind::Config
    } else if name.starts_with('.') || name.ends_with(".md") || name.starts_with("LICENSE") {
        Kind::Reading
    } else if WEIGHTS.iter().any(|end| name.ends_with(end)) {
        Kind::Weights
    } else if TOKENIZERS.iter().any(|start| name.starts_with(start)) {
        Kind::Tokenizer
    } else {
        Kind::Other
    }
}

/// The files of a folder with what they are, by name; folders within are left out.
pub(super) fn list(folder: &Path) -> Result<Vec<(String, Kind)>, StepError> {
    let failed = |e| StepError::because(format!("could not list `{}`", folder.display()), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.is_file()) {
            found.push((name.to_owned(), kind(name)));
        }
    }
    found.sort_by(|a: &(String, Kind), b| a.0.cmp(&b.0));
    Ok(found)
}

/// How many files came into a folder in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Placed {
    linked: usize,
    copied: usize,
}

impl Placed {
    /// Brings a file into another folder: by a hard link to where it really is, or as a copy.
    pub(super) fn place(&mut self, from: &Path, to: &Path) -> Result<(), StepError> {
        // A hub's folder may hold symbolic links, and a link to one of those would lead nowhere.
        let real: PathBuf = std::fs::canonicalize(from)
            .map_err(|e| StepError::because(format!("could not find `{}`", from.display()), e))?;
        if std::fs::hard_link(&real, to).is_ok() {
            self.linked += 1;
            return Ok(());
        }
        files::copy(&real, to)?;
        self.copied += 1;
        Ok(())
    }

    /// Brings every file of a kind that `wanted` picks from one folder into another.
    pub(super) fn place_all(
        &mut self,
        from: &Path,
        to: &Path,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<(), StepError> {
        for (name, kind) in list(from)? {
            if wanted(kind) {
                self.place(&from.join(&name), &to.join(&name))?;
            }
        }
        Ok(())
    }

    /// Whether there were any.
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    /// Says it: `3 files linked`.
    pub(super) fn phrase(self) -> String {
        let files = |n| if n == 1 { "file" } else { "files" };
        match self {
            Placed { linked, copied: 0 } => format!("{linked} {} linked", files(linked)),
            Placed { linked: 0, copied } => format!("{copied} {} copied", files(copied)),
            Placed { linked, copied } => {
                format!("{linked} {} linked and {copied} copied", files(linked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_known_by_their_names() {
        for (name, expected) in [
            ("config.json", Kind::Config),
            ("config_full.json", Kind::Config),
            ("model-00001-of-00002.safetensors", Kind::Weights),
            ("model.safetensors.index.json", Kind::Weights),
            ("pytorch_model.bin", Kind::Weights),
            ("tokenizer.model", Kind::Tokenizer),
            ("vocab.json", Kind::Tokenizer),
            ("generation_config.json", Kind::Tokenizer),
            ("preprocessor_config.json", Kind::Other),
            ("modeling_deepseek.py", Kind::Other),
            ("README.md", Kind::Reading),
            (".gitattributes", Kind::Reading),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }

    #[test]
    fn a_link_of_the_hub_is_followed_and_the_file_behind_it_linked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("blob"), "x").unwrap();
        std::os::unix::fs::symlink("blob", at("model.safetensors")).unwrap();
        let mut placed = Placed::default();
        placed.place(&at("model.safetensors"), &at("here")).unwrap();
        let here = std::fs::symlink_metadata(at("here")).unwrap();
        assert_eq!(here.ino(), std::fs::metadata(at("blob")).unwrap().ino());
        assert_eq!(placed.phrase(), "1 file linked");
    }
}
