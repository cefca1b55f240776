//! Which bytes of a checkpoint go where on a GPU.

use crate::messages::{MemCopyChunk, MemCopyChunkList};

/// Tensors one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What is copied.
    pub chunks: MemCopyChunkList,
    /// Bytes of memory that it takes.
    pub bytes: u64,
}

/// Puts tensors one behind the other with no space between, as the package's own client does. Each is given by
/// where it begins, counted through all partitions, and by its bytes; tied ones once.
///
/// Empty ones have no place: a copy of no bytes is the store's sign that there are no more.
#[must_use]
pub fn packed(tensors: impl IntoIterator<Item = (u64, u64)>) -> Packed {
    let mut chunks = Vec::new();
    let mut end = 0;
    for (src_offset, size) in tensors {
        if size == 0 {
            continue;
        }
        chunks.push(MemCopyChunk {
            src_offset,
            size,
            dst_offset: end,
            handle_idx: 0,
        });
        end += size;
    }
    Packed {
        chunks: MemCopyChunkList { chunks },
        bytes: end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_stand_close_and_empty_ones_nowhere() {
        let found = packed([(0, 10), (16, 0), (16, 3), (4096, 5)]);
        let places: Vec<_> = found
            .chunks
            .chunks
            .iter()
            .map(|chunk| (chunk.src_offset, chunk.size, chunk.dst_offset))
            .collect();
        assert_eq!(places, [(0, 10, 0), (16, 3, 10), (4096, 5, 13)]);
        assert_eq!(found.bytes, 18);
    }
}
