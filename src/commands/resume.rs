//! `benchwright resume`: goes on where a run stopped, in the same folder.

use super::Session;
use crate::args::Resume;
use crate::execute::{Execution, jobs};
use crate::exit::{self, Failure};
use crate::locks::Pinned;
use crate::terminal;
use crate::{outputs, plans, words};
use engine::event::Outcome;
use engine::run::RunSettings;
use engine::run::folder::{RunFolder, read_recipe};
use engine::run::history::{self, History};
use engine::run::reap;

/// Goes on with a run.
pub(super) fn resume(arguments: &Resume, session: &Session) -> Result<u8, Failure> {
    let path = history::find(&session.out, arguments.run.as_deref()).map_err(Failure::new)?;
    let failure = |error| outputs::run_failure(&session.out, &error);
    let history = history::load(&path).map_err(failure)?;
    if let (false, Some(outcome @ (Outcome::Done | Outcome::Invalid))) =
        (history.live, history.outcome)
    {
        say_finished(&history, outcome, arguments.json, session);
        return Ok(outcome.exit_code());
    }
    // Locks the run before anything of it is read.
    let folder = RunFolder::open(&path).map_err(failure)?;
    end_leftovers(&folder, session)?;
    let (recipe, texts) = read_recipe(&path).map_err(failure)?;
    let loaded = plans::load_kept(
        &recipe.plan_path,
        &texts,
        &recipe.settings,
        &(session.library)(),
    );
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
    warn(&history, &recipe.version, session);
    let pinned = match &recipe.locked {
        None => None,
        Some(file) => match Pinned::read(file, &recipe.plan_path, &session.terminal) {
            Ok(pinned) if !pinned.admits(&expanded, &session.out, &session.terminal)? => {
                return Ok(exit::UNSOUND);
            }
            Ok(pinned) => Some(pinned),
            Err(code) => return Ok(code),
        },
    };
    let store = outputs::open(&session.out)?;
    let settings = RunSettings {
        locks: engine::claims::Claims::usual_folder(),
        jobs: jobs(arguments.jobs),
        fresh: recipe.fresh,
        seed: recipe.seed,
        resumed: true,
    };
    Execution {
        session,
        expanded,
        store,
        folder,
        settings,
        pinned,
        json: arguments.json,
    }
    .until_the_end()
}

/// Ends what the run has left behind when it was cut off: it would disturb what comes.
fn end_leftovers(folder: &RunFolder, session: &Session) -> Result<(), Failure> {
    let reaped = reap::end_of(folder);
    if let Some(leftover) = reaped.left.first() {
        let pid = leftover.identity.pid;
        let message = format!("process {pid}, which the run has left, cannot be ended");
        return Err(Failure::new(message).help("look at it with `ps`, end it, then resume the run"));
    }
    if !reaped.found.is_empty() {
        let label = session
            .terminal
            .paint_error(terminal::Ink::Yellow, "warning");
        let left = words::plural(reaped.found.len(), "process");
        terminal::error_line(format!(
            "{label}: ended {left} that the run had left behind"
        ));
    }
    Ok(())
}

fn say_finished(history: &History, outcome: Outcome, json: bool, session: &Session) {
    if json || !session.terminal.is_talkative() {
        return;
    }
    terminal::line(format!(
        "run {} is finished: there is nothing to resume",
        history.run
    ));
    if outcome == Outcome::Invalid {
        terminal::line("a measurement is invalid; `benchwright run PLAN --fresh` measures again");
    }
}

/// Says what is not as it was.
fn warn(history: &History, version: &str, session: &Session) {
    let label = session
        .terminal
        .paint_error(terminal::Ink::Yellow, "warning");
    for damage in &history.damage {
        terminal::error_line(format!(
            "{label}: the journal of run {} is damaged: {damage}",
            history.run
        ));
    }
    if version != env!("CARGO_PKG_VERSION") {
        let now = env!("CARGO_PKG_VERSION");
        terminal::error_line(format!(
            "{label}: the run was begun by version {version}, and this is {now}"
        ));
    }
}
