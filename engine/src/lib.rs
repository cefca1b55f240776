//! Plans → graphs → schedules → artifacts.
//!
//! This crate knows no LLM, no HTTP client and no terminal: what it means for a service to be
//! ready, reset or gone is asked of the service, which brings its own probes.
//!
//! The modules stand in the order of the data: text, values, a plan as written, what the library
//! offers, the sealed graph, keys and freshness, the schedule, and the run that performs it.

#![deny(unsafe_code)]

pub mod decide;
pub mod environment;
pub mod event;
pub mod expand;
pub mod freshness;
pub mod graph;
pub mod interpolate;
pub mod journal;
pub mod key;
pub mod library;
pub mod options;
pub mod params;
pub mod plan;
pub mod pools;
pub mod problem;
pub mod process;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod service;
pub mod source;
pub mod step;
pub mod store;
pub mod types;
pub mod value;
