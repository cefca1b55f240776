//! Several models on one device, by several servers.

mod behind;
mod controller;

pub use behind::problems;
pub(crate) use controller::Controller;
