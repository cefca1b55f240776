//! `cargo xtask ci`: the checks and then the tests, counted together. Checks that fail do not
//! keep the tests from running.

use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::problem::Problem;
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{check, test};

/// Leaves a few of an hour's minutes for building xtask and for the machine's moods.
const MINUTES: u64 = 55;
/// The checks' share, at most: the tests must get their turn.
const CHECK_MINUTES: u64 = 35;

/// Runs everything and prints the closing line, last.
pub(crate) fn command(workspace: &Workspace, given: &Arguments) -> Result<bool, Problem> {
    let deadline = given.deadline(MINUTES);
    let share = Instant::now() + Duration::from_secs(60 * CHECK_MINUTES);
    let tests = Arguments {
        soak: true,
        no_install: given.no_install,
        ..Arguments::default()
    };
    let mut total = Tally::default();
    total.add(timed("check", || {
        check::checks(workspace, &[], deadline.min(share))
    }));
    total.add(timed("test", || test::tests(workspace, &tests, deadline)));
    println!("{total}");
    Ok(total.is_good())
}

/// One phase with its time; one that cannot run at all is a failure among the others.
fn timed(name: &str, phase: impl FnOnce() -> Result<Tally, Problem>) -> Tally {
    println!("== {name}");
    let began = Instant::now();
    let tally = phase().unwrap_or_else(|problem| {
        println!("failed: {problem}");
        Tally {
            failed: 1,
            ..Tally::default()
        }
    });
    println!("== {name}: {tally} in {} s", began.elapsed().as_secs());
    tally
}
