//! `benchwright lock`: what a plan resolves to, pinned in a file beside it.

use super::{Session, write_out};
use crate::args::Lock;
use crate::exit::{self, Failure};
use crate::{locks, outputs, terminal, words};
use engine::lock;
use std::path::Path;

/// Writes the lock file of a plan, or looks whether it is up to date.
pub(super) fn lock(arguments: &Lock, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
    let now = locks::of_plan(&expanded, &outputs::peek(&session.out)?)?;
    let usual = lock::beside(&arguments.plan.plan);
    let file = arguments.output.as_deref().unwrap_or(&usual);
    if arguments.check {
        return check(file, &now, arguments, session);
    }
    let text = now.to_text();
    if file == Path::new("-") {
        write_out(None, text.as_bytes())?;
        return Ok(exit::DONE);
    }
    write_out(Some(file), text.as_bytes())?;
    if session.terminal.is_talkative() {
        let nodes = words::plural(now.nodes.len(), "node");
        let results = words::plural(now.results.len(), "result");
        terminal::line(format!("wrote {}: {nodes}, {results}", words::path(file)));
    }
    Ok(exit::DONE)
}

fn check(
    file: &Path,
    now: &lock::Lock,
    arguments: &Lock,
    session: &Session,
) -> Result<u8, Failure> {
    let plan = words::shell(&arguments.plan.plan.display().to_string());
    let mend = format!("`benchwright lock {plan}` writes it anew");
    let locked = locks::read(file, &mend)?;
    let title = format!("`{}` is not up to date", file.display());
    let differences = locked.differences(now);
    let is_other = locks::is_other(&title, &differences, &mend, &session.terminal);
    Ok(if is_other { exit::UNSOUND } else { exit::DONE })
}
