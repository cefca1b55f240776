//! Plans → graphs → schedules → artifacts.
//!
//! This crate knows no LLM, no HTTP client and no terminal: what it means for a service to be
//! ready, reset or gone is asked of the service, which brings its own probes.
//!
//! The modules stand in the order of the data: text, values, a plan as written, what the library
//! offers, the sealed graph, keys and freshness, the schedule, and the run that performs it.

#![deny(unsafe_code)]

pub mod source;
pub mod problem;
pub mod value;
pub mod interpolate;
pub mod plan;
pub mod params;
pub mod options;
pub mod types;
pub mod step;
pub mod service;
pub mod library;
pub mod graph;
pub mod expand;
pub mod pools;
pub mod schedule;
pub mod environment;
pub mod key;
pub mod samples;
pub mod freshness;
pub mod decide;
pub mod event;
pub mod run;
pub mod store;
pub mod journal;
pub mod process;
