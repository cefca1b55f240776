//! What a folder holds: tensors, and where their bytes lie, whatever the format.

use crate::error::{CheckpointError, failed, malformed};
use crate::{safetensors_format, store_format};
use models::{INDEX_FILE, SINGLE_FILE};
use safetensors::Dtype;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of the longest header or index that is read; the safetensors format allows no longer header.
pub(crate) const MAX_JSON: u64 = 100_000_000;

/// The form of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `model.safetensors`, or shards beside an index.
    Safetensors,
    /// `tensor.data_0` and further beside `tensor_index.json`, as the ServerlessLLM store has it.
    Store,
}

impl Format {
    /// The word for it in plans and results.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Store => "store",
        }
    }
}

/// What a checkpoint consists of.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Its folder.
    pub folder: PathBuf,
    /// Its form.
    pub format: Format,
    /// Files with data, in order.
    pub files: Vec<DataFile>,
    /// Tensors in the order of their data; tied ones have the same place.
    pub tensors: Vec<Tensor>,
}

/// A file with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its name in the folder.
    pub name: String,
    /// Bytes of the whole file.
    pub bytes: u64,
}

/// A tensor and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Position of its file.
    pub file: usize,
    /// Where it begins in that file.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Tensor {
    /// Whether its bytes are those of `other`.
    #[must_use]
    pub fn is_tied_to(&self, other: &Tensor) -> bool {
        self.bytes > 0
            && (self.file, self.offset, self.bytes) == (other.file, other.offset, other.bytes)
    }
}

impl Contents {
    /// Reads the headers of the checkpoint in `folder`, and no data. Blocks.
    ///
    /// # Errors
    /// If the folder holds no checkpoint or one of each format, a file is missing, or anything that a
    /// header says contradicts itself, the others or the files.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let has = |name: &str| folder.join(name).exists();
        let is_safetensors = has(SINGLE_FILE) || has(INDEX_FILE);
        let problem = match (is_safetensors, has(store_format::INDEX)) {
            (true, false) => return safetensors_format::read(folder),
            (false, true) => return store_format::read(folder),
            (true, true) => "holds a checkpoint of each format; keep each in a folder of its own",
            (false, false) => {
                "holds neither `model.safetensors` nor `model.safetensors.index.json` nor `tensor_index.json`"
            }
        };
        Err(CheckpointError::Folder {
            folder: folder.to_owned(),
            problem,
        })
    }

    /// The path of a data file.
    #[must_use]
    pub fn path(&self, file: usize) -> PathBuf {
        self.folder.join(&self.files[file].name)
    }

    /// Paths of all data files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        (0..self.files.len()).map(|file| self.path(file)).collect()
    }

    /// Bytes of all data files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Bytes of all tensors, tied ones once.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.own().map(|tensor| tensor.bytes).sum()
    }

    /// The tensors without those that are tied to an earlier one.
    pub fn own(&self) -> impl Iterator<Item = &Tensor> {
        let mut last: Option<&Tensor> = None;
        // Tied ones stand beside each other.
        self.tensors.iter().filter(move |tensor| {
            let is_tied = last.is_some_and(|last| tensor.is_tied_to(last));
            last = Some(tensor);
            !is_tied
        })
    }
}

/// Puts tensors in the order of their data, then of their names.
pub(crate) fn in_order(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    tensors.sort_by(|a, b| {
        let place = |t: &Tensor| (t.file, t.offset, t.bytes);
        place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name))
    });
    tensors
}

/// Bytes of a tensor by its shape, or `None` if no memory could hold it or they are no whole number.
pub(crate) fn bytes_of(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Opens a plain file; anything else that has its name could block.
pub(crate) fn open_plain(path: &Path) -> Result<(File, u64), CheckpointError> {
    let data = std::fs::metadata(path).map_err(failed("open", path))?;
    if !data.is_file() {
        return Err(malformed(path, "is no file"));
    }
    let file = File::open(path).map_err(failed("open", path))?;
    // The length of what was opened, not of what had its name before.
    let bytes = file.metadata().map_err(failed("look at", path))?.len();
    Ok((file, bytes))
}

/// Reads a file of JSON that has a bounded length.
pub(crate) fn read_json(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let (file, bytes) = open_plain(path)?;
    if bytes > MAX_JSON {
        let problem = format!("has {bytes} bytes, and more than {MAX_JSON} are not read");
        return Err(malformed(path, problem));
    }
    let mut text = Vec::new();
    let read = file.take(MAX_JSON).read_to_end(&mut text);
    read.map_err(failed("read", path))?;
    Ok(text)
}
