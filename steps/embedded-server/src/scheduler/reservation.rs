//! How much room running sequences are expected to need.
//!
//! Reserving every output in full would leave most of the cache empty; reserving nothing would
//! retract all the time. The expected share starts high, decays while all goes well, and is reset
//! from what was seen whenever a sequence had to be retracted.

use super::Sequence;
use crate::cache::BlockAllocator;

/// Longest output that is reserved in full; a client that allows more rarely uses it.
const MAX_RESERVED_TOKENS: usize = 4096;
/// Share of the remaining output that is reserved at first.
const INITIAL_RATIO: f64 = 0.7;
/// What is left of that after [`DECAY_STEPS`] decode steps without a retraction.
const MIN_SHARE: f64 = 0.14;
/// Decode steps from the first to the smallest share.
const DECAY_STEPS: f64 = 600.0;
/// After a retraction, every sequence is expected to write at least so many more tokens.
const RETRACTION_MARGIN_TOKENS: usize = 20;

/// The share of their remaining output that running sequences are expected to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reservation {
    ratio: f64,
    min: f64,
    step: f64,
}

impl Reservation {
    /// The share at the beginning; above 1 `conservativeness` raises it, below 1 it lowers it.
    pub(super) fn new(conservativeness: f64) -> Self {
        let initial = (INITIAL_RATIO * conservativeness).clamp(0.0, 1.0);
        let min = MIN_SHARE * initial;
        Reservation {
            ratio: initial,
            min,
            step: (initial - min) / DECAY_STEPS,
        }
    }

    /// Blocks that `running` is expected to take beyond those it holds.
    pub(super) fn blocks(self, running: &[Sequence], blocks: &BlockAllocator) -> usize {
        let expected = |sequence: &Sequence| {
            let most = at_admission(sequence);
            let ratio = if sequence.writes_all { 1.0 } else { self.ratio };
            // At most 4096 and never negative.
            let growth = (most as f64 * ratio).ceil() as usize;
            let needed = blocks.blocks_for(sequence.tokens.len() + growth);
            needed.saturating_sub(sequence.blocks().len())
        };
        running.iter().map(expected).sum()
    }

    /// One more decode step went well.
    pub(super) fn decay(&mut self) {
        self.ratio = (self.ratio - self.step).max(self.min);
    }

    /// Sequences had to be retracted: expects of the others what they have written so far.
    pub(super) fn learn(&mut self, running: &[Sequence]) {
        let n_written: usize = running.iter().map(Sequence::n_outputs).sum();
        let n_allowed: usize = running.iter().map(|sequence| sequence.max_tokens).sum();
        let n_expected = n_written + RETRACTION_MARGIN_TOKENS * running.len();
        self.ratio = (n_expected as f64 / (n_allowed + 1) as f64).clamp(self.min, 1.0);
    }
}

/// Output tokens that a sequence reserves when it is admitted.
pub(super) fn at_admission(sequence: &Sequence) -> usize {
    sequence.n_left_to_write().min(MAX_RESERVED_TOKENS)
}
