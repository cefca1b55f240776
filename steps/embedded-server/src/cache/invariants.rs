//! What has to be true of the cache after every step.
//!
//! Checked in debug builds and by tests; a walk over everything, far too slow for anything else.

#![cfg(any(test, debug_assertions))]

use std::collections::{HashMap, HashSet};

use super::radix::{Node, NodeId};
use super::{KvCache, Lease};
use crate::executor::{BlockId, HostBlockId};

impl KvCache {
    /// Checks everything, given all the leases that there are.
    ///
    /// # Panics
    /// When something is not as it has to be.
    pub(crate) fn check<'a>(&self, leases: impl Iterator<Item = &'a Lease> + Clone) {
        self.check_owners(leases.clone());
        self.check_locks(leases);
        for (id, node) in self.tree.iter() {
            self.check_node(id, node);
        }
        self.tree.check_lists();
        self.check_host();
    }

    /// Every block is free, in one node of the tree, or a lease's own.
    fn check_owners<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let mut owned: HashSet<BlockId> = HashSet::new();
        let (mut n_evictable, mut n_protected) = (0, 0);
        for (id, node) in self.tree.iter() {
            let is_new = |block: &BlockId| owned.insert(*block);
            assert!(node.device.iter().all(is_new), "a block of {id:?} twice");
            match node.n_locks {
                0 => n_evictable += node.device.len(),
                _ => n_protected += node.device.len(),
            }
        }
        for lease in leases {
            let shared = self.tree.device_blocks(lease.node);
            assert_eq!(shared, lease.blocks[..lease.n_shared], "shared blocks");
            let mut own = lease.blocks[lease.n_shared..].iter();
            assert!(own.all(|block| owned.insert(*block)), "a lease's own block");
        }
        assert_eq!(self.tree.n_evictable(), n_evictable, "evictable");
        assert_eq!(self.tree.n_protected(), n_protected, "protected");
        let n_blocks = self.blocks.n_blocks();
        assert_eq!(owned.len() + self.blocks.n_free(), n_blocks, "lost blocks");
    }

    /// A node's locks are those of the leases and copies at it and below it.
    fn check_locks<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let mut n_locks: HashMap<NodeId, usize> = HashMap::new();
        let pending = self.host.iter().flat_map(|host| host.pending.values());
        for holder in leases.map(|lease| &lease.node).chain(pending) {
            for id in self.tree.path(*holder) {
                *n_locks.entry(id).or_default() += 1;
            }
        }
        for (id, node) in self.tree.iter() {
            let expected = n_locks.get(&id).copied().unwrap_or(0);
            assert_eq!(node.n_locks, expected, "locks of {id:?}");
        }
    }

    fn check_node(&self, id: NodeId, node: &Node) {
        let block_tokens = self.blocks.block_tokens();
        let n_blocks = node.tokens.len() / block_tokens;
        assert!(n_blocks > 0 && node.tokens.len().is_multiple_of(block_tokens));
        assert!(
            node.is_on_device() || node.is_on_host(),
            "{id:?} is nowhere"
        );
        assert!([0, n_blocks].contains(&node.device.len()), "half on device");
        assert!([0, n_blocks].contains(&node.host.len()), "half on the host");
        let parent = self.tree.node(node.parent);
        let key = &node.tokens[..block_tokens];
        assert_eq!(parent.children.get(key), Some(&id), "not its parent's");
        let is_below_root = node.parent == NodeId::ROOT;
        assert!(
            !node.is_on_device() || is_below_root || parent.is_on_device(),
            "{id:?} is on the device, its parent is not"
        );
        let is_parent_first = self.writes_back() || is_below_root || parent.is_on_host();
        assert!(!node.is_on_host() || is_parent_first, "copied too early");
        let on_device = |child: &&NodeId| self.tree.node(**child).is_on_device();
        let n_on_device = node.children.values().filter(on_device).count();
        assert_eq!(node.n_device_children, n_on_device, "children of {id:?}");
    }

    fn check_host(&self) {
        let mut owned: HashSet<HostBlockId> = HashSet::new();
        for (id, node) in self.tree.iter() {
            let is_new = |block: &HostBlockId| owned.insert(*block);
            assert!(node.host.iter().all(is_new), "host block of {id:?} twice");
        }
        let n_used = self.host_usage().0;
        assert_eq!(owned.len(), n_used, "lost host blocks");
    }
}
