//! Made-up weights: each value is a function of seed, tensor name and index, and of nothing else.
//!
//! Being a function rather than a stream, a tensor can be filled in any order by any number of
//! threads, and dropping layers from a model leaves the others as they were.

use models::noise;

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
        DummyTensor {
            key: noise::key(seed, name),
            distribution,
            role,
        }
    }

    /// Element `index` of the tensor, row-major.
    #[inline]
    pub(super) fn value(self, index: usize) -> f32 {
        let bits = noise::bits(self.key, index as u64);
        match self.distribution {
            Distribution::Small => {
                // The upper 24 bits: as many as an f32 holds.
                ((bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0) * 1e-3
            }
            Distribution::Scaled => {
                let deviation = 0.02 * noise::normal(bits);
                if self.role == Role::Gain {
                    1.0 + deviation
                } else {
                    deviation
                }
            }
        }
    }
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
