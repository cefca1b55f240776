//! One model's requests: those that wait until it is on the device, in the order of their coming, and
//! those that its server has.
//!
//! Knows neither servers nor sockets. Who waits holds a [`Place`], who was let through a [`Ticket`];
//! either is given back by being dropped, however that comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use embedded_server::clock::{Clock, Nanos};
use embedded_server::swapping::{ModelState, View};
use tokio::sync::{Notify, oneshot};

/// What an answer takes at least: a request with less time than that left is late.
const ABORT_LEAD: Duration = Duration::from_millis(500);

/// The requests of one model.
pub(crate) struct Queue {
    clock: Arc<dyn Clock>,
    /// Most that wait.
    limit: usize,
    inner: Mutex<Inner>,
    /// Told when the last running request has ended.
    idle: Notify,
}

struct Inner {
    state: ModelState,
    since: Nanos,
    waiting: VecDeque<Waiting>,
    next_id: u64,
    n_running: usize,
    n_arrived: u64,
    last_busy: Nanos,
    /// Why nothing is let through any more.
    closed: Option<Refusal>,
}

struct Waiting {
    id: u64,
    deadline: Option<Nanos>,
    admit: oneshot::Sender<Result<Ticket, Refusal>>,
}

/// Where a request is after it came.
pub(crate) enum Entry {
    /// Its model is there.
    Goes(Ticket),
    /// Its model is not.
    Waits(Place),
}

/// A request that is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// As many wait as may.
    #[error("{limit} requests wait for this model already; try again later")]
    Full {
        /// How many.
        limit: usize,
    },
    /// It would miss its objective.
    #[error("it waited for its model until its objective (`slo`) could not be met any more")]
    Late,
    /// It has waited as long as anyone may.
    #[error("it waited for its model for {} s, which is the limit", limit.as_secs())]
    Waited {
        /// How long.
        limit: Duration,
    },
    /// The model's server failed to bring it or to take it away.
    #[error("{reason}")]
    Broken {
        /// What failed.
        reason: String,
    },
    /// The gateway is ending.
    #[error("the gateway is stopping")]
    Stopping,
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// In any case.
    pub(crate) limit: Duration,
    /// Whether no longer than its objective can be met.
    pub(crate) aborts_late: bool,
}

/// How a model fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) state: ModelState,
    pub(crate) n_running: usize,
    pub(crate) n_waiting: usize,
    /// Since the start.
    pub(crate) n_arrived: u64,
    pub(crate) closed: Option<Refusal>,
}

impl Queue {
    pub(crate) fn new(state: ModelState, limit: usize, clock: Arc<dyn Clock>) -> Arc<Self> {
        let now = clock.now();
        Arc::new(Queue {
            clock,
            limit,
            inner: Mutex::new(Inner {
                state,
                since: now,
                waiting: VecDeque::new(),
                next_id: 0,
                n_running: 0,
                n_arrived: 0,
                last_busy: now,
                closed: None,
            }),
            idle: Notify::new(),
        })
    }

    /// Takes a request in, which has to be answered within its `objective`, if it has one.
    ///
    /// # Errors
    /// [`Refusal`], where it can neither go nor wait.
    pub(crate) fn enter(self: &Arc<Self>, objective: Option<Duration>) -> Result<Entry, Refusal> {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.n_arrived += 1;
        inner.last_busy = now;
        if let Some(refusal) = &inner.closed {
            return Err(refusal.clone());
        }
        if inner.state == ModelState::Active {
            inner.n_running += 1;
            return Ok(Entry::Goes(Ticket(Arc::clone(self))));
        }
        if inner.waiting.len() >= self.limit {
            return Err(Refusal::Full { limit: self.limit });
        }
        let id = inner.next_id;
        inner.next_id += 1;
        let deadline = objective.map(|objective| now.after(objective));
        let (admit, admitted) = oneshot::channel();
        inner.waiting.push_back(Waiting {
            id,
            deadline,
            admit,
        });
        Ok(Entry::Waits(Place {
            queue: Arc::clone(self),
            id,
            deadline,
            admitted,
        }))
    }

    /// Changes where the model is. Once it is there, all that wait are let through, first come first.
    pub(crate) fn become_(self: &Arc<Self>, state: ModelState) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.state = state;
        inner.since = now;
        if state != ModelState::Active || inner.closed.is_some() {
            return;
        }
        let admitted = std::mem::take(&mut inner.waiting);
        inner.n_running += admitted.len();
        // A ticket that nobody takes comes back and needs the lock.
        drop(inner);
        for waiting in admitted {
            drop(waiting.admit.send(Ok(Ticket(Arc::clone(self)))));
        }
    }

    /// Lets nothing through any more, and tells all that wait.
    pub(crate) fn close(&self, refusal: &Refusal) {
        let mut inner = self.lock();
        inner.closed = Some(refusal.clone());
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        for waiting in waiting {
            drop(waiting.admit.send(Err(refusal.clone())));
        }
    }

    /// Returns once the server has none of its requests.
    pub(crate) async fn drained(&self) {
        loop {
            // Made before the look, so that no end is missed.
            let idle = self.idle.notified();
            if self.lock().n_running == 0 {
                return;
            }
            idle.await;
        }
    }

    /// What the rules of swapping see of it.
    pub(crate) fn view(&self, has_room: bool) -> View {
        let inner = self.lock();
        let deadlines = inner.waiting.iter().filter_map(|waiting| waiting.deadline);
        View {
            state: inner.state,
            since: inner.since,
            n_waiting: inner.waiting.len(),
            n_running: inner.n_running,
            deadline: deadlines.min(),
            last_busy: match inner.n_running {
                0 => inner.last_busy,
                _ => self.clock.now(),
            },
            has_room,
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let inner = self.lock();
        Figures {
            state: inner.state,
            n_running: inner.n_running,
            n_waiting: inner.waiting.len(),
            n_arrived: inner.n_arrived,
            closed: inner.closed.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts and lists are changed by one statement each.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let through: its model stays until this is dropped.
pub(crate) struct Ticket(Arc<Queue>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut inner = self.0.lock();
        inner.n_running = inner.n_running.saturating_sub(1);
        inner.last_busy = now;
        if inner.n_running == 0 {
            self.0.idle.notify_waiters();
        }
    }
}

/// A request that waits. Dropped, it waits no more.
pub(crate) struct Place {
    queue: Arc<Queue>,
    id: u64,
    deadline: Option<Nanos>,
    admitted: oneshot::Receiver<Result<Ticket, Refusal>>,
}

impl Place {
    /// Waits until the request is let through.
    ///
    /// # Errors
    /// [`Refusal`], where that does not come in time or never will.
    pub(crate) async fn admitted(mut self, patience: Patience) -> Result<Ticket, Refusal> {
        let limit = patience.limit;
        let deadline = self.deadline.filter(|_| patience.aborts_late);
        let left = deadline.map(|at| self.left(at));
        let (left, refusal) = match left.filter(|left| *left < limit) {
            Some(left) => (left, Refusal::Late),
            None => (limit, Refusal::Waited { limit }),
        };
        let ticket = match tokio::time::timeout(left, &mut self.admitted).await {
            Ok(Ok(answer)) => answer?,
            // The queue is gone.
            Ok(Err(_)) => return Err(Refusal::Stopping),
            Err(_) => return Err(refusal),
        };
        match deadline {
            Some(at) if self.left(at).is_zero() => Err(Refusal::Late),
            _ => Ok(ticket),
        }
    }

    /// How long it may still wait to be answered by `deadline`.
    fn left(&self, deadline: Nanos) -> Duration {
        deadline.since(self.queue.clock.now().after(ABORT_LEAD))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        let at = inner.waiting.iter().position(|w| w.id == self.id);
        if let Some(at) = at {
            inner.waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// A clock that stands where it was put.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Nanos {
            Nanos(self.0.load(Relaxed))
        }
    }

    const PATIENT: Patience = Patience {
        limit: Duration::from_secs(60),
        aborts_late: true,
    };

    fn queue(state: ModelState, limit: usize) -> (Arc<Queue>, Arc<Hand>) {
        let clock = Arc::new(Hand::default());
        (Queue::new(state, limit, clock.clone()), clock)
    }

    fn waits(queue: &Arc<Queue>, objective: Option<Duration>) -> Place {
        match queue.enter(objective) {
            Ok(Entry::Waits(place)) => place,
            Ok(Entry::Goes(_)) => panic!("it goes"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn goes(queue: &Arc<Queue>) -> Ticket {
        match queue.enter(None) {
            Ok(Entry::Goes(ticket)) => ticket,
            _ => panic!("it does not go"),
        }
    }

    fn is_over(future: std::pin::Pin<&mut impl Future>) -> bool {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        future.poll(&mut context).is_ready()
    }

    fn counts(queue: &Queue) -> (usize, usize, u64) {
        let figures = queue.figures();
        (figures.n_waiting, figures.n_running, figures.n_arrived)
    }

    #[tokio::test]
    async fn who_waits_is_let_through_when_the_model_comes() {
        let (queue, _) = queue(ModelState::Off, 8);
        let (one, two) = (waits(&queue, None), waits(&queue, None));
        assert_eq!(counts(&queue), (2, 0, 2));
        queue.become_(ModelState::InTransit);
        let three = waits(&queue, None);
        queue.become_(ModelState::Active);
        assert_eq!(counts(&queue), (0, 3, 3));
        let tickets = [
            one.admitted(PATIENT).await,
            two.admitted(PATIENT).await,
            three.admitted(PATIENT).await,
        ];
        assert!(tickets.iter().all(Result::is_ok));
        assert_eq!(counts(&queue), (0, 3, 3));
        drop(tickets);
        assert_eq!(counts(&queue), (0, 0, 3));
    }

    #[tokio::test]
    async fn a_model_is_drained_once_every_ticket_is_back() {
        let (queue, _) = queue(ModelState::Active, 8);
        let (one, two) = (goes(&queue), goes(&queue));
        queue.become_(ModelState::InTransit);
        let drained = queue.drained();
        let mut drained = std::pin::pin!(drained);
        assert!(!is_over(drained.as_mut()));
        drop(one);
        assert!(!is_over(drained.as_mut()));
        drop(two);
        assert!(is_over(drained.as_mut()));
    }

    #[tokio::test]
    async fn who_leaves_waits_no_more_and_gives_a_late_ticket_back() {
        let (queue, _) = queue(ModelState::Off, 8);
        let (one, two) = (waits(&queue, None), waits(&queue, None));
        drop(one);
        assert_eq!(counts(&queue), (1, 0, 2));
        queue.become_(ModelState::Active);
        assert_eq!(counts(&queue), (0, 1, 2));
        // It was let through and never looked.
        drop(two);
        assert_eq!(counts(&queue), (0, 0, 2));
    }

    #[tokio::test]
    async fn a_full_queue_and_a_closed_one_refuse() {
        let (queue, _) = queue(ModelState::Off, 1);
        let waiting = waits(&queue, None);
        let full = Refusal::Full { limit: 1 };
        assert_eq!(queue.enter(None).err(), Some(full));
        let broken = Refusal::Broken { reason: "x".into() };
        queue.close(&broken);
        assert_eq!(waiting.admitted(PATIENT).await.err(), Some(broken.clone()));
        assert_eq!(queue.enter(None).err(), Some(broken));
        queue.become_(ModelState::Active);
        assert!(queue.enter(None).is_err());
    }

    #[tokio::test]
    async fn who_would_be_late_is_told_so_only_where_that_is_asked_for() {
        let (queue, clock) = queue(ModelState::Off, 8);
        // Half a second is the shortest that an answer takes.
        let late = waits(&queue, Some(Duration::from_millis(500)));
        assert_eq!(late.admitted(PATIENT).await.err(), Some(Refusal::Late));
        let objective = Some(Duration::from_secs(2));
        let (one, two) = (waits(&queue, objective), waits(&queue, objective));
        assert_eq!(
            queue.view(false).deadline,
            Some(Nanos(2_000_000_000)),
            "the first deadline of those that wait"
        );
        clock.0.store(1_500_000_000, Relaxed);
        queue.become_(ModelState::Active);
        assert_eq!(one.admitted(PATIENT).await.err(), Some(Refusal::Late));
        let patience = Patience {
            aborts_late: false,
            ..PATIENT
        };
        assert!(two.admitted(patience).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (queue, _) = queue(ModelState::Off, 8);
        let limit = Duration::ZERO;
        let patience = Patience { limit, ..PATIENT };
        let waited = waits(&queue, None).admitted(patience).await.err();
        assert_eq!(waited, Some(Refusal::Waited { limit }));
        assert_eq!(counts(&queue), (0, 0, 1));
    }

    #[test]
    fn a_model_with_a_running_request_is_busy_now() {
        let (queue, clock) = queue(ModelState::Active, 8);
        let ticket = goes(&queue);
        clock.0.store(7, Relaxed);
        assert_eq!(queue.view(true).last_busy, Nanos(7));
        drop(ticket);
        clock.0.store(9, Relaxed);
        assert_eq!(queue.view(true).last_busy, Nanos(7));
    }
}
