//! The format of the ServerlessLLM store: partitions of bytes without headers, and one index.
//!
//! `tensor_index.json` maps names to `[offset, size, shape, stride, dtype]`, where the offset counts
//! through all partitions in their order. No tensor lies in two partitions.

use crate::contents::{Contents, DataFile, Format, Tensor, bytes_of, in_order, read_json};
use crate::error::{CheckpointError, failed, malformed};
use crate::unique::Unique;
use safetensors::Dtype;
use std::path::Path;

/// The name of the index.
pub(crate) const INDEX: &str = "tensor_index.json";

/// What the index says of a tensor: offset, bytes, shape, stride, type.
pub(crate) type Entry = (u64, u64, Vec<u64>, Vec<u64>, String);

/// Names of types in PyTorch. Types of less than a byte have none that stands for one element.
const TORCH: &[(Dtype, &str)] = &[
    (Dtype::BOOL, "torch.bool"),
    (Dtype::U8, "torch.uint8"),
    (Dtype::I8, "torch.int8"),
    (Dtype::F8_E5M2, "torch.float8_e5m2"),
    (Dtype::F8_E4M3, "torch.float8_e4m3fn"),
    (Dtype::F8_E8M0, "torch.float8_e8m0fnu"),
    (Dtype::F8_E4M3FNUZ, "torch.float8_e4m3fnuz"),
    (Dtype::F8_E5M2FNUZ, "torch.float8_e5m2fnuz"),
    (Dtype::I16, "torch.int16"),
    (Dtype::U16, "torch.uint16"),
    (Dtype::F16, "torch.float16"),
    (Dtype::BF16, "torch.bfloat16"),
    (Dtype::I32, "torch.int32"),
    (Dtype::U32, "torch.uint32"),
    (Dtype::F32, "torch.float32"),
    (Dtype::C64, "torch.complex64"),
    (Dtype::F64, "torch.float64"),
    (Dtype::I64, "torch.int64"),
    (Dtype::U64, "torch.uint64"),
];

/// The types that the store's own code restores; others are written all the same.
const RESTORED: &[Dtype] = &[
    Dtype::F16,
    Dtype::BF16,
    Dtype::F32,
    Dtype::F64,
    Dtype::I8,
    Dtype::U8,
    Dtype::I16,
    Dtype::I32,
    Dtype::I64,
];

/// The name of a type in PyTorch.
pub(crate) fn torch_name(dtype: Dtype) -> Option<&'static str> {
    let found = TORCH.iter().find(|(known, _)| *known == dtype);
    found.map(|(_, name)| *name)
}

/// Whether the ServerlessLLM store 0.8 gives tensors of this type back.
pub(crate) fn is_restored(dtype: Dtype) -> bool {
    RESTORED.contains(&dtype)
}

/// The name of a partition.
pub(crate) fn partition(number: usize) -> String {
    format!("tensor.data_{number}")
}

/// The stride of a contiguous tensor.
pub(crate) fn stride(shape: &[u64]) -> Vec<u64> {
    let mut stride = vec![1_u64; shape.len()];
    for at in (1..shape.len()).rev() {
        // PyTorch counts an empty dimension as one.
        stride[at - 1] = stride[at].saturating_mul(shape[at].max(1));
    }
    stride
}

/// Reads the index of the checkpoint in `folder`.
pub(crate) fn read(folder: &Path) -> Result<Contents, CheckpointError> {
    let path = folder.join(INDEX);
    let text = read_json(&path)?;
    let index: Result<Unique<Entry>, _> = serde_json::from_slice(&text);
    let Unique(index) =
        index.map_err(|e| malformed(&path, format!("cannot be understood: {e}")))?;
    let files = partitions(folder)?;
    let mut ends = Vec::new();
    let mut total = 0_u64;
    for file in &files {
        total = total.saturating_add(file.bytes);
        ends.push(total);
    }
    let tensors = index.into_iter().map(|(name, entry)| {
        place(&name, entry, &files, &ends)
            .map_err(|problem| malformed(&path, format!("says of `{name}` {problem}")))
    });
    let tensors = in_order(tensors.collect::<Result<Vec<_>, _>>()?);
    for (a, b) in tensors.iter().zip(tensors.iter().skip(1)) {
        let is_apart = a.file != b.file || a.offset + a.bytes <= b.offset || b.bytes == 0;
        if !is_apart && !b.is_tied_to(a) {
            let problem = format!("gives `{}` a part of the bytes of `{}`", b.name, a.name);
            return Err(malformed(&path, problem));
        }
    }
    Ok(Contents {
        folder: folder.to_owned(),
        format: Format::Store,
        files,
        tensors,
    })
}

/// The partitions of a folder, which are numbered from 0.
fn partitions(folder: &Path) -> Result<Vec<DataFile>, CheckpointError> {
    let mut files = Vec::new();
    loop {
        let name = partition(files.len());
        let path = folder.join(&name);
        match std::fs::metadata(&path) {
            Ok(data) if data.is_file() => files.push(DataFile {
                name,
                bytes: data.len(),
            }),
            Ok(_) => return Err(malformed(&path, "is no file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(failed("look at", &path)(error)),
        }
    }
}

/// Finds a tensor in its partition, or says what is wrong with its entry. `ends` are where partitions
/// end, counted through all of them.
fn place(name: &str, entry: Entry, files: &[DataFile], ends: &[u64]) -> Result<Tensor, String> {
    let (offset, bytes, shape, strides, torch) = entry;
    let dtype = TORCH.iter().find(|(_, known)| *known == torch);
    let (dtype, _) = dtype.ok_or_else(|| format!("the type {torch:?}, which is not known"))?;
    let needed = bytes_of(*dtype, &shape)
        .ok_or_else(|| format!("the shape {shape:?}, which no memory holds"))?;
    if needed != bytes {
        return Err(format!(
            "{bytes} bytes, where its shape needs {needed}: views of a larger storage are not read"
        ));
    }
    let is_flat = shape
        .iter()
        .zip(&strides)
        .zip(stride(&shape))
        .all(|((dim, found), flat)| *dim < 2 || *found == flat);
    if strides.len() != shape.len() || !is_flat && bytes > 0 {
        return Err(format!(
            "the stride {strides:?}, which is not that of a contiguous tensor"
        ));
    }
    let end = offset.checked_add(bytes);
    let end = end.ok_or_else(|| format!("the offset {offset}, where no file reaches"))?;
    // The last that begins at or before the tensor, of which an empty tensor may stand at the end.
    let file = ends.iter().position(|file_end| end <= *file_end);
    let file = match file {
        Some(file) => file,
        None if bytes == 0 && files.is_empty() => {
            return Err("a place, and there is no `tensor.data_0`".to_owned());
        }
        None => {
            return Err(format!(
                "bytes {offset} to {end}, where its partitions have {}: they were cut off",
                ends.last().unwrap_or(&0)
            ));
        }
    };
    let begin = ends[file] - files[file].bytes;
    let offset = offset.checked_sub(begin);
    let offset = offset.ok_or("a place in two partitions")?;
    Ok(Tensor {
        name: name.to_owned(),
        dtype: *dtype,
        shape,
        file,
        offset,
        bytes,
    })
}
