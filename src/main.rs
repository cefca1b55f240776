//! The command `benchwright`: arguments in, the engine and the step library at work, words out.
//!
//! Knows how to ask and how to show. What plans mean, what runs and what is kept is the engine's;
//! what steps do is the library's. Reading order: `args`, `commands`, and then what they share:
//! `plans` (loading), `outlook` (what would run), `execute` (a run from start to exit code), `hosting`
//! (commands that serve), `render` and `progress` (what is seen), `terminal` (the only place that prints).

#![forbid(unsafe_code)]

mod args;
mod commands;

mod estimate;
mod execute;
mod hosting;
mod locks;
mod outlook;
mod outputs;
mod plans;
mod signals;

mod draft;
mod drawing;
mod progress;
mod reference;
mod render;
mod summary;

mod columns;
mod exit;
mod terminal;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == engine::process::GUARDIAN_ARGUMENT)
    {
        return engine::process::guardian::main();
    }
    commands::cli(steps::library)
}
