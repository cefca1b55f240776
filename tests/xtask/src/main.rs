//! The project's chores behind one command, `cargo xtask`, so that a fresh machine needs only
//! a Rust toolchain to test, check and measure it.
//!
//! It knows the workspace as files, as `cargo metadata` and as the `benchwright` binary; it
//! links none of the project's crates, so that it builds in seconds.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line of its own: what it prints is its result"
)]

mod arguments;
mod ci;
mod test;

mod check;
mod generated;
mod measure;
mod soak;

mod capability;
mod libtest;
mod problem;
mod process;
mod tally;
mod workspace;

use std::process::ExitCode;

use arguments::Arguments;
use problem::Problem;
use workspace::Workspace;

const HELP: &str = "\
The project's chores. Run as `cargo xtask COMMAND`.

  test [--soak] [--no-install] [--minutes N] [FILTER...]
      Installs what the tests need where it can, runs them all, counts them.
      --soak runs the soak tests too, with few rounds.
  check [--minutes N] [NAME...]
      fmt, words, headers, paths, functions, links, licences, clippy, doc, generated.
  ci [--no-install] [--minutes N]
      `check`, then `test --soak`, counted together: what `.ci/run` runs.
  soak [--rounds N] [--seed S] [--minutes N] [NAME...]
      Long randomised tests; prints the seed that repeats them.
  generate
      Rewrites the files that the binary generates.
  measure [--cold] [--minutes N]
      Measures the quickstart and prints a table in Markdown.

Exit codes: 0 everything passed, 1 something failed, 2 the command is not understood.";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(if problem.is_usage() { 2 } else { 1 })
        }
    }
}

/// Runs the command that was asked for; `false` means that it ran and something failed.
fn run() -> Result<bool, Problem> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    if matches!(command.as_str(), "" | "help" | "--help" | "-h") {
        println!("{HELP}");
        return Ok(true);
    }
    let given = Arguments::parse(&command, words)?;
    let workspace = Workspace::locate()?;
    process::adopt_orphans()?;
    match command.as_str() {
        "test" => test::command(&workspace, &given),
        "check" => check::command(&workspace, &given),
        "ci" => ci::command(&workspace, &given),
        "soak" => soak::command(&workspace, &given),
        "generate" => generated::rewrite(&workspace, given.deadline(60)).map(|()| true),
        _ => measure::command(&workspace, &given).map(|()| true),
    }
}
