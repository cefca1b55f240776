//! `cargo xtask test`: everything a fresh machine needs to know whether the project works.
//!
//! Tests run in the release profile, which they share with the build that users make.

use std::process::Command;
use std::time::Instant;

use crate::arguments::Arguments;
use crate::capability::CAPABILITIES;
use crate::libtest::Reading;
use crate::problem::Problem;
use crate::process::{self, Ending};
use crate::soak::{self, Soak};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// From nothing, on two cores, the build alone takes a quarter of an hour.
const MINUTES: u64 = 50;

/// Runs the tests and prints the closing line.
pub(crate) fn command(workspace: &Workspace, given: &Arguments) -> Result<bool, Problem> {
    let tally = tests(workspace, given, given.deadline(MINUTES))?;
    println!("{tally}");
    Ok(tally.is_good())
}

/// Provides what the tests need, runs them, and the soak tests if they were asked for.
///
/// # Errors
///
/// Cargo cannot be started. Tests that fail are counted instead.
pub(crate) fn tests(
    workspace: &Workspace,
    given: &Arguments,
    deadline: Instant,
) -> Result<Tally, Problem> {
    let missing = provide(workspace, given, deadline);
    let mut command = cargo_test(workspace);
    command.arg("--").args(&given.words);
    for filter in &missing {
        command.args(["--skip", filter]);
    }
    let (mut tally, reading) = counted(&mut command, deadline)?;
    if tally == Tally::default() {
        let filters = given.words.join("`, `");
        println!("failed: no test ran, none matches `{filters}`");
        tally.failed += 1;
    }
    tally.skipped += missing.len() as u64;

    let mut soaks = 0;
    for test in reading.ignored() {
        if given.soak && soak::is_soak(&test.name) {
            soaks += 1;
        } else {
            println!("skipped: {}: {}", test.name, why(&test.name, &test.reason));
        }
    }
    if soaks > 0 {
        // They count by how they end now, not as ignored.
        tally.skipped -= soaks;
        tally.add(Soak::short(given).run(workspace, deadline)?);
    }
    Ok(tally)
}

/// `cargo test` over everything.
pub(crate) fn cargo_test(workspace: &Workspace) -> Command {
    let mut command = workspace.resolving_cargo("test");
    command.args(["--release", "--workspace", "--no-fail-fast"]);
    command
}

/// Runs a `cargo test`, showing and counting what it prints. A failure that no test tells of,
/// such as code that does not compile, counts as one.
///
/// # Errors
///
/// The command cannot be started.
pub(crate) fn counted(
    command: &mut Command,
    deadline: Instant,
) -> Result<(Tally, Reading), Problem> {
    println!("{}", process::shown(command));
    let mut reading = Reading::default();
    let mut show = |line: &str| {
        println!("{line}");
        reading.line(line);
    };
    let ending = process::run(command, deadline, &mut show)?;
    reading.end();
    let mut tally = reading.tally();
    for name in reading.failed() {
        println!("failed: {name}");
    }
    if ending == Ending::TimedOut || (!ending.is_good() && tally.failed == 0) {
        println!("failed: `cargo test` {ending}");
        tally.failed += 1;
    }
    Ok((tally, reading))
}

/// Installs what is missing, where it may; the filters of what is still missing then.
fn provide(workspace: &Workspace, given: &Arguments, deadline: Instant) -> Vec<&'static str> {
    let mut missing = Vec::new();
    for capability in CAPABILITIES {
        if capability.is_here(workspace) {
            continue;
        }
        if !given.no_install
            && let Err(problem) = capability.install(workspace, deadline)
        {
            println!("not installed: {problem}");
        }
        if !capability.is_here(workspace) {
            println!("{}", capability.skipped());
            missing.push(capability.filter);
        }
    }
    missing
}

fn why<'a>(name: &str, reason: &'a str) -> &'a str {
    match reason {
        "" if soak::is_soak(name) => "takes long (cargo xtask soak)",
        "" => "marked `#[ignore]` without a reason",
        reason => reason,
    }
}
