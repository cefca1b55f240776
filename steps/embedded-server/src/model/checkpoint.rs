//! Tensors in a Hugging Face checkpoint: one safetensors file, or an index and its shards.
//!
//! It finds a tensor by name, checks its shape, and decodes elements to `f32`. It knows no model.

use super::config::read_bounded;
use super::mapped;
use memmap2::Mmap;
use models::{INDEX_FILE, SINGLE_FILE};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Whether a folder holds a checkpoint.
pub(crate) fn has_weights(folder: &Path) -> bool {
    [SINGLE_FILE, INDEX_FILE]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// Bytes of the longest index that is read; that of a model with 100 000 tensors is 10 MiB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Weights that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The folder holds no checkpoint.
    #[error(
        "`{}` holds neither `{SINGLE_FILE}` nor `{INDEX_FILE}`; \
         fetch the checkpoint, or use made-up weights with the `dummy` load format",
        dir.display()
    )]
    NoCheckpoint {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read the checkpoint file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The index is malformed.
    #[error("the checkpoint index `{}` cannot be used: {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file is not in the safetensors format.
    #[error("`{}` is not a valid safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SafeTensorError,
    },
    /// The model needs a tensor that the checkpoint lacks.
    #[error("tensor `{tensor}` is missing from `{}`", path.display())]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The file that should hold it, or the index that does not list it.
        path: PathBuf,
    },
    /// A tensor's shape is not what the configuration implies.
    #[error(
        "tensor `{tensor}` in `{}` has shape {found:?}, the configuration implies {expected:?}",
        path.display()
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its file.
        path: PathBuf,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's element type cannot be decoded.
    #[error("tensor `{tensor}` in `{}` holds {found}, supported: F32, F16, BF16", path.display())]
    ElementType {
        /// The tensor.
        tensor: String,
        /// Its file.
        path: PathBuf,
        /// Name of the element type.
        found: String,
    },
    /// The operating system refused the threads that load.
    #[error("cannot start the threads that load the weights")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// A mapped checkpoint.
pub(super) struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    tensors: HashMap<String, Entry>,
    /// The single file or the index.
    source: PathBuf,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// Elements of a tensor, undecoded, little-endian.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    F32(&'a [u8]),
    F16(&'a [u8]),
    Bf16(&'a [u8]),
}

impl Checkpoint {
    /// Maps the checkpoint in `dir`. A single file wins over an index.
    pub(super) fn open(dir: &Path) -> Result<Self, WeightsError> {
        let (single, index) = (dir.join(SINGLE_FILE), dir.join(INDEX_FILE));
        let (source, names) = if single.exists() {
            (single, vec![SINGLE_FILE.to_owned()])
        } else if index.exists() {
            let names = shard_names(&index)?;
            (index, names)
        } else {
            return Err(WeightsError::NoCheckpoint {
                dir: dir.to_owned(),
            });
        };
        let mut checkpoint = Checkpoint {
            files: Vec::new(),
            tensors: HashMap::new(),
            source,
        };
        for name in names {
            checkpoint.add_file(dir.join(name))?;
        }
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), WeightsError> {
        let map = match mapped::map(&path) {
            Ok(map) => map,
            Err(source) => return Err(WeightsError::Read { path, source }),
        };
        // The header is eight bytes of its own length, then so many of JSON, then the data.
        let (header, metadata) = match SafeTensors::read_metadata(&map) {
            Ok(read) => read,
            Err(source) => return Err(WeightsError::Format { path, source }),
        };
        let data = header + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: data + start..data + end,
            };
            self.tensors.insert(name, entry);
        }
        self.files.push((path, map));
        Ok(())
    }

    /// The elements of tensor `name`, which must have `shape`.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Elements<'_>, WeightsError> {
        let tensor = name.to_owned();
        let Some(entry) = self.tensors.get(name) else {
            return Err(WeightsError::MissingTensor {
                tensor,
                path: self.source.clone(),
            });
        };
        let (path, map) = &self.files[entry.file];
        let path = path.clone();
        if entry.shape != shape {
            let (expected, found) = (shape.to_vec(), entry.shape.clone());
            return Err(WeightsError::Shape {
                tensor,
                path,
                expected,
                found,
            });
        }
        let bytes = &map[entry.bytes.clone()];
        match entry.dtype {
            Dtype::F32 => Ok(Elements::F32(bytes)),
            Dtype::F16 => Ok(Elements::F16(bytes)),
            Dtype::BF16 => Ok(Elements::Bf16(bytes)),
            other => Err(WeightsError::ElementType {
                tensor,
                path,
                found: format!("{other:?}"),
            }),
        }
    }
}

/// The distinct files that an index names, sorted.
fn shard_names(index: &Path) -> Result<Vec<String>, WeightsError> {
    let path = index.to_owned();
    let text = match read_bounded(index, MAX_INDEX_BYTES) {
        Ok(text) => text,
        Err(source) => return Err(WeightsError::Read { path, source }),
    };
    let problem = |problem: String| WeightsError::Index {
        path: path.clone(),
        problem,
    };
    let value: Value = serde_json::from_slice(&text).map_err(|e| problem(e.to_string()))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| problem("key `weight_map` is not an object".to_owned()))?;
    let mut names = Vec::new();
    for (tensor, file) in map {
        // A path could lead out of the folder; shards lie beside their index.
        match file.as_str() {
            Some(name)
                if !name.is_empty() && Path::new(name).file_name() == Some(name.as_ref()) =>
            {
                names.push(name.to_owned());
            }
            _ => {
                return Err(problem(format!(
                    "tensor `{tensor}` lies in {file}, expected a file name"
                )));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

impl Elements<'_> {
    /// Element `index`, row-major.
    #[inline]
    pub(super) fn value(self, index: usize) -> f32 {
        match self {
            Elements::F32(bytes) => {
                let at = index * 4;
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
            Elements::F16(bytes) => from_f16(two_bytes(bytes, index)),
            Elements::Bf16(bytes) => f32::from_bits(u32::from(two_bytes(bytes, index)) << 16),
        }
    }
}

#[inline]
fn two_bytes(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]])
}

/// Decodes IEEE 754 binary16.
#[inline]
fn from_f16(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    // The exponent's bias differs by 112; scaling also gives subnormals their exact value.
    let mut bits = (f32::from_bits(magnitude) * f32::from_bits((112 + 127) << 23)).to_bits();
    if half & 0x7c00 == 0x7c00 {
        bits = magnitude | 0x7f80_0000;
    }
    f32::from_bits(bits | u32::from(half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_decoded_exactly() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2.0_f32.powi(-14)),
            (0x0001, 2.0_f32.powi(-24)),
            (0x83ff, -1023.0 * 2.0_f32.powi(-24)),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(from_f16(half), value, "{half:#06x}");
        }
        assert!(from_f16(0x7e00).is_nan());
        assert_eq!(Elements::Bf16(&[0x80, 0xbf]).value(0), -1.0);
        assert_eq!(Elements::F32(&1.5_f32.to_le_bytes()).value(0), 1.5);
    }

    #[test]
    fn an_index_may_only_name_files_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join(INDEX_FILE);
        for (text, problem) in [
            ("{}", "key `weight_map` is not an object"),
            (
                r#"{"weight_map":{"a":"../b"}}"#,
                "tensor `a` lies in \"../b\", expected a file name",
            ),
            (
                r#"{"weight_map":{"a":1}}"#,
                "tensor `a` lies in 1, expected a file name",
            ),
        ] {
            std::fs::write(&index, text).unwrap();
            let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
            assert!(error.ends_with(problem), "{error}");
        }
        std::fs::remove_file(&index).unwrap();
        let error = Checkpoint::open(dir.path()).err().unwrap();
        assert!(matches!(error, WeightsError::NoCheckpoint { .. }));
    }
}
