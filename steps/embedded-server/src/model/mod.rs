//! What is computed: a model's configuration and its weights.
//!
//! Llama, Qwen2 and Qwen3 are one architecture with small differences (biases, head norms, tied
//! embeddings), and are read from the files that Hugging Face repositories hold. Nothing here
//! knows how a step is computed.

mod checkpoint;
mod config;
mod dummy;
mod keys;
mod mapped;
mod rope;
mod weights;

pub use checkpoint::WeightsError;
pub(crate) use checkpoint::has_weights;
pub(crate) use config::read_bounded;
pub use config::{ConfigError, ModelConfig, ModelFamily};
pub use keys::ConfigProblem;
pub use rope::{Rope, RopeScaling};
pub(crate) use weights::{Layer, Projection};
pub use weights::{LoadFormat, Weights};
