//! `benchwright trace`: a run as a file that Perfetto opens.

use super::{Session, write_out};
use crate::args::Trace;
use crate::exit::{self, Failure};
use crate::{outputs, terminal, words};
use engine::run::{history, trace};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes the trace of a run and prints where it is.
pub(super) fn trace(arguments: &Trace, session: &Session) -> Result<u8, Failure> {
    let folder = history::find(&session.out, arguments.run.as_deref()).map_err(Failure::new)?;
    let failure = |error| outputs::run_failure(&session.out, &error);
    let run = history::load(&folder).map_err(failure)?;
    let (_, entries) = history::entries(&folder).map_err(failure)?;
    let drawn = trace::trace(&run.run, &entries, run.live.then(now_ms));
    let text = format!("{}\n", trace::json(&drawn));
    if arguments.output.as_deref() == Some(Path::new("-")) {
        write_out(None, text.as_bytes())?;
        return Ok(exit::DONE);
    }
    let usual = folder.join("trace.json");
    let file = arguments.output.as_deref().unwrap_or(&usual);
    write_out(Some(file), text.as_bytes())?;
    terminal::line(words::path(file));
    if session.terminal.is_talkative() {
        terminal::error_line(
            "open it at https://ui.perfetto.dev; nothing of it leaves the browser",
        );
    }
    Ok(exit::DONE)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0))
}
