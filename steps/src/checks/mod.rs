//! What is done to a server besides measuring it: `server.reset` brings it to a known state,
//! `server.test` finds out whether it does what its protocol says.

mod ask;
mod reset;
mod test;

pub(crate) use reset::ServerReset;
pub(crate) use test::ServerTest;
