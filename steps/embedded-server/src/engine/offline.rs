//! An engine without a thread, for whoever makes up the time: it does one turn when it is asked to, and what
//! it waits for its clock is told to have passed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::handle::Message;
use super::{Come, Engine, EngineHandle, EngineParts, Leave, Move, MoveError, Turned};
use crate::clock::{Clock, Nanos};

/// The answer to a request for a move, once it has come.
pub(crate) type Moving = oneshot::Receiver<Result<Move, MoveError>>;

/// An engine that does what it is told, turn by turn.
pub struct Unstarted {
    engine: Engine,
    inbox: mpsc::Receiver<Message>,
}

impl Unstarted {
    /// An engine and its handle. `arrivals` says when what is submitted arrives.
    #[must_use]
    pub fn new(parts: EngineParts, arrivals: Arc<dyn Clock>) -> (EngineHandle, Self) {
        let (handle, inbox) = EngineHandle::new(parts.queue_limit, arrivals);
        let engine = Engine::new(parts, handle.stop_flag());
        (handle, Unstarted { engine, inbox })
    }

    /// Takes what was submitted, so that whoever decides where models are sees it.
    pub fn take(&mut self) {
        self.engine.take_what_is_there(&mut self.inbox);
        self.engine.publish();
    }

    /// Forgets requests that nobody waits for any more, so that whoever decides where models are sees it.
    pub fn drop_abandoned(&mut self) {
        self.engine.drop_abandoned();
        self.engine.publish();
    }

    /// Breaks off what waits and would miss its objective now, where that is asked for.
    pub fn abort_late(&mut self) {
        self.engine.abort_late();
    }

    /// Leaves if it is to, and computes a step if there is one; whether anything was done that may lead to
    /// another.
    pub fn turn(&mut self) -> bool {
        let was_leaving = self.engine.residence.leaving.is_some();
        let turned = self.engine.turn();
        let has_left = was_leaving && self.engine.residence.leaving.is_none();
        match turned {
            Turned::Stepped => true,
            Turned::WaitsForCopies => {
                let waits =
                    !self.engine.scheduler.is_idle() && self.engine.lanes.next_at().is_some();
                self.engine.wait_for_copies();
                waits || has_left
            }
            Turned::Rests => has_left,
        }
    }

    /// When the first request that waits is broken off, if any is.
    pub fn next_abort(&mut self) -> Option<Nanos> {
        let (deadline, _) = self.engine.first_deadline()?;
        let lead = u64::try_from(super::ABORT_LEAD.as_nanos()).unwrap_or(u64::MAX);
        let is_asked = self.engine.parts.aborts_late;
        is_asked.then(|| Nanos(deadline.0.saturating_sub(lead).saturating_add(1)))
    }

    /// Takes the model off the device, once what runs may be left.
    pub(crate) fn leave(&mut self, leave: Leave) -> Moving {
        let (reply, moving) = oneshot::channel();
        self.engine.begin_leaving(leave, reply);
        moving
    }

    /// Brings the model onto the device.
    pub(crate) fn come(&mut self, come: Come) -> Moving {
        let (reply, moving) = oneshot::channel();
        self.engine.come(come, reply);
        moving
    }
}
