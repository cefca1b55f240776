//! The processes of one launch of a service, most often a single one: they live together, and the first
//! that ends is the death of all.
//!
//! Knows neither readiness nor what a death means: that is in `launch`.

use crate::claims::show_devices_of;
use crate::process::{End, Exit, Process, ProcessSpec, StopError, Supervisor};
use crate::step::StepError;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the ends of others are waited for once one of several has ended: news of two that ended together come in
/// any order, and the first of them is to blame.
const TOGETHER: Duration = Duration::from_secs(1);

/// Processes that live and die together; none of what runs already.
#[derive(Clone, Default)]
pub(super) struct Processes(Vec<Member>);

#[derive(Clone)]
struct Member {
    process: Arc<Process>,
    /// Where its logs lie.
    folder: PathBuf,
}

/// The processes that a service has now: a step may have launched it anew.
#[derive(Clone, Default)]
pub(super) struct Current(Arc<Mutex<Processes>>);

impl Current {
    pub(super) fn new(processes: &Processes) -> Self {
        Self(Arc::new(Mutex::new(processes.clone())))
    }

    pub(super) fn are(&self, processes: &Processes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = processes.clone();
    }

    pub(super) fn list(&self) -> Vec<Arc<Process>> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.iter().cloned().collect()
    }
}

/// The end of the one that ended first.
#[derive(Debug, Clone)]
pub(super) struct Death {
    pub(super) exit: Exit,
    /// Where the logs of the one that ended lie.
    pub(super) folder: PathBuf,
    /// What it is called, if there are others beside it.
    label: Option<String>,
    /// What else ended by itself right behind it, in the order of their ends.
    others: Vec<Other>,
}

/// One that ended behind another.
#[derive(Debug, Clone)]
struct Other {
    label: String,
    exit: Exit,
    /// How long after the first.
    after: Duration,
}

impl Death {
    /// Continues a sentence about it by what else ended then; nothing if nothing did.
    pub(super) fn others(&self) -> String {
        let others = self.others.iter().map(|other| {
            let (label, exit, after) = (&other.label, other.exit, other.after.as_millis());
            format!("; then, {after} ms later, `{label}` {exit}")
        });
        others.collect()
    }
}

/// A phrase that continues `it`: `exited with status 3`, or which of several did.
impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "lost `{label}`, which {}", self.exit),
            None => self.exit.fmt(f),
        }
    }
}

impl Processes {
    /// Starts what `specs` describe, in their order; what was claimed of GPUs is shared out evenly. `folder`
    /// is for the logs of one that names none of its own.
    ///
    /// # Errors
    /// Why one could not be started; nothing is left of the others then.
    pub(super) async fn start(
        specs: Vec<ProcessSpec>,
        claims: &BTreeMap<String, Vec<String>>,
        supervisor: &Supervisor,
        folder: &Path,
        grace: Duration,
    ) -> Result<Self, StepError> {
        let n = specs.len();
        let mut started = Self::default();
        for (i, mut spec) in specs.into_iter().enumerate() {
            show_devices_of(claims, (i, n), &mut spec.env);
            let folder = spec.folder.clone().unwrap_or_else(|| folder.to_owned());
            match supervisor.start(spec).await {
                Ok(process) => started.0.push(Member {
                    process: Arc::new(process),
                    folder,
                }),
                Err(error) => {
                    // What survives that is told by whatever it holds, at the next launch.
                    let _ = started.stop(grace).await;
                    return Err(StepError::new(error.to_string()));
                }
            }
        }
        Ok(started)
    }

    /// Goes through the processes in the order in which they were started.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.0.iter().map(|member| &member.process)
    }

    /// The one that was started first, if the engine has started any.
    pub(super) fn first(&self) -> Option<&Arc<Process>> {
        self.iter().next()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the end of the first that ends, by the instant at which it did; for ever if there are none. Of several
    /// all that end within [`TOGETHER`] are looked at.
    pub(super) async fn first_death(&self) -> Death {
        let (heard, exit) = self.any_death().await;
        if self.0.len() > 1 {
            // Most of them live on, and are ended by whoever asked.
            let _ = tokio::time::timeout(TOGETHER, self.all_ended()).await;
        }
        let ends = self.0.iter().map(|member| member.process.try_ended());
        let mut ended: Vec<(&Member, End)> = self.0.iter().zip(ends).filter_map(both).collect();
        // Of two at the same instant the one that was started first.
        ended.sort_by_key(|(_, end)| end.at);
        match ended.as_slice() {
            [(first, end), later @ ..] => self.death(first, *end, later),
            // Nobody told when.
            [] => {
                let at = Duration::ZERO;
                self.death(&self.0[heard], End { exit, at }, &[])
            }
        }
    }

    fn death(&self, first: &Member, end: End, later: &[(&Member, End)]) -> Death {
        let other = |(member, later): &(&Member, End)| Other {
            label: member.process.label().to_owned(),
            exit: later.exit,
            after: later.at.saturating_sub(end.at),
        };
        Death {
            exit: end.exit,
            folder: first.folder.clone(),
            label: (self.0.len() > 1).then(|| first.process.label().to_owned()),
            others: later.iter().map(other).collect(),
        }
    }

    /// Waits until one is heard to have ended: which, and how; for ever if there are none.
    async fn any_death(&self) -> (usize, Exit) {
        type Ending<'a> = Pin<Box<dyn Future<Output = Exit> + Send + 'a>>;
        let mut endings: Vec<Ending<'_>> = Vec::new();
        for process in self.iter() {
            endings.push(Box::pin(process.exited()));
        }
        poll_fn(|context| {
            for (at, ending) in endings.iter_mut().enumerate() {
                if let Poll::Ready(exit) = ending.as_mut().poll(context) {
                    return Poll::Ready((at, exit));
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn all_ended(&self) {
        for process in self.iter() {
            process.exited().await;
        }
    }

    /// Kills all and waits for their ends, at most so long.
    pub(super) async fn kill(&self, limit: Duration) {
        self.iter().for_each(|process| process.kill());
        // What survives that is named by the tear-down.
        let _ = tokio::time::timeout(limit, self.all_ended()).await;
    }

    /// Ends all at the same time and verifies that nothing is left: one that waits for another to end first
    /// gets what it waits for.
    ///
    /// # Errors
    /// What is still there of the first of them.
    pub(super) async fn stop(&self, grace: Duration) -> Result<(), StopError> {
        let mut ends = JoinSet::new();
        for process in self.iter() {
            let process = process.clone();
            ends.spawn(async move { process.stop(grace).await });
        }
        let mut stopped = Ok(());
        while let Some(end) = ends.join_next().await {
            // A task that panicked has told nothing; its guardian ends what is left with the engine.
            if let Ok(Err(error)) = end {
                stopped = stopped.and(Err(error));
            }
        }
        stopped
    }
}

fn both((member, end): (&Member, Option<End>)) -> Option<(&Member, End)> {
    Some((member, end?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_is_named() {
        let death = |label: Option<&str>| Death {
            exit: Exit::Signal(9),
            folder: PathBuf::new(),
            label: label.map(str::to_owned),
            others: vec![Other {
                label: "server rank 0".to_owned(),
                exit: Exit::Code(1),
                after: Duration::from_millis(12),
            }],
        };
        assert_eq!(death(None).to_string(), "was killed by signal 9");
        assert_eq!(
            death(Some("server rank 1")).to_string(),
            "lost `server rank 1`, which was killed by signal 9"
        );
        assert_eq!(
            death(None).others(),
            "; then, 12 ms later, `server rank 0` exited with status 1"
        );
    }
}
