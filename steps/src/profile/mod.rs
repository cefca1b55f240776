//! Where time goes inside a server: by its own record of its steps, or by its own profiler.
//!
//! `profile.phases` asks the embedded server, `profile.server` opens the profilers of SGLang and vLLM.

mod phases;

mod server;

mod window;

mod found;

mod chrome;

mod operators;

pub(crate) use phases::ProfilePhases;
pub(crate) use server::ProfileServer;
