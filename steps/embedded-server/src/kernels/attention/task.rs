//! Attention of a few dozen query rows that share a key-value head.
//!
//! Scores, softmax, weighted values, each for all rows before the next. Scores and values run
//! through the loop that projections use: sixteen keys are one vector, so that no score needs a
//! horizontal sum.

#![expect(unsafe_code, reason = "vector kernel: raw rows and blocks")]

use super::Span;
use crate::kernels::key_values::KeyValues;
use crate::kernels::lanes::Lanes;
use crate::kernels::tile::{self, Inputs, MAX_VECTORS, with_shape};
use crate::kernels::{Buffer, Isa, LANES, dispatch, elementwise, padded};

/// Query rows per task: enough to reuse keys and values from the first-level cache, few enough
/// that the scores of a 4096-token context (512 KiB) stay in the second.
pub(super) const TASK_ROWS: usize = 32;

/// What one thread needs beside the cache: queries, scores and sums of a task.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    queries: Buffer,
    scores: Buffer,
    sums: Buffer,
}

/// One task, resolved.
pub(super) struct Job<'a> {
    pub(super) cache: &'a KeyValues,
    pub(super) span: &'a Span<'a>,
    pub(super) head: usize,
    pub(super) group: usize,
    pub(super) first: usize,
    pub(super) n_queries: usize,
    /// Keys that the last query sees.
    pub(super) n_keys: usize,
    /// The span's first row.
    pub(super) rows: *mut f32,
    pub(super) row_stride: usize,
}

impl Job<'_> {
    /// Floats per row of scores: whole vectors, and one that the last block's may run into.
    fn score_stride(&self) -> usize {
        padded(
            self.n_keys
                .next_multiple_of(self.cache.shape().block_tokens),
        ) + LANES
    }

    fn reserve(&self, scratch: &mut AttentionScratch) {
        let head_dim = self.cache.shape().head_dim;
        scratch.queries.reserve(TASK_ROWS * head_dim);
        scratch.scores.reserve(TASK_ROWS * self.score_stride());
        scratch.sums.reserve(TASK_ROWS * padded(head_dim));
    }

    /// Offset of query `index` of the task from `rows`.
    fn query(&self, index: usize) -> usize {
        let (row, member) = (
            (self.first + index) / self.group,
            (self.first + index) % self.group,
        );
        row * self.row_stride + (self.head * self.group + member) * self.cache.shape().head_dim
    }

    /// Keys that query `index` of the task sees.
    fn visible(&self, index: usize) -> usize {
        self.span.position + (self.first + index) / self.group + 1
    }

    /// Index of the `n`-th block of the sequence in units of (block, head).
    fn slot(&self, n: usize) -> usize {
        self.span.blocks[n].0 as usize * self.cache.shape().n_heads + self.head
    }
}

/// Computes one task.
///
/// # Safety
/// The extents of `job` were checked by [`super::Attention::plan`], and nobody else touches its
/// heads of its rows meanwhile.
pub(super) unsafe fn run(isa: Isa, job: &Job<'_>, scratch: &mut AttentionScratch) {
    job.reserve(scratch);
    dispatch!(isa, attend(job: &Job<'_>, scratch: &mut AttentionScratch));
}

/// # Safety
/// The processor has the instructions of `L`; `job` was checked and is exclusive as [`run`]
/// says, and its scratch is reserved.
#[inline(always)]
unsafe fn attend<L: Lanes>(job: &Job<'_>, scratch: &mut AttentionScratch) {
    let head_dim = job.cache.shape().head_dim;
    let score_stride = job.score_stride();
    let queries = scratch.queries.as_mut_slice();
    let scale = 1.0 / (head_dim as f32).sqrt();
    for index in 0..job.n_queries {
        // SAFETY: the plan checked that the span's rows exist; heads fit a row's width.
        let query = unsafe { std::slice::from_raw_parts(job.rows.add(job.query(index)), head_dim) };
        for (to, from) in queries[index * head_dim..][..head_dim]
            .iter_mut()
            .zip(query)
        {
            *to = from * scale;
        }
    }
    let scores = scratch.scores.as_mut_slice();
    // SAFETY: passed on from the caller; the buffers were reserved for these extents.
    unsafe { score::<L>(job, queries, scores) };
    let mut scales = [0.0; TASK_ROWS];
    for (index, row) in scores
        .chunks_exact_mut(score_stride)
        .take(job.n_queries)
        .enumerate()
    {
        // SAFETY: a row of scores is padded to whole vectors beyond its keys.
        scales[index] = unsafe { elementwise::softmax::<L>(row, job.visible(index)) };
    }
    // SAFETY: as above.
    unsafe { weigh::<L>(job, scores, scratch.sums.as_mut_slice()) };
    for (index, scale) in scales.iter().enumerate().take(job.n_queries) {
        let sums = &scratch.sums.as_slice()[index * padded(head_dim)..][..head_dim];
        // SAFETY: as for the query, which lay in the same place and is no longer borrowed.
        let to =
            unsafe { std::slice::from_raw_parts_mut(job.rows.add(job.query(index)), head_dim) };
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = sum * scale;
        }
    }
}

/// Key vectors of one tile: where they lie, and at which key each starts.
#[derive(Clone, Copy)]
struct KeyVectors {
    at: [*const f32; MAX_VECTORS],
    key: [usize; MAX_VECTORS],
}

/// `scores[query][key] = queries[query] . keys[key]` for all keys of the task's last query.
///
/// A block whose length is no multiple of sixteen ends in a vector that runs into what follows;
/// those scores are overwritten by the next block's, or lie beyond the last key.
#[inline(always)]
unsafe fn score<L: Lanes>(job: &Job<'_>, queries: &[f32], scores: &mut [f32]) {
    let shape = job.cache.shape();
    let per_block = shape.block_tokens.div_ceil(LANES);
    let whole_blocks = job.n_keys / shape.block_tokens;
    let n_vectors = whole_blocks * per_block + (job.n_keys % shape.block_tokens).div_ceil(LANES);
    let keys = job.cache.keys().as_ptr();
    let height = tile::height::<L>(job.n_queries);
    let mut vector = 0;
    while vector < n_vectors {
        let width = tile::width::<L>(height, n_vectors - vector);
        let mut columns = KeyVectors {
            at: [keys; MAX_VECTORS],
            key: [0; MAX_VECTORS],
        };
        for v in 0..width {
            let (block, within) = ((vector + v) / per_block, (vector + v) % per_block * LANES);
            let offset = job.slot(block) * shape.key_stride() + within;
            columns.at[v] = keys.wrapping_add(offset);
            columns.key[v] = block * shape.block_tokens + within;
        }
        let mut query = 0;
        while query < job.n_queries {
            let rows = height.min(job.n_queries - query);
            let from = queries[query * shape.head_dim..].as_ptr();
            let to = scores[query * job.score_stride()..].as_mut_ptr();
            // SAFETY: blocks were checked by the plan; keys and scores have room for the vector
            // that runs over.
            unsafe { with_shape!(rows, width, score_tile::<L>(job, from, &columns, to)) };
            query += rows;
        }
        vector += width;
    }
}

#[inline(always)]
unsafe fn score_tile<L: Lanes, const M: usize, const V: usize>(
    job: &Job<'_>,
    queries: *const f32,
    columns: &KeyVectors,
    scores: *mut f32,
) {
    if !tile::fits::<L>(M, V) {
        unreachable!("tiles are chosen to fit the registers");
    }
    let shape = job.cache.shape();
    let score_stride = job.score_stride();
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = tile::zeros::<L, M, V>();
        let mut vectors = [columns.at[0]; V];
        vectors.copy_from_slice(&columns.at[..V]);
        let inputs = Inputs {
            first: queries,
            stride: shape.head_dim,
        };
        tile::accumulate::<L, M, V>(
            &mut sums,
            inputs,
            vectors,
            shape.block_tokens,
            shape.head_dim,
        );
        let mut keys = [0; V];
        keys.copy_from_slice(&columns.key[..V]);
        tile::store(sums, scores, score_stride, keys);
    }
}

/// `sums[query][i] = sum over keys of scores[query][key] * values[key][i]`, keys ascending.
#[inline(always)]
unsafe fn weigh<L: Lanes>(job: &Job<'_>, scores: &[f32], sums: &mut [f32]) {
    let height = tile::height::<L>(job.n_queries);
    let row = padded(job.cache.shape().head_dim);
    let n_vectors = row / LANES;
    let mut query = 0;
    while query < job.n_queries {
        let rows = height.min(job.n_queries - query);
        let from = scores[query * job.score_stride()..].as_ptr();
        let mut vector = 0;
        while vector < n_vectors {
            let width = tile::width::<L>(height, n_vectors - vector);
            let to = sums[query * row + vector * LANES..].as_mut_ptr();
            // SAFETY: blocks were checked by the plan; sums are padded to whole vectors.
            unsafe { with_shape!(rows, width, weigh_tile::<L>(job, from, vector, to)) };
            vector += width;
        }
        query += rows;
    }
}

#[inline(always)]
unsafe fn weigh_tile<L: Lanes, const M: usize, const V: usize>(
    job: &Job<'_>,
    scores: *const f32,
    vector: usize,
    to: *mut f32,
) {
    if !tile::fits::<L>(M, V) {
        unreachable!("tiles are chosen to fit the registers");
    }
    let shape = job.cache.shape();
    let row = padded(shape.head_dim);
    let values = job.cache.values().as_ptr();
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = tile::zeros::<L, M, V>();
        for block in 0..job.n_keys.div_ceil(shape.block_tokens) {
            let key = block * shape.block_tokens;
            let first = values.add(job.slot(block) * shape.value_stride() + vector * LANES);
            let mut vectors = [first; V];
            for (vector, column) in vectors.iter_mut().zip(tile::adjacent::<V>()) {
                *vector = first.add(column);
            }
            let inputs = Inputs {
                first: scores.add(key),
                stride: job.score_stride(),
            };
            let depth = shape.block_tokens.min(job.n_keys - key);
            tile::accumulate::<L, M, V>(&mut sums, inputs, vectors, row, depth);
        }
        tile::store(sums, to, row, tile::adjacent::<V>());
    }
}
