//! Who brings blocks into memory: one trait, and a reader for each way that the kernel offers.
//!
//! A reader takes places from `Slots`, fills each with its block, and gives it back. It knows neither
//! tensors nor where places come from.

mod mapped;
mod slots;
mod threads;
mod uring;

use slots::Slots;
pub(crate) use slots::{Copier, Filled, Next, Ring, Slot, Standing};

use crate::blocks::{ALIGNMENT, Block};
use crate::error::{CheckpointError, failed};
use memmap2::Mmap;
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A way to read files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Maps files, and touches every page. What is loaded lies in the page cache.
    Mmap,
    /// Maps files, and copies from there.
    MmapCopy,
    /// Reads through the page cache.
    Buffered,
    /// Reads past the page cache, each thread the next block.
    Direct,
    /// Reads past the page cache, several blocks under way at once, by `io_uring`.
    IoUring,
}

/// How a way is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Threads that read; `io_uring` needs one.
    pub threads: NonZeroUsize,
    /// Blocks that `io_uring` has under way at once.
    pub depth: NonZeroUsize,
}

impl Way {
    /// The word for it in plans and results.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Way::Mmap => "mmap",
            Way::MmapCopy => "mmap_copy",
            Way::Buffered => "buffered",
            Way::Direct => "direct",
            Way::IoUring => "io_uring",
        }
    }

    /// Whether it reads past the page cache.
    #[must_use]
    pub fn is_direct(self) -> bool {
        matches!(self, Way::Direct | Way::IoUring)
    }

    /// How many places a reader holds at once.
    #[must_use]
    pub fn places(self, effort: Effort) -> usize {
        match self {
            Way::IoUring => effort.depth.get(),
            _ => effort.threads.get(),
        }
    }

    /// Says why the kernel does not have this way, if it does not; `try_on` is a file that would be read.
    #[must_use]
    pub fn refusal(self, try_on: &Path) -> Option<String> {
        match self {
            Way::Mmap | Way::MmapCopy | Way::Buffered => None,
            Way::Direct => open(try_on, self).err().map(|e| e.to_string()),
            Way::IoUring => {
                let refused = uring::refusal();
                refused.or_else(|| open(try_on, self).err().map(|e| e.to_string()))
            }
        }
    }

    pub(crate) fn reader(self, effort: Effort) -> Box<dyn Reader> {
        match self {
            Way::Mmap => Box::new(mapped::Touching(effort.threads)),
            Way::MmapCopy => Box::new(mapped::Copying(effort.threads)),
            Way::Buffered | Way::Direct => Box::new(threads::ByThreads(effort.threads)),
            Way::IoUring => Box::new(uring::Uring(effort.depth)),
        }
    }
}

/// What `io_uring` read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buffers {
    /// Memory that the kernel knew before: it is pinned once, and not for each read.
    Registered,
    /// Memory like any other, and why.
    Plain(String),
}

/// What a reader has to tell when all blocks are there.
#[derive(Default)]
pub(crate) struct Brought {
    /// Maps that hold what was loaded, if it was not read into the places.
    pub(crate) maps: Vec<Mmap>,
    /// What `io_uring` read into, if that read.
    pub(crate) buffers: Option<Buffers>,
}

/// A file that is read.
pub(crate) struct OpenFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

/// Fills places with blocks.
pub(crate) trait Reader {
    /// Reads blocks until there are no more places. Blocks.
    fn read(&self, files: &[OpenFile], slots: &dyn Slots<'_>) -> Result<Brought, CheckpointError>;
}

/// Opens files as a way needs them.
pub(crate) fn open_all(paths: Vec<PathBuf>, way: Way) -> Result<Vec<OpenFile>, CheckpointError> {
    let opened = paths.into_iter().map(|path| {
        let file = open(&path, way)?;
        Ok(OpenFile { path, file })
    });
    opened.collect()
}

fn open(path: &Path, way: Way) -> Result<File, CheckpointError> {
    let mut options = OpenOptions::new();
    options.read(true);
    if way.is_direct() {
        options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    }
    options.open(path).map_err(failed("open", path))
}

/// The alignment that direct reads of these files need: what the file system tells, and a page at least,
/// which every one that does not tell takes.
#[must_use]
pub fn alignment(paths: &[PathBuf]) -> u64 {
    let of = |path: &PathBuf| {
        let told = rustix::fs::statx(
            rustix::fs::CWD,
            path,
            AtFlags::empty(),
            StatxFlags::DIOALIGN,
        )
        .ok()?;
        let needed = u64::from(told.stx_dio_offset_align.max(told.stx_dio_mem_align));
        needed.is_power_of_two().then_some(needed)
    };
    let told = paths.iter().filter_map(of).max().unwrap_or(ALIGNMENT);
    told.max(ALIGNMENT)
}

/// Says that a file ended before a block did.
fn short(path: &Path, block: &Block, read: u64) -> CheckpointError {
    let problem = format!(
        "has only {} bytes, where {} were there before: it was cut off",
        block.offset + read,
        block.offset + block.bytes
    );
    crate::error::malformed(path, problem)
}
