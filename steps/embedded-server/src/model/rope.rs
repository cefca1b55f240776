//! Rotary position embedding: which angle each pair of a head turns by, per position.

use super::keys::{ConfigProblem, Keys};

/// Base and scaling of the rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// How the frequencies are changed to reach further than the model was first trained for.
    pub scaling: RopeScaling,
}

/// A change to the frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// None.
    Unscaled,
    /// Every frequency is divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies are divided by `factor`, high ones kept, and those between interpolated.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns within the original context above which a frequency is high.
        high_freq_factor: f64,
        /// Positions of the original context.
        original_max_position_embeddings: f64,
    },
}

impl Rope {
    /// Reads `rope_parameters` (newer files) or `rope_theta` and `rope_scaling`.
    pub(super) fn read(keys: Keys<'_>) -> Result<Self, ConfigProblem> {
        let parameters = keys.object("rope_parameters")?;
        let scaling = keys.object("rope_scaling")?;
        for keys in [Some(keys), parameters, scaling].into_iter().flatten() {
            refuse_partial_rotation(keys)?;
        }
        let theta = match parameters {
            Some(parameters) => parameters.number("rope_theta")?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => keys.number("rope_theta")?.unwrap_or(10_000.0),
        };
        let scaling = match parameters.or(scaling) {
            Some(keys) => RopeScaling::read(keys)?,
            None => RopeScaling::Unscaled,
        };
        Ok(Rope { theta, scaling })
    }

    /// Angle per position of each pair of a head of `head_dim`, radians, `[head_dim / 2]`.
    ///
    /// The published definition, `theta^(-2i / head_dim)`, with the scaling applied.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2)
            .map(|i| self.theta.powf(-2.0 * i as f64 / head_dim as f64))
            .map(|frequency| self.scaling.scale(frequency))
            .collect()
    }
}

fn refuse_partial_rotation(keys: Keys<'_>) -> Result<(), ConfigProblem> {
    let key = "partial_rotary_factor";
    match keys.number(key)? {
        None | Some(1.0) => Ok(()),
        Some(other) => Err(ConfigProblem::Unsupported {
            key,
            found: other.to_string(),
            supported: "1",
        }),
    }
}

impl RopeScaling {
    fn read(keys: Keys<'_>) -> Result<Self, ConfigProblem> {
        let kind = match keys.text("rope_type")? {
            Some(kind) => kind,
            None => keys.text("type")?.unwrap_or("default"),
        };
        match kind {
            "default" => Ok(RopeScaling::Unscaled),
            "linear" => Ok(RopeScaling::Linear {
                factor: keys.required_number("factor")?,
            }),
            "llama3" => Self::read_llama3(keys),
            other => Err(ConfigProblem::Unsupported {
                key: "rope_scaling",
                found: other.to_owned(),
                supported: "default, linear, llama3",
            }),
        }
    }

    fn read_llama3(keys: Keys<'_>) -> Result<Self, ConfigProblem> {
        let low_freq_factor = keys.required_number("low_freq_factor")?;
        let high_freq_factor = keys.required_number("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            return Err(ConfigProblem::WrongType {
                key: "high_freq_factor",
                found: high_freq_factor.to_string(),
                expected: "more than `low_freq_factor`",
            });
        }
        Ok(RopeScaling::Llama3 {
            factor: keys.required_number("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: keys
                .required_number("original_max_position_embeddings")?,
        })
    }

    fn scale(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::Unscaled => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let turns = original * frequency / std::f64::consts::TAU;
                // 0 for low frequencies, 1 for high ones.
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<Rope, ConfigProblem> {
        Rope::read(Keys::new(&value)?)
    }

    #[test]
    fn old_and_new_spellings_mean_the_same() {
        let old = json!({ "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 4 } });
        let new = json!({
            "rope_parameters": { "rope_theta": 5e5, "rope_type": "linear", "factor": 4.0 }
        });
        assert_eq!(read(old).unwrap(), read(new).unwrap());
    }

    #[test]
    fn absent_and_null_scaling_leave_the_frequencies() {
        let plain = Rope {
            theta: 1e4,
            scaling: RopeScaling::Unscaled,
        };
        assert_eq!(read(json!({})), Ok(plain));
        assert_eq!(read(json!({ "rope_scaling": null })), Ok(plain));
        let frequencies = plain.frequencies(8);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn llama3_divides_low_frequencies_and_keeps_high_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let tau = std::f64::consts::TAU;
        let of_turns = |turns: f64| scaling.scale(turns * tau / 8192.0) * 8192.0 / tau;
        assert!((of_turns(0.5) - 0.5 / 8.0).abs() < 1e-9);
        assert!((of_turns(9.0) - 9.0).abs() < 1e-9);
        // Half way: the mean of both.
        assert!((of_turns(2.5) - 2.5 * (0.5 + 0.5 / 8.0)).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        let error = read(json!({ "rope_scaling": { "rope_type": "yarn" } })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "key `rope_scaling` is `yarn`, supported: default, linear, llama3"
        );
        let error = read(json!({ "partial_rotary_factor": 0.5 })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "key `partial_rotary_factor` is `0.5`, supported: 1"
        );
        let error = read(json!({ "rope_scaling": { "type": "linear" } })).unwrap_err();
        assert_eq!(error, ConfigProblem::Missing { key: "factor" });
    }
}
