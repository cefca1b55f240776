//! What can never be served is refused before it waits.

use crate::executor::CacheShape;

/// The sizes that every request must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// Prompt and output tokens that the model takes together.
    pub context_length: usize,
    /// Tokens that the cache holds.
    pub cache_tokens: usize,
}

impl Door {
    /// The door of a model with `context_length` over a cache of `shape`.
    #[must_use]
    pub fn new(context_length: usize, shape: CacheShape) -> Self {
        let cache_tokens = shape.n_blocks as usize * shape.block_tokens as usize;
        Door {
            context_length,
            cache_tokens,
        }
    }

    /// Output tokens that fit after a prompt: 0 when there is no room for any.
    #[must_use]
    pub fn room(&self, n_prompt: usize) -> usize {
        self.context_length
            .min(self.cache_tokens)
            .saturating_sub(n_prompt)
    }

    /// Whether a request of this size can run, alone if need be.
    ///
    /// # Errors
    /// [`Refusal`], naming the size that is too small.
    pub fn check(&self, n_prompt: usize, max_tokens: usize) -> Result<(), Refusal> {
        if n_prompt == 0 {
            return Err(Refusal::EmptyPrompt);
        }
        let total = n_prompt.saturating_add(max_tokens);
        if total > self.context_length {
            return Err(Refusal::ContextLength {
                n_prompt,
                max_tokens,
                limit: self.context_length,
            });
        }
        if total > self.cache_tokens {
            return Err(Refusal::CacheTokens {
                n_prompt,
                max_tokens,
                limit: self.cache_tokens,
            });
        }
        Ok(())
    }
}

/// Why a request can never be served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to start from.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// Longer than the model's context.
    #[error(
        "{n_prompt} prompt tokens and {max_tokens} output tokens exceed the context length of \
         {limit} tokens; shorten the prompt or lower `max_tokens`"
    )]
    ContextLength {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// Larger than the whole cache.
    #[error(
        "{n_prompt} prompt tokens and {max_tokens} output tokens exceed the whole key-value cache \
         of {limit} tokens; raise `max_total_tokens` or lower `max_tokens`"
    )]
    CacheTokens {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens of the cache.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_refuses_in_its_own_words() {
        let shape = CacheShape {
            n_blocks: 4,
            block_tokens: 16,
            bytes_per_token: 1,
        };
        let door = Door::new(100, shape);
        assert_eq!(door.check(0, 1), Err(Refusal::EmptyPrompt));
        assert_eq!(door.check(32, 32), Ok(()));
        assert!(matches!(
            door.check(33, 32),
            Err(Refusal::CacheTokens { limit: 64, .. })
        ));
        assert!(matches!(
            door.check(100, 1),
            Err(Refusal::ContextLength { limit: 100, .. })
        ));
        assert!(matches!(
            door.check(1, usize::MAX),
            Err(Refusal::ContextLength { .. })
        ));
        assert_eq!((door.room(10), door.room(64), door.room(65)), (54, 0, 0));
    }
}
