//! Reading through the page cache.

use super::slots::Slots;
use super::threads::{by_threads, read_block};
use super::{OpenFile, Reader};
use crate::error::CheckpointError;
use memmap2::Mmap;
use std::num::NonZeroUsize;

/// Reads through the page cache, by so many threads.
pub(super) struct Buffered(pub(super) NonZeroUsize);

impl Reader for Buffered {
    fn read(
        &self,
        files: &[OpenFile],
        slots: &dyn Slots<'_>,
    ) -> Result<Vec<Mmap>, CheckpointError> {
        by_threads(self.0, slots, &|slot| {
            let block = slot.block;
            read_block(&files[block.file], slot)
        })?;
        Ok(Vec::new())
    }
}
