//! `benchwright reap`: ends what runs have left behind whose command was killed.

use super::Session;
use crate::args::Reap;
use crate::columns::{Cell, Columns};
use crate::exit::{self, Failure};
use crate::terminal::{self, Ink};
use crate::words;
use engine::freshness::age;
use engine::process::reaper::Leftover;
use engine::run::reap::{self, RunRemains};
use serde_json::json;

/// Ends leftovers, or only lists them.
pub(super) fn reap(arguments: &Reap, session: &Session) -> Result<u8, Failure> {
    let runs = if arguments.dry_run {
        reap::find(&session.out)
    } else {
        reap::end(&session.out).map_err(|error| Failure::new(error.to_string()))?
    };
    if arguments.json {
        terminal::line(json!(runs));
    } else {
        show(&runs, arguments.dry_run, session);
    }
    let is_clean = runs.iter().all(|run| run.left.is_empty());
    Ok(if is_clean { exit::DONE } else { exit::FAILED })
}

fn show(runs: &[RunRemains], dry_run: bool, session: &Session) {
    if runs.is_empty() && session.terminal.is_talkative() {
        terminal::line(format!(
            "no run in `{}` has left a process behind",
            session.out.display()
        ));
    }
    for run in runs {
        let n_found = words::plural(run.found.len(), "process");
        let name = session.terminal.paint(Ink::Bold, &run.run);
        terminal::line(format!("run {name} has left {n_found}"));
        let mut columns = Columns::titled(&["pid", "age", "of", "state", "command"]);
        for leftover in &run.found {
            columns.row(row(leftover, run, dry_run));
        }
        columns
            .lines("  ", session.terminal.color)
            .iter()
            .for_each(terminal::line);
    }
}

fn row(leftover: &Leftover, run: &RunRemains, dry_run: bool) -> Vec<Cell> {
    let is_left = run.left.iter().any(|l| l.identity == leftover.identity);
    let (ink, state) = match (is_left, dry_run) {
        (false, _) => (Ink::Green, "ended"),
        (true, true) => (Ink::Yellow, "running"),
        (true, false) => (Ink::Red, "could not be ended"),
    };
    vec![
        leftover.identity.pid.to_string().into(),
        age(leftover.age_s).into(),
        leftover.label.clone().unwrap_or_default().into(),
        Cell::new(ink, state),
        leftover.command.clone().into(),
    ]
}
