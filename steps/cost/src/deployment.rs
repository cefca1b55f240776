//! How a model is spread over ranks, and what ranks tell each other. Knows no batch.
//!
//! The words are SGLang's: `tp` ranks hold the model together; with `dp` groups, attention is spread only
//! within each group, which has its own sequences; with `ep`, whole experts are spread over so many groups
//! of ranks, and each is cut within its group.

use crate::{Bytes, Class, Model};
use models::Attention;
use std::num::NonZeroU32;

/// How many ranks do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Ranks of the model.
    pub tp: NonZeroU32,
    /// Groups that experts are spread over.
    pub ep: NonZeroU32,
    /// Groups that sequences are spread over for attention.
    pub dp: NonZeroU32,
}

/// Why a model cannot be spread so: what was found, and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unfit {
    /// What does not fit what: a lowercase phrase.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Unfit {
    fn uneven(by: &str, ranks: u64, what: &str, size: u64) -> Self {
        Self {
            message: format!("`{by}` is {ranks}, which does not divide the {size} {what}"),
            help: format!("choose a divisor of {size}"),
        }
    }
}

impl Deployment {
    /// One rank.
    pub const SINGLE: Self = Self {
        tp: NonZeroU32::MIN,
        ep: NonZeroU32::MIN,
        dp: NonZeroU32::MIN,
    };

    /// Ranks, and so devices.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        self.tp.get().into()
    }

    /// Ranks that attention of one sequence is spread over.
    #[must_use]
    pub fn attention_ranks(&self) -> u64 {
        self.ranks() / self.groups()
    }

    /// Groups that sequences are spread over.
    pub(crate) fn groups(&self) -> u64 {
        self.dp.get().into()
    }

    /// Checks that `model` can be spread so.
    ///
    /// # Errors
    /// The first thing that does not divide what it has to.
    pub fn fits(&self, model: &Model) -> Result<(), Unfit> {
        let (tp, ep, dp) = (self.ranks(), u64::from(self.ep.get()), self.groups());
        for (name, groups) in [("ep", ep), ("dp", dp)] {
            if !tp.is_multiple_of(groups) {
                return Err(Unfit::uneven(name, groups, "ranks of `tp`", tp));
            }
        }
        let by = if dp > 1 { "tp / dp" } else { "tp" };
        let ranks = self.attention_ranks();
        let heads = model.shape.attention.heads();
        if !heads.is_multiple_of(ranks) {
            return Err(Unfit::uneven(by, ranks, "heads of queries", heads));
        }
        if let Attention::Heads { kv_heads, .. } = model.shape.attention
            && !kv_heads.is_multiple_of(ranks)
            && !ranks.is_multiple_of(kv_heads)
        {
            return Err(Unfit {
                message: format!(
                    "`{by}` is {ranks}, and {kv_heads} heads of keys can neither be spread nor repeated evenly over it"
                ),
                help: format!("choose a divisor or a multiple of {kv_heads}"),
            });
        }
        let experts = model.experts.map_or(0, |e| e.total);
        if ep > 1 && experts == 0 {
            return Err(Unfit {
                message: format!("`ep` is {ep}, and the model has no experts"),
                help: "leave `ep` out".to_owned(),
            });
        }
        if !experts.is_multiple_of(ep) {
            return Err(Unfit::uneven("ep", ep, "experts of a layer", experts));
        }
        self.cuts_widths(model)
    }

    fn cuts_widths(&self, model: &Model) -> Result<(), Unfit> {
        for (class, width) in &model.widths {
            let (by, ranks) = match class {
                Class::Experts => ("tp / ep", self.ranks() / u64::from(self.ep.get())),
                _ => ("tp", self.ranks()),
            };
            if !width.is_multiple_of(ranks) {
                let what = format!("columns of `{}`", class.name());
                return Err(Unfit::uneven(by, ranks, &what, *width));
            }
        }
        Ok(())
    }

    /// Heads of keys and values that a rank keeps: `⌈K / t⌉`, so that one stands on several ranks where
    /// there are fewer than ranks. A latent vector is whole on every rank.
    #[must_use]
    pub fn kv_heads_per_rank(&self, model: &Model) -> u64 {
        match model.shape.attention {
            Attention::Heads { kv_heads, .. } => kv_heads.div_ceil(self.attention_ranks()),
            Attention::Latent { .. } => 1,
        }
    }

    /// The share of a class's weights that a rank holds, and so of its operations on the tokens that the
    /// rank sees. Shares sum to more than 1 where something is repeated.
    #[must_use]
    pub fn share(&self, model: &Model, class: Class) -> f64 {
        match class {
            Class::Attention => self.attention_share(model),
            Class::Scores => 1.0 / self.attention_ranks() as f64,
            Class::Embedding | Class::Head => {
                let vocab = model.shape.vocab;
                vocab.div_ceil(self.ranks()) as f64 / vocab as f64
            }
            Class::Mlp | Class::Experts | Class::SharedExperts => 1.0 / self.ranks() as f64,
            // Every rank has its own.
            Class::Router | Class::Other => 1.0,
        }
    }

    /// Queries and outputs are cut by heads, keys and values as far as there are heads; what makes latent
    /// vectors is whole on every rank.
    fn attention_share(&self, model: &Model) -> f64 {
        let ranks = self.attention_ranks() as f64;
        let all = model.matrices.get(Class::Attention) as f64;
        if all == 0.0 {
            return 1.0 / ranks;
        }
        let shape = &model.shape;
        let layers = shape.n_layers as f64;
        let (part, share) = match shape.attention {
            Attention::Heads {
                kv_heads, head_dim, ..
            } => {
                let keys = (2 * shape.hidden * kv_heads * head_dim) as f64;
                let own = self.kv_heads_per_rank(model) as f64 / kv_heads as f64;
                (keys * layers, own)
            }
            Attention::Latent {
                query_rank,
                rank,
                rotated,
                ..
            } => {
                let latent = shape.hidden * (query_rank.unwrap_or(0) + rank + rotated);
                (latent as f64 * layers, 1.0)
            }
        };
        (part * share + (all - part) / ranks) / all
    }

    /// Bytes that a rank sends in one forward pass: for each layer one sum of attention's outputs within
    /// its group, if that has several ranks, and one of the perceptron's over all ranks; the embedding's
    /// over all ranks; logits of `n_logits` tokens, which are brought together. With `dp` the second is a
    /// gathering before the perceptron and a scattered sum behind it, which costs the same.
    ///
    /// A sum of `m` bytes over `t` ranks sends `2·m·(t − 1)/t` from each, as a ring does; bringing together
    /// sends half of that. Experts are taken to lie where the perceptron is, without an exchange of tokens
    /// of their own.
    #[must_use]
    pub fn bytes_sent(&self, model: &Model, n_tokens: f64, n_logits: f64) -> Bytes {
        let element = model.activations.bytes();
        let stream = model.shape.hidden as f64 * element;
        let around = |ranks: u64| (ranks - 1) as f64 / ranks as f64;
        let own_tokens = n_tokens / self.groups() as f64;
        let attention = 2.0 * own_tokens * stream * around(self.attention_ranks());
        let perceptron = 2.0 * n_tokens * stream * around(self.ranks());
        let logits = n_logits * model.shape.vocab as f64 * element * around(self.ranks());
        let layers = (attention + perceptron) * model.shape.n_layers as f64;
        Bytes(layers + perceptron + logits)
    }
}
