//! Classes of weights and of work. Knows no numbers.

use models::{Role, Section, Tensor};
use std::array;

/// What a part of a model is, as far as counting treats it in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Vectors of tokens and positions, looked up row by row.
    Embedding,
    /// Projections of attention.
    Attention,
    /// Queries against keys, and what that weighs against values: no weights, but the cache.
    Scores,
    /// Perceptrons that every token passes.
    Mlp,
    /// Routed experts, of which a token passes some.
    Experts,
    /// Experts that every token passes.
    SharedExperts,
    /// What chooses experts.
    Router,
    /// From the residual stream to logits.
    Head,
    /// Norms and biases, and projections between widths: read, and next to nothing to compute.
    Other,
}

impl Class {
    /// All of them, in the order of a forward pass.
    pub const ALL: [Class; 9] = [
        Class::Embedding,
        Class::Attention,
        Class::Scores,
        Class::Mlp,
        Class::Experts,
        Class::SharedExperts,
        Class::Router,
        Class::Head,
        Class::Other,
    ];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Embedding => "embedding",
            Class::Attention => "attention",
            Class::Scores => "scores",
            Class::Mlp => "mlp",
            Class::Experts => "experts",
            Class::SharedExperts => "shared_experts",
            Class::Router => "router",
            Class::Head => "head",
            Class::Other => "other",
        }
    }

    /// The class of a tensor; `None` for one that text passes by, and for scales, which go with what they
    /// scale.
    pub(crate) fn of(tensor: &Tensor) -> Option<Self> {
        if tensor.section != Section::Text {
            return None;
        }
        Some(match tensor.role {
            Role::Embedding | Role::Position => Class::Embedding,
            Role::Head => Class::Head,
            Role::Attention => Class::Attention,
            Role::FeedForward => Class::Mlp,
            Role::Router => Class::Router,
            Role::Expert => Class::Experts,
            Role::SharedExpert => Class::SharedExperts,
            Role::Projection | Role::Norm | Role::NormOffset | Role::Bias => Class::Other,
            Role::Scale => return None,
        })
    }

    /// Whether it is a projection of layers, which quantisation makes narrower.
    pub(crate) fn is_quantised(self) -> bool {
        matches!(
            self,
            Class::Attention | Class::Mlp | Class::Experts | Class::SharedExperts
        )
    }
}

/// A value for each class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ByClass<T>([T; Class::ALL.len()]);

impl<T: Copy> ByClass<T> {
    /// Makes the value of each class.
    pub fn from_fn(mut value: impl FnMut(Class) -> T) -> Self {
        Self(array::from_fn(|i| value(Class::ALL[i])))
    }

    /// The value of a class.
    pub fn get(&self, class: Class) -> T {
        self.0[class as usize]
    }

    pub(crate) fn get_mut(&mut self, class: Class) -> &mut T {
        &mut self.0[class as usize]
    }

    /// Classes with their values, in the order of a forward pass.
    pub fn iter(&self) -> impl Iterator<Item = (Class, T)> {
        Class::ALL.into_iter().zip(self.0)
    }

    /// The sum over all classes.
    pub fn total(&self) -> T
    where
        T: std::iter::Sum,
    {
        self.0.into_iter().sum()
    }
}
