//! A streaming HTTP/1.1 client that says when things happened.
//!
//! It exists because the usual clients hide what a measurement needs: which request paid for
//! a connection, when the head came, and whether a failure happened before a byte of the
//! answer. A request and its connection are polled in one task, so reading an event costs one
//! wake-up. Knows HTTP, TLS and time limits of connecting; knows no protocol above.

mod address;
mod connection;
mod exchange;
mod socket;

pub use address::{Address, AddressError};
pub(crate) use exchange::{Answer, Client, Trail};
