//! From one format to the other, or to the same with other files: every tensor bit for bit.
//!
//! First everything is placed, then space is asked for, then bytes are copied. Tied tensors are written
//! once in either format.

use crate::contents::{Contents, Format, Tensor};
use crate::error::{CheckpointError, failed, malformed};
use crate::store_format::{self, Entry};
use models::{INDEX_FILE, SINGLE_FILE, safetensors_head};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are copied at a time.
const PIECE: usize = 16 << 20;
/// Tensors of the store begin at multiples of this.
const RECORD: u64 = 8;
/// Partitions of the store end at multiples of this, so that they can be read past the page cache to
/// their very end; the store's own writer leaves the end as it falls, and loses it on some file systems.
const TAIL: u64 = 4096;
/// What is left free beside a checkpoint, bytes: a full disk harms whoever else writes to it.
const SPARE: u64 = 64 << 20;

/// How files are cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of tensors that one file holds; a larger tensor has a file of its own.
    pub max_file_bytes: u64,
}

/// A checkpoint that was converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Files with data.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// Names that stand for the bytes of another tensor.
    pub tied: usize,
    /// Types that the ServerlessLLM store does not give back, if that is the format.
    pub not_restored: Vec<String>,
}

/// A file that is to be written.
struct Target {
    name: String,
    /// What stands before the data.
    head: Vec<u8>,
    /// Tensors by position in the source, with where they begin in this file.
    tensors: Vec<(usize, u64)>,
    bytes: u64,
}

/// Writes the checkpoint `from` in the format `to` into the empty folder `out`; one that holds anything is refused, and
/// nothing is written over. Blocks until everything is on disk; holds 16 MiB.
///
/// `go_on` is told how many bytes are copied; the work ends early when it says `false`.
///
/// # Errors
/// If a type has no name in the format, the disk has too little room, or a file cannot be read or
/// written; some files are there then.
pub fn convert(
    from: &Contents,
    to: Format,
    limits: Limits,
    out: &Path,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Converted, CheckpointError> {
    require_empty(out)?;
    let groups = groups(from, limits.max_file_bytes);
    let (targets, index) = match to {
        Format::Safetensors => safetensors(from, groups),
        Format::Store => store(from, groups)?,
    };
    let bytes = targets.iter().map(|target| target.bytes).sum();
    require_space(out, bytes)?;
    let mut copier = Copier {
        from,
        buffer: vec![0; PIECE],
        open: None,
        done: 0,
        go_on,
    };
    for target in &targets {
        copier.write(target, out)?;
    }
    if let Some((name, index)) = index {
        write_new(&out.join(name), &format!("{index:#}\n"))?;
    }
    let not_restored = match to {
        Format::Store => not_restored(from),
        Format::Safetensors => Vec::new(),
    };
    Ok(Converted {
        files: targets.len(),
        bytes,
        tied: from.tensors.len() - from.own().count(),
        not_restored,
    })
}

/// Refuses a folder that holds something: what lies there belongs to someone else, or to a run that was cut off.
fn require_empty(folder: &Path) -> Result<(), CheckpointError> {
    let mut entries = std::fs::read_dir(folder).map_err(failed("list", folder))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(CheckpointError::Folder {
            folder: folder.to_owned(),
            problem: "holds something already, so nothing is written to it; name an empty folder",
        }),
    }
}

/// Writes a file that does not exist, and waits for the disk.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), CheckpointError> {
    let mut file = File::create_new(path).map_err(failed("create", path))?;
    file.write_all(text.as_bytes())
        .map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Says that a folder has too little room for `bytes` more.
pub(crate) fn require_space(folder: &Path, bytes: u64) -> Result<(), CheckpointError> {
    let told = rustix::fs::statvfs(folder);
    let told = told.map_err(|e| failed("ask for the free space of", folder)(e.into()))?;
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    let needed = bytes.saturating_add(SPARE);
    if needed <= free {
        return Ok(());
    }
    Err(CheckpointError::NoSpace {
        folder: folder.to_owned(),
        needed,
        free,
    })
}

/// Positions of tensors by the file that they go to, in the order of their data; those that are tied to
/// the one before them are left out.
fn groups(from: &Contents, most: u64) -> Vec<Vec<usize>> {
    let mut groups = vec![Vec::new()];
    let mut filled = 0_u64;
    for (at, tensor) in from.tensors.iter().enumerate() {
        if at > 0 && tensor.is_tied_to(&from.tensors[at - 1]) {
            continue;
        }
        let bytes = tensor.bytes.next_multiple_of(RECORD);
        if filled > 0 && filled.saturating_add(bytes) > most {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(at);
        }
    }
    groups
}

/// Names of the tensors that have the bytes of the one at `at`, which is the first of them.
fn tied(from: &Contents, at: usize) -> impl Iterator<Item = &Tensor> {
    let own = &from.tensors[at];
    from.tensors[at + 1..]
        .iter()
        .take_while(|tensor| tensor.is_tied_to(own))
}

type Named = Option<(&'static str, Value)>;

/// Partitions of the store, and its index.
fn store(
    from: &Contents,
    groups: Vec<Vec<usize>>,
) -> Result<(Vec<Target>, Named), CheckpointError> {
    let mut index: BTreeMap<&str, Entry> = BTreeMap::new();
    let mut begin = 0;
    let mut targets = Vec::new();
    for (number, group) in groups.into_iter().enumerate() {
        let mut end = 0;
        let mut tensors = Vec::new();
        for at in group {
            let own = &from.tensors[at];
            for tensor in std::iter::once(own).chain(tied(from, at)) {
                let torch = store_format::torch_name(tensor.dtype).ok_or_else(|| {
                    let problem = format!(
                        "has a tensor `{}` of {}, for which PyTorch has no name",
                        tensor.name, tensor.dtype
                    );
                    malformed(&from.path(tensor.file), problem)
                })?;
                let (shape, stride) = (tensor.shape.clone(), store_format::stride(&tensor.shape));
                index.insert(
                    &tensor.name,
                    (begin + end, tensor.bytes, shape, stride, torch.to_owned()),
                );
            }
            tensors.push((at, end));
            end += own.bytes.next_multiple_of(RECORD);
        }
        let bytes = end.next_multiple_of(TAIL);
        begin += bytes;
        targets.push(Target {
            name: store_format::partition(number),
            head: Vec::new(),
            tensors,
            bytes,
        });
    }
    Ok((targets, Some((store_format::INDEX, json!(index)))))
}

/// Safetensors files, and their index if they are several.
fn safetensors(from: &Contents, groups: Vec<Vec<usize>>) -> (Vec<Target>, Named) {
    let n = groups.len();
    let mut files = BTreeMap::new();
    let mut targets = Vec::new();
    for (i, group) in groups.into_iter().enumerate() {
        let name = match n {
            1 => SINGLE_FILE.to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        for at in &group {
            files.insert(from.tensors[*at].name.clone(), name.clone());
        }
        targets.push(shard(from, name, group));
    }
    let index = json!({ "metadata": { "total_size": from.tensor_bytes() }, "weight_map": files });
    (targets, (n > 1).then_some((INDEX_FILE, index)))
}

/// One safetensors file: wider types first, then by name, as the library has it.
fn shard(from: &Contents, name: String, mut group: Vec<usize>) -> Target {
    group.sort_by(|a, b| {
        let (a, b) = (&from.tensors[*a], &from.tensors[*b]);
        b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name))
    });
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), json!("pt"));
    let mut entries = Map::new();
    let mut end = 0;
    let mut tensors = Vec::new();
    for at in group {
        let tensor = &from.tensors[at];
        for other in tied(from, at) {
            metadata.insert(other.name.clone(), json!(tensor.name));
        }
        let entry = json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes],
        });
        entries.insert(tensor.name.clone(), entry);
        tensors.push((at, end));
        end += tensor.bytes;
    }
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), Value::Object(metadata));
    header.extend(entries);
    let head = safetensors_head(&header);
    let data = head.len() as u64;
    for (_, at) in &mut tensors {
        *at += data;
    }
    Target {
        name,
        head,
        tensors,
        bytes: data + end,
    }
}

/// Types of a checkpoint that the store's own code does not give back.
fn not_restored(from: &Contents) -> Vec<String> {
    let types = from.tensors.iter().map(|tensor| tensor.dtype);
    let mut names: Vec<String> = types
        .filter(|dtype| !store_format::is_restored(*dtype))
        .map(|dtype| dtype.to_string())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Copies tensors from file to file.
struct Copier<'a> {
    from: &'a Contents,
    buffer: Vec<u8>,
    /// The file that was read last.
    open: Option<(usize, File)>,
    done: u64,
    go_on: &'a dyn Fn(u64) -> bool,
}

impl Copier<'_> {
    fn write(&mut self, target: &Target, out: &Path) -> Result<(), CheckpointError> {
        let path = out.join(&target.name);
        let file = File::create_new(&path).map_err(failed("create", &path))?;
        file.set_len(target.bytes)
            .map_err(failed("lengthen", &path))?;
        file.write_all_at(&target.head, 0)
            .map_err(failed("write", &path))?;
        for (at, offset) in &target.tensors {
            self.copy(*at, &file, *offset, &path)?;
        }
        file.sync_all().map_err(failed("sync", &path))
    }

    /// Copies the tensor at `at` to `offset` of a file.
    fn copy(
        &mut self,
        at: usize,
        to: &File,
        offset: u64,
        path: &Path,
    ) -> Result<(), CheckpointError> {
        let tensor = &self.from.tensors[at];
        let source = self.from.path(tensor.file);
        let file = match &self.open {
            Some((open, file)) if *open == tensor.file => file,
            _ => {
                let file = File::open(&source).map_err(failed("open", &source))?;
                &self.open.insert((tensor.file, file)).1
            }
        };
        let mut copied = 0;
        while copied < tensor.bytes {
            let piece = usize::try_from(tensor.bytes - copied)
                .unwrap_or(PIECE)
                .min(PIECE);
            let piece = &mut self.buffer[..piece];
            file.read_exact_at(piece, tensor.offset + copied)
                .map_err(failed("read", &source))?;
            to.write_all_at(piece, offset + copied)
                .map_err(failed("write", path))?;
            copied += piece.len() as u64;
            self.done += piece.len() as u64;
            if !(self.go_on)(self.done) {
                return Err(CheckpointError::Stopped);
            }
        }
        Ok(())
    }
}
