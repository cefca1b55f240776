//! The safetensors format: eight bytes with the length of a header, the header, the data.
//!
//! What a header may say is decided by the `safetensors` crate; here it is read without trusting its
//! length, and held to the file, to other shards and to the index. A tensor that is tied to another is
//! written once, and `__metadata__` names it with the one that it is tied to, as `save_model` of the
//! Python package does.

use crate::contents::{
    Contents, DataFile, Format, MAX_JSON, Tensor, in_order, open_plain, read_json,
};
use crate::error::{CheckpointError, failed, malformed};
use crate::unique::{Unique, repeated};
use models::{INDEX_FILE, SINGLE_FILE};
use rustix::fs::Advice;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the header's length.
const LENGTH: u64 = size_of::<u64>() as u64;

/// What `model.safetensors.index.json` says, as far as it matters here.
#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
}

/// Reads the headers of the checkpoint in `folder`.
pub(crate) fn read(folder: &Path) -> Result<Contents, CheckpointError> {
    let single = folder.join(SINGLE_FILE);
    let index = (!single.exists()).then(|| folder.join(INDEX_FILE));
    let listed = match &index {
        Some(path) => read_index(path)?,
        None => BTreeMap::new(),
    };
    let names = match index {
        Some(_) => listed.values().cloned().collect(),
        None => BTreeSet::from([SINGLE_FILE.to_owned()]),
    };
    let mut files = Vec::new();
    let mut tensors = Vec::new();
    let mut seen = HashMap::new();
    for name in names {
        let path = folder.join(&name);
        let (bytes, found) = read_header(&path, files.len())?;
        for tensor in &found {
            if let Some(other) = seen.insert(tensor.name.clone(), name.clone()) {
                let problem = format!("has a tensor `{}`, which `{other}` has, too", tensor.name);
                return Err(malformed(&path, problem));
            }
        }
        tensors.extend(found);
        files.push(DataFile { name, bytes });
    }
    for (tensor, file) in &listed {
        if seen.get(tensor) != Some(file) {
            let problem = format!("says that `{tensor}` lies in `{file}`, which does not have it");
            return Err(malformed(&folder.join(INDEX_FILE), problem));
        }
    }
    Ok(Contents {
        folder: folder.to_owned(),
        format: Format::Safetensors,
        files,
        tensors: in_order(tensors),
    })
}

/// Reads which file each tensor lies in; all lie beside the index.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let text = read_json(path)?;
    let index: Result<Index, _> = serde_json::from_slice(&text);
    let index = index.map_err(|e| malformed(path, format!("cannot be understood: {e}")))?;
    let Unique(map) = index.weight_map;
    for (tensor, file) in &map {
        let is_beside = Path::new(file).file_name() == Some(file.as_ref());
        if !is_beside || file.ends_with('/') {
            let problem =
                format!("says that `{tensor}` lies in {file:?}, which is no file beside it");
            return Err(malformed(path, problem));
        }
    }
    Ok(map)
}

/// Reads the header of one file; returns the bytes of the file, and its tensors.
fn read_header(path: &Path, file: usize) -> Result<(u64, Vec<Tensor>), CheckpointError> {
    let (opened, bytes) = open_plain(path)?;
    // Reading ahead would bring data into the page cache, which the load is measured without.
    let advised = rustix::fs::fadvise(&opened, 0, None, Advice::Random);
    advised.map_err(|e| failed("advise on", path)(e.into()))?;
    let mut length = [0; LENGTH as usize];
    if bytes < LENGTH {
        return Err(malformed(path, format!("has only {bytes} bytes")));
    }
    let read = opened.read_exact_at(&mut length, 0);
    read.map_err(failed("read", path))?;
    let length = u64::from_le_bytes(length);
    let most = MAX_JSON.min(bytes - LENGTH);
    if length > most {
        let problem = format!("says that its header has {length} bytes, where {most} are possible");
        return Err(malformed(path, problem));
    }
    let mut text = vec![0; length as usize];
    let read = opened.read_exact_at(&mut text, LENGTH);
    read.map_err(failed("read", path))?;
    let header: Result<Header, _> = serde_json::from_slice(&text);
    let header = header.map_err(|e| malformed(path, format!("has no valid header: {e}")))?;
    let data = LENGTH + length;
    let tensors = header.tensors(path, file, data, bytes - data)?;
    Ok((bytes, tensors))
}

/// A header as it is written.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeaderVisitor)
    }
}

/// Reads entries one by one, in their order, and refuses a name that stands twice.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        let mut metadata: Option<Unique<String>> = None;
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(repeated(&name));
            }
            if name == "__metadata__" {
                metadata = Some(map.next_value()?);
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        let Unique(metadata) = metadata.unwrap_or_default();
        Ok(Header { tensors, metadata })
    }
}

impl Header {
    /// The tensors, whose data must fill `there` bytes from `data` on.
    fn tensors(
        mut self,
        path: &Path,
        file: usize,
        data: u64,
        there: u64,
    ) -> Result<Vec<Tensor>, CheckpointError> {
        self.tensors.sort_by(|(a, x), (b, y)| {
            let order = x.data_offsets.cmp(&y.data_offsets);
            order.then_with(|| a.cmp(b))
        });
        let checked = Metadata::new(None, self.tensors.clone());
        let checked = checked.map_err(|e| malformed(path, format!("has no valid header: {e}")))?;
        let needed = checked.data_len() as u64;
        if needed != there {
            let problem = format!("has {there} bytes of data, and its header asks for {needed}");
            return Err(malformed(path, problem));
        }
        let tied: Vec<(String, TensorInfo)> = self.tied(&checked);
        let all = self.tensors.into_iter().chain(tied);
        let place = |(name, info): (String, TensorInfo)| Tensor {
            name,
            dtype: info.dtype,
            shape: info.shape.iter().map(|dim| *dim as u64).collect(),
            file,
            offset: data + info.data_offsets.0 as u64,
            bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        };
        Ok(all.map(place).collect())
    }

    /// Tensors that the file names as another name of one that it has.
    fn tied(&self, there: &Metadata) -> Vec<(String, TensorInfo)> {
        let names = self.metadata.iter();
        let info = |(name, kept): (&String, &String)| {
            let info = there.info(kept).filter(|_| there.info(name).is_none())?;
            Some((name.clone(), info.clone()))
        };
        names.filter_map(info).collect()
    }
}
