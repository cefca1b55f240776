//! The one multiply-accumulate loop: a tile of rows times a few vectors of columns.
//!
//! `y[m][n] += sum over i of x[m][i] * w[i][n]`, with `i` ascending and each product fused into
//! the running sum, so that an output's bits do not depend on the shape of the tile it fell into.
//! It knows neither what the rows are (tokens, query heads) nor where the columns lie (weight
//! panels, key blocks, value blocks).

#![expect(unsafe_code, reason = "vector kernel: raw operands")]

use super::LANES;
use super::lanes::Lanes;

/// Column vectors of the widest tile.
pub(crate) const MAX_VECTORS: usize = 8;

/// Left operand of a tile: rows of inputs.
#[derive(Clone, Copy)]
pub(crate) struct Inputs {
    /// The first row's first input.
    pub(crate) first: *const f32,
    /// Floats from one row to the next.
    pub(crate) stride: usize,
}

/// Adds `depth` products to each accumulator of an `M` x `V` tile.
///
/// Step `i` multiplies `inputs[m][i]` with the sixteen floats at `vectors[v] + i * step`.
///
/// # Safety
/// The processor has the instructions of `L`; `inputs` is readable for `M` rows of `depth`
/// floats, and each of `vectors` for `depth` vectors, `step` floats apart.
#[inline(always)]
pub(crate) unsafe fn accumulate<L: Lanes, const M: usize, const V: usize>(
    sums: &mut [[L; V]; M],
    inputs: Inputs,
    vectors: [*const f32; V],
    step: usize,
    depth: usize,
) {
    // Local copies let the compiler keep every accumulator in a register.
    let mut local = *sums;
    for i in 0..depth {
        // SAFETY: `i < depth`, within what the caller vouches for.
        unsafe {
            let mut columns = [L::splat(0.0); V];
            for (column, vector) in columns.iter_mut().zip(vectors) {
                *column = L::load(vector.add(i * step));
            }
            for (m, row) in local.iter_mut().enumerate() {
                let input = L::splat(*inputs.first.add(m * inputs.stride + i));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = input.mul_add(column, *sum);
                }
            }
        }
    }
    *sums = local;
}

/// Accumulators of zero.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn zeros<L: Lanes, const M: usize, const V: usize>() -> [[L; V]; M] {
    // SAFETY: passed on from the caller.
    [[unsafe { L::splat(0.0) }; V]; M]
}

/// Accumulators from a matrix: sixteen columns per vector, `stride` floats from row to row.
///
/// # Safety
/// The processor has the instructions of `L`; `from` is readable for `M` rows of `V` vectors.
#[inline(always)]
pub(crate) unsafe fn load<L: Lanes, const M: usize, const V: usize>(
    from: *const f32,
    stride: usize,
) -> [[L; V]; M] {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = zeros::<L, M, V>();
        for (m, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = L::load(from.add(m * stride + v * LANES));
            }
        }
        sums
    }
}

/// Accumulators into a matrix whose vector `v` starts at column `columns[v]`.
///
/// # Safety
/// The processor has the instructions of `L`; `to` is writable for a vector at each of `columns`
/// of `M` rows.
#[inline(always)]
pub(crate) unsafe fn store<L: Lanes, const M: usize, const V: usize>(
    sums: [[L; V]; M],
    to: *mut f32,
    stride: usize,
    columns: [usize; V],
) {
    for (m, row) in sums.into_iter().enumerate() {
        for (sum, column) in row.into_iter().zip(columns) {
            // SAFETY: passed on from the caller.
            unsafe { sum.store(to.add(m * stride + column)) };
        }
    }
}

/// The columns of `V` vectors that lie side by side.
#[inline(always)]
pub(crate) const fn adjacent<const V: usize>() -> [usize; V] {
    let mut columns = [0; V];
    let mut v = 0;
    while v < V {
        columns[v] = v * LANES;
        v += 1;
    }
    columns
}

/// How many vectors wide a tile of `rows` rows is, when `remaining` vectors are left to do.
///
/// A tile holds its accumulators and one row of column vectors; one more than fits, and every
/// step of the loop would spill to memory.
#[inline(always)]
pub(crate) fn width<L: Lanes>(rows: usize, remaining: usize) -> usize {
    let limit = remaining.min(L::VECTORS / (rows + 1));
    match limit {
        8.. => 8,
        4..=7 => 4,
        3 => 3,
        2 => 2,
        _ => 1,
    }
}

/// How many rows the tiles of `rows` rows have: as few tiles as possible, evenly filled.
#[inline(always)]
pub(crate) fn height<L: Lanes>(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(L::TILE_ROWS))
}

/// Calls `$kernel::<L, M, V>` for run-time `$rows` in `1..=8` and `$vectors` from [`width`].
///
/// Shapes that exceed an instruction set's registers are never asked for; kernels start with
/// [`fits`] so that no code is generated for them.
macro_rules! with_shape {
    ($rows:expr, $vectors:expr, $kernel:ident::<$lanes:ident>$args:tt) => {
        match $vectors {
            1 => with_shape!(@rows $rows, 1, $kernel, $lanes, $args),
            2 => with_shape!(@rows $rows, 2, $kernel, $lanes, $args),
            3 => with_shape!(@rows $rows, 3, $kernel, $lanes, $args),
            4 => with_shape!(@rows $rows, 4, $kernel, $lanes, $args),
            _ => with_shape!(@rows $rows, 8, $kernel, $lanes, $args),
        }
    };
    (@rows $rows:expr, $v:literal, $kernel:ident, $lanes:ident, $args:tt) => {
        match $rows {
            1 => $kernel::<$lanes, 1, $v> $args,
            2 => $kernel::<$lanes, 2, $v> $args,
            3 => $kernel::<$lanes, 3, $v> $args,
            4 => $kernel::<$lanes, 4, $v> $args,
            5 => $kernel::<$lanes, 5, $v> $args,
            6 => $kernel::<$lanes, 6, $v> $args,
            7 => $kernel::<$lanes, 7, $v> $args,
            _ => $kernel::<$lanes, 8, $v> $args,
        }
    };
}
pub(crate) use with_shape;

/// Whether an `m` x `v` tile fits the registers of `L`: constant once compiled.
#[inline(always)]
pub(crate) const fn fits<L: Lanes>(m: usize, v: usize) -> bool {
    m <= L::TILE_ROWS && (m + 1) * v <= L::VECTORS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Portable;

    #[test]
    fn tiles_are_evenly_filled_and_fit_the_registers() {
        for rows in 1..100 {
            let height = height::<Portable>(rows);
            assert!(height <= Portable::TILE_ROWS && height * rows.div_ceil(height) >= rows);
            for remaining in 1..20 {
                let width = width::<Portable>(height, remaining);
                assert!(width <= remaining && fits::<Portable>(height, width));
            }
        }
    }
}
