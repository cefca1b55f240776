//! Sixteen floats as one value, on whatever registers the processor has.
//!
//! Kernels are written once against [`Lanes`]. Sixteen everywhere, rather than each machine's own
//! width, keeps packing and reduction order the same on every instruction set. This file knows no
//! instruction set but the portable one; the others are in `x86`.

#![expect(unsafe_code, reason = "vector kernel: instruction sets and raw loads")]

use super::LANES;

/// Sixteen `f32` values.
///
/// # Safety
/// Every method requires that the processor has the implementor's instructions. `load` and
/// `store` further require a pointer that is valid for sixteen floats; no alignment is needed.
pub(crate) trait Lanes: Copy {
    /// Sixteen-float values that the registers hold beside one that is broadcast.
    const VECTORS: usize;
    /// Rows in the tallest tile, `1..=8`.
    const TILE_ROWS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// `self * factor + addend`, fused where the processor can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `2^n` of lanes that hold integers `n` in `-126..=127`.
    unsafe fn power_of_two(self) -> Self;

    /// The lanes as an array.
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds sixteen floats; the caller vouches for the instructions.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// Sum of the lanes: halves are added to each other until one float is left.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: passed on from the caller.
        let mut lanes = unsafe { self.to_array() };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: passed on from the caller.
        let lanes = unsafe { self.to_array() };
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// `e^x`, relative error below 2e-7; inputs are clamped to `-87..=88`.
    ///
    /// `x = n ln 2 + r` with integer `n`, then a polynomial in `|r| <= ln 2 / 2` (Taylor to the
    /// seventh power, whose remainder is below an `f32`'s rounding there), times `2^n`.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const ROUNDER: f32 = 12_582_912.0;
        // ln 2 in two parts; the first has trailing zeros, so that n times it is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        const COEFFICIENTS: [f32; 7] = [
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ];
        // SAFETY: passed on from the caller.
        unsafe {
            let x = self.max(Self::splat(-87.0)).min(Self::splat(88.0));
            let rounder = Self::splat(ROUNDER);
            let n = x
                .mul_add(Self::splat(std::f32::consts::LOG2_E), rounder)
                .sub(rounder);
            let r = n.mul_add(Self::splat(-LN2_HIGH), x);
            let r = n.mul_add(Self::splat(-LN2_LOW), r);
            let mut polynomial = Self::splat(1.0 / 5040.0);
            for coefficient in COEFFICIENTS {
                polynomial = polynomial.mul_add(r, Self::splat(coefficient));
            }
            polynomial.mul(n.power_of_two())
        }
    }
}

/// Lanes in plain Rust: the compiler vectorises them with the target's baseline instructions,
/// SSE2 on x86-64 and NEON on AArch64.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        let mut lanes = self.0;
        for (lane, other) in lanes.iter_mut().zip(other.0) {
            *lane = operation(*lane, other);
        }
        Portable(lanes)
    }
}

impl Lanes for Portable {
    // Four are SSE2's sixteen registers; column vectors are used a quarter at a time.
    const VECTORS: usize = 4;
    const TILE_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for sixteen readable floats; arrays of f32 are read
        // unaligned here.
        Portable(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for sixteen writable floats.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let mut lanes = addend.0;
        for ((lane, a), b) in lanes.iter_mut().zip(self.0).zip(factor.0) {
            // Without the instruction, a fused multiply-add is a library call per lane.
            *lane = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                a.mul_add(b, *lane)
            } else {
                a * b + *lane
            };
        }
        Portable(lanes)
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let mut lanes = self.0;
        for lane in &mut lanes {
            *lane = f32::from_bits(((*lane as i32 + 127) << 23) as u32);
        }
        Portable(lanes)
    }
}
