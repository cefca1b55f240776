//! The host memory behind the device: what is copied there, when, and how it comes back.
//!
//! A node of the tree may lie on the device, on the host or on both. `write_through` copies early,
//! parents before their children, and keeps a node on the device until its copy is acknowledged;
//! `write_back` copies when the device evicts. A node that is evicted from the device with a copy
//! on the host stays in the tree. What a prompt finds on the host comes back as a whole or not at
//! all. The order of transfers is the order in which they are right: a device block that one of
//! them reads is not written by an earlier one.

use std::collections::HashMap;

use super::blocks::BlockAllocator;
use super::radix::NodeId;
use super::{KvCache, Lease};
use crate::executor::{BlockId, HostBlockId};

/// Spans of fewer tokens are computed again rather than copied.
const MIN_LOADED_TOKENS: usize = 10;

/// When a node is copied to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WritePolicy {
    /// At its first insertion.
    #[default]
    WriteThrough,
    /// At its second.
    WriteThroughSelective,
    /// When the device evicts it.
    WriteBack,
}

impl WritePolicy {
    /// Insertions after which a node is copied; `None`: not by insertions.
    fn n_hits(self) -> Option<u32> {
        match self {
            WritePolicy::WriteThrough => Some(1),
            WritePolicy::WriteThroughSelective => Some(2),
            WritePolicy::WriteBack => None,
        }
    }
}

/// The size and the policy of the host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostOptions {
    /// Blocks that it holds.
    pub n_blocks: u32,
    /// When they are written.
    pub policy: WritePolicy,
}

/// Names a copy that has to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why blocks are copied, which says who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// To the host, ahead of need: nobody waits, but the device keeps its blocks until it is told
    /// with [`KvCache::acknowledge`].
    BackUp(Ticket),
    /// To the host, because the device needs the blocks: the next step waits for it.
    WriteBack,
    /// To the device: the next step reads it.
    Load,
}

/// Blocks to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which way, and who waits.
    pub kind: TransferKind,
    /// Pairs of the same content.
    pub pairs: Vec<(BlockId, HostBlockId)>,
}

/// The host's blocks, and the copies under way.
#[derive(Debug)]
pub(super) struct HostTier {
    pub(super) blocks: BlockAllocator<HostBlockId>,
    policy: WritePolicy,
    transfers: Vec<Transfer>,
    /// Nodes that are locked until their copy is acknowledged.
    pub(super) pending: HashMap<Ticket, NodeId>,
    next_ticket: u64,
}

impl HostTier {
    pub(super) fn new(options: HostOptions, block_tokens: usize) -> Self {
        HostTier {
            blocks: BlockAllocator::of_blocks(options.n_blocks, block_tokens),
            policy: options.policy,
            transfers: Vec::new(),
            pending: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub(super) fn usage(&self) -> (usize, usize) {
        let n_blocks = self.blocks.n_blocks();
        (n_blocks - self.blocks.n_free(), n_blocks)
    }

    /// Forgets everything. Tickets that are acknowledged later mean nothing.
    pub(super) fn clear(&mut self) {
        let n_blocks = u32::try_from(self.blocks.n_blocks()).unwrap_or(u32::MAX);
        self.blocks = BlockAllocator::of_blocks(n_blocks, self.blocks.block_tokens());
        self.transfers.clear();
        self.pending.clear();
    }

    pub(super) fn policy(&self) -> WritePolicy {
        self.policy
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
}

impl KvCache {
    /// The copies asked for since the last call, to be made in this order before the next step.
    pub fn take_transfers(&mut self) -> Vec<Transfer> {
        let transfers = self.host.as_mut().map(|host| &mut host.transfers);
        transfers.map(std::mem::take).unwrap_or_default()
    }

    /// A copy to the host has been made: its node may be evicted from the device again.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        let node = self
            .host
            .as_mut()
            .and_then(|host| host.pending.remove(&ticket));
        if let Some(node) = node {
            self.tree.unlock(node);
        }
    }

    /// Whether copies to the host have not been acknowledged yet.
    #[must_use]
    pub fn is_backing_up(&self) -> bool {
        self.host
            .as_ref()
            .is_some_and(|host| !host.pending.is_empty())
    }

    /// Tokens that [`KvCache::load`] would bring back for this lease.
    #[must_use]
    pub fn loadable_tokens(&self, lease: &Lease) -> usize {
        let n_tokens = lease.n_host * self.blocks.block_tokens();
        if n_tokens < MIN_LOADED_TOKENS {
            0
        } else {
            n_tokens
        }
    }

    /// Brings back what the host has of a leased prompt: all of it, or nothing where that is
    /// little or the device has no room. Returns the tokens brought back.
    pub fn load(&mut self, lease: &mut Lease) -> usize {
        let n_tokens = self.loadable_tokens(lease);
        let (n_blocks, end) = (lease.n_host, lease.host_end);
        (lease.host_end, lease.n_host) = (lease.node, 0);
        if n_tokens == 0 {
            return 0;
        }
        // Making room may evict from the host too: not what is about to be read.
        self.tree.lock(end);
        let covered = (lease.n_shared + n_blocks) * self.blocks.block_tokens();
        if self.grow(lease, covered).is_err() {
            self.tree.unlock(end);
            return 0;
        }
        self.attach_span(lease, end);
        self.tree.unlock(lease.node);
        lease.node = end;
        lease.n_shared += n_blocks;
        self.counts.loaded += n_blocks;
        n_tokens
    }

    /// Gives the nodes between the end of a lease and `end` the lease's further blocks.
    fn attach_span(&mut self, lease: &Lease, end: NodeId) {
        let mut path = self.tree.path(end);
        path.retain(|id| !self.tree.node(*id).is_on_device());
        let mut at = lease.n_shared;
        let mut pairs = Vec::new();
        for id in path.into_iter().rev() {
            let host = &self.tree.node(id).host;
            let device = &lease.blocks[at..at + host.len()];
            pairs.extend(device.iter().copied().zip(host.iter().copied()));
            at += host.len();
            let device = device.to_vec();
            self.tree.attach(id, device);
        }
        if let Some(host) = &mut self.host {
            let kind = TransferKind::Load;
            host.transfers.push(Transfer { kind, pairs });
        }
    }

    /// Counts an insertion that passed through `path`, and copies what has become worth it,
    /// parents first.
    pub(super) fn back_up_hit(&mut self, path: &[NodeId]) {
        let policy = self.host.as_ref().map(HostTier::policy);
        let Some(threshold) = policy.and_then(WritePolicy::n_hits) else {
            return;
        };
        let mut is_parent_on_host = true;
        for id in path {
            let node = self.tree.node_mut(*id);
            node.n_hits = node.n_hits.saturating_add(1);
            let is_due = node.n_hits >= threshold && !node.is_on_host() && is_parent_on_host;
            if is_due {
                self.back_up(*id);
            }
            is_parent_on_host = self.tree.node(*id).is_on_host();
        }
    }

    fn back_up(&mut self, id: NodeId) {
        let Some(pairs) = self.give_host_blocks(id) else {
            return;
        };
        self.tree.lock(id);
        if let Some(host) = &mut self.host {
            let ticket = host.ticket();
            host.pending.insert(ticket, id);
            let kind = TransferKind::BackUp(ticket);
            host.transfers.push(Transfer { kind, pairs });
        }
    }

    pub(super) fn writes_back(&self) -> bool {
        let policy = self.host.as_ref().map(HostTier::policy);
        policy == Some(WritePolicy::WriteBack)
    }

    /// Copies a leaf of the device that is about to be evicted, if the host has room for it.
    pub(super) fn write_back(&mut self, id: NodeId) {
        if self.tree.node(id).is_on_host() {
            return;
        }
        let pairs = self.give_host_blocks(id);
        if let (Some(pairs), Some(host)) = (pairs, &mut self.host) {
            let kind = TransferKind::WriteBack;
            host.transfers.push(Transfer { kind, pairs });
        }
    }

    /// Gives a node of the device its host blocks, evicting others from the host; `None` where
    /// there is no room.
    fn give_host_blocks(&mut self, id: NodeId) -> Option<Vec<(BlockId, HostBlockId)>> {
        let n_blocks = self.tree.node(id).device.len();
        let host = self.host.as_ref()?;
        if n_blocks > host.blocks.n_blocks() {
            return None;
        }
        self.make_host_room(n_blocks);
        let host = self.host.as_mut()?;
        let mut given = Vec::new();
        let n_tokens = n_blocks * host.blocks.block_tokens();
        host.blocks.grow(&mut given, n_tokens).ok()?;
        self.counts.backed_up += n_blocks;
        let node = self.tree.node_mut(id);
        node.host.clone_from(&given);
        Some(node.device.iter().copied().zip(given).collect())
    }

    /// Evicts from the host until so many of its blocks are free, or nothing can go any more.
    fn make_host_room(&mut self, n_blocks: usize) {
        let n_free = |cache: &Self| cache.host.as_ref().map_or(0, |host| host.blocks.n_free());
        while n_free(self) < n_blocks
            && let Some(leaf) = self.tree.oldest_host_leaf()
        {
            self.counts.host_evicted += self.tree.node(leaf).host.len();
            self.forget(leaf);
        }
    }

    /// Forgets a node that has left the device, with what lies below it on the host.
    pub(super) fn forget(&mut self, id: NodeId) {
        let mut freed = Vec::new();
        self.tree.remove(id, &mut freed);
        if let Some(host) = &mut self.host {
            host.blocks.release(&mut freed);
        }
    }
}
