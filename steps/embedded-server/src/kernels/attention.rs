//! Causal attention over a paged key-value cache.
//!
//! Decode and prefill are one kernel. The query heads that share a key-value head, over all
//! tokens of a chunk, are rows, and a few dozen rows are a task; a row sees the keys up to its
//! own position. This file divides the work and checks it, `task` computes.
//!
//! Every row adds keys in the order of their positions, whatever task it is in, so that a token's
//! attention has the same bits in a decode step, in a whole prompt and in any chunk of it.

#![expect(
    unsafe_code,
    reason = "vector kernel: threads write disjoint heads of one output"
)]

mod task;

use super::key_values::{KeyValueShape, KeyValues};
use super::{Isa, Rows, Workers};
use crate::executor::BlockId;
use task::{AttentionScratch, Job, TASK_ROWS};

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
        let shape = cache.shape();
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
            // SAFETY: `plan` checked the spans; tasks are disjoint in (row, query head).
            unsafe { task::run(isa, job, scratch) };
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
