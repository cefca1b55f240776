//! Several models on one device, by several servers.

mod controller;

pub(crate) use controller::Controller;
