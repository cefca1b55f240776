//! What one forward pass computes and moves, by class: of all ranks together as it must be done, and of
//! one rank as it is done. Formulas and their sources are in `docs/latency.md`.

use crate::class::ByClass;
use crate::work::{Executed, Logits, Pairs, Work};
use crate::{Bytes, Class, Deployment, Flops, Model, Phase, WeightFormat};
use models::Attention;
use std::num::NonZeroU32;

/// What numbers are kept as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Formats {
    /// Weights.
    pub weights: WeightFormat,
    /// Bytes of an element of the cache.
    pub kv_bytes: f64,
}

/// Operations and bytes of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Operations.
    pub flops: Flops,
    /// Bytes of weights, rows of the embedding, and the cache.
    pub bytes: Bytes,
}

/// What one forward pass takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Operations that have to be done, all ranks together and each once.
    pub useful: ByClass<Flops>,
    /// What the fullest rank does, repetition, padding and what nobody needs included.
    pub rank: ByClass<Load>,
    /// Operations of all ranks, each as the fullest.
    pub executed: Flops,
    /// Bytes of weights that the rank reads.
    pub weight_bytes: Bytes,
    /// Bytes of the cache that the rank reads.
    pub kv_read: Bytes,
    /// Bytes of the cache that the rank writes.
    pub kv_written: Bytes,
    /// Bytes of activations of the rank if each projection reads its input from memory and writes its
    /// output there: what fused kernels save is part of this, so that no bound rests on it.
    pub activation_bytes: Bytes,
    /// Bytes that the rank sends to others.
    pub bytes_sent: Bytes,
}

impl Counted {
    /// Operations of the rank.
    #[must_use]
    pub fn rank_flops(&self) -> Flops {
        self.rank.iter().map(|(_, load)| load.flops).sum()
    }

    /// Bytes that the rank reads and writes: weights, rows of the embedding, and the cache.
    #[must_use]
    pub fn rank_bytes(&self) -> Bytes {
        self.rank.iter().map(|(_, load)| load.bytes).sum()
    }
}

/// Counts one forward pass. `deployment` must fit the model, see [`Deployment::fits`].
#[must_use]
pub fn count(
    model: &Model,
    work: &Work,
    executed: &Executed,
    deployment: &Deployment,
    formats: &Formats,
) -> Counted {
    let useful = flops(model, work, &Executed::only(work));
    let all = flops(model, work, executed);
    // Sequences are spread over groups; the fullest one has what is left over.
    let own = |batch: NonZeroU32| (f64::from(batch.get()) / deployment.groups() as f64).ceil();
    let pass = Pass {
        model,
        work,
        executed,
        deployment,
        formats,
        own_sequences: own(work.batch),
        own_executed: own(executed.batch),
    };
    let rank = ByClass::from_fn(|class| {
        let seen = match class {
            Class::Attention => pass.own_executed / f64::from(executed.batch.get()),
            Class::Scores => pass.own_sequences / f64::from(work.batch.get()),
            _ => 1.0,
        };
        Load {
            flops: all.get(class) * (seen * deployment.share(model, class)),
            bytes: pass.bytes(class),
        }
    });
    let flops: Flops = rank.iter().map(|(_, load)| load.flops).sum();
    Counted {
        useful,
        rank,
        executed: flops * deployment.ranks() as f64,
        weight_bytes: Class::ALL
            .into_iter()
            .filter(|class| !matches!(class, Class::Embedding | Class::Scores))
            .map(|class| rank.get(class).bytes)
            .sum(),
        kv_read: pass.kv_read(),
        kv_written: pass.kv_written(),
        activation_bytes: pass.activations(),
        bytes_sent: deployment.bytes_sent(model, pass.n_tokens(), pass.n_logits()),
    }
}

/// Operations of a pass by class, as if one rank did all of it.
fn flops(model: &Model, work: &Work, executed: &Executed) -> ByClass<Flops> {
    let sequences = f64::from(executed.batch.get());
    let tokens = sequences * work.new_tokens() as f64;
    let logits = match executed.logits {
        Logits::Last => sequences,
        Logits::All => tokens,
    };
    let pairs = match executed.pairs {
        Pairs::Causal => work.causal_pairs(&model.shape),
        Pairs::All => work.all_pairs(&model.shape),
    };
    ByClass::from_fn(|class| {
        let elements = model.matrices.get(class) as f64;
        Flops(match class {
            // Rows are looked up.
            Class::Embedding => 0.0,
            // What pads a batch has nothing to attend to.
            Class::Scores => {
                let of_sequence = flops_per_pair(&model.shape.attention, work.phase) * pairs;
                of_sequence * f64::from(work.batch.get())
            }
            Class::Experts => 2.0 * model.chosen(model.matrices.get(class)) as f64 * tokens,
            Class::Head => 2.0 * elements * logits,
            _ => 2.0 * elements * tokens,
        })
    })
}

/// Operations of a pair of tokens in a layer: `4·H·h` with heads of keys; with a latent vector
/// `2·H·(d_n + d_r + d_v)` where it is expanded (prefill) and `2·H·(2·r_kv + d_r)` where it is not
/// (decode).
fn flops_per_pair(attention: &Attention, phase: Phase) -> f64 {
    let widths = match (*attention, phase) {
        (
            Attention::Heads {
                heads, head_dim, ..
            },
            _,
        ) => 2 * heads * head_dim,
        (
            Attention::Latent {
                heads,
                plain,
                rotated,
                value,
                ..
            },
            Phase::Prefill,
        ) => heads * (plain + rotated + value),
        (
            Attention::Latent {
                heads,
                rank,
                rotated,
                ..
            },
            Phase::Decode,
        ) => heads * (2 * rank + rotated),
    };
    2.0 * widths as f64
}

/// A pass on one rank.
struct Pass<'a> {
    model: &'a Model,
    work: &'a Work,
    executed: &'a Executed,
    deployment: &'a Deployment,
    formats: &'a Formats,
    /// Sequences of this rank's group.
    own_sequences: f64,
    /// The same with what pads the batch.
    own_executed: f64,
}

impl Pass<'_> {
    fn n_tokens(&self) -> f64 {
        f64::from(self.executed.batch.get()) * self.work.new_tokens() as f64
    }

    fn n_logits(&self) -> f64 {
        match self.executed.logits {
            Logits::Last => f64::from(self.executed.batch.get()),
            Logits::All => self.n_tokens(),
        }
    }

    fn bytes(&self, class: Class) -> Bytes {
        let weights = || {
            let all = self.model.weight_bytes(class, self.formats.weights);
            all * self.deployment.share(self.model, class)
        };
        match class {
            Class::Embedding => {
                let row = self.model.shape.hidden as f64 * self.model.activations.bytes();
                Bytes(self.n_tokens() * row / self.deployment.ranks() as f64)
            }
            Class::Scores => self.kv_read() + self.kv_written(),
            Class::Experts => weights() * self.touched(),
            _ => weights(),
        }
    }

    /// The share of experts that any token passes.
    fn touched(&self) -> f64 {
        self.model.experts.map_or(0.0, |experts| {
            self.model.expected_experts(self.n_tokens()) / (experts.total.max(1) as f64)
        })
    }

    /// Bytes of a token in a layer on this rank.
    fn kv_token(&self) -> Bytes {
        let kv_heads = self.deployment.kv_heads_per_rank(self.model);
        self.model
            .kv_bytes_per_layer(kv_heads, self.formats.kv_bytes)
    }

    fn kv_read(&self) -> Bytes {
        self.kv_token() * (self.work.tokens_read(&self.model.shape) * self.own_sequences)
    }

    fn kv_written(&self) -> Bytes {
        let tokens = self.work.new_tokens() as f64 * self.model.shape.n_layers as f64;
        self.kv_token() * (tokens * self.own_sequences)
    }

    fn activations(&self) -> Bytes {
        let own_tokens = self.own_executed * self.work.new_tokens() as f64;
        let rows = |class| match class {
            Class::Embedding | Class::Scores => 0.0,
            Class::Attention => own_tokens,
            Class::Head => self.n_logits(),
            _ => self.n_tokens(),
        };
        let elements = |class: Class| {
            let sides = self.model.sides.get(class);
            let sides = match class {
                Class::Experts => self.model.chosen(sides),
                _ => sides,
            };
            rows(class) * sides as f64 * self.deployment.share(self.model, class)
        };
        let elements: f64 = Class::ALL.into_iter().map(elements).sum();
        Bytes(elements * self.model.activations.bytes())
    }
}
