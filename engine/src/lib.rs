//! Plans → graphs → schedules → artifacts.
//!
//! This crate knows no LLM, no HTTP client and no terminal: what it means for a service to be
//! ready, reset or gone is asked of the service, which brings its own probes.
//!
//! The modules stand in the order of the data: text, values, a plan as written, what the library
//! offers, the sealed graph, keys and freshness, the schedule, and the run that performs it.

#![deny(unsafe_code)]

// Text and what is wrong with it.
pub mod source;

pub mod problem;
pub mod value;

// A plan as it is written, and what its names mean.
pub mod plan;

pub mod point;

pub mod interpolate;
pub mod params;

pub mod compose;

pub mod secrets;
pub mod when;

// What plans are made of.
pub mod options;

pub mod types;

pub mod service;

pub mod loan;

pub mod step;

pub mod notes;

pub mod library;

pub mod schema;

pub mod policy;

// The sealed graph.
pub mod expand;

pub mod graph;

// What is there already, and why it is not enough.
pub mod environment;
pub mod key;

pub mod freshness;
pub mod hits;
pub mod samples;

pub mod decide;
pub mod past;

// Running.
pub mod schedule;

pub mod pools;

pub mod claims;

pub mod event;
pub mod run;

pub mod lock;

// What outlives a run.
pub mod disk;

pub mod journal;
pub mod logs;
pub mod process;
pub mod store;
