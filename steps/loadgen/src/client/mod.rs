//! The connection to one server: where it is, how bytes get there, what answers mean as HTTP.
//!
//! Knows no load and no event stream. Nothing here waits: whoever asks has been told by the
//! system that something is to be had.

mod address;
mod head;
mod http1;
mod http2;
mod socket;
mod stamped;
mod wire;

pub use address::{Address, AddressError};

pub(crate) use head::Head;
pub(crate) use http1::{Part, Reader};
pub(crate) use http2::{Broken, Http2, Life, StreamPart};
pub(crate) use socket::Socket;
pub(crate) use wire::{RequestHead, Wire};
