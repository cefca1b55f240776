//! The checks that other tools make: rustfmt, clippy, rustdoc.
//!
//! All in the release profile, so that what they compile is shared with the tests.

use std::process::Command;
use std::time::Instant;

use crate::problem::Problem;
use crate::process;
use crate::workspace::Workspace;

pub(super) fn fmt(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    let mut command = workspace.cargo("fmt");
    command.args(["--all", "--", "--check", "-l"]);
    run(&mut command, deadline, "cargo fmt --all")
}

pub(super) fn clippy(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    let mut command = workspace.resolving_cargo("clippy");
    command.args(["--release", "--workspace", "--all-targets", "--keep-going"]);
    command.args(["--", "-D", "warnings"]);
    run(&mut command, deadline, "mend what clippy names above")
}

pub(super) fn doc(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    let mut command = workspace.resolving_cargo("doc");
    command.args(["--release", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-Dwarnings");
    run(&mut command, deadline, "mend what rustdoc names above")
}

fn run(command: &mut Command, deadline: Instant, help: &str) -> Result<(), Problem> {
    let ending = process::run(command, deadline, &mut |line: &str| println!("{line}"))?;
    if ending.is_good() {
        return Ok(());
    }
    Err(Problem::new(format!("`{}` {ending}", process::shown(command))).help(help))
}
