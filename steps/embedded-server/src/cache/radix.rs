//! The prefix tree: which computed tokens lie in which blocks.
//!
//! A node is a run of tokens in whole blocks, and where their keys and values lie: in device
//! blocks, in host blocks or in both. Children go on where their parent ends and differ from each
//! other within their first block. A node in use holds a lock on itself and on every ancestor;
//! what is not locked may be evicted, leaves first, the least recently used one first. It copies
//! nothing and frees nothing by itself: blocks that leave the tree are handed to the caller.

use std::collections::{BTreeSet, HashMap};

use slab::Slab;

use crate::executor::{BlockId, HostBlockId};

/// A node of the tree. Ids of removed nodes are given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

impl NodeId {
    /// The empty prefix: always there, never locked, never evicted.
    pub(super) const ROOT: NodeId = NodeId(0);
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    /// By the tokens of their first block.
    pub(super) children: HashMap<Box<[u32]>, NodeId>,
    /// Whole blocks of them.
    pub(super) tokens: Vec<u32>,
    /// One per block, or none where the device has evicted it.
    pub(super) device: Vec<BlockId>,
    /// One per block, or none where the host has no copy.
    pub(super) host: Vec<HostBlockId>,
    /// Users of this node or of one below it.
    pub(super) n_locks: usize,
    /// Insertions that passed through it, its own included.
    pub(super) n_hits: u32,
    /// Children that lie on the device.
    pub(super) n_device_children: usize,
    last_used: u64,
    listed: Listed,
}

/// In which list of evictable leaves a node stands, and under which instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Nowhere,
    Device(u64),
    Host(u64),
}

impl Node {
    fn new(parent: NodeId, tokens: Vec<u32>, last_used: u64) -> Self {
        Node {
            parent,
            children: HashMap::new(),
            tokens,
            device: Vec::new(),
            host: Vec::new(),
            n_locks: 0,
            n_hits: 0,
            n_device_children: 0,
            last_used,
            listed: Listed::Nowhere,
        }
    }

    pub(super) fn is_on_device(&self) -> bool {
        !self.device.is_empty()
    }

    pub(super) fn is_on_host(&self) -> bool {
        !self.host.is_empty()
    }

    /// Where it has to stand: unlocked, and nothing below it in the same memory.
    fn wanted_list(&self) -> Listed {
        if self.n_locks > 0 {
            Listed::Nowhere
        } else if self.is_on_device() && self.n_device_children == 0 {
            Listed::Device(self.last_used)
        } else if !self.is_on_device() && self.children.is_empty() {
            Listed::Host(self.last_used)
        } else {
            Listed::Nowhere
        }
    }
}

/// How much of a prompt the tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The last matched node on the device.
    pub(super) device_end: NodeId,
    /// The last matched node anywhere.
    pub(super) end: NodeId,
    /// Matched blocks on the device.
    pub(super) n_device: usize,
    /// Matched blocks that only the host has, after those.
    pub(super) n_host: usize,
}

/// Whether a match may cut a node in two, so that it ends at a node's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Yes,
    No,
}

/// The tree.
#[derive(Debug)]
pub(super) struct RadixTree {
    nodes: Slab<Node>,
    block_tokens: usize,
    /// Counts uses, so that each has an instant of its own.
    now: u64,
    n_evictable: usize,
    n_protected: usize,
    device_leaves: BTreeSet<(u64, NodeId)>,
    host_leaves: BTreeSet<(u64, NodeId)>,
}

impl RadixTree {
    /// A tree that has nothing but the empty prefix.
    pub(super) fn new(block_tokens: usize) -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(NodeId::ROOT, Vec::new(), 0));
        RadixTree {
            nodes,
            block_tokens,
            now: 0,
            n_evictable: 0,
            n_protected: 0,
            device_leaves: BTreeSet::new(),
            host_leaves: BTreeSet::new(),
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// Every node but the root.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.nodes.iter().map(|(index, node)| (NodeId(index), node));
        nodes.filter(|(id, _)| *id != NodeId::ROOT)
    }

    /// Device blocks that can be evicted.
    pub(super) fn n_evictable(&self) -> usize {
        self.n_evictable
    }

    /// Device blocks of locked nodes.
    pub(super) fn n_protected(&self) -> usize {
        self.n_protected
    }

    /// The longest prefix of `tokens`, in whole blocks, that the tree has: device blocks first,
    /// then blocks that only the host has. Counts as a use of every node on the way.
    pub(super) fn find(&mut self, tokens: &[u32], cut: Cut) -> Found {
        self.now += 1;
        let mut found = Found {
            device_end: NodeId::ROOT,
            end: NodeId::ROOT,
            n_device: 0,
            n_host: 0,
        };
        let mut rest = whole_blocks(tokens, self.block_tokens);
        while let Some((next, n_common)) = self.step(found.end, rest) {
            let is_partial = n_common * self.block_tokens < self.node(next).tokens.len();
            let next = match cut {
                Cut::Yes if is_partial => self.split(next, n_common),
                _ => next,
            };
            self.touch(next);
            found.end = next;
            if self.node(next).is_on_device() {
                found.device_end = next;
                found.n_device += n_common;
            } else {
                found.n_host += n_common;
            }
            if is_partial {
                break;
            }
            rest = &rest[n_common * self.block_tokens..];
        }
        found
    }

    /// The child of `node` that goes on like `tokens`, and for how many blocks.
    fn step(&self, node: NodeId, tokens: &[u32]) -> Option<(NodeId, usize)> {
        let first = tokens.get(..self.block_tokens)?;
        let next = *self.node(node).children.get(first)?;
        let n_common = common_prefix(&self.node(next).tokens, tokens) / self.block_tokens;
        Some((next, n_common))
    }

    /// Puts `tokens`, whole blocks of them, and the device blocks in which they lie into the tree.
    /// Where the tree has a block of its own for the same tokens, `blocks` gets that one, and the
    /// one it replaces goes to `duplicates`. Returns the nodes of the path, from the root down.
    pub(super) fn insert(
        &mut self,
        tokens: &[u32],
        blocks: &mut [BlockId],
        duplicates: &mut Vec<BlockId>,
    ) -> Vec<NodeId> {
        self.now += 1;
        let mut path = Vec::new();
        let (mut end, mut rest, mut at) = (NodeId::ROOT, tokens, 0);
        while let Some((mut next, n_common)) = self.step(end, rest) {
            if n_common * self.block_tokens < self.node(next).tokens.len() {
                next = self.split(next, n_common);
            }
            self.touch(next);
            let table = &mut blocks[at..at + n_common];
            if self.node(next).is_on_device() {
                let kept = &self.nodes[next.0].device;
                for (ours, kept) in table.iter_mut().zip(kept).filter(|(a, b)| a != b) {
                    duplicates.push(std::mem::replace(ours, *kept));
                }
            } else {
                self.attach(next, table.to_vec());
            }
            path.push(next);
            end = next;
            at += n_common;
            rest = &rest[n_common * self.block_tokens..];
        }
        if !rest.is_empty() {
            path.push(self.add_leaf(end, rest, blocks[at..].to_vec()));
        }
        path
    }

    fn add_leaf(&mut self, parent: NodeId, tokens: &[u32], device: Vec<BlockId>) -> NodeId {
        let node = Node::new(parent, tokens.to_vec(), self.now);
        let id = NodeId(self.nodes.insert(node));
        let first = tokens[..self.block_tokens].into();
        self.node_mut(parent).children.insert(first, id);
        self.relist(parent);
        self.attach(id, device);
        id
    }

    /// Cuts the first `n_blocks` of `id` off into a node of their own, which becomes its parent.
    fn split(&mut self, id: NodeId, n_blocks: usize) -> NodeId {
        let n_tokens = n_blocks * self.block_tokens;
        let node = &mut self.nodes[id.0];
        let rest = node.tokens.split_off(n_tokens);
        let tokens = std::mem::replace(&mut node.tokens, rest);
        let mut upper = Node::new(node.parent, tokens, node.last_used);
        upper.device = take_front(&mut node.device, n_blocks);
        upper.host = take_front(&mut node.host, n_blocks);
        upper.n_locks = node.n_locks;
        upper.n_hits = node.n_hits;
        upper.n_device_children = usize::from(node.is_on_device());
        let parent = node.parent;
        let key = node.tokens[..self.block_tokens].into();
        upper.children.insert(key, id);
        let first = upper.tokens[..self.block_tokens].into();
        let upper = NodeId(self.nodes.insert(upper));
        self.node_mut(id).parent = upper;
        self.node_mut(parent).children.insert(first, upper);
        upper
    }

    /// Gives a node that has none its device blocks.
    pub(super) fn attach(&mut self, id: NodeId, device: Vec<BlockId>) {
        match self.node(id).n_locks {
            0 => self.n_evictable += device.len(),
            _ => self.n_protected += device.len(),
        }
        self.node_mut(id).device = device;
        let parent = self.node(id).parent;
        self.node_mut(parent).n_device_children += 1;
        self.relist(parent);
        self.relist(id);
    }

    /// Takes the device blocks of an unlocked leaf of the device.
    pub(super) fn detach(&mut self, id: NodeId) -> Vec<BlockId> {
        let device = std::mem::take(&mut self.node_mut(id).device);
        self.n_evictable -= device.len();
        let parent = self.node(id).parent;
        self.node_mut(parent).n_device_children -= 1;
        self.relist(parent);
        self.relist(id);
        device
    }

    /// Forgets a node that lies on no device, with everything below it; its host blocks go to
    /// `freed`.
    pub(super) fn remove(&mut self, id: NodeId, freed: &mut Vec<HostBlockId>) {
        let parent = self.node(id).parent;
        let first: Box<[u32]> = self.node(id).tokens[..self.block_tokens].into();
        self.node_mut(parent).children.remove(&first);
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            self.list(id, Listed::Nowhere);
            let node = self.nodes.remove(id.0);
            freed.extend(node.host);
            doomed.extend(node.children.into_values());
        }
        self.relist(parent);
    }

    /// Protects a node and all its ancestors from eviction, once more.
    pub(super) fn lock(&mut self, id: NodeId) {
        let mut at = id;
        while at != NodeId::ROOT {
            let node = &mut self.nodes[at.0];
            node.n_locks += 1;
            let (is_first, n_blocks, parent) = (node.n_locks == 1, node.device.len(), node.parent);
            if is_first {
                self.n_evictable -= n_blocks;
                self.n_protected += n_blocks;
                self.relist(at);
            }
            at = parent;
        }
    }

    /// Undoes one [`RadixTree::lock`].
    pub(super) fn unlock(&mut self, id: NodeId) {
        let mut at = id;
        while at != NodeId::ROOT {
            let node = &mut self.nodes[at.0];
            node.n_locks -= 1;
            let (is_last, n_blocks, parent) = (node.n_locks == 0, node.device.len(), node.parent);
            if is_last {
                self.n_protected -= n_blocks;
                self.n_evictable += n_blocks;
                self.relist(at);
            }
            at = parent;
        }
    }

    /// The leaf of the device that goes next.
    pub(super) fn oldest_device_leaf(&self) -> Option<NodeId> {
        self.device_leaves.first().map(|(_, id)| *id)
    }

    /// The leaf of the host that goes next: it lies nowhere else, and nothing lies below it.
    pub(super) fn oldest_host_leaf(&self) -> Option<NodeId> {
        self.host_leaves.first().map(|(_, id)| *id)
    }

    /// The device blocks from the root to `id`, in the order of their tokens.
    pub(super) fn device_blocks(&self, id: NodeId) -> Vec<BlockId> {
        let path = self.path(id);
        let nodes = path.iter().rev();
        nodes
            .flat_map(|id| self.node(*id).device.iter().copied())
            .collect()
    }

    /// `id` and its ancestors without the root, from below.
    pub(super) fn path(&self, id: NodeId) -> Vec<NodeId> {
        let up = |id: &NodeId| Some(self.node(*id).parent);
        let nodes = std::iter::successors(Some(id), up);
        nodes.take_while(|id| *id != NodeId::ROOT).collect()
    }

    /// Checks that every node stands in the list in which it belongs, and nothing else in any.
    ///
    /// # Panics
    /// When that is not so.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_lists(&self) {
        let (mut n_device, mut n_host) = (0, 0);
        for (id, node) in self.iter() {
            assert_eq!(node.listed, node.wanted_list(), "list of {id:?}");
            match node.listed {
                Listed::Nowhere => {}
                Listed::Device(at) => {
                    assert!(self.device_leaves.contains(&(at, id)), "{id:?}");
                    n_device += 1;
                }
                Listed::Host(at) => {
                    assert!(self.host_leaves.contains(&(at, id)), "{id:?}");
                    n_host += 1;
                }
            }
        }
        let n_listed = (self.device_leaves.len(), self.host_leaves.len());
        assert_eq!(n_listed, (n_device, n_host), "lists hold something else");
    }

    fn touch(&mut self, id: NodeId) {
        self.nodes[id.0].last_used = self.now;
        self.relist(id);
    }

    /// Puts a node into the list in which it belongs now.
    pub(super) fn relist(&mut self, id: NodeId) {
        if id != NodeId::ROOT {
            self.list(id, self.node(id).wanted_list());
        }
    }

    fn list(&mut self, id: NodeId, wanted: Listed) {
        let listed = std::mem::replace(&mut self.node_mut(id).listed, wanted);
        if listed == wanted {
            return;
        }
        match listed {
            Listed::Nowhere => true,
            Listed::Device(at) => self.device_leaves.remove(&(at, id)),
            Listed::Host(at) => self.host_leaves.remove(&(at, id)),
        };
        match wanted {
            Listed::Nowhere => true,
            Listed::Device(at) => self.device_leaves.insert((at, id)),
            Listed::Host(at) => self.host_leaves.insert((at, id)),
        };
    }
}

/// The longest beginning of `tokens` that fills whole blocks.
pub(super) fn whole_blocks(tokens: &[u32], block_tokens: usize) -> &[u32] {
    &tokens[..tokens.len() / block_tokens * block_tokens]
}

/// Tokens that both begin with. Compares in strides, which the compiler turns into few
/// instructions each: prompts agree for thousands of tokens.
fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    const STRIDE: usize = 64;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let start = STRIDE * strides.take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}

fn take_front<T>(all: &mut Vec<T>, n: usize) -> Vec<T> {
    let rest = all.split_off(n.min(all.len()));
    std::mem::replace(all, rest)
}
