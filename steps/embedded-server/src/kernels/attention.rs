//! Causal attention over a paged key-value cache.
//!
//! Decode and prefill are one kernel. The query heads that share a key-value head, over all
//! tokens of a chunk, are the rows of a tile; a row sees the keys up to its own position. Scores
//! and values both run through the loop that projections use: keys are stored transposed within
//! their block, so that sixteen *keys* are one vector and no score needs a horizontal sum.
//!
//! Every row adds keys in the order of their positions, whatever tile it is in, so that a token's
//! attention has the same bits in a decode step, in a whole prompt and in any chunk of it.

#![expect(
    unsafe_code,
    reason = "vector kernel: threads write disjoint heads of one output"
)]

use super::lanes::Lanes;
use super::tile::{self, Inputs, MAX_VECTORS, with_shape};
use super::{Buffer, Isa, LANES, Rows, Workers, dispatch, elementwise, padded};
use crate::executor::BlockId;

/// Query rows per task: enough to reuse keys and values from the first-level cache, few enough
/// that the scores of a 4096-token context (512 KiB) stay in the second.
const TASK_ROWS: usize = 32;

/// The extent of one layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyValueShape {
    pub(crate) n_blocks: usize,
    pub(crate) block_tokens: usize,
    pub(crate) n_heads: usize,
    pub(crate) head_dim: usize,
}

impl KeyValueShape {
    /// Floats of keys per block and head, `[head_dim, block_tokens]`.
    fn key_stride(self) -> usize {
        self.head_dim * self.block_tokens
    }

    /// Floats of values per block and head, `[block_tokens, padded head_dim]`.
    fn value_stride(self) -> usize {
        self.block_tokens * padded(self.head_dim)
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) struct KeyValues {
    shape: KeyValueShape,
    /// `[n_blocks, n_heads, head_dim, block_tokens]`, and one vector that reads may run into.
    keys: Buffer,
    /// `[n_blocks, n_heads, block_tokens, padded head_dim]`.
    values: Buffer,
}

impl KeyValues {
    pub(crate) fn new(shape: KeyValueShape) -> Self {
        let heads = shape.n_blocks * shape.n_heads;
        KeyValues {
            shape,
            keys: Buffer::zeroed(heads * shape.key_stride() + LANES),
            values: Buffer::zeroed(heads * shape.value_stride()),
        }
    }

    /// Stores the keys and values of one token, each `[n_heads * head_dim]`.
    ///
    /// # Panics
    /// When the slot or the lengths do not fit the cache.
    pub(crate) fn write(&mut self, block: BlockId, offset: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        assert!(offset < shape.block_tokens, "offset {offset} in a block");
        for head in 0..shape.n_heads {
            let of_head = head * shape.head_dim..(head + 1) * shape.head_dim;
            let slot = block.0 as usize * shape.n_heads + head;
            let columns = &mut self.keys.as_mut_slice()[slot * shape.key_stride()..];
            for (i, key) in keys[of_head.clone()].iter().enumerate() {
                columns[i * shape.block_tokens + offset] = *key;
            }
            let row = slot * shape.value_stride() + offset * padded(shape.head_dim);
            self.values.as_mut_slice()[row..row + shape.head_dim].copy_from_slice(&values[of_head]);
        }
    }
}

/// The queries of one sequence within the rows of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    /// Its first row.
    pub(crate) first_row: usize,
    /// Number of rows, one per token.
    pub(crate) n_rows: usize,
    /// Position of the first row's token; earlier positions lie in the cache.
    pub(crate) position: usize,
    /// Where the sequence's keys and values lie.
    pub(crate) blocks: &'a [BlockId],
}

/// What one thread needs beside the cache: queries, scores and sums of a task.
#[derive(Debug, Default)]
struct AttentionScratch {
    queries: Buffer,
    scores: Buffer,
    sums: Buffer,
}

/// A piece of work: some query rows of one sequence that share a key-value head.
#[derive(Debug, Clone, Copy)]
struct Task {
    span: usize,
    head: usize,
    /// Index over `[n_rows, group]` of the span's queries.
    first: usize,
}

/// Attention with its reusable buffers.
#[derive(Debug)]
pub(crate) struct Attention {
    scratch: Vec<AttentionScratch>,
    tasks: Vec<Task>,
    /// Query heads per key-value head.
    group: usize,
}

impl Attention {
    pub(crate) fn new(n_threads: usize, group: usize) -> Self {
        let scratch = (0..n_threads)
            .map(|_| AttentionScratch::default())
            .collect();
        Attention {
            scratch,
            tasks: Vec::new(),
            group,
        }
    }

    /// Replaces each query in `rows`, `[n_rows, n_query_heads * head_dim]`, by its attention.
    ///
    /// The keys and values of every token of `spans` must already be in `cache`.
    ///
    /// # Panics
    /// When a span exceeds `rows`, or its blocks the cache.
    pub(crate) fn run(
        &mut self,
        workers: &Workers,
        isa: Isa,
        cache: &KeyValues,
        spans: &[Span<'_>],
        rows: &mut Rows,
    ) {
        let shape = cache.shape;
        assert_eq!(
            rows.width(),
            self.group * shape.n_heads * shape.head_dim,
            "query heads"
        );
        self.plan(shape, spans, rows.n_rows());
        let (group, row_stride, n_rows) = (self.group, rows.stride(), rows.n_rows());
        let output = Output(rows.range_mut(0..n_rows).as_mut_ptr());
        let tasks = &self.tasks;
        workers.for_each_with(&mut self.scratch, tasks.len(), |scratch, index| {
            let Task { span, head, first } = tasks[index];
            let span = &spans[span];
            let n_queries = TASK_ROWS.min(span.n_rows * group - first);
            let job = &Job {
                cache,
                span,
                head,
                group,
                first,
                n_queries,
                n_keys: span.position + (first + n_queries - 1) / group + 1,
                rows: output.at(span.first_row * row_stride),
                row_stride,
            };
            job.reserve(scratch);
            dispatch!(isa, attend(job: &Job<'_>, scratch: &mut AttentionScratch));
        });
    }

    /// Lists the tasks, having checked that every access they make is inside its buffer.
    fn plan(&mut self, shape: KeyValueShape, spans: &[Span<'_>], n_rows: usize) {
        self.tasks.clear();
        for (index, span) in spans.iter().enumerate() {
            assert!(
                span.first_row + span.n_rows <= n_rows,
                "rows of span {index}"
            );
            let n_blocks = (span.position + span.n_rows).div_ceil(shape.block_tokens);
            assert!(
                span.blocks[..n_blocks]
                    .iter()
                    .all(|block| (block.0 as usize) < shape.n_blocks),
                "blocks of span {index}"
            );
            for head in 0..shape.n_heads {
                let firsts = (0..span.n_rows * self.group).step_by(TASK_ROWS);
                self.tasks.extend(firsts.map(|first| Task {
                    span: index,
                    head,
                    first,
                }));
            }
        }
    }
}

/// Where all threads write, each its own heads of its own rows.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: tasks are disjoint in (row, query head), and each touches only its own.
unsafe impl Sync for Output {}

impl Output {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// One task, resolved.
struct Job<'a> {
    cache: &'a KeyValues,
    span: &'a Span<'a>,
    head: usize,
    group: usize,
    first: usize,
    n_queries: usize,
    /// Keys that the last query sees.
    n_keys: usize,
    /// The span's first row.
    rows: *mut f32,
    row_stride: usize,
}

impl Job<'_> {
    /// Floats per row of scores: whole vectors, and one that the last block's may run into.
    fn score_stride(&self) -> usize {
        padded(self.n_keys.next_multiple_of(self.cache.shape.block_tokens)) + LANES
    }

    fn reserve(&self, scratch: &mut AttentionScratch) {
        let head_dim = self.cache.shape.head_dim;
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
        row * self.row_stride + (self.head * self.group + member) * self.cache.shape.head_dim
    }

    /// Keys that query `index` of the task sees.
    fn visible(&self, index: usize) -> usize {
        self.span.position + (self.first + index) / self.group + 1
    }

    /// Index of the `n`-th block of the sequence in units of (block, head).
    fn slot(&self, n: usize) -> usize {
        self.span.blocks[n].0 as usize * self.cache.shape.n_heads + self.head
    }
}

/// # Safety
/// The processor has the instructions of `L`; `job` was planned by [`Attention::plan`], its
/// scratch reserved, and nobody else touches its heads.
#[inline(always)]
unsafe fn attend<L: Lanes>(job: &Job<'_>, scratch: &mut AttentionScratch) {
    let head_dim = job.cache.shape.head_dim;
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
    for index in 0..job.n_queries {
        let sums = &scratch.sums.as_slice()[index * padded(head_dim)..][..head_dim];
        // SAFETY: as for the query, which lay in the same place and is no longer borrowed.
        let to =
            unsafe { std::slice::from_raw_parts_mut(job.rows.add(job.query(index)), head_dim) };
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = sum * scales[index];
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
    let shape = job.cache.shape;
    let per_block = shape.block_tokens.div_ceil(LANES);
    let whole_blocks = job.n_keys / shape.block_tokens;
    let n_vectors = whole_blocks * per_block + (job.n_keys % shape.block_tokens).div_ceil(LANES);
    let keys = job.cache.keys.as_slice().as_ptr();
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
    let shape = job.cache.shape;
    let score_stride = job.score_stride();
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
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
        for m in 0..M {
            for v in 0..V {
                sums[m][v].store(scores.add(m * score_stride + columns.key[v]));
            }
        }
    }
}

/// `sums[query][i] = sum over keys of scores[query][key] * values[key][i]`, keys ascending.
#[inline(always)]
unsafe fn weigh<L: Lanes>(job: &Job<'_>, scores: &[f32], sums: &mut [f32]) {
    let height = tile::height::<L>(job.n_queries);
    let row = padded(job.cache.shape.head_dim);
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
    let shape = job.cache.shape;
    let row = padded(shape.head_dim);
    let values = job.cache.values.as_slice().as_ptr();
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        for block in 0..job.n_keys.div_ceil(shape.block_tokens) {
            let key = block * shape.block_tokens;
            let first = values.add(job.slot(block) * shape.value_stride() + vector * LANES);
            let mut vectors = [first; V];
            for v in 1..V {
                vectors[v] = first.add(v * LANES);
            }
            let inputs = Inputs {
                first: scores.add(key),
                stride: job.score_stride(),
            };
            let depth = shape.block_tokens.min(job.n_keys - key);
            tile::accumulate::<L, M, V>(&mut sums, inputs, vectors, row, depth);
        }
        for m in 0..M {
            for v in 0..V {
                sums[m][v].store(to.add(m * row + v * LANES));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    /// Varied values without a pattern that an indexing error could preserve.
    fn value(i: usize) -> f32 {
        ((i.wrapping_mul(2_654_435_761) >> 9) % 2003) as f32 / 500.0 - 2.0
    }

    fn vector(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| value(seed * 4099 + i)).collect()
    }

    /// A sequence of `n_tokens` in shuffled blocks, all of its keys and values stored.
    struct Case {
        shape: KeyValueShape,
        group: usize,
        n_tokens: usize,
        cache: KeyValues,
        blocks: Vec<BlockId>,
    }

    impl Case {
        fn new(
            head_dim: usize,
            n_heads: usize,
            group: usize,
            block_tokens: usize,
            n_tokens: usize,
        ) -> Self {
            let n_blocks = n_tokens.div_ceil(block_tokens) + 3;
            let shape = KeyValueShape {
                n_blocks,
                block_tokens,
                n_heads,
                head_dim,
            };
            let blocks: Vec<_> = (0..n_blocks as u32 - 3).map(|b| BlockId(b ^ 1)).collect();
            let mut cache = KeyValues::new(shape);
            let width = n_heads * head_dim;
            for token in 0..n_tokens {
                let (keys, values) = (vector(token, width), vector(token + 10_000, width));
                cache.write(
                    blocks[token / block_tokens],
                    token % block_tokens,
                    &keys,
                    &values,
                );
            }
            Case {
                shape,
                group,
                n_tokens,
                cache,
                blocks,
            }
        }

        fn query(&self, token: usize) -> Vec<f32> {
            vector(
                token + 20_000,
                self.group * self.shape.n_heads * self.shape.head_dim,
            )
        }

        /// Attention of the tokens of `chunks`, each a span of its own.
        fn run(&self, isa: Isa, n_threads: usize, chunks: &[(usize, usize)]) -> Vec<Vec<f32>> {
            let workers = Workers::new(NonZeroUsize::new(n_threads).unwrap()).unwrap();
            let mut rows = Rows::new(self.group * self.shape.n_heads * self.shape.head_dim);
            let n_rows = chunks.iter().map(|(_, n)| n).sum();
            rows.set_rows(n_rows);
            let mut spans = Vec::new();
            let mut row = 0;
            for &(position, n) in chunks {
                spans.push(Span {
                    first_row: row,
                    n_rows: n,
                    position,
                    blocks: &self.blocks,
                });
                for token in position..position + n {
                    rows.row_mut(row).copy_from_slice(&self.query(token));
                    row += 1;
                }
            }
            let mut attention = Attention::new(n_threads, self.group);
            attention.run(&workers, isa, &self.cache, &spans, &mut rows);
            (0..n_rows).map(|row| rows.row(row).to_vec()).collect()
        }

        fn expected(&self, token: usize, query_head: usize) -> Vec<f64> {
            let KeyValueShape {
                head_dim, n_heads, ..
            } = self.shape;
            let head = query_head / self.group * head_dim..(query_head / self.group + 1) * head_dim;
            let query = &self.query(token)[query_head * head_dim..][..head_dim];
            let of = |seed: usize| vector(seed, n_heads * head_dim)[head.clone()].to_vec();
            let dot = |key: Vec<f32>| -> f64 {
                query
                    .iter()
                    .zip(key)
                    .map(|(q, k)| f64::from(*q) * f64::from(k))
                    .sum()
            };
            let scale = (head_dim as f64).sqrt();
            let weights: Vec<_> = (0..=token).map(|p| (dot(of(p)) / scale).exp()).collect();
            let mut sum = vec![0.0; head_dim];
            for (p, weight) in weights.iter().enumerate() {
                for (sum, value) in sum.iter_mut().zip(of(p + 10_000)) {
                    *sum += weight / weights.iter().sum::<f64>() * f64::from(value);
                }
            }
            sum
        }
    }

    fn cases() -> Vec<Case> {
        [
            (6, 1, 1, 1, 5),
            (16, 2, 3, 4, 37),
            (24, 1, 7, 20, 45),
            (64, 2, 2, 16, 33),
            (10, 3, 1, 5, 18),
        ]
        .map(|(head_dim, n_heads, group, block_tokens, n_tokens)| {
            Case::new(head_dim, n_heads, group, block_tokens, n_tokens)
        })
        .into()
    }

    #[test]
    fn agrees_with_the_naive_formula_on_odd_shapes() {
        for isa in Isa::available() {
            for case in cases() {
                let found = case.run(isa, 1, &[(0, case.n_tokens)]);
                let head_dim = case.shape.head_dim;
                for (token, row) in found.iter().enumerate() {
                    for (head, found) in row.chunks(head_dim).enumerate() {
                        let expected = case.expected(token, head);
                        let close = found
                            .iter()
                            .zip(&expected)
                            .all(|(a, b)| (f64::from(*a) - b).abs() < 2e-5);
                        assert!(close, "{}: {found:?} is not {expected:?}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_token_has_the_same_bits_in_any_chunk_and_on_any_threads() {
        for isa in Isa::available() {
            for case in cases() {
                let n = case.n_tokens;
                let whole = case.run(isa, 1, &[(0, n)]);
                assert_eq!(case.run(isa, 3, &[(0, n)]), whole);
                assert_eq!(case.run(isa, 1, &[(0, 1), (1, 3), (4, n - 4)]), whole);
                let decode: Vec<_> = (0..n).map(|token| (token, 1)).collect();
                assert_eq!(case.run(isa, 2, &decode), whole);
            }
        }
    }

    #[test]
    #[should_panic(expected = "blocks of span 0")]
    fn a_block_outside_the_cache_is_refused() {
        let mut case = Case::new(16, 1, 1, 4, 8);
        case.blocks[1] = BlockId(99);
        case.run(Isa::detect(), 1, &[(0, 8)]);
    }
}
