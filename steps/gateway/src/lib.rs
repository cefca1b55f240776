//! A gateway before several inference servers, one model each, that share one device.
//!
//! The servers are unmodified ones. Requests wait here while their model is off the device; the
//! gateway brings models onto it and takes them off it by the rules that the embedded server has for
//! its own models ([`embedded_server::swapping`]), through what servers offer for that.
//!
//! Reading order: [`Config`] (what it is told), `queue` (one model's requests), [`Backend`] (one
//! server), `fleet` (all of them), `mover` (when and how models come and go), `http` (what clients
//! see), and [`serve`], which puts it together.
//!
//! It does not know what a device is or how much memory it has: the plan says how many models fit at
//! once. It schedules no request within a server, and keeps no answer.

#![forbid(unsafe_code)]

mod config;
mod queue;

mod backend;
mod fleet;
mod mover;

mod http;
mod serve;

pub use backend::{Backend, BackendError, Moved, Release};
pub use config::{Config, ConfigError, ModelConfig, Standing};
pub use serve::{GatewayError, serve};
