//! How each architecture names and shapes its weights in checkpoints on the hub.
//!
//! Names are those of the hub's files, not of the modules that `transformers` builds from them.

pub(crate) mod decoder;

pub(crate) mod deepseek;

pub(crate) mod falcon;
pub(crate) mod gpt2;
pub(crate) mod grok;
pub(crate) mod llava;
pub(crate) mod opt;

mod builder;

use crate::{Experts, Problem, Tensor};
use builder::Builder;

/// The tensors of a model, and its routed experts.
type Layout = Result<(Vec<Tensor>, Option<Experts>), Problem>;
