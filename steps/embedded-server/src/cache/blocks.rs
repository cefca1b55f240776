//! The book of which blocks of the paged key-value cache are free.
//!
//! It hands out block numbers and takes them back. It knows no sequence, no token and no memory:
//! the executor owns the buffers, leases and the prefix tree own what was handed out.

use crate::executor::{BlockId, CacheShape, HostBlockId};

/// The number of a block in one of the memories.
pub trait BlockNumber: Copy + std::fmt::Debug {
    /// The block with this number.
    fn of(number: u32) -> Self;
    /// Its number.
    fn number(self) -> u32;
}

impl BlockNumber for BlockId {
    fn of(number: u32) -> Self {
        BlockId(number)
    }

    fn number(self) -> u32 {
        self.0
    }
}

impl BlockNumber for HostBlockId {
    fn of(number: u32) -> Self {
        HostBlockId(number)
    }

    fn number(self) -> u32 {
        self.0
    }
}

/// Free blocks of a paged cache.
///
/// Blocks come back in any order and are handed out last-in first-out, so that a lightly loaded
/// server keeps reusing the same, already mapped memory.
#[derive(Debug, Clone)]
pub struct BlockAllocator<B = BlockId> {
    free: Vec<B>,
    is_free: Vec<bool>,
    block_tokens: usize,
}

impl BlockAllocator<BlockId> {
    /// An allocator in which every block of `shape` is free.
    #[must_use]
    pub fn new(shape: CacheShape) -> Self {
        Self::of_blocks(shape.n_blocks, shape.block_tokens as usize)
    }
}

impl<B: BlockNumber> BlockAllocator<B> {
    /// An allocator in which so many blocks are free.
    #[must_use]
    pub fn of_blocks(n_blocks: u32, block_tokens: usize) -> Self {
        BlockAllocator {
            free: (0..n_blocks).rev().map(B::of).collect(),
            is_free: vec![true; n_blocks as usize],
            block_tokens: block_tokens.max(1),
        }
    }

    /// Tokens per block.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks that `n_tokens` tokens of one sequence occupy.
    #[must_use]
    pub fn blocks_for(&self, n_tokens: usize) -> usize {
        n_tokens.div_ceil(self.block_tokens)
    }

    /// Blocks in all.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.is_free.len()
    }

    /// Blocks that can be taken now.
    #[must_use]
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Tokens that the whole cache holds.
    #[must_use]
    pub fn capacity_tokens(&self) -> usize {
        self.n_blocks() * self.block_tokens
    }

    /// Lengthens `table` until it covers `n_tokens`; takes all the blocks that needs or none.
    ///
    /// # Errors
    /// [`CacheFull`] when too few blocks are free; `table` is unchanged then.
    pub fn grow(&mut self, table: &mut Vec<B>, n_tokens: usize) -> Result<(), CacheFull> {
        let wanted = self.blocks_for(n_tokens).saturating_sub(table.len());
        if wanted > self.free.len() {
            return Err(CacheFull {
                wanted,
                free: self.free.len(),
            });
        }
        for block in self.free.drain(self.free.len() - wanted..).rev() {
            self.is_free[block.number() as usize] = false;
            table.push(block);
        }
        Ok(())
    }

    /// Takes every block of `table` back and leaves it empty.
    ///
    /// # Panics
    /// When a block is free already or does not exist: two sequences would then write to the same
    /// memory, and a wrong token is worse than a dead server.
    pub fn release(&mut self, table: &mut Vec<B>) {
        for block in table.drain(..).rev() {
            let is_free = &mut self.is_free[block.number() as usize];
            assert!(!*is_free, "block {} was released twice", block.number());
            *is_free = true;
            self.free.push(block);
        }
    }
}

/// Too few blocks are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} more cache blocks are needed, {free} are free")]
pub struct CacheFull {
    /// Blocks asked for.
    pub wanted: usize,
    /// Blocks free.
    pub free: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn shape(n_blocks: u32, block_tokens: u32) -> CacheShape {
        CacheShape {
            n_blocks,
            block_tokens,
            bytes_per_token: 1,
        }
    }

    #[test]
    fn a_table_grows_by_whole_blocks_and_all_or_nothing() {
        let mut blocks = BlockAllocator::new(shape(3, 4));
        let mut table = Vec::new();
        blocks.grow(&mut table, 5).unwrap();
        assert_eq!((table.len(), blocks.n_free()), (2, 1));
        blocks.grow(&mut table, 8).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(
            blocks.grow(&mut table, 17),
            Err(CacheFull { wanted: 3, free: 1 })
        );
        assert_eq!((table.len(), blocks.n_free()), (2, 1));
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn releasing_twice_is_refused() {
        let mut blocks = BlockAllocator::new(shape(2, 4));
        let mut table = Vec::new();
        blocks.grow(&mut table, 4).unwrap();
        let mut copy = table.clone();
        blocks.release(&mut table);
        blocks.release(&mut copy);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Grow(usize, usize),
        Release(usize),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0..6usize, 0..40usize).prop_map(|(table, tokens)| Op::Grow(table, tokens)),
            (0..6usize).prop_map(Op::Release),
        ];
        proptest::collection::vec(op, 0..200)
    }

    proptest! {
        #[test]
        fn no_block_has_two_owners_and_all_come_back(n in 0u32..24, size in 1u32..9, ops in ops()) {
            let mut blocks = BlockAllocator::new(shape(n, size));
            let mut tables: Vec<Vec<BlockId>> = vec![Vec::new(); 6];
            for op in ops {
                match op {
                    Op::Grow(table, tokens) => {
                        let before = tables[table].clone();
                        match blocks.grow(&mut tables[table], tokens) {
                            Ok(()) => {
                                prop_assert!(tables[table].len() * size as usize >= tokens);
                                prop_assert!(tables[table].starts_with(&before));
                            }
                            Err(_) => prop_assert_eq!(&tables[table], &before),
                        }
                    }
                    Op::Release(table) => blocks.release(&mut tables[table]),
                }
                let owned: Vec<_> = tables.iter().flatten().collect();
                let distinct: HashSet<_> = owned.iter().collect();
                prop_assert_eq!(distinct.len(), owned.len());
                prop_assert_eq!(owned.len() + blocks.n_free(), n as usize);
                prop_assert!(owned.iter().all(|block| block.0 < n));
            }
            tables.iter_mut().for_each(|table| blocks.release(table));
            prop_assert_eq!(blocks.n_free(), n as usize);
        }
    }
}
