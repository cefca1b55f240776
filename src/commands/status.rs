//! `benchwright status`: the runs, or what became of one.

use super::Session;
use crate::args::Status;
use crate::columns::{Cell, Columns};
use crate::exit::{self, Failure};
use crate::summary::{self, Verdicts};
use crate::terminal::{self, Ink};
use crate::{outputs, words};
use engine::event::Outcome;
use engine::freshness::age;
use engine::run::history::{self, History, NodeState};
use serde_json::json;

/// Shows runs or one run.
pub(super) fn status(arguments: &Status, session: &Session) -> Result<u8, Failure> {
    match &arguments.run {
        Some(name) => one(name, arguments.json, session),
        None => all(arguments.json, session),
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

fn one(name: &str, as_json: bool, session: &Session) -> Result<u8, Failure> {
    let run = outputs::history(&session.out, Some(name))?;
    if as_json {
        terminal::line(json!(run));
        return Ok(exit::DONE);
    }
    let terminal = &session.terminal;
    let (state, ink) = state(&run);
    let took = if run.took_ms > 0 {
        format!(", took {}", words::duration(run.took_ms))
    } else {
        String::new()
    };
    let began = words::moment(run.began_ms);
    terminal::line(format!(
        "run {} of plan {}: {}",
        terminal.paint(Ink::Bold, &run.run),
        run.plan,
        terminal.paint(ink, state)
    ));
    terminal::line(format!(
        "began {began} UTC{took}, in {}\n",
        words::path(&run.folder)
    ));
    summary::table(&run, &Verdicts::default())
        .lines("", terminal.color)
        .iter()
        .for_each(terminal::line);
    let failures = run
        .nodes
        .iter()
        .filter_map(|node| summary::failure(node, terminal));
    failures.for_each(|text| terminal::line(format!("\n{text}")));
    let reports = outputs::reports(&run, &(session.library)());
    reports.iter().for_each(|path| {
        terminal::line(format!(
            "\n{} {}",
            terminal.paint(Ink::Bold, "report"),
            words::path(path)
        ))
    });
    if !run.live && !matches!(run.outcome, Some(Outcome::Done | Outcome::Invalid)) {
        terminal::line(format!(
            "\n`{}` goes on with it",
            session.command(&format!("resume {}", words::shell(&run.run)))
        ));
    }
    warn_of_damage(&run, session);
    Ok(exit::DONE)
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
