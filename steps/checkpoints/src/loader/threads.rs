//! Threads that each take the next block, and reading by them: through the page cache or past it, as the files
//! were opened.

use super::slots::{Slot, Slots};
use super::{Brought, OpenFile, Reader, short};
use crate::error::{CheckpointError, failed};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Reads by so many threads. Past the page cache lengths are rounded up, and the end of a file is a short count.
pub(super) struct ByThreads(pub(super) NonZeroUsize);

impl Reader for ByThreads {
    fn read(&self, files: &[OpenFile], slots: &dyn Slots<'_>) -> Result<Brought, CheckpointError> {
        by_threads(self.0, slots, &|slot| {
            let block = slot.block;
            read_block(&files[block.file], slot)
        })?;
        Ok(Brought::default())
    }
}

/// Fills a place from its file by `pread`.
fn read_block(from: &OpenFile, slot: &mut Slot<'_>) -> Result<(), CheckpointError> {
    let block = slot.block;
    let mut read = 0;
    while read < block.bytes {
        let rest = &mut slot.room()[read as usize..];
        match from.file.read_at(rest, block.offset + read) {
            Ok(0) => return Err(short(&from.path, &block, read)),
            Ok(n) => read += n as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", &from.path)(error)),
        }
    }
    Ok(())
}

/// Does `fill` for every place, on so many threads; returns the first error.
pub(super) fn by_threads(
    threads: NonZeroUsize,
    slots: &dyn Slots<'_>,
    fill: &(dyn Fn(&mut Slot<'_>) -> Result<(), CheckpointError> + Sync),
) -> Result<(), CheckpointError> {
    let first: Mutex<Option<CheckpointError>> = Mutex::new(None);
    let work = || {
        while let Some(mut slot) = slots.next() {
            if let Err(error) = fill(&mut slot) {
                slots.fail();
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                return;
            }
            slots.filled(slot);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(work);
        }
        work();
    });
    let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    first.map_or(Ok(()), Err)
}
