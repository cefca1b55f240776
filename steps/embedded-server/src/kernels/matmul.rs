//! Rows times packed weights.
//!
//! One kernel serves one row and thousands. A group of panels is taken through all rows, a slice
//! of inputs at a time, so that its weights are read from memory once and then from the second
//! level cache. Partial sums between slices rest in the output as `f32`, which is exact, so that
//! slicing changes no bit.

#![expect(
    unsafe_code,
    reason = "vector kernel: threads write disjoint columns of one output"
)]

use super::lanes::Lanes;
use super::tile::{self, Inputs, MAX_VECTORS, with_shape};
use super::{Isa, LANES, PackedMatrix, RowsView, RowsViewMut, Workers, dispatch};

/// Inputs per slice: three panels of 512 x 16 floats are 96 KiB of weights, and eight rows 16 KiB.
const SLICE: usize = 512;

/// Pieces per thread, so that a thread that is held up does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

/// What the sums of a product start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Zero: the output is overwritten.
    Zero,
    /// The output as it is, such as a bias.
    Output,
}

/// Computes `y = x * weights^T`, or adds it to `y`.
///
/// `x` is `[n_rows, n_inputs]`, `y` is `[n_rows, n_outputs]`. A row of `y` depends on its row of
/// `x` alone, bit for bit.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul(
    workers: &Workers,
    isa: Isa,
    x: RowsView<'_>,
    weights: &PackedMatrix,
    mut y: RowsViewMut<'_>,
    start: Start,
) {
    assert_eq!(x.width(), weights.n_inputs(), "inputs of the product");
    assert_eq!(y.width(), weights.n_outputs(), "outputs of the product");
    assert_eq!(x.n_rows(), y.n_rows(), "rows of the product");
    let n_rows = x.n_rows();
    if n_rows == 0 {
        return;
    }
    let job = Job {
        x: x.data().as_ptr(),
        x_stride: x.stride(),
        n_rows,
        weights: weights.panels().as_ptr(),
        n_inputs: weights.n_inputs(),
        y_stride: y.stride(),
        y: y.data_mut().as_mut_ptr(),
        start,
    };
    let n_panels = weights.n_panels();
    let n_pieces = if workers.n_threads() == 1 {
        1
    } else {
        workers.n_threads() * PIECES_PER_THREAD
    };
    // Whole groups of the widest tile, so that splitting does not narrow any.
    let piece = n_panels.div_ceil(n_pieces).next_multiple_of(MAX_VECTORS);
    workers.for_each(n_panels.div_ceil(piece), |i| {
        run(isa, &job, i * piece, n_panels.min((i + 1) * piece));
    });
}

/// Operands of one product. All row strides are whole vectors, so that the last panel of a row
/// may be written in full.
struct Job {
    x: *const f32,
    x_stride: usize,
    n_rows: usize,
    weights: *const f32,
    n_inputs: usize,
    y: *mut f32,
    y_stride: usize,
    start: Start,
}

// SAFETY: threads share `x` and the weights for reading and write disjoint panels of `y`, whose
// exclusive borrow outlives the job.
unsafe impl Sync for Job {}

fn run(isa: Isa, job: &Job, first: usize, end: usize) {
    dispatch!(isa, panels(job: &Job, first: usize, end: usize));
}

/// Computes the panels `first..end` of all rows.
///
/// # Safety
/// The processor has the instructions of `L`, `job` is made by [`matmul`], and nobody else writes
/// these panels.
#[inline(always)]
unsafe fn panels<L: Lanes>(job: &Job, first: usize, end: usize) {
    let height = tile::height::<L>(job.n_rows);
    // One tile of rows meets each weight once: slicing would only store and reload sums.
    let slice = if job.n_rows <= height {
        job.n_inputs.max(1)
    } else {
        SLICE
    };
    let mut panel = first;
    while panel < end {
        let width = tile::width::<L>(height, end - panel);
        let mut input = 0;
        loop {
            let depth = slice.min(job.n_inputs - input);
            let mut row = 0;
            while row < job.n_rows {
                let rows = height.min(job.n_rows - row);
                let at = Tile {
                    row,
                    panel,
                    input,
                    depth,
                };
                // SAFETY: the tile lies within the job's operands.
                unsafe { with_shape!(rows, width, product::<L>(job, at)) };
                row += rows;
            }
            input += depth;
            if input >= job.n_inputs {
                break;
            }
        }
        panel += width;
    }
}

/// Where a tile lies: `row` and `panel` of the output, `input..input + depth` of the sum.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    panel: usize,
    input: usize,
    depth: usize,
}

#[inline(always)]
unsafe fn product<L: Lanes, const M: usize, const V: usize>(job: &Job, at: Tile) {
    if !tile::fits::<L>(M, V) {
        unreachable!("tiles are chosen to fit the registers");
    }
    // SAFETY: `matmul` checked the shapes; strides are whole vectors and panels are padded, so
    // that whole vectors may be read and written at every row and panel.
    unsafe {
        let output = job.y.add(at.row * job.y_stride + at.panel * LANES);
        let mut sums = if at.input > 0 || job.start == Start::Output {
            tile::load::<L, M, V>(output, job.y_stride)
        } else {
            tile::zeros::<L, M, V>()
        };
        let mut vectors = [job.weights; V];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = vector.add(((at.panel + v) * job.n_inputs + at.input) * LANES);
        }
        let inputs = Inputs {
            first: job.x.add(at.row * job.x_stride + at.input),
            stride: job.x_stride,
        };
        tile::accumulate::<L, M, V>(&mut sums, inputs, vectors, LANES, at.depth);
        tile::store(sums, output, job.y_stride, tile::adjacent::<V>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::buffer::Rows;
    use std::num::NonZeroUsize;

    fn workers(n: usize) -> Workers {
        Workers::new(NonZeroUsize::new(n).unwrap()).unwrap()
    }

    /// Varied values without a pattern that an indexing error could preserve.
    fn value(i: usize) -> f32 {
        ((i.wrapping_mul(2_654_435_761) >> 7) % 2001) as f32 / 1000.0 - 1.0
    }

    fn inputs(n_rows: usize, width: usize) -> Rows {
        let mut rows = Rows::new(width);
        rows.set_rows(n_rows);
        for r in 0..n_rows {
            for (i, v) in rows.row_mut(r).iter_mut().enumerate() {
                *v = value(r * 7919 + i);
            }
        }
        rows
    }

    fn product(n_threads: usize, isa: Isa, x: &Rows, w: &PackedMatrix) -> Vec<Vec<f32>> {
        let mut y = Rows::new(w.n_outputs());
        y.set_rows(x.n_rows());
        let n_rows = x.n_rows();
        matmul(
            &workers(n_threads),
            isa,
            x.view(0..n_rows),
            w,
            y.view_mut(0..n_rows),
            Start::Zero,
        );
        (0..x.n_rows()).map(|r| y.row(r).to_vec()).collect()
    }

    #[test]
    fn agrees_with_the_naive_product_on_odd_shapes() {
        for isa in Isa::available() {
            for (n_rows, n_outputs, n_inputs) in [
                (1, 1, 1),
                (1, 200, 33),
                (2, 17, 64),
                (7, 130, 5),
                (9, 49, 600),
                (33, 35, 1100),
            ] {
                let x = inputs(n_rows, n_inputs);
                let w = PackedMatrix::from_fn(n_outputs, n_inputs, |i| value(i + 13));
                let y = product(1, isa, &x, &w);
                for (r, row) in y.iter().enumerate() {
                    for (o, found) in row.iter().enumerate() {
                        let products = (0..n_inputs).map(|i| {
                            f64::from(x.row(r)[i]) * f64::from(value(o * n_inputs + i + 13))
                        });
                        let exact: f64 = products.clone().sum();
                        let magnitude: f64 = products.map(f64::abs).sum();
                        let error = (f64::from(*found) - exact).abs();
                        // Rounding errors are signed: they add up like a random walk.
                        let bound = 1e-7 * (n_inputs as f64).sqrt() * magnitude;
                        assert!(error <= bound, "{} [{r}][{o}]: {error}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_every_batch_and_on_any_threads() {
        for isa in Isa::available() {
            let x = inputs(41, 700);
            let w = PackedMatrix::from_fn(150, 700, value);
            let whole = product(1, isa, &x, &w);
            assert_eq!(whole, product(3, isa, &x, &w));
            for n_rows in 1..=40 {
                let mut part = Rows::new(700);
                part.set_rows(n_rows);
                for r in 0..n_rows {
                    part.row_mut(r).copy_from_slice(x.row(41 - n_rows + r));
                }
                assert_eq!(
                    product(1, isa, &part, &w),
                    whole[41 - n_rows..],
                    "{n_rows} rows"
                );
            }
        }
    }

    #[test]
    fn fused_instruction_sets_agree_bit_for_bit() {
        let fused: Vec<_> = Isa::available().into_iter().skip(1).collect();
        let x = inputs(13, 600);
        let w = PackedMatrix::from_fn(100, 600, value);
        for pair in fused.windows(2) {
            assert_eq!(product(1, pair[0], &x, &w), product(1, pair[1], &x, &w));
        }
    }

    #[test]
    fn a_product_can_start_from_a_bias() {
        let x = inputs(12, 1030);
        let w = PackedMatrix::from_fn(20, 1030, value);
        let mut y = Rows::new(20);
        y.set_rows(12);
        y.range_mut(0..12).fill(100.0);
        let plain = product(1, Isa::detect(), &x, &w);
        matmul(
            &workers(1),
            Isa::detect(),
            x.view(0..12),
            &w,
            y.view_mut(0..12),
            Start::Output,
        );
        for (r, plain) in plain.iter().enumerate() {
            for (found, plain) in y.row(r).iter().zip(plain) {
                assert!((found - plain - 100.0).abs() < 1e-2);
            }
        }
    }
}
