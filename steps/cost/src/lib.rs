//! What a model costs: parameters, operations, bytes and cache of a forward pass, counted from its
//! `config.json`, and what a device allows. Formulas with their sources are in `docs/latency.md`.
//!
//! Reading order: [`Model`] (parameters and bytes by [`Class`]), [`Work`] (a batch in a phase),
//! [`Deployment`] (ranks and what they share), [`count()`] (operations and bytes of a pass), [`Device`]
//! (peaks), [`Bound`] and [`Utilisation`] (the roofline), [`suite`] (the formula that all of this
//! corrects).
//!
//! Nothing here measures anything, and nothing knows plans. What is counted is what has to be done: softmax,
//! norms, rotation and sampling are left out, as the field does.

#![forbid(unsafe_code)]

mod units;

mod class;
mod format;

mod model;

mod work;

mod deployment;

mod count;

mod device;

mod roofline;

pub mod suite;

pub use class::{ByClass, Class};
pub use count::{Counted, Formats, Load, count};
pub use deployment::{Deployment, Unfit};
pub use device::{Device, UnknownDevice};
pub use format::{Precision, WeightFormat};
pub use model::Model;
pub use roofline::{Bound, Limit, Peak, Utilisation, projection_precision};
pub use units::{Bytes, BytesPerSecond, Flops, FlopsPerSecond, Seconds};
pub use work::{Executed, Logits, Pairs, Phase, Work};
