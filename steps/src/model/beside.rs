//! What lies beside a configuration in a model's folder, and how it comes into another folder.
//!
//! By hard links, so that weights are neither copied nor touched; by copies where no link is
//! possible, as between file systems. A step's folder may hold no link that leads out of it, since what it holds goes into the
//! store, which keeps each content once however many folders have it.

use engine::step::{FailureClass, StepError};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Told of every piece that is copied, with the file's path, how many of its bytes are there and of
/// how many; says whether to go on.
pub(super) type GoOn<'a> = &'a (dyn Fn(&Path, u64, u64) -> bool + Sync);

/// Bytes that are copied before somebody is told.
const PIECE: u64 = 64 << 20;

/// What is left free beside copies, bytes: a full disk harms whoever else writes to it.
const SPARE: u64 = 64 << 20;

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
pub(super) fn kind(name: &str) -> Kind {
    if super::CONFIGS.contains(&name) {
        Kind::Config
    } else if name.starts_with('.') || name.ends_with(".md") || name.starts_with("LICENSE") {
        Kind::Reading
    } else if WEIGHTS.iter().any(|end| name.ends_with(end)) || name.contains(".ckpt.") {
        // TensorFlow has `model.ckpt.index` and the like.
        Kind::Weights
    } else if TOKENIZERS.iter().any(|start| name.starts_with(start)) || name.ends_with(".tiktoken")
    {
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
    /// Brings files of one folder into another: by hard links to where they really are, or as copies
    /// where that is impossible. Blocks; what is copied is on its way only if all of it has room.
    pub(super) fn place(
        &mut self,
        names: impl IntoIterator<Item = impl AsRef<Path>>,
        from: &Path,
        to: &Path,
        go_on: GoOn<'_>,
    ) -> Result<(), StepError> {
        let mut apart = Vec::new();
        let mut bytes = 0;
        for name in names {
            let (from, to) = (from.join(&name), to.join(&name));
            // A hub's folder may hold symbolic links, and a link to one of those would lead nowhere.
            let real = std::fs::canonicalize(&from).map_err(failed("find", &from))?;
            match std::fs::hard_link(&real, &to) {
                Ok(()) => self.linked += 1,
                Err(e) if forbids_links(e.kind()) => {
                    let about = std::fs::metadata(&real).map_err(failed("look at", &real))?;
                    bytes += about.len();
                    apart.push((real, to));
                }
                Err(e) => return Err(failed("link", &real)(e)),
            }
        }
        if !apart.is_empty() {
            let free = models::free_bytes(to).map_err(|e| StepError::new(e.to_string()))?;
            has_room(bytes, free, to)?;
        }
        for (from, to) in apart {
            copy(&from, &to, go_on)?;
            self.copied += 1;
        }
        Ok(())
    }

    /// Brings every file of a kind that `wanted` picks from one folder into another.
    pub(super) fn place_all(
        &mut self,
        from: &Path,
        to: &Path,
        go_on: GoOn<'_>,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<(), StepError> {
        let files = list(from)?.into_iter();
        let names = files
            .filter(|(_, kind)| wanted(*kind))
            .map(|(name, _)| name);
        self.place(names, from, to, go_on)
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

/// Whether a file that could not be linked may still be copied: file systems differ or know no links,
/// the file has as many as it can, or it is somebody else's.
fn forbids_links(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::CrossesDevices
            | ErrorKind::TooManyLinks
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
    )
}

fn has_room(bytes: u64, free: u64, folder: &Path) -> Result<(), StepError> {
    if free >= bytes.saturating_add(SPARE) {
        return Ok(());
    }
    let gigabytes = |bytes: u64| format!("{:.3} GB", bytes as f64 / 1e9);
    let message = format!(
        "{} have to be copied into `{}`, where {} are free",
        gigabytes(bytes),
        folder.display(),
        gigabytes(free)
    );
    let help = "free some space, or name a folder with `--out` on the file system of the base, \
                where files are linked";
    Err(StepError::new(message).help(help))
}

fn copy(from: &Path, to: &Path, go_on: GoOn<'_>) -> Result<(), StepError> {
    let mut source = File::open(from).map_err(failed("open", from))?;
    let total = source.metadata().map_err(failed("look at", from))?.len();
    let created = OpenOptions::new().write(true).create_new(true).open(to);
    let mut target = created.map_err(failed("create", to))?;
    let mut done = 0;
    loop {
        let mut piece = Read::by_ref(&mut source).take(PIECE);
        let n = io::copy(&mut piece, &mut target).map_err(failed("copy", from))?;
        if n == 0 {
            return Ok(());
        }
        done += n;
        if !go_on(from, done, total) {
            let message = format!("copying `{}` was stopped", from.display());
            return Err(StepError::new(message).class(FailureClass::Interrupted));
        }
    }
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> StepError {
    let what = format!("could not {action} `{}`", path.display());
    move |e| StepError::because(what, e)
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
            ("tekken.json", Kind::Tokenizer),
            ("tiktoken.model", Kind::Tokenizer),
            ("qwen.tiktoken", Kind::Tokenizer),
            ("tokenization_qwen.py", Kind::Tokenizer),
            ("rust_model.ot", Kind::Weights),
            ("64.tflite", Kind::Weights),
            ("weights.npz", Kind::Weights),
            ("model.ckpt", Kind::Weights),
            ("model.ckpt.data-00000-of-00001", Kind::Weights),
            ("model.pdparams", Kind::Weights),
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
        std::fs::create_dir(at("out")).unwrap();
        std::fs::write(at("blob"), "x").unwrap();
        std::os::unix::fs::symlink("blob", at("model.safetensors")).unwrap();
        let mut placed = Placed::default();
        let names = ["model.safetensors"];
        placed
            .place(names, folder.path(), &at("out"), &|_, _, _| true)
            .unwrap();
        let here = std::fs::symlink_metadata(at("out/model.safetensors")).unwrap();
        assert_eq!(here.ino(), std::fs::metadata(at("blob")).unwrap().ino());
        assert_eq!(placed.phrase(), "1 file linked");
        // Twice is a mistake, which no copy hides.
        let again = placed.place(names, folder.path(), &at("out"), &|_, _, _| true);
        let message = again.unwrap_err().message;
        assert!(message.starts_with("could not link `"), "{message}");
        assert_eq!(placed.phrase(), "1 file linked");
    }

    #[test]
    fn copies_are_told_of_and_end_when_they_are_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("from"), "some text").unwrap();
        let told = std::sync::Mutex::new(Vec::new());
        let go_on = |file: &Path, done, total| {
            told.lock().unwrap().push((file.to_owned(), done, total));
            done < total
        };
        let error = copy(&at("from"), &at("to"), &go_on).unwrap_err();
        assert_eq!(error.class, FailureClass::Interrupted);
        assert_eq!(told.into_inner().unwrap(), [(at("from"), 9, 9)]);
        copy(&at("from"), &at("other"), &|_, _, _| true).unwrap();
        assert_eq!(std::fs::read(at("other")).unwrap(), b"some text");
    }

    #[test]
    fn only_what_no_link_is_possible_for_is_copied_and_only_where_there_is_room() {
        assert!(
            forbids_links(io::Error::from_raw_os_error(18).kind()),
            "EXDEV"
        );
        assert!(
            forbids_links(io::Error::from_raw_os_error(1).kind()),
            "EPERM"
        );
        assert!(
            !forbids_links(io::Error::from_raw_os_error(28).kind()),
            "ENOSPC"
        );
        assert!(
            !forbids_links(io::Error::from_raw_os_error(5).kind()),
            "EIO"
        );
        let out = Path::new("out");
        assert!(has_room(1_000_000_000, 1_000_000_000 + SPARE, out).is_ok());
        let error = has_room(1_000_000_000, 1_000_000_000, out).unwrap_err();
        assert_eq!(
            error.message,
            "1.000 GB have to be copied into `out`, where 1.000 GB are free"
        );
    }
}
