//! Files that the binary writes about itself, and that must not drift from it: which they are,
//! whether they are up to date, and how they are rewritten.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::problem::Problem;
use crate::process;
use crate::workspace::Workspace;

/// Each generated file, relative to the checkout, with the arguments to `benchwright` whose
/// output it holds.
const GENERATED: &[(&str, &[&str])] = &[
    ("docs/steps.md", &["steps", "--markdown"]),
    ("plans/plan.schema.json", &["schema"]),
];

/// Compares every generated file with what the binary prints now.
///
/// # Errors
///
/// Files that differ, all of them; the binary cannot be built or fails.
pub(crate) fn check(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    let stale: Vec<&str> = produce(workspace, deadline)?
        .into_iter()
        .filter(|(path, text)| {
            let committed = fs::read_to_string(workspace.root().join(path));
            committed.ok().as_ref() != Some(text)
        })
        .map(|(path, _)| path)
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    Err(Problem::new(format!("out of date: {}", stale.join(", "))).help("cargo xtask generate"))
}

/// Writes every generated file anew.
///
/// # Errors
///
/// The binary cannot be built or fails, or a file cannot be written.
pub(crate) fn rewrite(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    for (path, text) in produce(workspace, deadline)? {
        let file = workspace.root().join(path);
        fs::write(&file, text).map_err(|error| Problem::io(&file, &error))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Every generated file's path with its text.
fn produce(
    workspace: &Workspace,
    deadline: Instant,
) -> Result<Vec<(&'static str, String)>, Problem> {
    if GENERATED.is_empty() {
        return Ok(Vec::new());
    }
    let binary = build(workspace, deadline)?;
    GENERATED
        .iter()
        .map(|(path, arguments)| {
            let mut command = Command::new(&binary);
            command.args(*arguments).current_dir(workspace.root());
            Ok((*path, process::output(&mut command, deadline)?))
        })
        .collect()
}

/// Builds the binary as the tests do, whose build would otherwise differ from it in the
/// features of shared dependencies, and have to be made besides.
fn build(workspace: &Workspace, deadline: Instant) -> Result<PathBuf, Problem> {
    let mut command = workspace.resolving_cargo("test");
    command.args(["--release", "--workspace", "--no-run", "--quiet"]);
    process::output(&mut command, deadline)?;
    let binary = workspace.target(deadline)?.join("release/benchwright");
    if binary.is_file() {
        return Ok(binary);
    }
    Err(Problem::new(format!("no binary at {}", binary.display())).help("cargo build --release"))
}
