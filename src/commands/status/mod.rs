//! `benchwright status`: the runs, or what goes on in one and what became of it.

mod waits;

mod one;

mod watch;

use super::Session;
use crate::args::Status;
use crate::columns::{Cell, Columns};
use crate::exit::{self, Failure};
use crate::terminal::{self, Ink};
use engine::event::Outcome;
use engine::freshness::age;
use engine::run::history::{self, History, NodeState};
use one::Watched;
use serde_json::json;
use std::time::Duration;

/// Shows runs or one run.
pub(super) fn status(arguments: &Status, session: &Session) -> Result<u8, Failure> {
    let name = arguments.run.as_deref();
    match (name, arguments.watch) {
        (None, None) => all(arguments.json, session),
        (_, Some(seconds)) => {
            let every = Duration::from_secs(seconds.into());
            watch::watch(name, every, arguments.json, session)
        }
        (Some(_), None) => {
            let run = Watched::find(name, session)?;
            let shown = run.now(session)?;
            if arguments.json {
                terminal::line(shown.json());
            } else {
                shown.lines(session).iter().for_each(terminal::line);
                warn_of_damage(shown.history(), session);
            }
            Ok(exit::DONE)
        }
    }
}

fn all(as_json: bool, session: &Session) -> Result<u8, Failure> {
    let folders = history::list(&session.out);
    let mut runs = Vec::new();
    for folder in &folders {
        match history::load(folder) {
            Ok(run) => runs.push(run),
            Err(error) => warn(&error.to_string(), session),
        }
    }
    if as_json {
        terminal::line(json!(runs));
        return Ok(exit::DONE);
    }
    if runs.is_empty() {
        terminal::line(format!(
            "no runs in `{}`; `benchwright run PLAN` makes one",
            session.out.display()
        ));
        return Ok(exit::DONE);
    }
    let mut columns = Columns::titled(&["run", "plan", "began", "state", "steps"]);
    for run in &runs {
        let (state, ink) = state(run);
        let began = format!(
            "{} ago",
            age(engine::samples::now_s().saturating_sub(run.began_ms / 1000))
        );
        columns.row(vec![
            Cell::new(Ink::Bold, run.run.as_str()),
            run.plan.as_str().into(),
            began.into(),
            Cell::new(ink, state),
            counts(run).into(),
        ]);
    }
    columns
        .lines("", session.terminal.color)
        .iter()
        .for_each(terminal::line);
    runs.iter().for_each(|run| warn_of_damage(run, session));
    Ok(exit::DONE)
}

/// Names the state of a run; liveness comes from its lock, never from what was written.
fn state(run: &History) -> (&'static str, Ink) {
    match (run.live, run.outcome) {
        (true, _) => ("running", Ink::Cyan),
        (false, Some(Outcome::Done)) => ("done", Ink::Green),
        (false, Some(Outcome::Invalid)) => ("invalid", Ink::Red),
        (false, Some(Outcome::Failed)) => ("failed", Ink::Red),
        (false, Some(Outcome::Interrupted)) => ("interrupted", Ink::Yellow),
        (false, None) => ("cut off", Ink::Yellow),
    }
}

fn counts(run: &History) -> String {
    let steps: Vec<NodeState> = run
        .nodes
        .iter()
        .filter(|n| n.node.kind.is_some())
        .map(|n| n.state)
        .collect();
    let count = |state: NodeState| steps.iter().filter(|s| **s == state).count();
    let done = count(NodeState::Done) + count(NodeState::Reused);
    let mut text = format!("{done}/{}", steps.len());
    for (state, word) in [
        (NodeState::Reused, "reused"),
        (NodeState::Failed, "failed"),
        (NodeState::Skipped, "skipped"),
    ] {
        if count(state) > 0 {
            text.push_str(&format!(", {} {word}", count(state)));
        }
    }
    text
}

fn warn_of_damage(run: &History, session: &Session) {
    for damage in &run.damage {
        warn(
            &format!("the journal of run {} is damaged: {damage}", run.run),
            session,
        );
    }
}

fn warn(text: &str, session: &Session) {
    terminal::error_line(format!(
        "{}: {text}",
        session.terminal.paint_error(Ink::Yellow, "warning")
    ));
}
