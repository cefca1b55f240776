//! Figures that follow from others without measuring: `analyze.cost` counts what a model takes and holds
//! measured times to what a device allows, `analyze.layers` tells the whole model's time from those of a few
//! layers. `compute.ceiling` measures what a processor does at most.
//!
//! Formulas are the crates' `cost` and `statistics`; here are the steps, and what they read.

mod ceiling;
mod cells;
mod cost;
mod extrapolate;
mod layers;
mod peak;
mod rows;

pub(crate) use ceiling::ComputeCeiling;
pub(crate) use cost::AnalyzeCost;
pub(crate) use layers::AnalyzeLayers;
pub(crate) use rows::Roof;
