//! One forward pass: embedding, decoder layers, head.
//!
//! The rows of a step are the tokens of all its sequences, one after the other. Everything but
//! attention works on rows and is done a slice of them at a time, so that the widest activations
//! (those of the perceptron) stay small however long a prefill is. It trusts its batch: `plan`
//! checked it.

use super::buffers::{Buffers, Compute, norm_rows, project};
use super::host::HostMemory;
use super::plan::{Limits, TokenRow, token_rows};
use super::stopwatch::Stopwatch;
use crate::executor::{Batch, BlockId, Direction, HostBlockId, Operation, SequenceChunk};
use crate::images::embedded;
use crate::kernels::{
    Attention, Isa, KeyValueShape, KeyValues, Span, Start, Workers, matmul, rms_norm, silu_times,
};
use crate::model::{ModelConfig, Weights};
use std::ops::Range;
use std::time::Duration;

/// Rows per slice: enough that re-reading the weights for the next slice costs under a percent.
const SLICE_ROWS: usize = 512;

/// Weights, cache and buffers. Buffers grow to the largest step seen and are then reused.
#[derive(Debug)]
pub(super) struct ForwardPass {
    isa: Isa,
    weights: Weights,
    block_tokens: usize,
    /// Angle per position of each rotary pair, `[head_dim / 2]`.
    frequencies: Vec<f32>,
    /// One per layer.
    cache: Vec<KeyValues>,
    host: HostMemory,
    attention: Attention,
    rows: Vec<TokenRow>,
    buffers: Buffers,
}

/// An empty cache, one part per layer, and host memory behind it; no host memory behind none.
fn caches(config: &ModelConfig, limits: Limits) -> (Vec<KeyValues>, HostMemory) {
    let shape = KeyValueShape {
        n_blocks: limits.n_blocks,
        block_tokens: limits.block_tokens,
        n_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    };
    let n_layers = config.num_hidden_layers;
    let cache = (0..n_layers).map(|_| KeyValues::new(shape)).collect();
    let host_blocks = match limits.n_blocks {
        0 => 0,
        _ => limits.host_blocks,
    };
    (cache, HostMemory::new(shape, host_blocks, n_layers))
}

impl ForwardPass {
    pub(super) fn new(weights: Weights, limits: Limits, workers: &Workers) -> Self {
        let config = weights.config();
        let group = config.num_attention_heads / config.num_key_value_heads;
        let frequencies = config.rope.frequencies(config.head_dim);
        let (cache, host) = caches(config, limits);
        ForwardPass {
            isa: Isa::detect(),
            block_tokens: limits.block_tokens,
            frequencies: frequencies.into_iter().map(|f| f as f32).collect(),
            cache,
            host,
            attention: Attention::new(workers.n_threads(), group),
            rows: Vec::new(),
            buffers: Buffers::new(config),
            weights,
        }
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    pub(super) fn weight_bytes(&self) -> u64 {
        self.weights
            .config()
            .parameter_bytes(size_of::<f32>() as u64)
    }

    /// Copies the weights to other memory and frees what they were in.
    pub(super) fn copy_weights(&mut self) {
        self.weights = self.weights.clone();
    }

    /// Replaces the cache, and the host memory behind it, by empty ones.
    pub(super) fn make_cache(&mut self, limits: Limits) {
        // What was there goes first: both together may not fit.
        self.cache = Vec::new();
        self.host = HostMemory::default();
        (self.cache, self.host) = caches(self.weights.config(), limits);
    }

    /// Logits of the last pass, `[n_wanted, vocab_size]`.
    pub(super) fn logits(&mut self) -> &[f32] {
        self.buffers.logits.pack()
    }

    /// Copies blocks of all layers between the cache and host memory.
    pub(super) fn copy(&mut self, direction: Direction, pairs: &[(BlockId, HostBlockId)]) {
        for (block, host) in pairs {
            self.host.copy(direction, &mut self.cache, *block, *host);
        }
    }

    /// Computes a checked batch and says where the time went.
    pub(super) fn run(
        &mut self,
        workers: &Workers,
        batch: &Batch<'_>,
    ) -> Vec<(Operation, Duration)> {
        let mut watch = Stopwatch::start();
        let compute = Compute {
            workers,
            isa: self.isa,
        };
        self.rows.clear();
        self.rows.extend(token_rows(batch, self.block_tokens));
        let spans = spans(batch);
        self.embed(compute);
        watch.lap(Operation::Embedding);
        self.find_angles();
        watch.lap(Operation::Rotary);
        for layer in 0..self.weights.layers.len() {
            for slice in slices(self.rows.len()) {
                self.project_in(compute, layer, slice, &mut watch);
            }
            let cache = &self.cache[layer];
            self.attention
                .run(workers, self.isa, cache, &spans, &mut self.buffers.queries);
            watch.lap(Operation::Attention);
            for slice in slices(self.rows.len()) {
                self.project_out(compute, layer, slice.clone(), &mut watch);
                self.perceptron(compute, layer, slice, &mut watch);
            }
        }
        self.head(compute, batch, &mut watch);
        watch.finish()
    }

    fn embed(&mut self, compute: Compute<'_>) {
        let (weights, rows) = (&self.weights, &self.rows);
        let n_rows = rows.len();
        self.buffers.queries.set_rows(n_rows);
        let hidden = &mut self.buffers.hidden;
        hidden.set_rows(n_rows);
        let (width, stride) = (hidden.width(), hidden.stride());
        let vocab_size = weights.config().vocab_size;
        compute
            .workers
            .for_each_row(hidden.range_mut(0..n_rows), stride, |i, row| {
                // The batch was checked.
                let token = embedded(rows[i].token, vocab_size).unwrap_or(0);
                weights.embed(token, &mut row[..width]);
            });
    }

    /// Sines and cosines of every row's position, for all layers.
    fn find_angles(&mut self) {
        let (cos, sin) = (&mut self.buffers.cos, &mut self.buffers.sin);
        cos.set_rows(self.rows.len());
        sin.set_rows(self.rows.len());
        for (i, row) in self.rows.iter().enumerate() {
            let angles = cos.row_mut(i).iter_mut().zip(sin.row_mut(i));
            for ((cos, sin), frequency) in angles.zip(&self.frequencies) {
                (*sin, *cos) = (row.position as f32 * frequency).sin_cos();
            }
        }
    }

    /// From the residual stream to queries, and to keys and values in the cache.
    fn project_in(
        &mut self,
        compute: Compute<'_>,
        layer: usize,
        slice: Range<usize>,
        watch: &mut Stopwatch,
    ) {
        let buffers = &mut self.buffers;
        let epsilon = self.weights.config().rms_norm_eps;
        let weights = &self.weights.layers[layer];
        let n_rows = slice.len();
        norm_rows(
            compute,
            buffers.hidden.view(slice.clone()),
            &weights.input_norm,
            epsilon,
            &mut buffers.normed,
        );
        watch.lap(Operation::Norm);
        let normed = buffers.normed.view(0..n_rows);
        buffers.keys.set_rows(n_rows);
        buffers.values.set_rows(n_rows);
        project(
            compute,
            normed,
            &weights.query,
            buffers.queries.view_mut(slice.clone()),
        );
        project(
            compute,
            normed,
            &weights.key,
            buffers.keys.view_mut(0..n_rows),
        );
        project(
            compute,
            normed,
            &weights.value,
            buffers.values.view_mut(0..n_rows),
        );
        watch.lap(Operation::Projection);
        buffers.norm_heads(compute, weights, epsilon, slice.clone(), watch);
        buffers.rotate_heads(compute, slice.clone());
        let cache = &mut self.cache[layer];
        for (i, row) in self.rows[slice].iter().enumerate() {
            cache.write(
                row.block,
                row.offset,
                buffers.keys.row(i),
                buffers.values.row(i),
            );
        }
        watch.lap(Operation::Rotary);
    }

    /// From attention back to the residual stream.
    fn project_out(
        &mut self,
        compute: Compute<'_>,
        layer: usize,
        slice: Range<usize>,
        watch: &mut Stopwatch,
    ) {
        let buffers = &mut self.buffers;
        buffers.delta.set_rows(slice.len());
        let attention = buffers.queries.view(slice.clone());
        let delta = buffers.delta.view_mut(0..slice.len());
        project(
            compute,
            attention,
            &self.weights.layers[layer].output,
            delta,
        );
        buffers.add_delta(compute, slice);
        watch.lap(Operation::Projection);
    }

    /// The gated perceptron, back to the residual stream.
    fn perceptron(
        &mut self,
        compute: Compute<'_>,
        layer: usize,
        slice: Range<usize>,
        watch: &mut Stopwatch,
    ) {
        let buffers = &mut self.buffers;
        let epsilon = self.weights.config().rms_norm_eps;
        let weights = &self.weights.layers[layer];
        let all = 0..slice.len();
        let hidden = buffers.hidden.view(slice.clone());
        norm_rows(
            compute,
            hidden,
            &weights.post_attention_norm,
            epsilon,
            &mut buffers.normed,
        );
        watch.lap(Operation::Norm);
        buffers.gate.set_rows(slice.len());
        buffers.up.set_rows(slice.len());
        let normed = buffers.normed.view(all.clone());
        project(
            compute,
            normed,
            &weights.gate,
            buffers.gate.view_mut(all.clone()),
        );
        project(
            compute,
            normed,
            &weights.up,
            buffers.up.view_mut(all.clone()),
        );
        let (up, width, stride) = (&buffers.up, buffers.gate.width(), buffers.gate.stride());
        let gate = buffers.gate.range_mut(all.clone());
        compute.workers.for_each_row(gate, stride, |i, gate| {
            silu_times(compute.isa, &mut gate[..width], up.row(i));
        });
        let gated = buffers.gate.view(all.clone());
        project(compute, gated, &weights.down, buffers.delta.view_mut(all));
        buffers.add_delta(compute, slice);
        watch.lap(Operation::Mlp);
    }

    /// Logits after the last token of every sequence that wants them.
    fn head(&mut self, compute: Compute<'_>, batch: &Batch<'_>, watch: &mut Stopwatch) {
        let buffers = &mut self.buffers;
        let epsilon = self.weights.config().rms_norm_eps;
        let n_wanted = batch
            .sequences
            .iter()
            .filter(|chunk| chunk.wants_logits)
            .count();
        buffers.normed.set_rows(n_wanted);
        buffers.logits.set_rows(n_wanted);
        let (mut next, mut wanted) = (0, 0);
        for chunk in &batch.sequences {
            next += chunk.tokens.len();
            if chunk.wants_logits {
                let last = buffers.hidden.row(next - 1);
                let gain = &self.weights.final_norm;
                rms_norm(
                    compute.isa,
                    last,
                    gain,
                    epsilon,
                    buffers.normed.row_mut(wanted),
                );
                wanted += 1;
            }
        }
        watch.lap(Operation::Norm);
        let normed = buffers.normed.view(0..n_wanted);
        let logits = buffers.logits.view_mut(0..n_wanted);
        matmul(
            compute.workers,
            compute.isa,
            normed,
            &self.weights.head,
            logits,
            Start::Zero,
        );
        watch.lap(Operation::Head);
    }
}

/// Where each sequence's rows lie.
fn spans<'a>(batch: &'a Batch<'_>) -> Vec<Span<'a>> {
    let mut first_row = 0;
    let span = |chunk: &SequenceChunk<'a>| {
        let n_rows = chunk.tokens.len();
        let span = Span {
            first_row,
            n_rows,
            position: chunk.position,
            blocks: chunk.blocks,
        };
        first_row += n_rows;
        span
    };
    batch.sequences.iter().map(span).collect()
}

/// `0..n_rows` in slices.
fn slices(n_rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_rows)
        .step_by(SLICE_ROWS)
        .map(move |start| start..n_rows.min(start + SLICE_ROWS))
}
