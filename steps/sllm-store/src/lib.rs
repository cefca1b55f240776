//! A running ServerlessLLM store, from outside: what it is asked for, and how it is known what it did.
//!
//! Reading order: [`messages`] (what goes over the wire), [`Store`] (the calls, each within a limit),
//! [`packed`] (which bytes go where on a GPU), [`DeviceMemory`] (memory of a GPU that the store writes to),
//! [`LoadLog`] and [`Tail`] (what its log says of a load, because no call tells when a load to the host ends),
//! [`ServerProcess`] (what it used meanwhile).
//!
//! The interface is that of `serverless-llm-store` 0.8. Nothing here starts a store, and nothing here knows
//! plans.

#![deny(unsafe_code)]

pub mod messages;

mod client;
mod copies;
mod device;
mod error;
mod log;
mod process;
mod tail;

pub use client::{Config, Store};
pub use copies::{Packed, packed};
pub use device::{DeviceError, DeviceMemory};
pub use error::StoreError;
pub use log::{LoadLog, gpus};
pub use process::ServerProcess;
pub use tail::Tail;
