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
    /// If a file is not there, cannot be read, or is malformed.
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
            let header = header(&path).map_err(|e| wrong(&path, e.to_string()))?;
            for (name, entry) in header {
                if name != "__metadata__" {
                    let tensor = entry_of(&entry);
                    let tensor =
                        tensor.ok_or_else(|| wrong(&path, format!("`{name}` has no shape")))?;
                    checkpoint.tensors.insert(name, tensor);
                }
            }
            checkpoint.files.push(shard);
        }
        Ok(Some(checkpoint))
    }

    /// Compares the tensors with those that a configuration asks for. Copies need not be there, and
    /// any plain type stands for another.
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
                Some((_, dtype)) if is_eight_bits(dtype) != (tensor.dtype == Dtype::F8E4M3) => {
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
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

fn is_eight_bits(dtype: &str) -> bool {
    dtype == Dtype::F8E4M3.name()
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
fn header(path: &Path) -> io::Result<Map<String, Value>> {
    let mut file = File::open(path)?;
    let mut length = [0; size_of::<u64>()];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_JSON {
        return Err(io::Error::other("it is no safetensors file"));
    }
    let text = bounded(file.take(length), length)?;
    Ok(serde_json::from_slice(&text)?)
}

fn bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

fn entry_of(entry: &Value) -> Option<(Vec<u64>, String)> {
    let shape = entry.get("shape")?.as_array()?;
    let shape: Option<Vec<u64>> = shape.iter().map(Value::as_u64).collect();
    Some((shape?, entry.get("dtype")?.as_str()?.to_owned()))
}
