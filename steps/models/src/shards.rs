//! How a checkpoint is cut into files, and what stands at their beginnings.
//!
//! Files are called as the hub calls them: `model.safetensors`, or `model-0000i-of-0000N.safetensors`
//! beside an index. Within a file the order is that of the safetensors library: wider types first,
//! then by name. Knows no values.

use crate::Inventory;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The name of a checkpoint that is one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The name of the file that says in which file each tensor of a checkpoint lies.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Data begins at multiples of this, so that readers that bypass the page cache need no copy. The
/// format allows spaces after the header for that.
const ALIGNMENT: usize = 4096;

/// One file of a checkpoint.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: String,
    /// Everything before the data: the header's length, the header, spaces.
    pub(crate) head: Vec<u8>,
    /// Positions of its tensors in the inventory with their offsets in the file, in that order.
    pub(crate) tensors: Vec<(usize, u64)>,
    /// Bytes of the whole file.
    pub(crate) bytes: u64,
}

/// Cuts a checkpoint into files of at most `most` bytes of data, in the order of the model; a tensor
/// that is larger has a file of its own.
pub(crate) fn cut(inventory: &Inventory, most: u64) -> Vec<Shard> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0;
    for (at, tensor) in inventory.tensors.iter().enumerate() {
        let bytes = tensor.bytes();
        if filled > 0 && filled + bytes > most {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(at);
        }
    }
    let n = groups.len();
    let name = |i: usize| match n {
        1 => SINGLE_FILE.to_owned(),
        n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
    };
    let numbered = groups.into_iter().enumerate();
    numbered
        .map(|(i, group)| shard(inventory, name(i), group))
        .collect()
}

fn shard(inventory: &Inventory, file: String, mut group: Vec<usize>) -> Shard {
    let tensor = |at: usize| &inventory.tensors[at];
    group.sort_by(|a, b| {
        let (a, b) = (tensor(*a), tensor(*b));
        let width = b.dtype.bytes().cmp(&a.dtype.bytes());
        width.then_with(|| a.name.cmp(&b.name))
    });
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    let mut tensors = Vec::with_capacity(group.len());
    for at in group {
        let one = tensor(at);
        let end = offset + one.bytes();
        let entry = json!({
            "dtype": one.dtype.name(), "shape": one.shape, "data_offsets": [offset, end],
        });
        header.insert(one.name.clone(), entry);
        tensors.push((at, offset));
        offset = end;
    }
    let head = safetensors_head(&header);
    for (_, at) in &mut tensors {
        *at += head.len() as u64;
    }
    let bytes = offset + head.len() as u64;
    Shard {
        file,
        head,
        tensors,
        bytes,
    }
}

/// What stands before the data of a safetensors file: the header's length in eight bytes, the header,
/// and spaces up to a multiple of 4096.
#[must_use]
pub fn safetensors_head(header: &Map<String, Value>) -> Vec<u8> {
    let json = Value::Object(header.clone()).to_string();
    let length = (json.len() + size_of::<u64>()).next_multiple_of(ALIGNMENT) - size_of::<u64>();
    let mut head = (length as u64).to_le_bytes().to_vec();
    head.extend(json.as_bytes());
    head.resize(length + size_of::<u64>(), b' ');
    head
}

/// The index of a checkpoint, as the hub has it; none for a single file.
pub(crate) fn index(inventory: &Inventory, shards: &[Shard]) -> Option<Value> {
    if shards.len() < 2 {
        return None;
    }
    let mut files = BTreeMap::new();
    for shard in shards {
        for (at, _) in &shard.tensors {
            files.insert(&inventory.tensors[*at].name, &shard.file);
        }
    }
    Some(json!({ "metadata": { "total_size": inventory.bytes() }, "weight_map": files }))
}
