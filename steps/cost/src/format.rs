//! How wide numbers are: in weights, in the cache, in what is computed with.

use models::Dtype;

/// The type of numbers that a device multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE 754 binary32, without the shortcut of TF32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// Eight bits, of either format.
    F8,
}

impl Precision {
    /// Its name in results and in the table of devices.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::F8 => "fp8",
        }
    }

    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::F16 | Precision::Bf16 => 2.0,
            Precision::F8 => 1.0,
        }
    }
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::F8E4M3 => Precision::F8,
        }
    }
}

/// Elements of a block that share a scale in FP8 weights: 128 by 128, as DeepSeek-V3 has them.
const F8_BLOCK: f64 = 128.0 * 128.0;
/// Elements of a group that share a scale and a zero in four-bit weights: what AWQ and GPTQ write by
/// default.
const INT4_GROUP: f64 = 128.0;

/// What weights are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// As the configuration says, its quantisation included.
    Configured,
    /// All of them in one type of 16 or 32 bits.
    Plain(Precision),
    /// Projections of layers in eight bits with an `f32` scale for each block of 128 by 128, the rest as
    /// the configuration says.
    Fp8Blocks,
    /// Projections of layers in four bits with an `f16` scale and a four-bit zero for each group of 128,
    /// the rest as the configuration says.
    Int4Groups,
}

impl WeightFormat {
    /// Bytes of an element of a projection with its share of scales; `None` where the configuration
    /// decides.
    pub(crate) fn projection_bytes(self) -> Option<f64> {
        match self {
            WeightFormat::Configured => None,
            WeightFormat::Plain(precision) => Some(precision.bytes()),
            WeightFormat::Fp8Blocks => Some(1.0 + 4.0 / F8_BLOCK),
            WeightFormat::Int4Groups => Some(0.5 + (2.0 + 0.5) / INT4_GROUP),
        }
    }

    /// Bytes of an element of anything else; `None` where the configuration decides.
    pub(crate) fn other_bytes(self) -> Option<f64> {
        match self {
            WeightFormat::Plain(precision) => Some(precision.bytes()),
            WeightFormat::Configured | WeightFormat::Fp8Blocks | WeightFormat::Int4Groups => None,
        }
    }
}
