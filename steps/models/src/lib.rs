//! What a model consists of, as its `config.json` says: its weights by name, shape and type, other
//! configurations derived from it, and checkpoints of random values.
//!
//! Reading order: [`Problem`] (what can be wrong with a configuration), [`Inventory`] (the weights
//! that a checkpoint on the hub has), `layouts` (how each architecture names them), `shapes` (what
//! must divide what), [`DecoderShape`] (what a decoder attends with), [`derive()`] (another
//! configuration from one that exists), [`Checkpoint`] (what lies in a folder already), [`write()`]
//! (random checkpoints), [`noise`] (what random weights are made of, here and in servers that make
//! them up).
//!
//! Nothing here computes with a model, and nothing knows plans: configurations are JSON objects as
//! the Hugging Face hub has them.

#![forbid(unsafe_code)]

mod fields;
mod problem;

mod inventory;

mod architecture;
mod layouts;

mod shapes;

mod attention;

mod derive;

mod checkpoint;

pub mod noise;
mod room;
mod shards;
mod values;
mod write;

pub use architecture::{Architecture, DTYPE_KEYS};
pub use attention::{Attention, DecoderShape, Window};
pub use checkpoint::{Checkpoint, CheckpointError, Fit};
pub use derive::{Changes, Derived, Part, decoder_layers, derive, known_keys};
pub use inventory::{Dtype, Experts, Inventory, Role, Section, Tensor};
pub use problem::Problem;
pub use room::ensure_room;
pub use shapes::impossible_shapes;
pub use shards::{INDEX_FILE, SINGLE_FILE, safetensors_head};
pub use write::{Recipe, WriteError, Written, write};
