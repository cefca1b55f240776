//! The library that a server loads because its environment says so: CUDA at `cuInit`, NVTX at its first
//! use. It sleeps on a socket until the engine opens a window, and only then touches CUPTI.
//!
//! Whatever goes wrong here, the server goes on: no panic crosses its borders, nothing waits for the server
//! or makes it wait, nothing rests on how the process ends. What a window recorded is in a spool as soon
//! as a buffer was full.
//!
//! Reading order: `entry` (what is exported), `process` (once per process, forks), `control` (the socket),
//! `session` (asleep, armed, open), `window` (one recording), `pool` and `callbacks` (buffers of CUPTI's),
//! `writer` and `convert` (records to spool), `names`, `clock`, `nvtx`.

#![deny(unsafe_code)]

mod entry;

pub use entry::{InitializeInjection, InitializeInjectionNvtx2};

mod process;

mod control;

mod session;

mod window;

mod callbacks;
mod pool;

mod convert;
mod writer;

mod names;

mod clock;

mod nvtx;
