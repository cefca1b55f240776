//! The activations of a step, and what is done to them row by row.
//!
//! It knows no layer and no sequence: `forward` says which rows and which weights.

use super::stopwatch::Stopwatch;
use crate::executor::Operation;
use crate::kernels::{
    Isa, Rows, RowsView, RowsViewMut, Start, Workers, add_assign, matmul, rms_norm,
    rms_norm_in_place, rotate,
};
use crate::model::{Layer, ModelConfig, Projection};
use std::ops::Range;

/// Activations. The first five have a row per token, the others one per token of a slice.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) hidden: Rows,
    /// Queries, then the attention they found.
    pub(super) queries: Rows,
    pub(super) cos: Rows,
    pub(super) sin: Rows,
    /// A row per sequence that wants logits.
    pub(super) logits: Rows,
    pub(super) normed: Rows,
    pub(super) keys: Rows,
    pub(super) values: Rows,
    pub(super) gate: Rows,
    pub(super) up: Rows,
    /// What a block of the layer adds to `hidden`.
    pub(super) delta: Rows,
}

/// Threads and instructions: what every kernel asks for.
#[derive(Clone, Copy)]
pub(super) struct Compute<'a> {
    pub(super) workers: &'a Workers,
    pub(super) isa: Isa,
}

impl Buffers {
    pub(super) fn new(config: &ModelConfig) -> Self {
        Buffers {
            hidden: Rows::new(config.hidden_size),
            queries: Rows::new(config.query_width()),
            cos: Rows::new(config.head_dim / 2),
            sin: Rows::new(config.head_dim / 2),
            logits: Rows::new(config.vocab_size),
            normed: Rows::new(config.hidden_size),
            keys: Rows::new(config.key_value_width()),
            values: Rows::new(config.key_value_width()),
            gate: Rows::new(config.intermediate_size),
            up: Rows::new(config.intermediate_size),
            delta: Rows::new(config.hidden_size),
        }
    }

    /// Norms every query head of `slice` and every key head, where the model does.
    pub(super) fn norm_heads(
        &mut self,
        compute: Compute<'_>,
        weights: &Layer,
        epsilon: f32,
        slice: Range<usize>,
        watch: &mut Stopwatch,
    ) {
        let keys = 0..slice.len();
        let heads = [
            (&mut self.queries, slice, &weights.query_norm),
            (&mut self.keys, keys, &weights.key_norm),
        ];
        for (rows, range, gain) in heads {
            let Some(gain) = gain else { continue };
            let (width, stride) = (rows.width(), rows.stride());
            compute
                .workers
                .for_each_row(rows.range_mut(range), stride, |_, row| {
                    for head in row[..width].chunks_exact_mut(gain.len()) {
                        rms_norm_in_place(compute.isa, head, gain, epsilon);
                    }
                });
            watch.lap(Operation::Norm);
        }
    }

    /// Rotates the queries of `slice` and their keys by their positions.
    pub(super) fn rotate_heads(&mut self, compute: Compute<'_>, slice: Range<usize>) {
        let (cos, sin, first) = (&self.cos, &self.sin, slice.start);
        let head_dim = 2 * cos.width();
        let keys = 0..slice.len();
        for (rows, range) in [(&mut self.queries, slice), (&mut self.keys, keys)] {
            let (width, stride) = (rows.width(), rows.stride());
            compute
                .workers
                .for_each_row(rows.range_mut(range), stride, |i, row| {
                    let (cos, sin) = (cos.row(first + i), sin.row(first + i));
                    for head in row[..width].chunks_exact_mut(head_dim) {
                        rotate(head, cos, sin);
                    }
                });
        }
    }

    /// Adds `delta` to the residual stream of `slice`.
    pub(super) fn add_delta(&mut self, compute: Compute<'_>, slice: Range<usize>) {
        let (delta, stride) = (&self.delta, self.hidden.stride());
        compute
            .workers
            .for_each_row(self.hidden.range_mut(slice), stride, |i, row| {
                add_assign(row, delta.row(i));
            });
    }
}

/// Norms each row of `x` into `out`.
pub(super) fn norm_rows(
    compute: Compute<'_>,
    x: RowsView<'_>,
    gain: &[f32],
    epsilon: f32,
    out: &mut Rows,
) {
    out.set_rows(x.n_rows());
    let (width, stride) = (out.width(), out.stride());
    compute
        .workers
        .for_each_row(out.range_mut(0..x.n_rows()), stride, |i, row| {
            rms_norm(compute.isa, x.row(i), gain, epsilon, &mut row[..width]);
        });
}

/// `y = x * weights^T + bias`
pub(super) fn project(
    compute: Compute<'_>,
    x: RowsView<'_>,
    projection: &Projection,
    mut y: RowsViewMut<'_>,
) {
    let start = match &projection.bias {
        None => Start::Zero,
        Some(bias) => {
            (0..y.n_rows()).for_each(|row| y.row_mut(row).copy_from_slice(bias));
            Start::Output
        }
    };
    matmul(
        compute.workers,
        compute.isa,
        x,
        &projection.matrix,
        y,
        start,
    );
}
