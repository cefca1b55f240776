//! The server as its clients see it: real sockets, a real model, real tokens.

mod caching;
mod client;
mod fixture;
mod generation;
mod life;
mod observing;
mod paced;
mod refusals;
