//! Looking at a run again and again until it ends: in place on a terminal, one after the other
//! elsewhere.

use super::super::Session;
use super::one::{Moment, Watched};
use super::warn_of_damage;
use crate::exit::{self, Failure};
use crate::terminal;
use std::time::Duration;

/// Shows the run that `name` means every so often, and once more when it has ended.
pub(super) fn watch(
    name: Option<&str>,
    every: Duration,
    json: bool,
    session: &Session,
) -> Result<u8, Failure> {
    let watched = Watched::find(name, session)?;
    let in_place = session.terminal.live && !json;
    loop {
        let moment = watched.now(session)?;
        let goes_on = moment.history().live;
        match (json, in_place && goes_on) {
            (true, _) => terminal::line(moment.json()),
            (false, true) => terminal::redraw(&moment.lines(session)),
            (false, false) => last(&moment, in_place, session),
        }
        if !goes_on {
            return Ok(exit::DONE);
        }
        std::thread::sleep(every);
    }
}

/// Shows a moment for good.
fn last(moment: &Moment, in_place: bool, session: &Session) {
    if in_place {
        terminal::redraw(&[]);
    }
    moment.lines(session).iter().for_each(terminal::line);
    if moment.history().live {
        terminal::line("");
    } else {
        warn_of_damage(moment.history(), session);
    }
}
