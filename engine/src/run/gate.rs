//! What stands before a step's work: its share of the machine, and that no other run does the same
//! work meanwhile.
//!
//! The machine comes first. Who holds a key is working already and waits for nothing, so nobody
//! can wait in a circle.

use crate::claims::{Claim, Claims};
use crate::decide::Recheck;
use crate::policy::Demand;
use crate::step::{FailureClass, StepError};
use crate::store::{Attempt, Digest, KeyLock, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause between two looks at a key that another run holds.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long to wait for another run that does the same work.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The gate before one run of one step.
pub(super) struct Gate {
    pub(super) claims: Arc<Claims>,
    pub(super) demand: Demand,
    pub(super) store: Arc<Store>,
    /// The run's name.
    pub(super) run: String,
    /// What its result is kept by; `None` for what is not kept.
    pub(super) work: Option<Work>,
}

/// Work whose result is kept for everybody.
pub(super) struct Work {
    pub(super) namespace: &'static str,
    pub(super) key: Digest,
    pub(super) is_done: Recheck,
}

/// What a step holds while it works, and until its result is kept.
pub(super) struct Held {
    pub(super) claim: Claim,
    _key: Option<KeyLock>,
}

/// What came of waiting at the gate.
pub(super) enum Passed {
    /// The work is to be done here.
    Here(Held),
    /// Another run has done it.
    Elsewhere,
}

impl Gate {
    /// Waits until the work may begin; says meanwhile for whom. Dropping the future gives it up.
    pub(super) async fn pass(&self, say: impl Fn(String)) -> Result<Passed, StepError> {
        let claim = self.claims.take(&self.demand, &say).await;
        let claim = claim.map_err(|e| {
            StepError::new(e.to_string())
                .help("end what holds it, or wait and resume the run")
                .class(FailureClass::Infrastructure)
        })?;
        let Some(work) = &self.work else {
            return Ok(Passed::Here(Held { claim, _key: None }));
        };
        let key = self.lock(work, &say).await?;
        let unreadable = |e| StepError::because("could not look for its result", e);
        if (work.is_done)().map_err(unreadable)? {
            return Ok(Passed::Elsewhere);
        }
        Ok(Passed::Here(Held {
            claim,
            _key: Some(key),
        }))
    }

    async fn lock(&self, work: &Work, say: impl Fn(String)) -> Result<KeyLock, StepError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = self
                .store
                .try_lock_key(work.namespace, &work.key, &self.run);
            let attempt = attempt.map_err(|e| {
                StepError::because("could not keep others from the same work", e)
                    .class(FailureClass::Infrastructure)
            })?;
            let holder = match attempt {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held(holder) => {
                    holder.map_or_else(|| "another run".to_owned(), |h| h.to_string())
                }
            };
            if began.elapsed() > LONGEST_WAIT {
                let message = format!("{holder} has been doing the same work for a day");
                return Err(StepError::new(message).class(FailureClass::Timeout));
            }
            say(format!(
                "{holder} does the same work: waiting for its result"
            ));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
