//! `cargo xtask soak`: long randomised tests, repeatable by their seed.
//!
//! A soak test is an ignored test whose name begins with `soak_`. It reads how long to go on
//! and where to begin from two variables, and is found by its name: there is no list to keep.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::arguments::Arguments;
use crate::problem::Problem;
use crate::tally::Tally;
use crate::test;
use crate::workspace::Workspace;

/// What begins the name of every soak test.
const PREFIX: &str = "soak_";
/// Tells a soak test how many rounds to make.
const ROUNDS: &str = "BENCHWRIGHT_SOAK_ROUNDS";
/// Tells a soak test the seed of its first round.
const SEED: &str = "BENCHWRIGHT_SOAK_SEED";
/// Enough for a night's work to find what is rare.
const LONG: u64 = 1000;
/// Enough to notice that a soak test itself is broken.
const SHORT: u64 = 5;
/// Half a day.
const MINUTES: u64 = 12 * 60;

/// One run over soak tests.
#[derive(Debug)]
pub(crate) struct Soak {
    rounds: u64,
    seed: u64,
    filters: Vec<String>,
}

/// Runs the soak tests that were asked for, all by default.
pub(crate) fn command(workspace: &Workspace, given: &Arguments) -> Result<bool, Problem> {
    let soak = Soak {
        filters: filters(&given.words),
        ..Soak::new(given, LONG)
    };
    let tally = soak.run(workspace, given.deadline(MINUTES))?;
    if tally == Tally::default() {
        println!(
            "failed: no soak test has `{}` in its name",
            soak.filters.join("`, `")
        );
    }
    println!("{tally}");
    Ok(tally.is_good())
}

/// Whether a test's name says that it is a soak test.
pub(crate) fn is_soak(name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    last.starts_with(PREFIX)
}

impl Soak {
    /// Few rounds of every soak test.
    pub(crate) fn short(given: &Arguments) -> Self {
        Self::new(given, SHORT)
    }

    fn new(given: &Arguments, rounds: u64) -> Self {
        Self {
            rounds: given.rounds.unwrap_or(rounds),
            seed: given.seed.unwrap_or_else(fresh_seed),
            filters: filters(&[]),
        }
    }

    /// Runs it and counts; says how to repeat what failed.
    ///
    /// # Errors
    ///
    /// Cargo cannot be started.
    pub(crate) fn run(&self, workspace: &Workspace, deadline: Instant) -> Result<Tally, Problem> {
        let Self { rounds, seed, .. } = self;
        println!("soak: {rounds} rounds, seed {seed}");
        let mut command = test::cargo_test(workspace);
        // One test at a time: soaks load the machine, and each must be repeatable alone.
        command
            .args(["--tests", "--", "--ignored", "--test-threads=1"])
            .args(&self.filters)
            .env(ROUNDS, rounds.to_string())
            .env(SEED, seed.to_string());
        let (tally, _) = test::counted(&mut command, deadline)?;
        if tally.failed > 0 {
            println!("repeat: cargo xtask soak --rounds {rounds} --seed {seed}");
        }
        Ok(tally)
    }
}

/// Test filters for the names asked for, which may leave out the prefix.
fn filters(names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return vec![PREFIX.to_owned()];
    }
    names
        .iter()
        .map(|name| match name.strip_prefix(PREFIX) {
            Some(_) => name.clone(),
            None => format!("{PREFIX}{name}"),
        })
        .collect()
}

/// A seed that differs from run to run, short enough to be typed.
fn fresh_seed() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soaks_are_known_by_their_last_name() {
        assert!(is_soak("journal::tests::soak_cuts"));
        assert!(is_soak("soak_cuts"));
        assert!(!is_soak("soak_tests::cuts"));
        assert!(!is_soak("tests::resoak_cuts"));
    }

    #[test]
    fn names_may_leave_out_the_prefix() {
        assert_eq!(filters(&[]), ["soak_"]);
        let names = ["cuts", "soak_kills"].map(str::to_owned);
        assert_eq!(filters(&names), ["soak_cuts", "soak_kills"]);
    }
}
