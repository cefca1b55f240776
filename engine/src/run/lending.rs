//! A launch that is a step's for a while: ended and started again as the step says, watched by nobody else
//! meanwhile, and brought back to serving after it.

use super::launch::{Launching, Started, Waited, note_processes, told};
use super::live::ServiceNews;
use super::processes::Current;
use crate::loan::{Ask, Launched, Visit};
use crate::process::logs_in;
use crate::step::{FailureClass, StepError};
use std::time::Instant;
use tokio::sync::oneshot;

/// How a loan ended.
pub(super) enum Lent {
    /// It serves, perhaps in another launch.
    Serves,
    /// It is down; what is still held.
    Over(Option<String>),
}

/// A launch while it is lent.
struct Borrowed {
    /// Whether there is a process that should live.
    is_up: bool,
    /// How often it was started in this loan.
    n_starts: u32,
}

impl Launching {
    /// Does what a step asks until it gives the service back.
    pub(super) async fn lend(
        &mut self,
        started: &mut Started,
        current: &Current,
        mut visit: Visit,
    ) -> Lent {
        // What the engine has not launched, or what a front believes to be as it left it, is not lent: the step
        // hears that nobody answers.
        if started.processes.is_empty() || self.front.is_some() {
            return Lent::Serves;
        }
        let mut borrowed = Borrowed {
            is_up: true,
            n_starts: 0,
        };
        loop {
            let ask = tokio::select! {
                () = told(self.stopped.clone()) => {
                    return Lent::Over(self.tear_down(started).await);
                }
                ask = visit.recv() => ask,
            };
            match ask {
                Some(Ask::End(reply)) => {
                    if let Some(held) = self.end(started).await {
                        let how = format!("was ended by a step, and {held}");
                        let folder = self.context.folder.clone();
                        return Lent::Over(self.died(how, folder, started).await);
                    }
                    borrowed.is_up = false;
                    // One that does not listen any more has lost its interest.
                    let _ = reply.send(());
                }
                Some(Ask::Start(reply)) => {
                    let launched = self.start_anew(started, current, &mut borrowed).await;
                    let _ = reply.send(launched);
                }
                Some(Ask::TakeBack(reply)) => {
                    return self
                        .take_back(started, current, borrowed, Some(reply))
                        .await;
                }
                None => return self.take_back(started, current, borrowed, None).await,
            }
        }
    }

    /// Starts what was ended, with logs of its own.
    async fn start_anew(
        &mut self,
        started: &mut Started,
        current: &Current,
        borrowed: &mut Borrowed,
    ) -> Result<Launched, StepError> {
        if borrowed.is_up {
            return Err(StepError::new(
                "the service was not ended before it is started",
            ));
        }
        borrowed.n_starts += 1;
        let name = format!("again-{}.{}", self.incarnation, borrowed.n_starts);
        let folder = self.home.join(name);
        crate::disk::create_folders(&folder).map_err(|e| {
            let what = format!("could not create `{}`", folder.display());
            StepError::because(what, e).class(FailureClass::Infrastructure)
        })?;
        self.context.folder = folder;
        *started = self.start().await?;
        let spawned = Instant::now();
        current.are(&started.processes);
        borrowed.is_up = true;
        Ok(Launched {
            endpoint: started.endpoint.clone(),
            began: started.began,
            spawned,
            logs: logs_in(&self.context.folder),
            processes: started.processes.iter().cloned().collect(),
        })
    }

    /// Brings it back to serving, if it is not, and tells what it is now.
    async fn take_back(
        &mut self,
        started: &mut Started,
        current: &Current,
        mut borrowed: Borrowed,
        reply: Option<oneshot::Sender<()>>,
    ) -> Lent {
        let was_started = borrowed.n_starts > 0 || !borrowed.is_up;
        if !borrowed.is_up
            && let Err(error) = self.start_anew(started, current, &mut borrowed).await
        {
            return self.lost(started, error).await;
        }
        if was_started {
            match self.wait_until_ready(started).await {
                Waited::Ready => note_processes(started),
                Waited::ToldToStop => return Lent::Over(self.tear_down(started).await),
                Waited::Failed(error) => return self.lost(started, error).await,
            }
            self.incarnation += 1;
            self.tell(ServiceNews::Anew {
                node: self.node,
                incarnation: self.incarnation,
                endpoint: started.endpoint.clone(),
            })
            .await;
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
        Lent::Serves
    }

    /// It does not come back: that is a death, of which the step hears too.
    async fn lost(&self, started: &mut Started, error: StepError) -> Lent {
        let how = format!(
            "did not serve again after a step had it for itself: {}",
            error.message
        );
        let folder = self.context.folder.clone();
        Lent::Over(self.died(how, folder, started).await)
    }
}
