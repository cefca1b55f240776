//! Made-up weights: each value is a function of seed, tensor name and index, and of nothing else.
//!
//! Being a function rather than a stream, a tensor can be filled in any order by any number of
//! threads, and dropping layers from a model leaves the others as they were.

/// A distribution of made-up weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    /// Uniform in `[-1e-3, 1e-3)`, norms and biases too: what SGLang's dummy format does. Right
    /// for timing, but its logits nearly tie.
    Small,
    /// Bell-shaped with standard deviation 0.02, norms around one: activations of ordinary size.
    Scaled,
}

/// The role of a tensor, as far as its distribution depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A matrix or a bias.
    Linear,
    /// The gain of a norm.
    Gain,
}

/// The generator of one tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct DummyTensor {
    key: u64,
    distribution: Distribution,
    role: Role,
}

impl DummyTensor {
    pub(super) fn new(seed: u64, name: &str, distribution: Distribution, role: Role) -> Self {
        // FNV-1a: 64-bit offset basis and prime.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        DummyTensor {
            key: mix(seed ^ mix(hash)),
            distribution,
            role,
        }
    }

    /// Element `index` of the tensor, row-major.
    #[inline]
    pub(super) fn value(self, index: usize) -> f32 {
        // An odd multiplier keeps distinct indices distinct before mixing.
        let bits = mix(self
            .key
            .wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        match self.distribution {
            Distribution::Small => {
                // The upper 24 bits: as many as an f32 holds.
                ((bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0) * 1e-3
            }
            Distribution::Scaled => {
                let deviation = 0.02 * normal(bits);
                if self.role == Role::Gain {
                    1.0 + deviation
                } else {
                    deviation
                }
            }
        }
    }
}

/// Roughly standard normal: the sum of four uniform 16-bit parts, whose mean is `2 * 65535` and
/// whose variance is four twelfths of `65536^2`.
#[inline]
fn normal(bits: u64) -> f32 {
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (sum as f32 - 2.0 * 65_535.0) * (1.732_050_8 / 65_536.0)
}

/// A bijection in which every bit depends on every other (the finaliser of SplitMix64: Steele,
/// Lea and Flood, 2014).
#[inline]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(seed: u64, name: &str, distribution: Distribution) -> DummyTensor {
        DummyTensor::new(seed, name, distribution, Role::Linear)
    }

    fn moments(tensor: DummyTensor) -> (f64, f64) {
        let n = 100_000;
        let values = || (0..n).map(|i| f64::from(tensor.value(i)));
        let mean = values().sum::<f64>() / n as f64;
        (
            mean,
            (values().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt(),
        )
    }

    #[test]
    fn small_values_are_uniform_in_their_range() {
        let small = tensor(1, "a", Distribution::Small);
        assert!((0..100_000).all(|i| (-1e-3..1e-3).contains(&small.value(i))));
        let (mean, deviation) = moments(small);
        assert!(mean.abs() < 1e-5 && (deviation - 1e-3 / 3_f64.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn scaled_values_have_their_deviation_and_norms_lie_around_one() {
        let (mean, deviation) = moments(tensor(1, "a", Distribution::Scaled));
        assert!(mean.abs() < 3e-4 && (deviation - 0.02).abs() < 3e-4);
        let (mean, _) = moments(DummyTensor::new(1, "a", Distribution::Scaled, Role::Gain));
        assert!((mean - 1.0).abs() < 3e-4);
    }

    #[test]
    fn seed_name_and_index_all_matter() {
        let values = |seed, name| {
            let tensor = tensor(seed, name, Distribution::Scaled);
            (0..64)
                .map(|i| tensor.value(i).to_bits())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(1, "a"), values(1, "a"));
        let mut all = [values(1, "a"), values(2, "a"), values(1, "b")].concat();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 180, "{} distinct of 192", all.len());
    }
}
