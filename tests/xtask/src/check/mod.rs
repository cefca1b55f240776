//! `cargo xtask check`: everything that can be known of the checkout without running it. All
//! checks run even if one fails; each says on one line how it went.

mod functions;
mod licences;
mod links;
mod sources;
mod spdx;
mod tools;

use std::time::Instant;

use crate::arguments::Arguments;
use crate::generated;
use crate::problem::Problem;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// From nothing, clippy has every dependency to check.
const MINUTES: u64 = 40;

type Run = fn(&Workspace, Instant) -> Result<(), Problem>;

/// Quick ones first, so that what is quickly mended is quickly known.
const CHECKS: &[(&str, Run)] = &[
    ("fmt", tools::fmt),
    ("words", |workspace, _| sources::words(workspace)),
    ("headers", |workspace, _| sources::headers(workspace)),
    ("paths", |workspace, _| sources::machine_paths(workspace)),
    ("functions", |workspace, _| functions::check(workspace)),
    ("links", |workspace, _| links::check(workspace)),
    ("licences", licences::check),
    ("clippy", tools::clippy),
    ("doc", tools::doc),
    ("generated", generated::check),
];

/// Runs the checks that were asked for, all by default, and prints the closing line.
pub(crate) fn command(workspace: &Workspace, given: &Arguments) -> Result<bool, Problem> {
    let tally = checks(workspace, &given.words, given.deadline(MINUTES))?;
    println!("{tally}");
    Ok(tally.is_good())
}

/// Runs the checks called `names`, or all, until `deadline`.
///
/// # Errors
///
/// No check has one of the names. Checks that fail are counted instead.
pub(crate) fn checks(
    workspace: &Workspace,
    names: &[String],
    deadline: Instant,
) -> Result<Tally, Problem> {
    let known: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Problem::usage(format!("no check is called `{name}`"))
            .help(format!("one of {}", known.join(", "))));
    }
    let mut tally = Tally::default();
    for (name, run) in CHECKS {
        if !names.is_empty() && !names.iter().any(|asked| asked == name) {
            continue;
        }
        let began = Instant::now();
        match run(workspace, deadline) {
            Ok(()) => {
                println!("ok      {name} ({:.1} s)", began.elapsed().as_secs_f64());
                tally.passed += 1;
            }
            Err(problem) => {
                println!("failed  {name}: {problem}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// One problem from all that a check found, a line each.
fn found(all: &[String], help: &str) -> Result<(), Problem> {
    if all.is_empty() {
        return Ok(());
    }
    let many = if all.len() == 1 {
        "1 place"
    } else {
        &format!("{} places", all.len())
    };
    Err(Problem::new(format!("{many}\n  {}", all.join("\n  "))).help(help))
}
