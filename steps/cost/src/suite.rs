//! The formula of the latency suite that this project's scenarios come from, as it is there: to compare with
//! figures that it published, and to see what it leaves out. [`crate::count()`] is what corrects it.
//!
//! In it one sequence is counted and multiplied by the batch; every token of a prompt passes the head;
//! scores and what they weigh are one product, which is right for a prompt under its mask and half of
//! what a decode step does; every perceptron has a gate; norms and biases are no parameters. Bytes are
//! left out here: the suite counts them without the batch, and no figure that it published rests on them.

use crate::work::{Phase, Work};
use crate::{Class, Flops, FlopsPerSecond, Model, Seconds};
use models::Attention;

/// Operations of a product of `[m, k]` with `[k, n]`.
fn gemm(m: f64, n: f64, k: f64) -> f64 {
    2.0 * m * n * k
}

/// Operations of one forward pass of the whole batch, by the suite's formula.
#[must_use]
pub fn flops(model: &Model, work: &Work) -> Flops {
    let tokens = work.new_tokens() as f64;
    let shape = &model.shape;
    let layers = shape.n_layers as f64;
    let matrices = |class: Class| 2.0 * tokens * model.matrices.get(class) as f64;
    let head = gemm(tokens, shape.hidden as f64, shape.vocab as f64);
    let projections = match shape.attention {
        // q, k, v and o by their matrices.
        Attention::Heads { .. } => matrices(Class::Attention),
        Attention::Latent { .. } => layers * latent_projections(model, work),
    };
    let scores = layers
        * gemm(
            tokens,
            f64::from(work.length.get()),
            scores_width(model, work),
        );
    let feeds = perceptrons(model) * tokens;
    let router = matrices(Class::Router);
    let one = head + projections + scores + feeds + router;
    Flops(one * f64::from(work.batch.get()))
}

/// Projections of a layer with a latent vector; absorbed in decode.
fn latent_projections(model: &Model, work: &Work) -> f64 {
    let Attention::Latent {
        heads,
        query_rank,
        rank,
        plain,
        rotated,
        value,
    } = model.shape.attention
    else {
        return 0.0;
    };
    let tokens = work.new_tokens() as f64;
    let hidden = model.shape.hidden as f64;
    let [heads, rank, plain, rotated, value] =
        [heads, rank, plain, rotated, value].map(|n| n as f64);
    let queries = heads * (rotated + plain);
    let down = match query_rank {
        Some(query_rank) => {
            let query_rank = query_rank as f64;
            gemm(tokens, hidden, query_rank + rank + rotated) + gemm(tokens, query_rank, queries)
        }
        None => gemm(tokens, hidden, rank + rotated) + gemm(tokens, hidden, queries),
    };
    let up = match work.phase {
        Phase::Prefill => gemm(tokens, rank, heads * (value + plain)),
        Phase::Decode => gemm(tokens, heads, rank * plain) + gemm(tokens, heads, rank * value),
    };
    down + up + gemm(tokens, heads * value, hidden)
}

/// Columns of the one product that stands for attention.
fn scores_width(model: &Model, work: &Work) -> f64 {
    let width = match (model.shape.attention, work.phase) {
        (
            Attention::Heads {
                heads, head_dim, ..
            },
            _,
        ) => heads * head_dim,
        (
            Attention::Latent {
                heads,
                plain,
                rotated,
                ..
            },
            Phase::Prefill,
        ) => heads * (2 * plain + rotated),
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
    width as f64
}

/// Perceptrons of a token in all layers, each with a gate: `gemm(h, 2i) + gemm(i, h) + i`.
fn perceptrons(model: &Model) -> f64 {
    let hidden = model.shape.hidden as f64;
    let experts = model.chosen(model.matrices.get(Class::Experts));
    let shared = model.matrices.get(Class::SharedExperts);
    let elements = model.matrices.get(Class::Mlp) + experts + shared;
    let columns = elements as f64 / hidden / model.matrices_per_perceptron as f64;
    columns * (2.0 * hidden * 3.0 + 1.0)
}

/// Parameters by the suite's count: matrices alone, and embedding and head as two whatever they share.
#[must_use]
pub fn parameters(model: &Model) -> u64 {
    let both = 2 * model.shape.vocab * model.shape.hidden;
    let is_layers = |class: Class| !matches!(class, Class::Embedding | Class::Head | Class::Other);
    let layers = model.matrices.iter().filter(|(class, _)| is_layers(*class));
    both + layers.map(|(_, elements)| elements).sum::<u64>()
}

/// The share of the peak of all devices that was used, by the suite's formula.
#[must_use]
pub fn mfu(model: &Model, work: &Work, devices: u64, peak: FlopsPerSecond, time: Seconds) -> f64 {
    (flops(model, work) / time).0 / (peak.0 * devices as f64)
}
