//! Random weights: each value is a function of seed, tensor and index, and of nothing else.
//!
//! Being a function rather than a stream, a tensor can be written in any order by any number of
//! threads. Only integer operations and single roundings of IEEE 754 are used, so that every
//! machine has the same values. Knows no file.

use crate::noise::{bits, key, normal};
use crate::{Dtype, Role, Tensor};

/// The greatest finite number of eight bits.
const F8_MAX: f32 = 448.0;

/// Eight-bit weights have this standard deviation, so that nearly all of them lie within the format's
/// range and all its exponents are used; their scales make up for it.
const F8_STD: f32 = 100.0;

/// The values of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values {
    fill: Fill,
    dtype: Dtype,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    /// The same everywhere.
    Constant(f32),
    /// Bell-shaped around zero.
    Bell { key: u64, std: f32 },
}

impl Values {
    /// The values of `tensor`: gains one, biases zero, everything else with the standard deviation
    /// `std`.
    pub(crate) fn new(tensor: &Tensor, seed: u64, std: f32) -> Self {
        let fill = match tensor.role {
            Role::Norm => Fill::Constant(1.0),
            Role::NormOffset | Role::Bias => Fill::Constant(0.0),
            Role::Scale => Fill::Constant(std / F8_STD),
            _ => Fill::Bell {
                key: key(seed, tensor.copy_of.as_deref().unwrap_or(&tensor.name)),
                std: if tensor.dtype == Dtype::F8E4M3 {
                    F8_STD
                } else {
                    std
                },
            },
        };
        Self {
            fill,
            dtype: tensor.dtype,
        }
    }

    /// Appends elements `from..from + n`, row-major, little-endian.
    pub(crate) fn encode(self, from: u64, n: u64, into: &mut Vec<u8>) {
        match self.fill {
            Fill::Constant(value) => self.round(n, into, |_| value),
            Fill::Bell { key, std } => self.round(n, into, |i| std * normal(bits(key, from + i))),
        }
    }

    /// Appends `n` values, rounded to the tensor's type.
    fn round(self, n: u64, into: &mut Vec<u8>, value: impl Fn(u64) -> f32) {
        match self.dtype {
            Dtype::F32 => put(n, into, |i| value(i).to_le_bytes()),
            Dtype::F16 => put(n, into, |i| to_f16(value(i)).to_le_bytes()),
            Dtype::Bf16 => put(n, into, |i| to_bf16(value(i)).to_le_bytes()),
            Dtype::F8E4M3 => put(n, into, |i| [to_f8(value(i))]),
        }
    }
}

/// Appends `n` elements of `N` bytes each.
fn put<const N: usize>(n: u64, into: &mut Vec<u8>, bytes: impl Fn(u64) -> [u8; N]) {
    let start = into.len();
    into.resize(start + n as usize * N, 0);
    let (elements, _) = into[start..].as_chunks_mut::<N>();
    for (i, element) in (0..).zip(elements) {
        *element = bytes(i);
    }
}

/// Rounds a finite number to the upper half of its bits, ties to even.
#[inline]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Rounds a finite number to binary16, ties to even; what is too great becomes infinite.
#[inline]
fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let half = if magnitude < 0x3880_0000 {
        // Below 2^-14 all steps are 2^-24.
        (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u32
    } else if magnitude >= 0x477f_f000 {
        0x7c00
    } else {
        // The exponent's bias differs by 112.
        (magnitude + 0xfff + (magnitude >> 13 & 1) - (112 << 23)) >> 13
    };
    (sign | half) as u16
}

/// Rounds a finite number to eight bits, ties to even; what is too great becomes the greatest.
#[inline]
fn to_f8(value: f32) -> u8 {
    let sign = value.to_bits() >> 24 & 0x80;
    let magnitude = value.abs().min(F8_MAX);
    let byte = if magnitude < 0.015_625 {
        // Below 2^-6 all steps are 2^-9.
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        // The exponent's bias differs by 120.
        let bits = magnitude.to_bits();
        (bits + 0x7_ffff + (bits >> 20 & 1) - (120 << 23)) >> 20
    };
    (sign | byte) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Section;

    fn tensor(name: &str, role: Role, dtype: Dtype) -> Tensor {
        Tensor {
            name: name.to_owned(),
            shape: vec![1 << 20],
            dtype,
            role,
            section: Section::Text,
            layer: None,
            expert: None,
            copy_of: None,
        }
    }

    fn values(name: &str, seed: u64) -> Vec<f32> {
        first(&tensor(name, Role::Attention, Dtype::F32), seed, 100_000)
    }

    /// The first `n` values of a tensor of `F32`.
    fn first(tensor: &Tensor, seed: u64, n: u64) -> Vec<f32> {
        let mut bytes = Vec::new();
        Values::new(tensor, seed, 0.02).encode(0, n, &mut bytes);
        let (elements, _) = bytes.as_chunks::<4>();
        elements.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn weights_have_their_deviation_and_depend_on_seed_name_and_index() {
        let values_of = values("a", 1);
        let n = values_of.len() as f64;
        let mean = values_of.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let square = values_of.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 3e-4, "{square}");
        assert!(values_of.iter().all(|v| v.abs() < 0.07));
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        assert!(same(&values_of, &values("a", 2)) < 100);
        assert!(same(&values_of, &values("b", 1)) < 100);
    }

    #[test]
    fn these_values_are_the_same_on_every_machine() {
        let weights = Values::new(&tensor("a", Role::Head, Dtype::Bf16), 42, 0.02);
        let mut bytes = Vec::new();
        weights.encode(1_000_000, 4, &mut bytes);
        assert_eq!(bytes.len(), 8);
        let mut again = Vec::new();
        weights.encode(1_000_000, 1, &mut again);
        weights.encode(1_000_001, 3, &mut again);
        assert_eq!(bytes, again, "how a tensor is cut does not matter");
        assert_eq!(bytes, EXPECTED);
    }

    #[test]
    fn gains_are_one_biases_zero_and_copies_repeat() {
        let first = |tensor: &Tensor| first(tensor, 1, 1)[0];
        assert_eq!(first(&tensor("n", Role::Norm, Dtype::F32)), 1.0);
        assert_eq!(first(&tensor("n", Role::NormOffset, Dtype::F32)), 0.0);
        assert_eq!(first(&tensor("n", Role::Bias, Dtype::F32)), 0.0);
        let mut head = tensor("lm_head.weight", Role::Head, Dtype::F32);
        head.copy_of = Some("embed".to_owned());
        let table = tensor("embed", Role::Embedding, Dtype::F32);
        assert_eq!(first(&head), first(&table));
    }

    /// Decodes binary16.
    fn from_f16(half: u16) -> f64 {
        let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 1023));
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            31 => f64::INFINITY,
            _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
        };
        if half & 0x8000 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    #[test]
    fn halves_are_the_nearest_and_what_is_half_stays_itself() {
        for half in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(to_f16(from_f16(half) as f32), half, "{half:#06x}");
        }
        // Half-way between 1 and the next, and between that and the one after.
        assert_eq!(to_f16(1.0 + 2_f32.powi(-11)), 0x3c00);
        assert_eq!(to_f16(1.0 + 3.0 * 2_f32.powi(-11)), 0x3c02);
        assert_eq!(to_f16(65_519.0), 0x7bff);
        assert_eq!(to_f16(65_520.0), 0x7c00);
        assert_eq!(to_bf16(1.0 + 2_f32.powi(-8)), 0x3f80);
        assert_eq!(to_bf16(1.0 + 3.0 * 2_f32.powi(-8)), 0x3f82);
    }

    #[test]
    fn eight_bits_are_the_nearest_and_never_no_number() {
        for byte in 0..0x7f_u8 {
            let (exponent, fraction) = (i32::from(byte >> 3), f32::from(byte & 7));
            let value = match exponent {
                0 => fraction * 2_f32.powi(-9),
                _ => (8.0 + fraction) * 2_f32.powi(exponent - 10),
            };
            assert_eq!(to_f8(value), byte, "{value}");
            assert_eq!(to_f8(-value), byte | 0x80);
        }
        assert_eq!(to_f8(1e9), 0x7e);
    }

    #[test]
    fn no_block_of_a_tensor_repeats_and_low_bytes_are_random() {
        let weights = Values::new(&tensor("a", Role::Head, Dtype::Bf16), 7, 0.02);
        let mut bytes = Vec::new();
        weights.encode(0, 1 << 19, &mut bytes);
        let blocks: std::collections::HashSet<&[u8]> = bytes.chunks(512).collect();
        assert_eq!(blocks.len(), bytes.len() / 512);
        let mut counts = [0_u32; 256];
        let low = bytes.iter().step_by(2);
        low.for_each(|b| counts[usize::from(*b)] += 1);
        let share = |n: &u32| f64::from(*n) / f64::from(1 << 19);
        let entropy: f64 = counts.iter().map(|n| -share(n) * share(n).log2()).sum();
        assert!(entropy > 7.9, "{entropy} of 8 bits");
    }

    /// Computed from the definition with Python's integers.
    const EXPECTED: [u8; 8] = [246, 59, 152, 188, 204, 59, 240, 59];
}
