//! Collects the tensors of a model. Knows no architecture.

use crate::{Dtype, Role, Section, Tensor};

/// A list of tensors that grows, and what the next ones have in common.
#[derive(Debug)]
pub(super) struct Builder {
    tensors: Vec<Tensor>,
    dtype: Dtype,
    section: Section,
    layer: Option<u64>,
    /// What stands before every name, such as `model.layers.3.`.
    prefix: String,
    /// What norms are.
    norm: Role,
}

impl Builder {
    pub(super) fn new(dtype: Dtype) -> Self {
        Self {
            tensors: Vec::new(),
            dtype,
            section: Section::Text,
            layer: None,
            prefix: String::new(),
            norm: Role::Norm,
        }
    }

    /// Gains of norms are stored less one.
    pub(super) fn with_norm_offsets(mut self) -> Self {
        self.norm = Role::NormOffset;
        self
    }

    /// The next tensors belong to `section` and their names begin with `prefix`.
    pub(super) fn enter(&mut self, section: Section, prefix: impl Into<String>) {
        self.section = section;
        self.layer = None;
        self.prefix = prefix.into();
    }

    /// The next tensors belong to a layer and their names begin with `prefix`.
    pub(super) fn enter_layer(&mut self, layer: u64, prefix: impl Into<String>) {
        self.layer = Some(layer);
        self.prefix = prefix.into();
    }

    /// Adds a tensor of any shape under its whole name.
    pub(super) fn add(&mut self, name: &str, shape: &[u64], role: Role) {
        self.tensors.push(Tensor {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            dtype: self.dtype,
            role,
            section: self.section,
            layer: self.layer,
            expert: None,
            copy_of: None,
        });
    }

    /// Adds the matrix of a projection, `NAME.weight`, `[n_out, n_in]`.
    pub(super) fn matrix(&mut self, name: &str, n_out: u64, n_in: u64, role: Role) {
        self.add(&format!("{name}.weight"), &[n_out, n_in], role);
    }

    /// Adds a projection's matrix and, if it has one, its bias `[n_out]`.
    pub(super) fn linear(&mut self, name: &str, n_out: u64, n_in: u64, role: Role, bias: bool) {
        self.matrix(name, n_out, n_in, role);
        if bias {
            self.bias(name, n_out);
        }
    }

    pub(super) fn bias(&mut self, name: &str, n: u64) {
        self.add(&format!("{name}.bias"), &[n], Role::Bias);
    }

    /// Adds the gain of a norm, `NAME.weight`, `[n]`.
    pub(super) fn norm(&mut self, name: &str, n: u64) {
        self.add(&format!("{name}.weight"), &[n], self.norm);
    }

    /// Adds the gain of a norm and its bias.
    pub(super) fn norm_with_bias(&mut self, name: &str, n: u64) {
        self.norm(name, n);
        self.bias(name, n);
    }

    /// Adds the matrix of a projection of routed expert `expert`.
    pub(super) fn expert(&mut self, expert: u64, name: &str, n_out: u64, n_in: u64) {
        self.matrix(name, n_out, n_in, Role::Expert);
        self.last().expert = Some(expert);
    }

    /// Says that the last tensor repeats the values of the one called `name`.
    pub(super) fn repeats(&mut self, name: &str) {
        self.last().copy_of = Some(name.to_owned());
    }

    /// Says that the last tensor is `F32` whatever the model is.
    pub(super) fn always_f32(&mut self) {
        self.last().dtype = Dtype::F32;
    }

    fn last(&mut self) -> &mut Tensor {
        self.tensors
            .last_mut()
            .expect("something was added just before")
    }

    pub(super) fn finish(self) -> Vec<Tensor> {
        self.tensors
    }
}
