//! The connection to one server: where it is, how bytes get there, what answers mean as HTTP.
//!
//! Knows no load and no event stream. Nothing here waits: whoever asks has been told by the
//! system that something is to be had.

mod address;
mod http1;
mod socket;
mod stamped;
mod wire;

pub use address::{Address, AddressError};

pub(crate) use http1::{Head, Part, Reader};
pub(crate) use socket::Socket;
pub(crate) use wire::Wire;
