//! Kernels that touch each float once or twice: norms, rotation, activation, softmax.
//!
//! Each takes slices of one row or head. They know no batch; the executor walks the rows.

#![expect(unsafe_code, reason = "vector kernel: instruction sets")]

use super::lanes::Lanes;
use super::{Isa, LANES, dispatch};

/// Root-mean-square norm of `x`, times `weight`, into `out`; all of one length.
///
/// `out[i] = weight[i] * x[i] / sqrt(mean(x^2) + epsilon)`
pub(crate) fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = inverse_rms(isa, x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = weight * (x * scale);
    }
}

/// [`rms_norm`] of `x` into itself.
pub(crate) fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = inverse_rms(isa, x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = weight * (*x * scale);
    }
}

fn inverse_rms(isa: Isa, x: &[f32], epsilon: f32) -> f32 {
    let sum = dispatch!(isa, sum_of_squares(x: &[f32]) -> f32);
    1.0 / (sum / x.len() as f32 + epsilon).sqrt()
}

/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn sum_of_squares<L: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: `chunks_exact` and the padded tail are sixteen floats; instructions by the caller.
    unsafe {
        let chunks = x.chunks_exact(LANES);
        let tail = zero_extended(chunks.remainder());
        let tail = L::load(tail.as_ptr());
        let mut sum = tail.mul(tail);
        for chunk in chunks {
            let lanes = L::load(chunk.as_ptr());
            sum = lanes.mul_add(lanes, sum);
        }
        sum.sum()
    }
}

/// Fewer than sixteen floats, with zeros behind them.
#[inline(always)]
fn zero_extended(floats: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..floats.len()].copy_from_slice(floats);
    lanes
}

/// Rotates a head by its position: element `i` of the first half pairs with `i` of the second.
///
/// `cos` and `sin` are `[head_dim / 2]`, of the angles of the head's position. This is the
/// half-split order in which Hugging Face checkpoints store their projections.
pub(crate) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// `x[i] += other[i]`
pub(crate) fn add_assign(x: &mut [f32], other: &[f32]) {
    for (x, other) in x.iter_mut().zip(other) {
        *x += other;
    }
}

/// `gate[i] = silu(gate[i]) * up[i]` with `silu(x) = x / (1 + e^-x)`; both of one length.
pub(crate) fn silu_times(isa: Isa, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up");
    dispatch!(isa, silu_times_lanes(gate: &mut [f32], up: &[f32]));
}

/// # Safety
/// The processor has the instructions of `L`; both slices have one length.
#[inline(always)]
unsafe fn silu_times_lanes<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    let mut gates = gate.chunks_exact_mut(LANES);
    let ups = up.chunks_exact(LANES);
    let up_tail = zero_extended(ups.remainder());
    for (gate, up) in gates.by_ref().zip(ups) {
        // SAFETY: sixteen floats each; instructions by the caller.
        unsafe { silu_times_vector::<L>(gate.as_mut_ptr(), up.as_ptr()) };
    }
    let tail = gates.into_remainder();
    let mut gate_tail = zero_extended(tail);
    // SAFETY: sixteen floats each; instructions by the caller.
    unsafe { silu_times_vector::<L>(gate_tail.as_mut_ptr(), up_tail.as_ptr()) };
    tail.copy_from_slice(&gate_tail[..tail.len()]);
}

#[inline(always)]
unsafe fn silu_times_vector<L: Lanes>(gate: *mut f32, up: *const f32) {
    // SAFETY: the caller vouches for sixteen floats at both.
    unsafe {
        let x = L::load(gate);
        let denominator = L::splat(0.0).sub(x).exp().add(L::splat(1.0));
        x.div(denominator).mul(L::load(up)).store(gate);
    }
}

/// Turns the scores `row[..n]` into unnormalised probabilities `e^(score - max)`, zeroes the
/// rest of `row`, and returns the reciprocal of their sum.
///
/// # Safety
/// The processor has the instructions of `L`. `n` is at least one, and `row` is at least `n`
/// rounded up to sixteen.
#[inline(always)]
pub(crate) unsafe fn softmax<L: Lanes>(row: &mut [f32], n: usize) -> f32 {
    let whole = n / LANES * LANES;
    let (vectors, rest) = row.split_at_mut(whole);
    let (tail, beyond) = rest.split_at_mut(n - whole);
    // SAFETY: every pointer is to sixteen floats; instructions by the caller.
    unsafe {
        let mut largest = L::splat(f32::NEG_INFINITY);
        for vector in vectors.chunks_exact(LANES) {
            largest = L::load(vector.as_ptr()).max(largest);
        }
        let largest = tail.iter().copied().fold(largest.largest(), f32::max);
        let shift = L::splat(largest);
        let mut sum = L::splat(0.0);
        for vector in vectors.chunks_exact_mut(LANES) {
            let powers = L::load(vector.as_ptr()).sub(shift).exp();
            powers.store(vector.as_mut_ptr());
            sum = sum.add(powers);
        }
        let mut powers = L::load(zero_extended(tail).as_ptr())
            .sub(shift)
            .exp()
            .to_array();
        powers[tail.len()..].fill(0.0);
        tail.copy_from_slice(&powers[..tail.len()]);
        beyond.fill(0.0);
        1.0 / sum.add(L::load(powers.as_ptr())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 7] = [1, 2, 15, 16, 17, 64, 101];

    fn values(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 25.0 - 2.0)
            .collect()
    }

    fn close(a: f32, b: f64, what: &str) {
        assert!(
            (f64::from(a) - b).abs() <= 2e-6 * b.abs().max(1e-3),
            "{what}: {a} is not {b}"
        );
    }

    #[test]
    fn rms_norm_agrees_with_its_formula() {
        for isa in Isa::available() {
            for n in LENGTHS {
                let (x, weight) = (values(n), values(n + 5)[5..].to_vec());
                let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
                let mut out = vec![0.0; n];
                rms_norm(isa, &x, &weight, 1e-5, &mut out);
                let mut in_place = x.clone();
                rms_norm_in_place(isa, &mut in_place, &weight, 1e-5);
                assert_eq!(out, in_place);
                for i in 0..n {
                    let expected = f64::from(weight[i]) * f64::from(x[i]) / (mean + 1e-5).sqrt();
                    close(out[i], expected, isa.name());
                }
            }
        }
    }

    #[test]
    fn silu_agrees_with_its_formula() {
        for isa in Isa::available() {
            for n in LENGTHS {
                let mut gate: Vec<_> = values(n).iter().map(|v| v * 20.0).collect();
                let (x, up) = (gate.clone(), values(n));
                silu_times(isa, &mut gate, &up);
                for i in 0..n {
                    let x = f64::from(x[i]);
                    close(
                        gate[i],
                        x / (1.0 + (-x).exp()) * f64::from(up[i]),
                        isa.name(),
                    );
                }
            }
        }
    }

    #[test]
    fn extreme_gates_stay_finite() {
        for isa in Isa::available() {
            let mut gate = vec![-1e30, -200.0, 200.0, 1e30];
            silu_times(isa, &mut gate, &[1.0; 4]);
            assert!(gate[0].abs() < 1e-6 && gate[1].abs() < 1e-6, "{gate:?}");
            assert_eq!(gate[2..], [200.0, 1e30]);
        }
    }

    fn run_softmax(isa: Isa, row: &mut [f32], n: usize) -> f32 {
        dispatch!(isa, softmax(row: &mut [f32], n: usize) -> f32)
    }

    #[test]
    fn softmax_agrees_with_its_formula_and_clears_what_lies_beyond() {
        for isa in Isa::available() {
            for n in LENGTHS {
                let scores: Vec<_> = values(n).iter().map(|v| v * 30.0).collect();
                let mut row = vec![1e30; n.next_multiple_of(16) + 16];
                row[..n].copy_from_slice(&scores);
                let scale = run_softmax(isa, &mut row, n);
                let max = scores.iter().copied().fold(f32::MIN, f32::max);
                let powers: Vec<_> = scores
                    .iter()
                    .map(|s| (f64::from(*s) - f64::from(max)).exp())
                    .collect();
                let sum: f64 = powers.iter().sum();
                for i in 0..n {
                    close(row[i] * scale, powers[i] / sum, isa.name());
                }
                assert!(row[n..].iter().all(|v| *v == 0.0));
            }
        }
    }

    #[test]
    fn rotation_turns_pairs_of_the_two_halves() {
        let mut head = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0]);
        assert_eq!(head, [-3.0, 2.0, 1.0, 4.0]);
    }
}
