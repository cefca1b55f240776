//! The key-value cache: who holds which blocks, and what is kept for prompts to come.
//!
//! Reading order: this file (what the scheduler sees), [`blocks`] (which blocks are free),
//! `radix` (which tokens lie where), `host` (the memory behind the device), `invariants`. A
//! running sequence has a [`Lease`]: first blocks that it shares with the prefix tree, which are
//! never written again, then blocks of its own. It decides where keys and values lie and moves
//! none: copies to and from the host are asked for as [`Transfer`]s, in an order in which they
//! are right.

pub mod blocks;
mod host;
mod invariants;
mod lease;
mod radix;

use crate::executor::{BlockId, CacheShape};
pub use blocks::{BlockAllocator, CacheFull};
use host::HostTier;
pub use host::{HostOptions, Ticket, Transfer, TransferKind, WritePolicy};
pub use lease::Lease;
use radix::{Cut, RadixTree, whole_blocks};

/// What is kept once nobody uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing.
    Nothing,
    /// Every computed prefix, until its blocks are needed.
    Prefixes,
    /// Prefixes, and behind them what host memory holds.
    PrefixesAndHost(HostOptions),
}

/// Whether an insertion counts as a use of what it passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The prompt goes on: its parts are not in demand yet.
    Chunk,
    /// The prompt, or all of the sequence, is computed.
    Whole,
}

/// What happened to blocks since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that left the device for want of room.
    pub evicted: usize,
    /// Blocks copied to the host.
    pub backed_up: usize,
    /// Blocks copied back to the device.
    pub loaded: usize,
    /// Blocks that left the host for want of room.
    pub host_evicted: usize,
}

/// The tokens of a prompt that need not be computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Matched {
    /// Tokens on the device.
    pub device: usize,
    /// Tokens after those that the host has.
    pub host: usize,
}

impl Matched {
    /// Both together.
    #[must_use]
    pub fn total(self) -> usize {
        self.device + self.host
    }
}

/// Blocks, prefix tree and host memory.
#[derive(Debug)]
pub struct KvCache {
    blocks: BlockAllocator,
    tree: RadixTree,
    keeps_prefixes: bool,
    host: Option<HostTier>,
    counts: Counts,
}

impl KvCache {
    /// An empty cache.
    #[must_use]
    pub fn new(shape: CacheShape, keeping: Keeping) -> Self {
        let blocks = BlockAllocator::new(shape);
        let block_tokens = blocks.block_tokens();
        let host = match keeping {
            Keeping::PrefixesAndHost(options) => Some(HostTier::new(options, block_tokens)),
            Keeping::Nothing | Keeping::Prefixes => None,
        };
        KvCache {
            tree: RadixTree::new(block_tokens),
            keeps_prefixes: keeping != Keeping::Nothing,
            counts: Counts::default(),
            blocks,
            host,
        }
    }

    /// The same cache, counting from what happened to one before it.
    #[must_use]
    pub fn counting_from(mut self, counts: Counts) -> Self {
        self.counts = counts;
        self
    }

    /// The device's blocks; those of the tree are not free.
    #[must_use]
    pub fn blocks(&self) -> &BlockAllocator {
        &self.blocks
    }

    /// Blocks that can be had: free ones, and those of prefixes that nobody uses.
    #[must_use]
    pub fn n_available(&self) -> usize {
        self.blocks.n_free() + self.tree.n_evictable()
    }

    /// Blocks of prefixes that nobody uses.
    #[must_use]
    pub fn n_evictable(&self) -> usize {
        self.tree.n_evictable()
    }

    /// Blocks of host memory in use, and in all.
    #[must_use]
    pub fn host_usage(&self) -> (usize, usize) {
        self.host.as_ref().map_or((0, 0), HostTier::usage)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether prefixes are kept at all.
    #[must_use]
    pub fn keeps_prefixes(&self) -> bool {
        self.keeps_prefixes
    }

    /// How much of a prompt is there. Counts as a use of it.
    pub fn matched(&mut self, tokens: &[u32]) -> Matched {
        let found = self.tree.find(but_last(tokens), Cut::No);
        let block_tokens = self.blocks.block_tokens();
        Matched {
            device: found.n_device * block_tokens,
            host: found.n_host * block_tokens,
        }
    }

    /// Leases what the device has of a prompt, so that it stays. At least one token is left to
    /// compute: logits come from computing only.
    pub fn acquire(&mut self, tokens: &[u32]) -> Lease {
        let found = self.tree.find(but_last(tokens), Cut::Yes);
        self.tree.lock(found.device_end);
        let blocks = self.tree.device_blocks(found.device_end);
        Lease::new(blocks, found)
    }

    /// Lengthens a lease until it covers `n_tokens`, evicting what nobody uses.
    ///
    /// # Errors
    /// [`CacheFull`] when too little can be had; the lease is unchanged then.
    pub fn grow(&mut self, lease: &mut Lease, n_tokens: usize) -> Result<(), CacheFull> {
        let needed = self.blocks.blocks_for(n_tokens);
        let wanted = needed.saturating_sub(lease.blocks.len());
        self.make_room(wanted);
        self.blocks.grow(&mut lease.blocks, n_tokens)
    }

    /// Puts what a sequence has computed into the tree. From then on the lease shares it, and
    /// blocks that the tree had already are freed.
    pub fn keep(&mut self, lease: &mut Lease, computed: &[u32], progress: Progress) {
        let block_tokens = self.blocks.block_tokens();
        let tokens = whole_blocks(computed, block_tokens);
        if !self.keeps_prefixes || tokens.is_empty() {
            return;
        }
        let n_blocks = tokens.len() / block_tokens;
        let mut duplicates = Vec::new();
        let table = &mut lease.blocks[..n_blocks];
        let path = self.tree.insert(tokens, table, &mut duplicates);
        self.blocks.release(&mut duplicates);
        if let Some(end) = path.last() {
            self.tree.lock(*end);
            self.tree.unlock(lease.node);
            lease.node = *end;
            lease.n_shared = n_blocks;
        }
        if progress == Progress::Whole {
            self.back_up_hit(&path);
        }
    }

    /// Ends a lease and keeps what was computed.
    pub fn finish(&mut self, mut lease: Lease, computed: &[u32]) {
        self.keep(&mut lease, computed, Progress::Whole);
        self.give_back(lease);
    }

    /// Ends a lease and keeps nothing but what was in the tree already.
    pub fn give_back(&mut self, mut lease: Lease) {
        let mut own = lease.blocks.split_off(lease.n_shared);
        self.blocks.release(&mut own);
        self.tree.unlock(lease.node);
    }

    /// Forgets every prefix, on the device and on the host. Nothing may be leased.
    ///
    /// # Panics
    /// When something is leased: its blocks would have two owners.
    pub fn flush(&mut self) {
        let n_free_before = self.blocks.n_free();
        let n_tree = self.tree.n_evictable() + self.tree.n_protected();
        assert_eq!(
            n_free_before + n_tree,
            self.blocks.n_blocks(),
            "a flush while blocks are leased"
        );
        let block_tokens = self.blocks.block_tokens();
        let n_blocks = u32::try_from(self.blocks.n_blocks()).unwrap_or(u32::MAX);
        self.blocks = BlockAllocator::of_blocks(n_blocks, block_tokens);
        self.tree = RadixTree::new(block_tokens);
        if let Some(host) = &mut self.host {
            host.clear();
        }
    }

    /// Evicts until `n_blocks` are free, or nothing can be evicted any more.
    fn make_room(&mut self, n_blocks: usize) {
        while self.blocks.n_free() < n_blocks
            && let Some(leaf) = self.tree.oldest_device_leaf()
        {
            if self.writes_back() {
                self.write_back(leaf);
            }
            let mut evicted: Vec<BlockId> = self.tree.detach(leaf);
            self.counts.evicted += evicted.len();
            self.blocks.release(&mut evicted);
            if !self.tree.node(leaf).is_on_host() {
                self.forget(leaf);
            }
        }
    }
}

fn but_last(tokens: &[u32]) -> &[u32] {
    &tokens[..tokens.len().saturating_sub(1)]
}

#[cfg(test)]
mod tests;
