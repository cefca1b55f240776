//! What servers and GPUs tell of themselves while something else is measured.
//!
//! [`exposition`] reads the text of Prometheus within limits and knows no server's names; [`Gpus`] is where
//! GPUs are read, of which [`Nvml`] is NVIDIA's; [`energy`] adds up what they have used. Instants are
//! nanoseconds of the system's monotonic clock. Nothing here asks a network, starts a thread or writes a
//! file: when to read, and where to keep it, is the caller's.

#![forbid(unsafe_code)]

pub mod clock;
pub mod exposition;

mod gpu;

mod energy;

mod nvml;

pub use energy::{Energy, EnergyPoint, energy};
pub use gpu::{Gpu, Gpus, Reading, Throttle};
pub use nvml::{Nvml, NvmlAbsent};
