//! A checkpoint in memory: its tensors wherever they are, and whether they are as in the files.

use super::Stages;
use crate::blocks::{BlockPlan, Packing};
use crate::contents::Contents;
use crate::error::{CheckpointError, failed};
use crate::loader::Buffers;
use crate::memory::Region;
use crate::upload::OnDevice;
use memmap2::Mmap;
use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes that are compared at a time.
const PIECE: u64 = 4 << 20;

/// A checkpoint in memory.
pub struct Loaded<'p> {
    /// What it consists of.
    pub contents: Contents,
    /// How long it took.
    pub stages: Stages,
    /// Number of reads that it was cut into.
    pub blocks: usize,
    /// Whether it was in the pool before.
    pub was_resident: bool,
    /// What `io_uring` read into, if that read.
    pub buffers: Option<Buffers>,
    pub(super) held: Held<'p>,
}

pub(super) enum Held<'p> {
    /// As the files have it.
    InPlace(&'p [u8], BlockPlan),
    Fresh(Region, BlockPlan),
    Maps(Vec<Mmap>),
    Packed(&'p [u8], Packing),
    OnDevice(OnDevice<'p>, Packing),
}

impl Loaded<'_> {
    /// The bytes of the tensor at a position of the contents, copied back if they lie on a device. Blocks.
    ///
    /// # Errors
    /// If a device does not copy them back.
    pub fn bytes(&self, tensor: usize) -> Result<Cow<'_, [u8]>, CheckpointError> {
        self.part(tensor, 0..self.contents.tensors[tensor].bytes)
    }

    /// Some bytes of a tensor.
    fn part(&self, tensor: usize, part: Range<u64>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let own = &self.contents.tensors[tensor];
        let (memory, begin) = match &self.held {
            Held::InPlace(memory, plan) => (*memory, plan.place(&self.contents, tensor).start),
            Held::Fresh(region, plan) => (region.bytes(), plan.place(&self.contents, tensor).start),
            Held::Maps(maps) => (&maps[own.file][..], own.offset),
            Held::Packed(memory, packing) => (*memory, packing.places[tensor]),
            Held::OnDevice(device, packing) => {
                let mut bytes = vec![0; (part.end - part.start) as usize];
                device.read(packing.places[tensor] + part.start, &mut bytes)?;
                return Ok(Cow::Owned(bytes));
            }
        };
        let (from, to) = (begin + part.start, begin + part.end);
        Ok(Cow::Borrowed(&memory[from as usize..to as usize]))
    }

    /// Compares every tensor in memory with the files, read once more by plain reads; returns the name of the first
    /// that differs. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read, or a device does not copy back.
    pub fn first_difference(&self) -> Result<Option<&str>, CheckpointError> {
        let mut buffer = vec![0; PIECE as usize];
        let mut open: Option<(usize, File)> = None;
        for (at, tensor) in self.contents.tensors.iter().enumerate() {
            let path = self.contents.path(tensor.file);
            let file = match &open {
                Some((file, open)) if *file == tensor.file => open,
                _ => {
                    let file = File::open(&path).map_err(failed("open", &path))?;
                    &open.insert((tensor.file, file)).1
                }
            };
            let mut from = 0;
            while from < tensor.bytes {
                let to = tensor.bytes.min(from + PIECE);
                let there = &mut buffer[..(to - from) as usize];
                file.read_exact_at(there, tensor.offset + from)
                    .map_err(failed("read", &path))?;
                if *there != *self.part(at, from..to)? {
                    return Ok(Some(&tensor.name));
                }
                from = to;
            }
        }
        Ok(None)
    }
}
