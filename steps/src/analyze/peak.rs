//! What the device does at most: as the plan says, as a ceiling measured, or by the table, under a name
//! that the plan gives or NVML tells.

use super::ceiling;
use cost::{BytesPerSecond, Device, FlopsPerSecond, Model, Peak, Precision, projection_precision};
use engine::problem::did_you_mean;
use engine::step::{Sample, StepError};
use engine::types::Positive;
use telemetry::{Gpus, Nvml};

/// The word for the device of this machine.
pub(super) const DETECTED: &str = "detected";

engine::options! {
    /// Peaks that the plan states.
    pub struct PeakOptions {
        /// Dense operations in the type that is computed in.
        flops: Positive, in "TFLOPS";
        /// The same in eight bits, which projections of FP8 weights are computed in; as `flops` if absent.
        fp8: Option<Positive>, in "TFLOPS";
        /// To and from memory.
        bandwidth: Positive, in "GB/s";
    }
}

/// Peaks with where they come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// What the device is called.
    pub(super) name: String,
    /// Where its figures come from.
    pub(super) source: String,
    /// The peaks.
    pub(super) peak: Peak,
    /// What projections are computed in, and everything else.
    pub(super) precisions: [Precision; 2],
}

/// What the plan computes with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computing<'a> {
    /// The model.
    pub(super) model: &'a Model,
    /// Whether projections have weights in eight bits.
    pub(super) is_fp8: bool,
    /// The clock at which the device runs, MHz; that of its data sheet if absent.
    pub(super) clock_mhz: Option<f64>,
}

impl Found {
    /// As the plan says.
    pub(super) fn stated(options: &PeakOptions, computing: &Computing<'_>) -> Self {
        let flops = FlopsPerSecond(options.flops.0 * 1e12);
        let fp8 = options.fp8.map(|fp8| FlopsPerSecond(fp8.0 * 1e12));
        let precision = projection_precision(computing.model, computing.is_fp8, fp8.is_some());
        Self {
            name: "stated".to_owned(),
            source: "the plan's `peak`".to_owned(),
            peak: Peak {
                projections: fp8.filter(|_| computing.is_fp8).unwrap_or(flops),
                others: flops,
                bandwidth: BytesPerSecond(options.bandwidth.0 * 1e9),
            },
            precisions: [precision, computing.model.activations],
        }
    }

    /// As samples of a `compute.ceiling` say.
    pub(super) fn measured(samples: &[Sample], cpu: &str) -> Result<Self, StepError> {
        let (flops, bytes) = ceiling::read(samples)?;
        let flops = FlopsPerSecond(flops);
        Ok(Self {
            name: cpu.to_owned(),
            source: "measured by `compute.ceiling`: a product in f32, and copying".to_owned(),
            peak: Peak {
                projections: flops,
                others: flops,
                bandwidth: BytesPerSecond(bytes),
            },
            precisions: [Precision::F32; 2],
        })
    }

    /// By the table.
    pub(super) fn in_table(name: &str, computing: &Computing<'_>) -> Result<Self, StepError> {
        let device = Device::find(name).map_err(|e| unknown(&e.to_string(), name))?;
        let rate = |precision| {
            let rate = match computing.clock_mhz {
                Some(clock) => device.flops_at(precision, clock),
                None => device.flops(precision),
            };
            rate.ok_or_else(|| {
                let precision = precision.name();
                StepError::new(format!("`{}` does not compute in {precision}", device.name))
                    .help("derive the model with another `dtype`, or state `peak`")
            })
        };
        let has_fp8 = device.flops(Precision::F8).is_some();
        let projections = projection_precision(computing.model, computing.is_fp8, has_fp8);
        let others = computing.model.activations;
        let clock = computing.clock_mhz.map(|mhz| format!(", at {mhz} MHz"));
        Ok(Self {
            name: device.name.clone(),
            source: format!("{}{}", device.source, clock.unwrap_or_default()),
            peak: Peak {
                projections: rate(projections)?,
                others: rate(others)?,
                bandwidth: device.bandwidth(),
            },
            precisions: [projections, others],
        })
    }
}

/// The name of this machine's GPUs.
///
/// # Errors
/// In words, if it has none, or several kinds.
pub(super) fn detect() -> Result<String, String> {
    let nvml = Nvml::load().map_err(|e| e.to_string())?;
    one_kind(&nvml)
}

fn one_kind(gpus: &dyn Gpus) -> Result<String, String> {
    let mut names: Vec<String> = gpus.list()?.into_iter().map(|gpu| gpu.name).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => Err("the machine has no GPU".to_owned()),
        [one] => Ok(one.clone()),
        several => Err(format!("the machine has {}", several.join(" and "))),
    }
}

/// That nothing tells the peaks of this machine.
pub(super) fn undetected(why: &str) -> StepError {
    StepError::new(format!("`device = \"{DETECTED}\"`: {why}")).help(
        "name the device, state its `peak`, or give `ceiling` the samples of a `compute.ceiling`",
    )
}

fn unknown(message: &str, name: &str) -> StepError {
    StepError::new(message).help(mend(name))
}

/// The nearest device of the table, and what else can be done.
pub(super) fn mend(name: &str) -> String {
    let devices = Device::all();
    let names = devices.iter().map(|device| device.name.as_str());
    format!("{} (or state its `peak`)", did_you_mean(name, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use telemetry::{Gpu, Reading};

    fn llama() -> Model {
        let config = json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100,
            "num_attention_heads": 8, "intermediate_size": 128,
        });
        Model::of(config.as_object().expect("an object")).expect("sound")
    }

    fn computing(model: &Model, is_fp8: bool) -> Computing<'_> {
        Computing {
            model,
            is_fp8,
            clock_mhz: None,
        }
    }

    struct Named(&'static [&'static str]);

    impl Gpus for Named {
        fn list(&self) -> Result<Vec<Gpu>, String> {
            let gpu = |(name, index): (&&str, u32)| Gpu {
                index,
                uuid: format!("GPU-{index}"),
                name: (*name).to_owned(),
            };
            Ok(self.0.iter().zip(0..).map(gpu).collect())
        }

        fn processes(&self, _: &Gpu) -> Vec<u32> {
            Vec::new()
        }

        fn read(&self, _: &Gpu) -> Result<Reading, String> {
            Err("nothing to read".to_owned())
        }
    }

    #[test]
    fn the_gpus_of_a_machine_are_one_device_if_they_are_of_one_kind() {
        let eight = one_kind(&Named(&["NVIDIA H200"; 8]));
        assert_eq!(eight, Ok("NVIDIA H200".to_owned()));
        assert_eq!(
            one_kind(&Named(&[])),
            Err("the machine has no GPU".to_owned())
        );
        let mixed = one_kind(&Named(&["NVIDIA L4", "NVIDIA A10", "NVIDIA L4"]));
        assert_eq!(
            mixed,
            Err("the machine has NVIDIA A10 and NVIDIA L4".to_owned())
        );
    }

    #[test]
    fn eight_bits_are_computed_in_where_weights_and_device_have_them() {
        let model = llama();
        let rates = |name, is_fp8| {
            let found = Found::in_table(name, &computing(&model, is_fp8)).expect("known");
            (found.peak.projections.0, found.peak.others.0)
        };
        assert_eq!(rates("NVIDIA H200", false), (989.5e12, 989.5e12));
        assert_eq!(rates("NVIDIA H200", true), (1979e12, 989.5e12));
        assert_eq!(rates("NVIDIA A100-SXM4-80GB", true), (312e12, 312e12));
        let stated = PeakOptions {
            flops: Positive(100.0),
            fp8: Some(Positive(150.0)),
            bandwidth: Positive(1000.0),
        };
        let peak = |is_fp8| Found::stated(&stated, &computing(&model, is_fp8)).peak;
        assert_eq!(peak(true).projections, FlopsPerSecond(150e12));
        assert_eq!(peak(false).projections, FlopsPerSecond(100e12));
    }

    #[test]
    fn a_clock_that_is_held_down_lowers_the_rate_of_operations_alone() {
        let model = llama();
        let slow = Computing {
            clock_mhz: Some(915.0),
            ..computing(&model, false)
        };
        let found = Found::in_table("NVIDIA H200", &slow).expect("known");
        assert!((found.peak.others.0 / 494.75e12 - 1.0).abs() < 1e-12);
        assert_eq!(found.peak.bandwidth, BytesPerSecond(4800e9));
        assert!(found.source.ends_with(", at 915 MHz"));
    }

    #[test]
    fn what_a_device_cannot_do_and_what_is_none_are_told() {
        let model = llama();
        let told = |name| {
            let error = Found::in_table(name, &computing(&model, false)).expect_err("refused");
            (error.message, error.help.unwrap_or_default())
        };
        assert_eq!(told("Tesla T4").0, "`Tesla T4` does not compute in bf16");
        let (message, help) = told("NVIDIA H20");
        assert_eq!(message, "no device in the table is called `NVIDIA H20`");
        assert_eq!(help, "did you mean `NVIDIA H200`? (or state its `peak`)");
    }
}
