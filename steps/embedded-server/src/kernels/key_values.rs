//! The paged cache of keys and values of one layer, in the order that attention reads.
//!
//! Keys are stored transposed within their block and head, so that neighbouring floats are
//! neighbouring *keys*. It knows no sequence: block tables are the caller's.

use super::{Buffer, LANES, padded};
use crate::executor::BlockId;
use std::ops::Range;

/// The extent of one layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyValueShape {
    pub(crate) n_blocks: usize,
    pub(crate) block_tokens: usize,
    pub(crate) n_heads: usize,
    pub(crate) head_dim: usize,
}

impl KeyValueShape {
    /// Floats of keys per block and head, `[head_dim, block_tokens]`.
    pub(super) fn key_stride(self) -> usize {
        self.head_dim * self.block_tokens
    }

    /// Floats of values per block and head, `[block_tokens, padded head_dim]`.
    pub(super) fn value_stride(self) -> usize {
        self.block_tokens * padded(self.head_dim)
    }

    /// Floats of keys and values per block, all heads together.
    pub(crate) fn block_floats(self) -> usize {
        self.n_heads * (self.key_stride() + self.value_stride())
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) struct KeyValues {
    shape: KeyValueShape,
    /// `[n_blocks, n_heads, head_dim, block_tokens]`, and one vector that reads may run into.
    keys: Buffer,
    /// `[n_blocks, n_heads, block_tokens, padded head_dim]`.
    values: Buffer,
}

impl KeyValues {
    pub(crate) fn new(shape: KeyValueShape) -> Self {
        let heads = shape.n_blocks * shape.n_heads;
        KeyValues {
            shape,
            keys: Buffer::zeroed(heads * shape.key_stride() + LANES),
            values: Buffer::zeroed(heads * shape.value_stride()),
        }
    }

    pub(super) fn shape(&self) -> KeyValueShape {
        self.shape
    }

    /// All keys, by (block, head) in units of [`KeyValueShape::key_stride`].
    pub(super) fn keys(&self) -> &[f32] {
        self.keys.as_slice()
    }

    /// All values, by (block, head) in units of [`KeyValueShape::value_stride`].
    pub(super) fn values(&self) -> &[f32] {
        self.values.as_slice()
    }

    /// Where the keys and where the values of a block lie.
    fn ranges(&self, block: BlockId) -> (Range<usize>, Range<usize>) {
        let (block, n_heads) = (block.0 as usize, self.shape.n_heads);
        let range = |stride: usize| block * n_heads * stride..(block + 1) * n_heads * stride;
        (
            range(self.shape.key_stride()),
            range(self.shape.value_stride()),
        )
    }

    /// Copies a block's keys and values out, `[block_floats]`.
    ///
    /// # Panics
    /// When there is no such block, or `floats` has another length.
    pub(crate) fn read_block(&self, block: BlockId, floats: &mut [f32]) {
        let (keys, values) = self.ranges(block);
        let (to_keys, to_values) = floats.split_at_mut(keys.len());
        to_keys.copy_from_slice(&self.keys.as_slice()[keys]);
        to_values.copy_from_slice(&self.values.as_slice()[values]);
    }

    /// Copies a block's keys and values in, `[block_floats]`.
    ///
    /// # Panics
    /// When there is no such block, or `floats` has another length.
    pub(crate) fn write_block(&mut self, block: BlockId, floats: &[f32]) {
        let (keys, values) = self.ranges(block);
        let (from_keys, from_values) = floats.split_at(keys.len());
        self.keys.as_mut_slice()[keys].copy_from_slice(from_keys);
        self.values.as_mut_slice()[values].copy_from_slice(from_values);
    }

    /// Stores the keys and values of one token, each `[n_heads * head_dim]`.
    ///
    /// # Panics
    /// When the slot or the lengths do not fit the cache.
    pub(crate) fn write(&mut self, block: BlockId, offset: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        assert!(offset < shape.block_tokens, "offset {offset} in a block");
        for head in 0..shape.n_heads {
            let of_head = head * shape.head_dim..(head + 1) * shape.head_dim;
            let slot = block.0 as usize * shape.n_heads + head;
            let columns = &mut self.keys.as_mut_slice()[slot * shape.key_stride()..];
            for (i, key) in keys[of_head.clone()].iter().enumerate() {
                columns[i * shape.block_tokens + offset] = *key;
            }
            let row = slot * shape.value_stride() + offset * padded(shape.head_dim);
            self.values.as_mut_slice()[row..row + shape.head_dim].copy_from_slice(&values[of_head]);
        }
    }
}
