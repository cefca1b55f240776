//! What weights lie in a folder already, as far as the headers of its files tell.
//!
//! Reads no data. Only safetensors are known.

use crate::shards::{INDEX_FILE, SINGLE_FILE};
use crate::{Dtype, Inventory};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of the longest header or index that is read; the format allows no longer header.
const MAX_JSON: u64 = 100_000_000;

/// The weights in a folder.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Names of its files, the index included.
    pub files: Vec<String>,
    /// Shapes and names of types by tensor.
    tensors: BTreeMap<String, (Vec<u64>, String)>,
}

/// Weights that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the weights in `{}`: {problem}", path.display())]
pub struct CheckpointError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// Whether weights are those of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every tensor is there in its shape and type; so many others are there beside them.
    Fits {
        /// Tensors that the configuration has no place for, such as those of further layers.
        idle: usize,
    },
    /// A tensor is not there, or another than it should be.
    Differs {
        /// Which and how, as a phrase.
        why: String,
    },
}

impl Checkpoint {
    /// Reads the headers of the weights in the folder `dir`; `None` if it has none.
    ///
    /// # Errors
    /// If a file is not there, cannot be read, is malformed, or has other bytes than its header
    /// says.
    pub fn read(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let mut checkpoint = Checkpoint::default();
        let shards = if dir.join(SINGLE_FILE).exists() {
            BTreeSet::from([SINGLE_FILE.to_owned()])
        } else if dir.join(INDEX_FILE).exists() {
            checkpoint.files.push(INDEX_FILE.to_owned());
            listed(&dir.join(INDEX_FILE))?
        } else {
            return Ok(None);
        };
        for shard in shards {
            let path = dir.join(&shard);
            checkpoint.add(&path)?;
            checkpoint.files.push(shard);
        }
        Ok(Some(checkpoint))
    }

    /// Adds the tensors of the file at `path`.
    fn add(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let Header { object, at, bytes } = header(path).map_err(|e| wrong(path, e.to_string()))?;
        let mut needed = at;
        for (name, entry) in object {
            if name == "__metadata__" {
                continue;
            }
            let Entry { shape, dtype, end } = entry_of(&entry)
                .ok_or_else(|| wrong(path, format!("`{name}` has no shape, type or place")))?;
            needed = needed.max(at.saturating_add(end));
            self.tensors.insert(name, (shape, dtype));
        }
        if bytes == needed {
            return Ok(());
        }
        let problem = format!("it has {bytes} bytes, but its header asks for {needed}");
        Err(wrong(path, problem))
    }

    /// Compares the tensors with those that a configuration asks for. Copies need not be there, and
    /// `F32`, `F16` and `BF16` stand for each other, since servers convert them.
    #[must_use]
    pub fn fit(&self, inventory: &Inventory) -> Fit {
        let mut used = 0;
        for tensor in &inventory.tensors {
            let name = &tensor.name;
            let why = match self.tensors.get(name) {
                None if tensor.copy_of.is_some() => continue,
                None => format!("they have no `{name}`"),
                Some((shape, _)) if *shape != tensor.shape => {
                    format!("`{name}` is {shape:?} there and {:?} here", tensor.shape)
                }
                Some((_, dtype)) if !stands_for(dtype, tensor.dtype) => {
                    format!("`{name}` is {dtype} there and {} here", tensor.dtype.name())
                }
                Some(_) => {
                    used += 1;
                    continue;
                }
            };
            return Fit::Differs { why };
        }
        let idle = self.tensors.len() - used;
        Fit::Fits { idle }
    }

    /// Number of tensors.
    #[must_use]
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }
}

/// Whether a tensor of the type called `found` may be one of `wanted`.
fn stands_for(found: &str, wanted: Dtype) -> bool {
    let plain = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    let is_plain = plain.iter().any(|dtype| dtype.name() == found);
    found == wanted.name() || plain.contains(&wanted) && is_plain
}

fn wrong(path: &Path, problem: impl Into<String>) -> CheckpointError {
    CheckpointError {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The files that an index names; all lie beside it.
fn listed(index: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let text = File::open(index)
        .and_then(|file| bounded(file, MAX_JSON))
        .map_err(|e| wrong(index, e.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| wrong(index, e.to_string()))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong(index, "it has no `weight_map`"))?;
    let name = |file: &Value| {
        let name = file.as_str().filter(|name| {
            !name.is_empty() && Path::new(name).file_name() == Some((*name).as_ref())
        });
        let name = name.ok_or_else(|| wrong(index, format!("{file} is no file beside it")));
        name.map(str::to_owned)
    };
    map.values().map(name).collect()
}

/// The header of a safetensors file.
struct Header {
    object: Map<String, Value>,
    /// Where the data begins.
    at: u64,
    /// Bytes of the whole file.
    bytes: u64,
}

fn header(path: &Path) -> io::Result<Header> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut length = [0; size_of::<u64>()];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_JSON {
        return Err(io::Error::other("it is no safetensors file"));
    }
    let text = bounded(file.take(length), length)?;
    Ok(Header {
        object: serde_json::from_slice(&text)?,
        at: size_of::<u64>() as u64 + length,
        bytes,
    })
}

fn bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// What a header says of a tensor.
struct Entry {
    shape: Vec<u64>,
    dtype: String,
    /// Where its data ends, from where that of all begins.
    end: u64,
}

fn entry_of(entry: &Value) -> Option<Entry> {
    let shape = entry.get("shape")?.as_array()?;
    let shape: Option<Vec<u64>> = shape.iter().map(Value::as_u64).collect();
    Some(Entry {
        shape: shape?,
        dtype: entry.get("dtype")?.as_str()?.to_owned(),
        end: entry.get("data_offsets")?.get(1)?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_types_stand_for_each_other() {
        for (found, wanted, expected) in [
            ("F32", Dtype::Bf16, true),
            ("BF16", Dtype::F16, true),
            ("I8", Dtype::Bf16, false),
            ("F8_E5M2", Dtype::Bf16, false),
            ("F8_E4M3", Dtype::Bf16, false),
            ("F8_E4M3", Dtype::F8E4M3, true),
            ("F8_E5M2", Dtype::F8E4M3, false),
            ("BF16", Dtype::F8E4M3, false),
        ] {
            assert_eq!(stands_for(found, wanted), expected, "{found} {wanted:?}");
        }
    }
}
