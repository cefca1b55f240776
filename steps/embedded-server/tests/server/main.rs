//! The server as its clients see it: real sockets, a real model, real tokens.

mod caching;
mod client;
mod faults;
mod fixture;
mod generation;
mod images;
mod life;
mod made_up_time;
mod observing;
mod paced;
mod played;
mod refusals;
mod several;
mod simulated;
mod tokens;
mod tracing;
