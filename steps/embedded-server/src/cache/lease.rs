//! What a running sequence holds of the cache.

use super::radix::{Found, NodeId};
use crate::executor::BlockId;

/// The blocks of one sequence. It is ended by [`super::KvCache::finish`] or
/// [`super::KvCache::give_back`]: one that is dropped leaks its blocks.
#[derive(Debug)]
pub struct Lease {
    /// Shared ones, then its own.
    pub(super) blocks: Vec<BlockId>,
    /// How many of `blocks` the tree owns.
    pub(super) n_shared: usize,
    /// The node at which the shared ones end; locked.
    pub(super) node: NodeId,
    /// Where the host's blocks after the shared ones end.
    pub(super) host_end: NodeId,
    /// How many blocks the host has there.
    pub(super) n_host: usize,
}

impl Lease {
    pub(super) fn new(blocks: Vec<BlockId>, found: Found) -> Self {
        Lease {
            n_shared: blocks.len(),
            blocks,
            node: found.device_end,
            host_end: found.end,
            n_host: found.n_host,
        }
    }

    /// The block table.
    #[must_use]
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Blocks that were computed before and are shared.
    #[must_use]
    pub fn n_shared(&self) -> usize {
        self.n_shared
    }
}
