//! A service that a step has for itself for a while: it ends it, launches it anew and sees every instant of
//! that, such as how long a server takes from its start to its first token.
//!
//! The launch stays the engine's: it has the same guardian, claims and port as any, its end is verified the
//! same way, and when the loan is over the service serves again or counts as dead.

use crate::graph::NodeId;
use crate::process::{Exit, Process};
use crate::service::{DynService, Endpoint};
use crate::step::{FailureClass, StepError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// How many questions of a step may wait at a service: a step asks one after the other.
const ASKS: usize = 1;

/// What a step asks of a launch.
pub(crate) enum Ask {
    /// To end it and to verify that it holds nothing.
    End(oneshot::Sender<()>),
    /// To start it again.
    Start(oneshot::Sender<Result<Launched, StepError>>),
    /// To take it back; answered once it serves.
    TakeBack(oneshot::Sender<()>),
}

/// The questions of one step, until it has no more.
pub(crate) type Visit = mpsc::Receiver<Ask>;

/// Where a service is asked for.
#[derive(Clone)]
pub(crate) struct Desk {
    visits: mpsc::Sender<Visit>,
    service: Arc<dyn DynService>,
}

/// Where the services that a step leases are asked for.
#[derive(Clone, Default)]
pub struct Desks(BTreeMap<NodeId, Desk>);

/// A service that a step has for itself. Dropping it gives it back.
pub struct Loan {
    asks: mpsc::Sender<Ask>,
    service: Arc<dyn DynService>,
}

/// A launch that a step has asked for; the service need not serve yet.
#[derive(Clone)]
pub struct Launched {
    /// Where it will answer, as far as that is known before it says so itself.
    pub endpoint: Endpoint,
    /// Right before its process was started.
    pub began: Instant,
    /// When its process was there.
    pub spawned: Instant,
    /// The logs of its first process.
    pub logs: [PathBuf; 2],
    pub(crate) processes: Vec<Arc<Process>>,
}

impl Desk {
    pub(crate) fn new(service: Arc<dyn DynService>) -> (Self, mpsc::Receiver<Visit>) {
        let (visits, at_launch) = mpsc::channel(ASKS);
        (Self { visits, service }, at_launch)
    }
}

impl Desks {
    pub(crate) fn new(desks: impl IntoIterator<Item = (NodeId, Desk)>) -> Self {
        Self(desks.into_iter().collect())
    }

    pub(crate) async fn borrow(&self, service: NodeId) -> Result<Loan, StepError> {
        let desk = self.0.get(&service);
        let desk = desk.ok_or_else(gone)?;
        let (asks, visit) = mpsc::channel(ASKS);
        desk.visits.send(visit).await.map_err(|_| gone())?;
        Ok(Loan {
            asks,
            service: desk.service.clone(),
        })
    }
}

impl Loan {
    /// What kind of service it is, to be asked for its state.
    pub fn service(&self) -> &dyn DynService {
        &*self.service
    }

    /// Ends the service and verifies that it holds nothing any more: no process, no port, no memory of a GPU.
    ///
    /// # Errors
    /// If it was not the engine that launched it, or it still holds something, which also ends the loan.
    pub async fn end(&self) -> Result<(), StepError> {
        self.ask(Ask::End).await
    }

    /// Starts the service again, which was ended before, and does not wait until it serves. What it then does
    /// is for the step to see; its logs are new files.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub async fn start(&self) -> Result<Launched, StepError> {
        self.ask(Ask::Start).await?
    }

    /// Gives the service back, and waits until it serves as it did before.
    ///
    /// # Errors
    /// If it does not, and counts as dead.
    pub async fn give_back(self) -> Result<(), StepError> {
        self.ask(Ask::TakeBack).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, StepError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Launched {
    /// Waits until one of its processes has ended.
    pub async fn exited(&self) -> Exit {
        let endings = self.processes.iter().map(|process| {
            let process = process.clone();
            Box::pin(async move { process.exited().await })
        });
        let mut endings: Vec<_> = endings.collect();
        std::future::poll_fn(|context| {
            for ending in &mut endings {
                if let std::task::Poll::Ready(exit) = ending.as_mut().poll(context) {
                    return std::task::Poll::Ready(exit);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

fn gone() -> StepError {
    StepError::new("the service cannot be launched anew, or is gone")
        .help("it has to be a service that the engine launches, alone: neither behind another nor in front of one")
        .class(FailureClass::Infrastructure)
}
