//! How files are cut into reads, and which parts of tensors each brings. Pure: knows no files.
//!
//! Every read begins and ends at multiples of the alignment, also past the end of a file, where the
//! kernel gives what is there. Whole files are read, so that a tensor lies in memory as it lies in its
//! file, and need not be copied.

use crate::contents::Contents;
use std::ops::Range;

/// The alignment of reads where the file system does not tell its own.
pub const ALIGNMENT: u64 = 4096;

/// Tensors that are packed begin at multiples of this, as the GPU's allocations do.
pub const PACKED: u64 = 256;

/// One read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Position of its file.
    pub file: usize,
    /// Where it begins there.
    pub offset: u64,
    /// Bytes of the file in it.
    pub bytes: u64,
    /// Bytes that are asked for: `bytes`, rounded up to the alignment.
    pub room: u64,
}

/// Every read of a checkpoint, in the order of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlan {
    /// The reads.
    pub blocks: Vec<Block>,
    /// Where each file begins in memory.
    pub bases: Vec<u64>,
    /// Bytes of memory that hold all blocks one after the other.
    pub bytes: u64,
}

impl BlockPlan {
    /// Cuts files of `lengths` bytes into blocks of at most `block` bytes, which is a multiple of `alignment`.
    ///
    /// # Panics
    /// If `alignment` is 0, or `block` is no multiple of it.
    #[must_use]
    pub fn new(lengths: &[u64], block: u64, alignment: u64) -> Self {
        assert!(
            block > 0 && block.is_multiple_of(alignment),
            "{block} by {alignment}"
        );
        let mut blocks = Vec::new();
        let mut bases = Vec::new();
        let mut at = 0;
        for (file, length) in lengths.iter().enumerate() {
            bases.push(at);
            let mut offset = 0;
            while offset < *length {
                let bytes = block.min(length - offset);
                let room = bytes.next_multiple_of(alignment);
                blocks.push(Block {
                    file,
                    offset,
                    bytes,
                    room,
                });
                offset += bytes;
                at += room;
            }
        }
        Self {
            blocks,
            bases,
            bytes: at,
        }
    }

    /// Where the bytes of a tensor lie in memory.
    #[must_use]
    pub fn place(&self, contents: &Contents, tensor: usize) -> Range<u64> {
        let tensor = &contents.tensors[tensor];
        // Only the last block of a file is rounded up, so within a file memory is as the file.
        let begin = self
            .bases
            .get(tensor.file)
            .map_or(0, |base| base + tensor.offset);
        begin..begin + tensor.bytes
    }
}

/// A piece of a block that goes to one place of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in its block.
    pub from: u64,
    /// Where it goes in the destination.
    pub to: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// A destination in which tensors stand one after the other, without headers and gaps of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// Where each tensor begins; tied ones at the same place.
    pub places: Vec<u64>,
    /// Bytes of the destination.
    pub bytes: u64,
    /// What of each block goes where, without what is between tensors.
    pub pieces: Vec<Vec<Piece>>,
}

impl Packing {
    /// Places the tensors of a checkpoint, in the order of their data.
    #[must_use]
    pub fn new(contents: &Contents, plan: &BlockPlan) -> Self {
        let mut packing = Self {
            places: Vec::with_capacity(contents.tensors.len()),
            bytes: 0,
            pieces: vec![Vec::new(); plan.blocks.len()],
        };
        // Tensors are in the order of blocks, so the first block of one is at or after that of the last.
        let mut first = 0;
        for (at, tensor) in contents.tensors.iter().enumerate() {
            if at > 0 && tensor.is_tied_to(&contents.tensors[at - 1]) {
                packing.places.push(packing.places[at - 1]);
                continue;
            }
            let begin = packing.bytes.next_multiple_of(PACKED);
            packing.places.push(begin);
            packing.bytes = begin + tensor.bytes;
            let (file, range) = (tensor.file, tensor.offset..tensor.offset + tensor.bytes);
            let is_before =
                |block: &Block| (block.file, block.offset + block.bytes) <= (file, range.start);
            while plan.blocks.get(first).is_some_and(is_before) {
                first += 1;
            }
            let rest = plan.blocks.iter().enumerate().skip(first);
            let within =
                rest.take_while(|(_, block)| block.file == file && block.offset < range.end);
            for (number, block) in within {
                let from = range.start.max(block.offset);
                let to = range.end.min(block.offset + block.bytes);
                let piece = Piece {
                    from: from - block.offset,
                    to: begin + (from - range.start),
                    bytes: to - from,
                };
                push(&mut packing.pieces[number], piece);
            }
        }
        packing
    }
}

/// Adds a piece, to the last one if it goes on from there.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    if piece.bytes == 0 {
        return;
    }
    if let Some(last) = pieces.last_mut()
        && last.from + last.bytes == piece.from
        && last.to + last.bytes == piece.to
    {
        last.bytes += piece.bytes;
        return;
    }
    pieces.push(piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataFile, Dtype, Format, Tensor};
    use std::path::PathBuf;

    fn contents(lengths: &[u64], tensors: &[(usize, u64, u64)]) -> Contents {
        let file = |bytes: &u64| DataFile {
            name: "f".to_owned(),
            bytes: *bytes,
        };
        let tensor = |(file, offset, bytes): &(usize, u64, u64)| Tensor {
            name: "t".to_owned(),
            dtype: Dtype::U8,
            shape: vec![*bytes],
            file: *file,
            offset: *offset,
            bytes: *bytes,
        };
        Contents {
            folder: PathBuf::new(),
            format: Format::Store,
            files: lengths.iter().map(file).collect(),
            tensors: tensors.iter().map(tensor).collect(),
        }
    }

    #[test]
    fn blocks_cover_every_byte_once_and_end_at_multiples() {
        for lengths in [
            vec![],
            vec![0],
            vec![1],
            vec![4096, 0, 8192 + 255],
            vec![40_000, 8],
        ] {
            let plan = BlockPlan::new(&lengths, 8192, 4096);
            let mut at = 0;
            for (file, length) in lengths.iter().enumerate() {
                let mut covered = 0;
                for block in plan.blocks.iter().filter(|block| block.file == file) {
                    assert_eq!((block.offset, block.offset % 4096), (covered, 0));
                    assert!(block.room % 4096 == 0 && block.room - block.bytes < 4096);
                    assert!(block.room <= 8192);
                    covered += block.bytes;
                    at += block.room;
                }
                assert_eq!(covered, *length);
            }
            assert_eq!(at, plan.bytes);
        }
    }

    #[test]
    fn pieces_of_neighbours_are_merged_and_tied_tensors_copied_once() {
        let tensors = [
            (0, 0, 512),
            (0, 512, 5000),
            (0, 512, 5000),
            (0, 5520, 0),
            (1, 8, 100),
        ];
        let contents = contents(&[8192, 300], &tensors);
        let plan = BlockPlan::new(&[8192, 300], 4096, 4096);
        let packing = Packing::new(&contents, &plan);
        assert_eq!(packing.places, [0, 512, 512, 5632, 5632]);
        assert_eq!(packing.bytes, 5732);
        let piece = |from, to, bytes| Piece { from, to, bytes };
        // 512 is a multiple of the packing, so the first two tensors are one piece.
        assert_eq!(packing.pieces[0], [piece(0, 0, 4096)]);
        assert_eq!(packing.pieces[1], [piece(0, 4096, 1416)]);
        assert_eq!(packing.pieces[2], [piece(8, 5632, 100)]);
        assert_eq!(plan.place(&contents, 4), 8200..8300);
    }
}
