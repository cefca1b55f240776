//! What one forward pass of a fixed batch has to do: tokens, and pairs of tokens that attend. Knows no
//! model but its windows.

use models::{DecoderShape, Window};
use std::num::NonZeroU32;

/// A phase of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// All tokens of prompts at once, nothing cached.
    Prefill,
    /// One token of each sequence behind those in the cache.
    Decode,
}

impl Phase {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// A batch of sequences of one length in one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// The phase.
    pub phase: Phase,
    /// Sequences, of all ranks together.
    pub batch: NonZeroU32,
    /// Tokens of each: those of the prompt (prefill), or those in the cache before the step (decode).
    pub length: NonZeroU32,
}

impl Work {
    /// Tokens that each sequence computes.
    #[must_use]
    pub fn new_tokens(&self) -> u64 {
        match self.phase {
            Phase::Prefill => self.length.get().into(),
            Phase::Decode => 1,
        }
    }

    /// Tokens of each sequence that are in the cache afterwards.
    #[must_use]
    pub fn context(&self) -> u64 {
        match self.phase {
            Phase::Prefill => self.length.get().into(),
            Phase::Decode => u64::from(self.length.get()) + 1,
        }
    }

    /// Pairs of tokens of one sequence of which one attends to the other, summed over layers:
    /// `A = qn − q²/2 + q/2` where nothing is cut off, and `Σ min(position, W)` in layers of a window.
    #[must_use]
    pub fn causal_pairs(&self, shape: &DecoderShape) -> f64 {
        let (new, context) = (self.new_tokens(), self.context());
        let past = context - new;
        self.by_layers(shape, |window| {
            reached(context, window) - reached(past, window)
        })
    }

    /// The same if what a mask hides is computed as well: every new token with every token that is there.
    #[must_use]
    pub fn all_pairs(&self, shape: &DecoderShape) -> f64 {
        let (new, context) = (self.new_tokens() as f64, self.context() as f64);
        self.by_layers(shape, |window| match self.phase {
            Phase::Prefill => new * context,
            Phase::Decode => context.min(window),
        })
    }

    /// Tokens of one sequence whose keys and values are read, summed over layers; each once, which is the
    /// least that prefill can do.
    #[must_use]
    pub fn tokens_read(&self, shape: &DecoderShape) -> f64 {
        let context = self.context() as f64;
        self.by_layers(shape, |window| match self.phase {
            Phase::Prefill => context,
            Phase::Decode => context.min(window),
        })
    }

    fn by_layers(&self, shape: &DecoderShape, of_layer: impl Fn(f64) -> f64) -> f64 {
        let Window { tokens, n_layers } = shape.window.unwrap_or(Window {
            tokens: 1,
            n_layers: 0,
        });
        let whole = shape.n_layers.saturating_sub(n_layers) as f64;
        n_layers as f64 * of_layer(tokens as f64) + whole * of_layer(f64::INFINITY)
    }
}

/// `Σ min(position, window)` over positions from 1 to `last`.
fn reached(last: u64, window: f64) -> f64 {
    let last = last as f64;
    let rising = last.min(window);
    let beyond = (last - rising) * if rising < last { window } else { 0.0 };
    rising * (rising + 1.0) / 2.0 + beyond
}

/// What a server does that it need not: padding, logits that nobody asks for, pairs behind the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executed {
    /// Sequences of the batch that is run, padding included; at least those that are there.
    pub batch: NonZeroU32,
    /// Which pairs are computed.
    pub pairs: Pairs,
    /// Which tokens get logits.
    pub logits: Logits,
}

impl Executed {
    /// What has to be done and nothing else.
    #[must_use]
    pub fn only(work: &Work) -> Self {
        Self {
            batch: work.batch,
            pairs: Pairs::Causal,
            logits: Logits::Last,
        }
    }
}

/// Pairs of tokens for which scores are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Those that the mask leaves.
    Causal,
    /// All of them.
    All,
}

/// Tokens that pass the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// The last of each sequence.
    Last,
    /// All that are computed.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::Attention;

    fn work(phase: Phase, length: u32) -> Work {
        Work {
            phase,
            batch: NonZeroU32::MIN,
            length: NonZeroU32::new(length).expect("not zero"),
        }
    }

    fn shape(n_layers: u64, window: Option<Window>) -> DecoderShape {
        DecoderShape {
            hidden: 8,
            n_layers,
            vocab: 16,
            attention: Attention::Heads {
                heads: 2,
                kv_heads: 1,
                head_dim: 4,
            },
            window,
        }
    }

    #[test]
    fn pairs_are_those_that_counting_one_by_one_finds() {
        for window in [None, Some(1), Some(5), Some(64)] {
            let layers = window.map(|tokens| Window {
                tokens,
                n_layers: 2,
            });
            let shape = shape(3, layers);
            for length in [1_u32, 4, 5, 6, 33] {
                let one_by_one = |first: u64, last: u64| -> u64 {
                    let windowed: u64 = (first..=last).map(|p| p.min(window.unwrap_or(p))).sum();
                    let whole: u64 = (first..=last).sum();
                    2 * windowed + whole
                };
                let length_u64 = u64::from(length);
                let prefill = work(Phase::Prefill, length).causal_pairs(&shape);
                assert_eq!(
                    prefill,
                    one_by_one(1, length_u64) as f64,
                    "{window:?} {length}"
                );
                let decode = work(Phase::Decode, length).causal_pairs(&shape);
                let last = length_u64 + 1;
                assert_eq!(decode, one_by_one(last, last) as f64, "{window:?} {length}");
                // A decode step reads what it attends to.
                let read = work(Phase::Decode, length).tokens_read(&shape);
                assert_eq!(read, decode);
            }
        }
    }

    #[test]
    fn a_mask_that_hides_nothing_saves_half_of_a_prompt() {
        let shape = shape(1, None);
        let prefill = work(Phase::Prefill, 100);
        assert_eq!(prefill.causal_pairs(&shape), 5050.0);
        assert_eq!(prefill.all_pairs(&shape), 10_000.0);
        let decode = work(Phase::Decode, 100);
        assert_eq!(decode.causal_pairs(&shape), decode.all_pairs(&shape));
    }
}
