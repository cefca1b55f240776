//! Host memory behind the cache: whole blocks of all layers, copied there and back.

use crate::executor::{BlockId, Direction, HostBlockId};
use crate::kernels::{Buffer, KeyValueShape, KeyValues};

/// Blocks in host memory, each with the keys and values of every layer, one after the other.
#[derive(Debug, Default)]
pub(super) struct HostMemory {
    data: Buffer,
    /// Floats of one block in one layer.
    layer_floats: usize,
    n_layers: usize,
}

impl HostMemory {
    pub(super) fn new(shape: KeyValueShape, n_blocks: u32, n_layers: usize) -> Self {
        let layer_floats = shape.block_floats();
        HostMemory {
            data: Buffer::zeroed(n_blocks as usize * n_layers * layer_floats),
            layer_floats,
            n_layers,
        }
    }

    /// Copies one block of all layers.
    ///
    /// # Panics
    /// When a block does not exist.
    pub(super) fn copy(
        &mut self,
        direction: Direction,
        cache: &mut [KeyValues],
        block: BlockId,
        host: HostBlockId,
    ) {
        let block_floats = self.n_layers * self.layer_floats;
        let start = host.0 as usize * block_floats;
        let floats = &mut self.data.as_mut_slice()[start..start + block_floats];
        let layers = floats.chunks_exact_mut(self.layer_floats).zip(cache);
        for (floats, layer) in layers {
            match direction {
                Direction::ToHost => layer.read_block(block, floats),
                Direction::ToDevice => layer.write_block(block, floats),
            }
        }
    }
}
