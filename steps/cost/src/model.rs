//! A model as counting sees it: parameters and bytes by class, and how it attends. Knows no batch.

use crate::class::ByClass;
use crate::{Bytes, Class, Precision, WeightFormat};
use models::{Architecture, Attention, DecoderShape, Experts, Inventory, Problem, Role, Section};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A model that was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Width, layers, heads and windows.
    pub shape: DecoderShape,
    /// Routed experts, if there are any.
    pub experts: Option<Experts>,
    /// Layers that have routed experts.
    pub n_expert_layers: u64,
    /// Parameters of the decoder, by class; what is shared counts once.
    pub parameters: ByClass<u64>,
    /// Parameters of towers that see: counted, but no part of the work on text.
    pub vision_parameters: u64,
    /// Elements of matrices that rows of activations are multiplied with: the head also where it is the
    /// embedding.
    pub(crate) matrices: ByClass<u64>,
    /// What a row of activations has on both sides of such matrices, summed.
    pub(crate) sides: ByClass<u64>,
    /// Bytes in a checkpoint, by class, scales included; the head likewise.
    bytes: ByClass<u64>,
    /// Three where perceptrons have a gate, two where not.
    pub(crate) matrices_per_perceptron: u64,
    /// Widths that tensor parallelism cuts, by class.
    pub(crate) widths: Vec<(Class, u64)>,
    /// What activations are.
    pub activations: Precision,
    /// What projections of layers are kept in.
    pub projections: Precision,
}

impl Model {
    /// Counts the model that `config`, a `config.json`, describes.
    ///
    /// # Errors
    /// The first key that is missing, malformed or not known; see [`Inventory::of`].
    pub fn of(config: &Map<String, Value>) -> Result<Self, Problem> {
        let inventory = Inventory::of(config)?;
        let shape = DecoderShape::of(config)?;
        let mut model = Model {
            shape,
            experts: inventory.experts,
            n_expert_layers: 0,
            parameters: ByClass::default(),
            vision_parameters: 0,
            matrices: ByClass::default(),
            sides: ByClass::default(),
            bytes: ByClass::default(),
            widths: Vec::new(),
            matrices_per_perceptron: match inventory.architecture {
                Architecture::Falcon | Architecture::Opt | Architecture::Gpt2 => 2,
                _ => 3,
            },
            activations: Precision::Bf16,
            projections: Precision::Bf16,
        };
        model.add_tensors(&inventory);
        model.add_head(&inventory);
        Ok(model)
    }

    fn add_tensors(&mut self, inventory: &Inventory) {
        let mut widths = BTreeSet::new();
        let mut expert_layers = BTreeSet::new();
        let mut scaled = None;
        for tensor in &inventory.tensors {
            let elements = tensor.elements();
            if tensor.section == Section::Vision && tensor.copy_of.is_none() {
                self.vision_parameters += elements;
            }
            let is_scale = tensor.role == Role::Scale && tensor.section == Section::Text;
            let class = if is_scale { scaled } else { Class::of(tensor) };
            scaled = class;
            let Some(class) = class else { continue };
            *self.bytes.get_mut(class) += match &tensor.copy_of {
                // The head is read whatever its values repeat; the embedding is read by rows.
                Some(_) if class != Class::Head => 0,
                _ => tensor.bytes(),
            };
            if is_scale {
                continue;
            }
            if tensor.copy_of.is_none() {
                *self.parameters.get_mut(class) += elements;
            }
            if class == Class::Experts {
                expert_layers.insert(tensor.layer);
            }
            if let [rows, columns] = tensor.shape[..] {
                *self.matrices.get_mut(class) += elements;
                *self.sides.get_mut(class) += rows + columns;
                let inner = if rows == self.shape.hidden {
                    columns
                } else {
                    rows
                };
                if matches!(class, Class::Mlp | Class::Experts | Class::SharedExperts) {
                    widths.insert((class as usize, inner));
                }
            }
            match tensor.role {
                Role::Norm | Role::NormOffset => self.activations = tensor.dtype.into(),
                Role::Attention => self.projections = tensor.dtype.into(),
                _ => {}
            }
        }
        self.n_expert_layers = expert_layers.len() as u64;
        self.widths = widths
            .into_iter()
            .map(|(class, inner)| (Class::ALL[class], inner))
            .collect();
    }

    /// A head that is no tensor of its own is the embedding: read and multiplied all the same.
    fn add_head(&mut self, inventory: &Inventory) {
        if self.matrices.get(Class::Head) == 0 {
            let of_text = |t: &&models::Tensor| t.section == Section::Text;
            let mut tensors = inventory.tensors.iter().filter(of_text);
            if let Some(tied) = tensors.find(|t| t.role == Role::Embedding) {
                *self.matrices.get_mut(Class::Head) = tied.elements();
                *self.sides.get_mut(Class::Head) = tied.shape.iter().sum();
                *self.bytes.get_mut(Class::Head) = tied.bytes();
            }
        }
    }

    /// Parameters of the decoder, and of what sees: as publishers count.
    #[must_use]
    pub fn total_parameters(&self) -> u64 {
        self.parameters.total() + self.vision_parameters
    }

    /// Parameters that a token passes: of the routed experts those that are chosen for it.
    #[must_use]
    pub fn active_parameters(&self) -> u64 {
        let routed = self.parameters.get(Class::Experts);
        self.total_parameters() - routed + self.chosen(routed)
    }

    /// What of the routed experts a token passes, which are of equal size.
    pub(crate) fn chosen(&self, routed: u64) -> u64 {
        self.experts
            .map_or(0, |e| routed / e.total.max(1) * e.per_token.min(e.total))
    }

    /// Bytes of all weights of a class in a format, scales included.
    #[must_use]
    pub fn weight_bytes(&self, class: Class, format: WeightFormat) -> Bytes {
        let per_element = match class.is_quantised() {
            true => format.projection_bytes(),
            false => format.other_bytes(),
        };
        let elements = match class {
            Class::Head => self.matrices.get(Class::Head),
            class => self.parameters.get(class),
        };
        match per_element {
            None => Bytes(self.bytes.get(class) as f64),
            Some(bytes) => Bytes(elements as f64 * bytes),
        }
    }

    /// Bytes that the cache keeps of a token in a layer: keys and values of each head that has its own, or
    /// the latent vector with what is rotated. Source: `2·K·h·b` and `(r_kv + d_r)·b`.
    #[must_use]
    pub fn kv_bytes_per_layer(&self, kv_heads: u64, element_bytes: f64) -> Bytes {
        let elements = match self.shape.attention {
            Attention::Heads { head_dim, .. } => 2 * kv_heads * head_dim,
            Attention::Latent { rank, rotated, .. } => rank + rotated,
        };
        Bytes(elements as f64 * element_bytes)
    }

    /// Bytes that the cache keeps of a token in all layers, of all heads.
    #[must_use]
    pub fn kv_bytes_per_token(&self, element_bytes: f64) -> Bytes {
        let kv_heads = match self.shape.attention {
            Attention::Heads { kv_heads, .. } => kv_heads,
            Attention::Latent { .. } => 1,
        };
        self.kv_bytes_per_layer(kv_heads, element_bytes) * self.shape.n_layers as f64
    }

    /// Distinct experts of a layer that `n_tokens` pass if each chooses its `k` of `E` by equal chance:
    /// `E·(1 − (1 − k/E)^T)`. Real routing is less even and hits fewer. 0 without experts.
    #[must_use]
    pub fn expected_experts(&self, n_tokens: f64) -> f64 {
        self.experts.map_or(0.0, |experts| {
            let total = experts.total as f64;
            let missed = 1.0 - experts.per_token.min(experts.total) as f64 / total.max(1.0);
            total * (1.0 - missed.powf(n_tokens))
        })
    }

    /// Whether the configuration has projections in eight bits.
    #[must_use]
    pub fn is_fp8(&self) -> bool {
        self.projections == Precision::F8
    }
}
