//! The cpu executor against a plain forward pass that shares no code with it.

mod batching;
mod loading;
mod models;
mod numbers;
mod reference;
mod runner;
