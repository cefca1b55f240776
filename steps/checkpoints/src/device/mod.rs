//! Memory that only copies reach, such as a GPU's: what a device has to be able to do.
//!
//! Which blocks are under way, when one may be written to again, and what is given back when something
//! goes wrong is decided in `upload`, for every device alike. Here is nothing but the verbs.

#![expect(
    unsafe_code,
    reason = "a copy that was begun reads memory after the call has returned"
)]

pub mod cuda;

use crate::blocks::Piece;
use crate::error::CheckpointError;
use std::any::Any;
use std::time::Duration;

/// Memory of a device that was taken at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Where it begins, as the device counts.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Allocation {
    /// Whether `bytes` bytes from `offset` on lie in it.
    #[must_use]
    pub fn holds(&self, offset: u64, bytes: u64) -> bool {
        let end = offset.checked_add(bytes);
        end.is_some_and(|end| end <= self.bytes)
    }
}

/// The copy of one block, by the number that its device gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transfer(pub u64);

/// What keeps memory pinned until it is dropped.
pub type Pin = Box<dyn Any + Send>;

/// Something with memory of its own.
pub trait Device {
    /// What it is called, such as `cuda:0 (NVIDIA H100)`.
    fn name(&self) -> &str;

    /// Takes memory. Blocks.
    ///
    /// # Errors
    /// If the device does not have so much.
    fn allocate(&self, bytes: u64) -> Result<Allocation, CheckpointError>;

    /// Gives memory back. No copy to it may be under way.
    fn free(&self, allocation: Allocation);

    /// Keeps memory where it is, so that the device reads it without help. Blocks, for long: every page is looked at.
    ///
    /// # Safety
    /// The memory stays mapped until what is returned has been dropped.
    ///
    /// # Errors
    /// If the system does not pin so much.
    unsafe fn pin(&self, memory: &mut [u8]) -> Result<Pin, CheckpointError>;

    /// Begins to copy pieces of `from` to where they go in `to`, and returns at once if `from` is pinned.
    ///
    /// # Safety
    /// Nobody writes to `from` or unmaps it until [`poll`](Self::poll) has said that the copy is done, or
    /// [`settle`](Self::settle) has returned. That holds also after an error, when some pieces may be under way.
    ///
    /// # Errors
    /// If the device does not take the copy.
    unsafe fn begin(
        &mut self,
        to: &Allocation,
        from: &[u8],
        pieces: &[Piece],
    ) -> Result<Transfer, CheckpointError>;

    /// Says how long a copy took by the device's own clock, or `None` while it is under way. Does not block.
    ///
    /// # Errors
    /// If the copy failed.
    fn poll(&mut self, transfer: Transfer) -> Result<Option<Duration>, CheckpointError>;

    /// Waits until no copy is under way; whatever it returns, none is then.
    ///
    /// # Errors
    /// If a copy failed.
    fn settle(&mut self) -> Result<(), CheckpointError>;

    /// Copies from `offset` of an allocation back. Blocks.
    ///
    /// # Errors
    /// If the device does not copy it.
    fn read(&self, from: &Allocation, offset: u64, into: &mut [u8]) -> Result<(), CheckpointError>;
}
