//! Checkpoints as files: what is in them, how they become each other, and how fast they come into
//! memory.
//!
//! Reading order: [`Contents`] (what a folder holds, in either format), [`convert()`] (from one format to
//! the other), [`blocks`] (how files are cut into reads), [`memory`] (where they are read to), [`device`] (memory that
//! only copies reach), [`loader`] (who reads), [`load()`] (one load with its stages), [`cache`] (what of a file the
//! kernel holds).
//!
//! Files may come from anywhere: nothing that a header or an index says is believed before it is
//! checked. Nothing here knows plans, or what a model computes.

#![deny(unsafe_code)]

mod error;

mod contents;
mod safetensors_format;
mod store_format;
mod unique;

mod convert;

pub mod blocks;
pub mod device;
pub mod memory;

pub mod loader;

mod upload;

mod load;

pub mod cache;
mod replicate;
pub mod usage;

pub use contents::{Contents, DataFile, Format, Tensor};
pub use convert::{Converted, Limits, convert};
pub use error::CheckpointError;
pub use load::{Destination, Load, Loaded, Stages, load};
pub use replicate::{How, MARK, Replicas, replicate};
pub use safetensors::Dtype;
pub use upload::copy_rate;
