//! Writes random checkpoints: shards filled by several threads, never a whole model in memory.
//!
//! Every thread takes the next piece of some mebibytes, computes its values and writes them where
//! they belong, so that the files do not depend on how many threads there are.

use crate::room::ensure_room;
use crate::shards::{INDEX_FILE, Shard, cut, index};
use crate::values::Values;
use crate::{Inventory, Tensor};
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Elements that one thread computes at a time: 4 MiB of 16-bit weights.
const PIECE: u64 = 2 << 20;

/// How a random checkpoint is made.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Chooses the values.
    pub seed: u64,
    /// Standard deviation of weights; gains of norms are one and biases zero.
    pub std: f32,
    /// The most bytes of tensors that one file holds.
    pub max_shard_bytes: u64,
    /// How many threads write; as many as there are processors if absent. No byte depends on it.
    pub threads: Option<NonZeroUsize>,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of safetensors files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// From the first piece until everything was on disk.
    pub took: Duration,
}

impl Written {
    /// How fast that was, bytes per second.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Why a checkpoint, or a file beside it, was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk has too little room.
    #[error("{needed} bytes are needed in `{}`, where {free} are free", folder.display())]
    NoSpace {
        /// Where it was to lie.
        folder: PathBuf,
        /// Bytes of what was to be written, and what is left free beside it.
        needed: u64,
        /// Bytes that may be written there.
        free: u64,
    },
    /// A file or folder could not be used.
    #[error("could not {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("writing the checkpoint was stopped")]
    Stopped,
}

/// Writes random weights for `inventory` into the folder `folder`, which exists, and the index
/// beside them if there are several files. Blocks until everything is on disk; holds a few mebibytes
/// per thread.
///
/// `go_on` is told after every piece how many bytes are written, by whatever thread wrote it; the
/// work ends early when it says `false`.
///
/// # Errors
/// [`WriteError::NoSpace`] before anything is written; [`WriteError::Io`] and
/// [`WriteError::Stopped`] with some files written.
pub fn write(
    folder: &Path,
    inventory: &Inventory,
    recipe: &Recipe,
    go_on: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Written, WriteError> {
    write_by(PIECE, folder, inventory, recipe, go_on)
}

/// [`write`], `piece` elements at a time.
fn write_by(
    piece: u64,
    folder: &Path,
    inventory: &Inventory,
    recipe: &Recipe,
    go_on: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Written, WriteError> {
    let shards = cut(inventory, recipe.max_shard_bytes);
    let bytes = shards.iter().map(|shard| shard.bytes).sum();
    ensure_room(folder, bytes)?;
    let began = Instant::now();
    let job = Job {
        folder,
        inventory,
        recipe,
        pieces: pieces(piece, inventory, &shards),
        shards,
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        failed: Mutex::new(None),
        go_on,
    };
    job.perform()?;
    Ok(Written {
        files: job.shards.len(),
        bytes,
        took: began.elapsed(),
    })
}

/// A part of a tensor.
struct Piece {
    /// Position of its file among the shards.
    shard: usize,
    /// Position of its tensor in the inventory.
    tensor: usize,
    /// Where the tensor begins in the file.
    offset: u64,
    from: u64,
    elements: u64,
}

fn pieces(most: u64, inventory: &Inventory, shards: &[Shard]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (shard, content) in shards.iter().enumerate() {
        for (tensor, offset) in &content.tensors {
            let all = inventory.tensors[*tensor].elements();
            let mut from = 0;
            while from < all {
                let elements = most.min(all - from);
                pieces.push(Piece {
                    shard,
                    tensor: *tensor,
                    offset: *offset,
                    from,
                    elements,
                });
                from += elements;
            }
        }
    }
    pieces
}

struct Job<'a> {
    folder: &'a Path,
    inventory: &'a Inventory,
    recipe: &'a Recipe,
    shards: Vec<Shard>,
    pieces: Vec<Piece>,
    /// The piece that is taken next.
    next: AtomicUsize,
    /// Bytes written.
    done: AtomicU64,
    /// The first thing that went wrong.
    failed: Mutex<Option<WriteError>>,
    go_on: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Job<'_> {
    fn perform(&self) -> Result<(), WriteError> {
        for shard in &self.shards {
            let path = self.folder.join(&shard.file);
            let file = File::create_new(&path).map_err(failed("create", &path))?;
            file.set_len(shard.bytes)
                .map_err(failed("lengthen", &path))?;
            file.write_all_at(&shard.head, 0)
                .map_err(failed("write", &path))?;
        }
        let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = self.recipe.threads.unwrap_or(processors).get();
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.pieces.len().max(1)) {
                scope.spawn(|| self.work());
            }
        });
        let failure = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match { failure }.take() {
            Some(error) => Err(error),
            None => self.finish(),
        }
    }

    /// Writes pieces until there are none, or something went wrong.
    fn work(&self) {
        let mut buffer = Vec::new();
        let mut open: Option<(usize, File)> = None;
        while let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let written = self.write_piece(piece, &mut buffer, &mut open);
            let bytes = buffer.len() as u64;
            let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let result = match written {
                Ok(()) if !(self.go_on)(done) => Err(WriteError::Stopped),
                other => other,
            };
            if let Err(error) = result {
                // The others find nothing more to do.
                self.next.store(self.pieces.len(), Ordering::Relaxed);
                let mut failure = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                return;
            }
        }
    }

    /// Writes one piece; `open` is the file that the thread wrote to last.
    fn write_piece(
        &self,
        piece: &Piece,
        buffer: &mut Vec<u8>,
        open: &mut Option<(usize, File)>,
    ) -> Result<(), WriteError> {
        let tensor: &Tensor = &self.inventory.tensors[piece.tensor];
        buffer.clear();
        Values::new(tensor, self.recipe.seed, self.recipe.std).encode(
            piece.from,
            piece.elements,
            buffer,
        );
        let path = self.folder.join(&self.shards[piece.shard].file);
        let file = match open {
            Some((shard, file)) if *shard == piece.shard => file,
            _ => {
                let file = OpenOptions::new().write(true).open(&path);
                &mut open
                    .insert((piece.shard, file.map_err(failed("open", &path))?))
                    .1
            }
        };
        let at = piece.offset + piece.from * tensor.dtype.bytes();
        file.write_all_at(buffer, at)
            .map_err(failed("write", &path))
    }

    /// Writes the index and waits for the disk.
    fn finish(&self) -> Result<(), WriteError> {
        if let Some(index) = index(self.inventory, &self.shards) {
            let path = self.folder.join(INDEX_FILE);
            let text = format!("{index:#}\n");
            let file = File::create_new(&path).map_err(failed("create", &path))?;
            file.write_all_at(text.as_bytes(), 0)
                .map_err(failed("write", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
        }
        for shard in &self.shards {
            let path = self.folder.join(&shard.file);
            let file = File::open(&path).map_err(failed("open", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
        }
        Ok(())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SINGLE_FILE;
    use serde_json::json;

    /// The bytes of a checkpoint that was written `piece` elements at a time.
    fn written(piece: u64, inventory: &Inventory) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            seed: 42,
            std: 0.02,
            max_shard_bytes: u64::MAX,
            threads: NonZeroUsize::new(3),
        };
        write_by(piece, folder.path(), inventory, &recipe, &|_| true).unwrap();
        std::fs::read(folder.path().join(SINGLE_FILE)).unwrap()
    }

    #[test]
    fn every_piece_of_a_tensor_lies_where_it_belongs() {
        let config = json!({
            "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 96,
            "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 320, "n_routed_experts": 2, "num_experts_per_tok": 1,
            "first_k_dense_replace": 1, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8, "v_head_dim": 8,
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]},
        });
        let inventory = Inventory::of(config.as_object().unwrap()).unwrap();
        let shards = cut(&inventory, u64::MAX);
        for piece in [7, 1000] {
            let file = written(piece, &inventory);
            for (tensor, offset) in &shards[0].tensors {
                let tensor = &inventory.tensors[*tensor];
                let mut whole = Vec::new();
                Values::new(tensor, 42, 0.02).encode(0, tensor.elements(), &mut whole);
                let at = usize::try_from(*offset).unwrap();
                let found = &file[at..at + whole.len()];
                assert!(found == whole, "{} by {piece}", tensor.name);
            }
            assert_eq!(file.len() as u64, shards[0].bytes);
        }
    }
}
