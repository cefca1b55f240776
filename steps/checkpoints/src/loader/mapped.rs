//! Reading by memory maps: touching every page, or copying.

#![expect(
    unsafe_code,
    reason = "memory maps are unsafe: the file may change underneath"
)]

use super::slots::Slots;
use super::threads::by_threads;
use super::{Brought, OpenFile, Reader};
use crate::blocks::ALIGNMENT;
use crate::error::{CheckpointError, failed};
use memmap2::Mmap;
use std::hint::black_box;
use std::num::NonZeroUsize;

/// Touches every page of every file. The places stay as they are.
pub(super) struct Touching(pub(super) NonZeroUsize);

/// Copies from the maps to the places.
pub(super) struct Copying(pub(super) NonZeroUsize);

impl Reader for Touching {
    fn read(&self, files: &[OpenFile], slots: &dyn Slots<'_>) -> Result<Brought, CheckpointError> {
        let maps = map_all(files)?;
        by_threads(self.0, slots, &|slot| {
            let block = slot.block;
            let range = block.offset as usize..(block.offset + block.bytes) as usize;
            let pages = maps[block.file][range].iter().step_by(ALIGNMENT as usize);
            // Pages that nobody asks for would not be brought.
            black_box(pages.fold(0_u8, |all, byte| all ^ byte));
            Ok(())
        })?;
        Ok(Brought {
            maps,
            buffers: None,
        })
    }
}

impl Reader for Copying {
    fn read(&self, files: &[OpenFile], slots: &dyn Slots<'_>) -> Result<Brought, CheckpointError> {
        let maps = map_all(files)?;
        by_threads(self.0, slots, &|slot| {
            let block = slot.block;
            let range = block.offset as usize..(block.offset + block.bytes) as usize;
            slot.room()[..block.bytes as usize].copy_from_slice(&maps[block.file][range]);
            Ok(())
        })?;
        Ok(Brought::default())
    }
}

/// Maps files, an empty one as nothing.
fn map_all(files: &[OpenFile]) -> Result<Vec<Mmap>, CheckpointError> {
    files.iter().map(map).collect()
}

fn map(from: &OpenFile) -> Result<Mmap, CheckpointError> {
    // SAFETY: the map is only read, as numbers that may be anything. A file that is cut off while it is
    // mapped ends the process by SIGBUS, as it would any program that maps checkpoints; it cannot make
    // the memory another's.
    let map = unsafe { Mmap::map(&from.file) };
    map.map_err(failed("map", &from.path))
}
