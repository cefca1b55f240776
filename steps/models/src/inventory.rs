//! The weights of a model: what its checkpoint on the hub holds, tensor by tensor.
//!
//! Knows no architecture; the layouts fill it in.

use crate::{Architecture, Problem};
use serde_json::{Map, Value};

/// The most elements of a model: their bytes are counted without overflow in every type.
const MOST_ELEMENTS: u64 = 1 << 60;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// Eight bits: sign, four of exponent, three of mantissa, no infinities.
    F8E4M3,
}

impl Dtype {
    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F8E4M3 => 1,
        }
    }

    /// The name in headers of safetensors files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::F8E4M3 => "F8_E4M3",
        }
    }

    /// The name in configurations; that of the weights' scales for eight bits.
    #[must_use]
    pub fn config_name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 | Dtype::F8E4M3 => "bfloat16",
        }
    }
}

/// What a tensor does, as far as counting and random values depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Vectors of tokens, and single vectors that stand for one.
    Embedding,
    /// Vectors of positions.
    Position,
    /// From the residual stream to logits.
    Head,
    /// A projection of attention.
    Attention,
    /// A projection of a perceptron that every token passes.
    FeedForward,
    /// Chooses experts.
    Router,
    /// A projection of an expert that only some tokens pass.
    Expert,
    /// A projection of an expert that every token passes.
    SharedExpert,
    /// From pixels, or from one part of a model to another.
    Projection,
    /// The gain of a norm.
    Norm,
    /// The gain of a norm, less one: Gemma's.
    NormOffset,
    /// Added to what a projection or a norm brings.
    Bias,
    /// What a block of quantised weights is multiplied with: no parameter.
    Scale,
}

/// Which part of a model a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// The decoder.
    Text,
    /// The tower that reads images, and what leads from it into the decoder.
    Vision,
    /// Layers that predict further tokens: DeepSeek-V3's, which its published size leaves out.
    Prediction,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The name in checkpoints on the hub.
    pub name: String,
    /// The shape; a projection's is `[out, in]` unless its architecture has it the other way.
    pub shape: Vec<u64>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// What it does.
    pub role: Role,
    /// Which part of the model it belongs to.
    pub section: Section,
    /// The layer it lies in, from 0 within its section; further prediction counts on from the
    /// decoder.
    pub layer: Option<u64>,
    /// The routed expert that it belongs to, from 0.
    pub expert: Option<u64>,
    /// The tensor of which it repeats the values, as stored heads of tied models do.
    pub copy_of: Option<String>,
}

impl Tensor {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes in a checkpoint.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }

    fn checked_elements(&self) -> Option<u64> {
        let mut sides = self.shape.iter();
        sides.try_fold(1, |product: u64, side| product.checked_mul(*side))
    }

    /// Whether its elements are parameters that no other tensor has.
    fn counts(&self) -> bool {
        self.copy_of.is_none() && self.role != Role::Scale
    }
}

/// How many routed experts a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// In each layer that has any.
    pub total: u64,
    /// That a token passes.
    pub per_token: u64,
}

/// Every tensor of a checkpoint, in the order of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// How the tensors are named and arranged.
    pub architecture: Architecture,
    /// The tensors; names are distinct.
    pub tensors: Vec<Tensor>,
    /// Routed experts, if there are any.
    pub experts: Option<Experts>,
}

impl Inventory {
    /// Lists the tensors of the model that `config`, a `config.json`, describes.
    ///
    /// # Errors
    /// The first key that is missing, malformed or asks for weights that are not known; an
    /// architecture that is not; more weights than can be counted in bytes.
    pub fn of(config: &Map<String, Value>) -> Result<Self, Problem> {
        let inventory = Architecture::of(config)?.inventory(config)?;
        let mut tensors = inventory.tensors.iter();
        let sum = tensors.try_fold(0_u64, |sum, t| sum.checked_add(t.checked_elements()?));
        if sum.is_some_and(|sum| sum <= MOST_ELEMENTS) {
            return Ok(inventory);
        }
        let message = format!("the model has more than {MOST_ELEMENTS} weights");
        let help = "write smaller sizes, fewer layers or fewer experts";
        Err(Problem::new(["hidden_size"], message, help))
    }

    /// Number of parameters as publishers count them: what is shared counts once, and layers that
    /// predict further tokens do not.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let own = |t: &&Tensor| t.counts() && t.section != Section::Prediction;
        self.tensors.iter().filter(own).map(Tensor::elements).sum()
    }

    /// Number of parameters that a token passes: [`parameters`](Self::parameters) less the routed
    /// experts that are not chosen for it; none are left out where more are chosen than there are.
    #[must_use]
    pub fn active_parameters(&self) -> u64 {
        let Some(Experts { total, per_token }) = self.experts else {
            return self.parameters();
        };
        let routed = |t: &&Tensor| t.expert.is_some() && t.section != Section::Prediction;
        let routed: u64 = self
            .tensors
            .iter()
            .filter(routed)
            .filter(|t| t.counts())
            .map(Tensor::elements)
            .sum();
        // Experts are of equal size.
        self.parameters() - routed / total.max(1) * total.saturating_sub(per_token)
    }

    /// Bytes of all tensors, headers not included: `total_size` of the hub's index.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Tensor::bytes).sum()
    }
}
