//! What a batch asks for: checked against the model and the cache, then one entry per token.
//!
//! It reads block tables and positions. It computes nothing.

use crate::executor::{Batch, BlockId, SequenceChunk, StepError};
use crate::images::embedded;

/// What a batch may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) vocab_size: usize,
    pub(super) max_positions: usize,
    pub(super) n_blocks: usize,
    pub(super) block_tokens: usize,
    pub(super) host_blocks: u32,
}

impl Limits {
    /// Checks a whole batch, so that a refused one has changed nothing.
    pub(super) fn check(&self, batch: &Batch<'_>) -> Result<(), StepError> {
        if batch.sequences.is_empty() {
            return Err(StepError::Empty);
        }
        for (index, sequence) in batch.sequences.iter().enumerate() {
            self.check_sequence(index, sequence)?;
        }
        Ok(())
    }

    fn check_sequence(&self, sequence: usize, chunk: &SequenceChunk<'_>) -> Result<(), StepError> {
        if chunk.tokens.is_empty() {
            return Err(StepError::Empty);
        }
        let needed = chunk.position.saturating_add(chunk.tokens.len());
        if needed > self.max_positions {
            let (position, max) = (needed - 1, self.max_positions);
            return Err(StepError::PositionOutOfRange { position, max });
        }
        // Slots count up to the first block that does not exist.
        let exists = |block: &&BlockId| (block.0 as usize) < self.n_blocks;
        let available = chunk.blocks.iter().take_while(exists).count() * self.block_tokens;
        if needed > available {
            return Err(StepError::BlockTable {
                sequence,
                needed,
                available,
            });
        }
        match chunk
            .tokens
            .iter()
            .find(|token| embedded(**token, self.vocab_size).is_none())
        {
            Some(&id) => Err(StepError::TokenOutOfRange {
                id,
                vocab_size: self.vocab_size,
            }),
            None => Ok(()),
        }
    }
}

/// One row of a step: a token, where it stands and where its keys and values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRow {
    pub(super) token: u32,
    pub(super) position: usize,
    pub(super) block: BlockId,
    /// Slot within the block.
    pub(super) offset: usize,
}

/// The rows of a checked batch, sequence after sequence.
pub(super) fn token_rows<'a>(
    batch: &'a Batch<'_>,
    block_tokens: usize,
) -> impl Iterator<Item = TokenRow> + 'a {
    batch.sequences.iter().flat_map(move |chunk| {
        chunk.tokens.iter().enumerate().map(move |(i, &token)| {
            let position = chunk.position + i;
            let block = chunk.blocks[position / block_tokens];
            TokenRow {
                token,
                position,
                block,
                offset: position % block_tokens,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Phase;

    const LIMITS: Limits = Limits {
        vocab_size: 10,
        max_positions: 12,
        n_blocks: 8,
        block_tokens: 4,
        host_blocks: 0,
    };

    fn check(tokens: &[u32], position: usize, blocks: &[u32]) -> Result<(), StepError> {
        let blocks: Vec<_> = blocks.iter().copied().map(BlockId).collect();
        let chunk = SequenceChunk {
            tokens,
            position,
            blocks: &blocks,
            wants_logits: true,
        };
        LIMITS.check(&Batch {
            phase: Phase::Prefill,
            sequences: vec![chunk],
        })
    }

    #[test]
    fn sound_batches_pass_and_others_are_named() {
        assert_eq!(check(&[9], 11, &[0, 7, 3]), Ok(()));
        assert_eq!(check(&[], 0, &[0]), Err(StepError::Empty));
        assert_eq!(
            check(&[10], 0, &[0]),
            Err(StepError::TokenOutOfRange {
                id: 10,
                vocab_size: 10
            })
        );
        assert_eq!(
            check(&[1, 2], 11, &[0, 1, 2, 3]),
            Err(StepError::PositionOutOfRange {
                position: 12,
                max: 12
            })
        );
        let table = |needed, available| {
            Err(StepError::BlockTable {
                sequence: 0,
                needed,
                available,
            })
        };
        assert_eq!(check(&[1, 2], 3, &[0]), table(5, 4));
        assert_eq!(check(&[1, 2], 3, &[0, 8]), table(5, 4));
        let none = Batch {
            phase: Phase::Decode,
            sequences: vec![],
        };
        assert_eq!(LIMITS.check(&none), Err(StepError::Empty));
    }

    #[test]
    fn blocks_beyond_what_is_needed_are_not_looked_at() {
        assert_eq!(check(&[1], 0, &[0, 99]), Ok(()));
    }

    #[test]
    fn rows_follow_the_block_table() {
        let blocks = [BlockId(5), BlockId(2)];
        let chunk = SequenceChunk {
            tokens: &[7, 8],
            position: 3,
            blocks: &blocks,
            wants_logits: false,
        };
        let batch = Batch {
            phase: Phase::Prefill,
            sequences: vec![chunk],
        };
        let row = |token, position, block, offset| TokenRow {
            token,
            position,
            block: BlockId(block),
            offset,
        };
        let rows: Vec<_> = token_rows(&batch, 4).collect();
        assert_eq!(rows, [row(7, 3, 5, 3), row(8, 4, 2, 0)]);
    }
}
