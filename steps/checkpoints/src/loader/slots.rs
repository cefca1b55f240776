//! Places that blocks are read to: each block its own, or a few that go round.

use crate::blocks::{Block, BlockPlan, Packing};
use crate::memory::Touch;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A place for one block.
pub(crate) struct Slot<'m> {
    /// Position of the block.
    pub(crate) number: usize,
    pub(crate) block: Block,
    /// At least as many bytes as are asked for.
    memory: &'m mut [u8],
}

impl Slot<'_> {
    /// As many bytes as are asked for.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[..self.block.room as usize]
    }

    /// Its bytes.
    pub(crate) fn memory(&self) -> &[u8] {
        self.memory
    }
}

/// The memory in which all places of a load lie, if it is there already and may be made known to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: usize,
    pub(crate) bytes: usize,
}

impl Span {
    fn of(memory: &[u8]) -> Self {
        Self {
            address: memory.as_ptr().expose_provenance(),
            bytes: memory.len(),
        }
    }
}

/// Where readers get their places from.
pub(crate) trait Slots<'m>: Sync {
    /// The place of the next block; `None` if there are no more, or something went wrong. Blocks while all places
    /// are in use elsewhere.
    fn next(&self) -> Option<Slot<'m>>;
    /// Takes back a place whose block is there.
    fn filled(&self, slot: Slot<'m>);
    /// Something went wrong: nobody gets another place.
    fn fail(&self);
    /// The memory of all places, if it was written to before the load.
    fn span(&self) -> Option<Span>;
}

/// When each block was there, nanoseconds after the beginning.
pub(crate) struct Filled {
    began: Instant,
    at: Vec<AtomicU64>,
    last_read: AtomicU64,
}

impl Filled {
    pub(crate) fn new(began: Instant, blocks: usize) -> Self {
        let at = (0..blocks).map(|_| AtomicU64::new(0)).collect();
        Self {
            began,
            at,
            last_read: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A block has been read.
    fn read(&self) {
        self.last_read.fetch_max(self.now(), Ordering::Relaxed);
    }

    /// A block is where it is used.
    pub(crate) fn stamp(&self, block: usize) {
        self.at[block].store(self.now(), Ordering::Relaxed);
    }

    /// When the last block had been read, counted from the beginning of the load.
    pub(crate) fn last_read(&self) -> Duration {
        Duration::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    /// When all of some blocks were there, counted from the beginning of the load.
    pub(crate) fn all_of(&self, blocks: impl Iterator<Item = usize>) -> Duration {
        let nanos = blocks.map(|block| self.at[block].load(Ordering::Relaxed));
        Duration::from_nanos(nanos.max().unwrap_or(0))
    }
}

/// A place for every block: what is read stays there.
pub(crate) struct Standing<'m> {
    places: Mutex<std::vec::IntoIter<Slot<'m>>>,
    filled: &'m Filled,
    has_failed: AtomicBool,
    /// Who copies on from there.
    full: Option<Sender<Slot<'m>>>,
    span: Option<Span>,
}

impl<'m> Standing<'m> {
    /// Cuts `memory`, of as many bytes as the plan needs, and which was written to before or not.
    pub(crate) fn new(
        plan: &BlockPlan,
        mut memory: &'m mut [u8],
        touch: Touch,
        filled: &'m Filled,
    ) -> Self {
        let span = (touch == Touch::Before).then(|| Span::of(memory));
        let mut places = Vec::with_capacity(plan.blocks.len());
        for (number, block) in plan.blocks.iter().enumerate() {
            let (own, rest) = memory.split_at_mut(block.room as usize);
            memory = rest;
            places.push(Slot {
                number,
                block: *block,
                memory: own,
            });
        }
        Self {
            places: Mutex::new(places.into_iter()),
            filled,
            has_failed: AtomicBool::new(false),
            full: None,
            span,
        }
    }

    /// The same in memory that is there, with another end that is told of each block and copies it on.
    pub(crate) fn telling(
        plan: &BlockPlan,
        memory: &'m mut [u8],
        filled: &'m Filled,
    ) -> (Self, Copier<'m>) {
        let (full, take) = channel();
        let mut standing = Self::new(plan, memory, Touch::Before, filled);
        standing.full = Some(full);
        let copier = Copier {
            full: take,
            free: None,
        };
        (standing, copier)
    }

    /// Says of every block that it is there, where it is.
    pub(crate) fn pass_all(&self) {
        while let Some(slot) = self.next() {
            self.filled(slot);
        }
    }
}

impl<'m> Slots<'m> for Standing<'m> {
    fn next(&self) -> Option<Slot<'m>> {
        if self.has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.next()
    }

    fn filled(&self, slot: Slot<'m>) {
        self.filled.read();
        let Some(full) = &self.full else {
            return self.filled.stamp(slot.number);
        };
        if full.send(slot).is_err() {
            // The other end has given up.
            self.fail();
        }
    }

    fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    fn span(&self) -> Option<Span> {
        self.span
    }
}

/// A few places that go round: what is read is copied to a destination by one thread, while others are
/// filled.
pub(crate) struct Ring<'m> {
    span: Span,
    blocks: &'m [Block],
    filled: &'m Filled,
    taken: AtomicUsize,
    has_failed: AtomicBool,
    free: Mutex<Receiver<&'m mut [u8]>>,
    full: Sender<Slot<'m>>,
}

/// The other end: takes blocks that have been read, and gives their places back.
pub(crate) struct Copier<'m> {
    full: Receiver<Slot<'m>>,
    /// None where every block has a place of its own.
    free: Option<Sender<&'m mut [u8]>>,
}

/// What comes next of blocks that are read.
pub(crate) enum Next<'m> {
    Block(Slot<'m>),
    NotYet,
    /// There are no more readers.
    NoMore,
}

impl<'m> Ring<'m> {
    /// Cuts `memory` into places of `block` bytes.
    pub(crate) fn new(
        plan: &'m BlockPlan,
        memory: &'m mut [u8],
        block: usize,
        filled: &'m Filled,
    ) -> (Self, Copier<'m>) {
        let span = Span::of(memory);
        let (give, free) = channel();
        let (full, take) = channel();
        for place in memory.chunks_exact_mut(block) {
            // The other end is there, three lines above.
            let _ = give.send(place);
        }
        let ring = Self {
            span,
            blocks: &plan.blocks,
            filled,
            taken: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            free: Mutex::new(free),
            full,
        };
        let copier = Copier {
            full: take,
            free: Some(give),
        };
        (ring, copier)
    }
}

impl<'m> Slots<'m> for Ring<'m> {
    fn next(&self) -> Option<Slot<'m>> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let block = *self.blocks.get(number)?;
        if self.has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The copier gives every place back, and ends only after the last reader. A reader that fails keeps
        // one at most, and there are as many as they hold together.
        let place = free.recv().ok()?;
        drop(free);
        if self.has_failed.load(Ordering::Relaxed) {
            return None;
        }
        Some(Slot {
            number,
            block,
            memory: place,
        })
    }

    fn filled(&self, slot: Slot<'m>) {
        self.filled.read();
        if self.full.send(slot).is_err() {
            // The other end has given up.
            self.fail();
        }
    }

    fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    fn span(&self) -> Option<Span> {
        Some(self.span)
    }
}

impl<'m> Copier<'m> {
    /// Waits so long for the next block.
    pub(crate) fn next(&self, wait: Duration) -> Next<'m> {
        match self.full.recv_timeout(wait) {
            Ok(slot) => Next::Block(slot),
            Err(RecvTimeoutError::Timeout) => Next::NotYet,
            Err(RecvTimeoutError::Disconnected) => Next::NoMore,
        }
    }

    /// The place of a block may be used again.
    pub(crate) fn give_back(&self, slot: Slot<'m>) {
        if let Some(free) = &self.free {
            // No reader waits for it any more once all blocks are taken.
            let _ = free.send(slot.memory);
        }
    }

    /// Copies blocks to `destination` as they come, until there are no more readers; returns how long it
    /// copied.
    pub(crate) fn copy(
        self,
        packing: &Packing,
        destination: &mut [u8],
        filled: &Filled,
    ) -> Duration {
        let mut copied = Duration::ZERO;
        while let Ok(slot) = self.full.recv() {
            let begun = Instant::now();
            for piece in &packing.pieces[slot.number] {
                let (from, to, bytes) =
                    (piece.from as usize, piece.to as usize, piece.bytes as usize);
                destination[to..to + bytes].copy_from_slice(&slot.memory[from..from + bytes]);
            }
            copied += begun.elapsed();
            filled.stamp(slot.number);
            self.give_back(slot);
        }
        copied
    }
}
