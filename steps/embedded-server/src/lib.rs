//! An OpenAI-compatible inference server that computes real tokens on a bare machine.
//!
//! Reading order: [`model`] (what is computed), [`executor`] (one forward step), then everything
//! above it, from the inside out: [`cache`] and [`scheduler`] decide what the next step computes,
//! [`engine`] is the thread that carries it out and keeps [`steplog`] and [`metrics`],
//! [`tokenizer`] and [`chat`] turn text into ids and back, `http` speaks OpenAI's protocol, and
//! [`serve`] puts it all together from [`ServerOptions`].
//!
//! It batches continuously over a paged key-value cache, which keeps the prefixes of prompts and
//! answers in a tree, on the device and behind it in host memory. Several models may share a device:
//! [`device`] keeps its books, [`swapping`] says who comes and who leaves.

#![deny(unsafe_code)]

pub mod cache;
pub mod chat;
pub mod clock;
mod controller;
pub mod device;
pub mod device_profile;
pub mod engine;
pub mod executor;
mod faults;
pub mod flags;
mod fleet;
mod http;
mod images;
pub mod kernels;
mod load;
mod memory;
pub mod metrics;
pub mod model;
pub mod offline;
mod options;
pub mod scheduler;
mod server;
pub mod steplog;
pub mod swapping;
pub mod tokenizer;
mod trace;

pub use cache::WritePolicy;
pub use clock::machine;
pub use device_profile::{DeviceProfile, DeviceProfileError};
pub use faults::{Fault, FaultError, FaultKind, FaultPlan, Faults};
pub use fleet::SAMPLE_EVERY;
pub use http::accept;
pub use load::{Computing, LoadedModel, load};
pub use options::{ExecutorKind, LoadFormat, ModelOptions, ServerOptions};
pub use scheduler::Policy;
pub use server::{ServeError, serve, serve_loaded};
pub use trace::{AnswerOutcome, AnswerTrace, Injected, PromptTrace, TokenTrace, Trace};
