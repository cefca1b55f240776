//! The way of blocks to a device, beside their reading: which are under way, when the memory of one may be
//! read into again, and what is given back when something goes wrong.
//!
//! One thread takes blocks as they come, begins their copies, and asks after those that are under way. A
//! block goes back to the readers only when its own copy is done, in whatever order copies end. However this ends,
//! no copy is under way afterwards, and memory of the device that is not returned is given back.

#![expect(
    unsafe_code,
    reason = "a device reads blocks after the call that began it"
)]

use crate::blocks::{ALIGNMENT, BlockPlan, Packing, Piece};
use crate::device::{Allocation, Device, Transfer};
use crate::error::CheckpointError;
use crate::loader::{Copier, Filled, Next, Slot, Standing};
use crate::memory::Region;
use std::time::{Duration, Instant};

/// Copies that are under way at most: enough to keep a device busy, and few enough to ask after each.
const MOST: usize = 64;
/// How long to wait for another block before asking after copies: a block of 16 MiB takes ten times as long.
const PAUSE: Duration = Duration::from_micros(50);
/// How long to wait for another block where there is nothing to ask after.
const IDLE: Duration = Duration::from_millis(100);

/// Memory of a device, given back when this is dropped.
pub(crate) struct OnDevice<'d> {
    device: &'d mut (dyn Device + 'd),
    /// Taken out only to be given back.
    allocation: Option<Allocation>,
}

impl<'d> OnDevice<'d> {
    /// Takes `bytes` bytes.
    pub(crate) fn new(
        device: &'d mut (dyn Device + 'd),
        bytes: u64,
    ) -> Result<Self, CheckpointError> {
        let allocation = Some(device.allocate(bytes)?);
        Ok(Self { device, allocation })
    }

    /// Copies from `offset` on back.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), CheckpointError> {
        match &self.allocation {
            Some(allocation) => self.device.read(allocation, offset, into),
            None => Ok(()),
        }
    }

    /// Copies blocks to where the packing has them as they come, until there are no more readers; returns how long
    /// the device copied.
    pub(crate) fn copy<'m>(
        &mut self,
        copier: Copier<'m>,
        packing: &Packing,
        filled: &Filled,
    ) -> Result<Duration, CheckpointError> {
        let Some(to) = &self.allocation else {
            return Ok(Duration::ZERO);
        };
        let upload = Upload {
            device: self.device,
            to,
            packing,
            under_way: Vec::new(),
            copied: Duration::ZERO,
        };
        upload.take_all(&copier, filled)
    }
}

impl Drop for OnDevice<'_> {
    fn drop(&mut self) {
        if let Some(allocation) = self.allocation.take() {
            self.device.free(allocation);
        }
    }
}

/// Blocks on their way to a device.
struct Upload<'u, 'm> {
    device: &'u mut dyn Device,
    to: &'u Allocation,
    packing: &'u Packing,
    /// Blocks that the device may be reading.
    under_way: Vec<(Transfer, Slot<'m>)>,
    copied: Duration,
}

impl<'m> Upload<'_, 'm> {
    fn take_all(
        mut self,
        copier: &Copier<'m>,
        filled: &Filled,
    ) -> Result<Duration, CheckpointError> {
        loop {
            match self.next(copier) {
                Next::Block(slot) => self.begin(slot)?,
                Next::NotYet => {}
                Next::NoMore if self.under_way.is_empty() => return Ok(self.copied),
                Next::NoMore => std::thread::sleep(PAUSE),
            }
            self.collect(copier, filled)?;
        }
    }

    /// The next block that has been read, as far as another may be under way.
    fn next(&self, copier: &Copier<'m>) -> Next<'m> {
        match self.under_way.len() {
            0 => copier.next(IDLE),
            MOST.. => {
                std::thread::sleep(PAUSE);
                Next::NotYet
            }
            _ => copier.next(PAUSE),
        }
    }

    fn begin(&mut self, slot: Slot<'m>) -> Result<(), CheckpointError> {
        let pieces = &self.packing.pieces[slot.number];
        // SAFETY: the slot alone has this memory. It is kept in `under_way` until the device has said that the copy
        // is done; if it says that of none, because this fails, `drop` waits until nothing is under way, and the slot
        // goes nowhere.
        let begun = unsafe { self.device.begin(self.to, slot.memory(), pieces) };
        // Some of a copy that failed may be under way, too: its slot is not given back either.
        self.under_way
            .push((*begun.as_ref().unwrap_or(&Transfer(0)), slot));
        begun.map(drop)
    }

    /// Gives blocks back whose copies are done.
    fn collect(&mut self, copier: &Copier<'m>, filled: &Filled) -> Result<(), CheckpointError> {
        let mut at = 0;
        while at < self.under_way.len() {
            match self.device.poll(self.under_way[at].0)? {
                None => at += 1,
                Some(took) => {
                    let (_, slot) = self.under_way.swap_remove(at);
                    self.copied += took;
                    filled.stamp(slot.number);
                    copier.give_back(slot);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Upload<'_, '_> {
    fn drop(&mut self) {
        if !self.under_way.is_empty() {
            // What went wrong is told already.
            let _ = self.device.settle();
        }
    }
}

/// How fast blocks of at most `block` bytes come from `from`, which should be pinned, to a device: bytes per second, until
/// the last of them is there. Blocks.
///
/// # Errors
/// If the device has too little memory, or a copy fails.
///
/// # Panics
/// If `block` is no multiple of [`ALIGNMENT`].
pub fn copy_rate(
    device: &mut dyn Device,
    from: &mut Region,
    block: u64,
) -> Result<f64, CheckpointError> {
    let bytes = from.bytes().len() as u64 / ALIGNMENT * ALIGNMENT;
    let plan = BlockPlan::new(&[bytes], block, ALIGNMENT);
    let piece = |block: &crate::blocks::Block| Piece {
        from: 0,
        to: block.offset,
        bytes: block.bytes,
    };
    let packing = Packing {
        places: Vec::new(),
        bytes,
        pieces: plan.blocks.iter().map(|block| vec![piece(block)]).collect(),
    };
    let mut to = OnDevice::new(device, bytes)?;
    let began = Instant::now();
    let filled = Filled::new(began, plan.blocks.len());
    let (slots, copier) = Standing::telling(&plan, from.bytes_mut(), &filled);
    slots.pass_all();
    drop(slots);
    to.copy(copier, &packing, &filled)?;
    Ok(bytes as f64 / began.elapsed().as_secs_f64().max(1e-9))
}
