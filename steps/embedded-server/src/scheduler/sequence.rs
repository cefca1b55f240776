//! One sequence as the scheduler sees it: token counts and a lease of cache blocks.

use crate::cache::Lease;
use crate::executor::BlockId;

/// Names a sequence for as long as the server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// A sequence that asks to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSequence {
    /// Its name.
    pub id: SequenceId,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Tokens it may write, at least one.
    pub max_tokens: usize,
    /// Whether it will write all of them, rather than end where the model ends.
    pub writes_all: bool,
}

/// A sequence that waits or runs.
#[derive(Debug)]
pub struct Sequence {
    pub(super) id: SequenceId,
    /// The prompt, then every sampled token.
    pub(super) tokens: Vec<u32>,
    pub(super) n_prompt: usize,
    pub(super) max_tokens: usize,
    pub(super) writes_all: bool,
    /// How many of `tokens` lie in the cache.
    pub(super) n_computed: usize,
    /// How many of `tokens` were there when it was admitted.
    pub(super) n_to_prefill: usize,
    /// While it runs.
    pub(super) lease: Option<Lease>,
    /// Whether it ran before and was retracted.
    pub(super) has_run: bool,
}

impl Sequence {
    pub(super) fn new(new: NewSequence) -> Self {
        Sequence {
            id: new.id,
            n_prompt: new.prompt.len(),
            tokens: new.prompt,
            max_tokens: new.max_tokens,
            writes_all: new.writes_all,
            n_computed: 0,
            n_to_prefill: 0,
            lease: None,
            has_run: false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Tokens sampled so far.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.tokens.len() - self.n_prompt
    }

    /// Tokens it may still write.
    pub(super) fn n_left_to_write(&self) -> usize {
        self.max_tokens.saturating_sub(self.n_outputs())
    }

    /// The block table; empty while it waits.
    pub(super) fn blocks(&self) -> &[BlockId] {
        self.lease.as_ref().map_or(&[], Lease::blocks)
    }

    /// What lies in the cache.
    pub(super) fn computed(&self) -> &[u32] {
        &self.tokens[..self.n_computed]
    }

    /// Everything known and not cached is computed before the next token: after a retraction,
    /// outputs too.
    pub(super) fn start_prefill(&mut self, lease: Lease, n_cached: usize) {
        self.n_computed = n_cached;
        self.n_to_prefill = self.tokens.len();
        self.lease = Some(lease);
        self.has_run = true;
    }

    /// Back to the queue.
    pub(super) fn stop(&mut self) -> Option<Lease> {
        self.n_computed = 0;
        self.n_to_prefill = 0;
        self.lease.take()
    }

    pub(super) fn n_left_to_prefill(&self) -> usize {
        self.n_to_prefill.saturating_sub(self.n_computed)
    }

    pub(super) fn is_prefilling(&self) -> bool {
        self.n_left_to_prefill() > 0
    }
}
