//! The door to the engine thread: submit, flush, leave, come, stop.
//!
//! Everything here is bounded: requests that wait hold a place of a queue of fixed length until
//! they are first scheduled, and each request's answers have a channel with room for all of
//! them, so that a slow reader never holds the engine up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use super::request::{Event, Request};
use super::residence::{Come, Leave, Move, MoveError, Reply};
use crate::clock::{Clock, Nanos};

/// Inbox places beyond the request queue, for all other messages.
const CONTROL_MESSAGES: usize = 64;

/// A message to the engine thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Requests that arrive together.
    Submit(Vec<Arrival>),
    /// Empties the cache, once nothing uses it.
    Flush(FlushRequest),
    /// Takes the model off the device.
    Leave(Leave, Reply),
    /// Brings the model onto the device.
    Come(Come, Reply),
    /// Breaks everything off and ends the thread.
    Stop,
}

/// Someone who wants the cache empty.
#[derive(Debug)]
pub(super) struct FlushRequest {
    pub(super) reply: oneshot::Sender<Flushed>,
    /// When it is answered at the latest, after the step in progress.
    pub(super) deadline: Nanos,
}

/// A request on its way into the scheduler.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) index: usize,
    pub(super) request: Request,
    pub(super) events: mpsc::Sender<Event>,
    /// When it was submitted.
    pub(super) arrived: Nanos,
    /// Its place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// The answer to a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is cached any more.
    Done,
    /// Requests are using the cache.
    Busy {
        /// How many run or wait.
        n_requests: usize,
    },
}

/// Talks to the engine thread; clones talk to the same one.
#[derive(Clone)]
pub struct EngineHandle {
    inbox: mpsc::Sender<Message>,
    queue: Arc<Semaphore>,
    queue_limit: usize,
    is_stopping: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    /// A thread that sleeps by the clock and has to be told of messages.
    sleeper: Arc<OnceLock<Thread>>,
}

impl EngineHandle {
    /// A handle and the inbox it fills, for a queue of `queue_limit` requests.
    pub(super) fn new(
        queue_limit: usize,
        clock: Arc<dyn Clock>,
    ) -> (Self, mpsc::Receiver<Message>) {
        let queue_limit = queue_limit.clamp(1, Semaphore::MAX_PERMITS - CONTROL_MESSAGES);
        let (inbox, messages) = mpsc::channel(queue_limit + CONTROL_MESSAGES);
        let handle = EngineHandle {
            inbox,
            queue: Arc::new(Semaphore::new(queue_limit)),
            queue_limit,
            is_stopping: Arc::default(),
            clock,
            sleeper: Arc::default(),
        };
        (handle, messages)
    }

    /// Submits requests that arrive together; all of them or none. Their events come back in one
    /// channel, told apart by their index. Dropping the channel cancels them.
    ///
    /// # Errors
    /// [`SubmitError`] when the queue has no room for all of them, or the engine is gone.
    pub fn submit(&self, requests: Vec<Request>) -> Result<mpsc::Receiver<Event>, SubmitError> {
        if !self.is_alive() {
            return Err(SubmitError::Stopping);
        }
        let full = SubmitError::QueueFull {
            n_requests: requests.len(),
            limit: self.queue_limit,
        };
        let n_places = u32::try_from(requests.len()).map_err(|_| full.clone())?;
        let mut places = match self.queue.clone().try_acquire_many_owned(n_places) {
            Ok(places) => places,
            Err(TryAcquireError::NoPermits) => return Err(full),
            Err(TryAcquireError::Closed) => return Err(SubmitError::Stopping),
        };
        // Every token and, at worst, one failure per request.
        let n_events: usize = requests
            .iter()
            .map(|request| request.ending.max_tokens + 1)
            .sum();
        let (events, answers) = mpsc::channel(n_events.clamp(1, Semaphore::MAX_PERMITS));
        let arrived = self.clock.now();
        let arrivals = requests
            .into_iter()
            .enumerate()
            .filter_map(|(index, request)| {
                let place = places.split(1)?;
                Some(Arrival {
                    index,
                    request,
                    events: events.clone(),
                    arrived,
                    place,
                })
            })
            .collect();
        match self.send(Message::Submit(arrivals)) {
            Ok(()) => Ok(answers),
            Err(mpsc::error::TrySendError::Full(_)) => Err(full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SubmitError::Stopping),
        }
    }

    /// Empties the cache once no request uses it, or says within `patience` and a step that
    /// requests do.
    ///
    /// # Errors
    /// [`SubmitError`] when the engine is gone or its inbox is full.
    pub async fn flush(&self, patience: Duration) -> Result<Flushed, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let deadline = self.clock.now().after(patience);
        self.send(Message::Flush(FlushRequest { reply, deadline }))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SubmitError::QueueFull {
                    n_requests: 1,
                    limit: self.queue_limit,
                },
                mpsc::error::TrySendError::Closed(_) => SubmitError::Stopping,
            })?;
        answer.await.map_err(|_| SubmitError::Stopping)
    }

    /// Takes the model off the device, once what runs may be left. It is done however long that
    /// takes, even if nobody waits for it any more.
    ///
    /// # Errors
    /// [`MoveError`]; the model stays then.
    pub async fn leave(&self, leave: Leave) -> Result<Move, MoveError> {
        self.moved(|reply| Message::Leave(leave, reply)).await
    }

    /// Brings the model onto the device.
    ///
    /// # Errors
    /// [`MoveError`]; nothing has moved then.
    pub async fn come(&self, come: Come) -> Result<Move, MoveError> {
        self.moved(|reply| Message::Come(come, reply)).await
    }

    async fn moved(&self, message: impl FnOnce(Reply) -> Message) -> Result<Move, MoveError> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).map_err(|error| match error {
            // The inbox has room for control messages beyond every request that may wait: it is full of them.
            mpsc::error::TrySendError::Full(_) => MoveError::InTransit,
            mpsc::error::TrySendError::Closed(_) => MoveError::Stopping,
        })?;
        answer.await.map_err(|_| MoveError::Stopping)?
    }

    /// Refuses new requests from now on, and breaks the running ones off after the step in
    /// progress. Returns at once.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        // A full inbox needs no wake-up: the engine reads the flag before every step.
        let _ = self.send(Message::Stop);
    }

    fn send(&self, message: Message) -> Result<(), mpsc::error::TrySendError<Message>> {
        let sent = self.inbox.try_send(message);
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
        sent
    }

    /// Wakes `thread` with every message from now on. Only the first call counts.
    pub(super) fn wakes(&self, thread: Thread) {
        self.sleeper.get_or_init(|| thread);
    }

    /// Whether requests are still taken.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.is_stopping() && !self.inbox.is_closed()
    }

    /// The flag that [`EngineHandle::stop`] sets.
    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_stopping)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many requests wait already.
    #[error(
        "the queue of {limit} waiting requests has no room for {n_requests} more; try again later \
         or raise `queue_limit`"
    )]
    QueueFull {
        /// Requests submitted together.
        n_requests: usize,
        /// Length of the queue.
        limit: usize,
    },
    /// The engine is gone or going.
    #[error("the server is stopping")]
    Stopping,
}
