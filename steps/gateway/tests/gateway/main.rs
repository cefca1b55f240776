//! The gateway as its clients see it: real sockets, before real servers and before scripted ones.

mod client;
mod embedded;
mod fixture;
mod scripted;
