//! Brings models onto the device and takes them off it, by the rules of
//! [`embedded_server::swapping`]: one at a time, and none before its requests have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded_server::clock::{Clock, MonotonicClock, Nanos};
use embedded_server::engine::{Move, Way};
use embedded_server::swapping::{Action, ModelState, Reason, View, decide};

use crate::backend::{BackendError, Moved};
use crate::config::Standing;
use crate::fleet::{Broken, Failure, Fleet, Model};

/// Between samples of the time line.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Between two looks for a server that does not answer yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Brings every model to where it shall begin, and then moves models for ever.
pub(crate) async fn control(fleet: Arc<Fleet>) {
    prepare(&fleet).await;
    fleet.become_ready();
    let mut ticks = tokio::time::interval(fleet.config.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        step(&fleet).await;
        if fleet.is_blocked() {
            give_up_waiting(&fleet);
        }
    }
}

/// Samples how models fare, for ever.
pub(crate) async fn sample(fleet: Arc<Fleet>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        fleet.sample();
    }
}

/// Those that leave go first, so that there is room for those that come.
async fn prepare(fleet: &Fleet) {
    for model in &fleet.models {
        if let Err(error) = meet(model, fleet.config.swap_timeout).await {
            let way = match model.found {
                Standing::Active => Way::Out,
                Standing::Off => Way::In,
            };
            fail(fleet, model, (way, Reason::Asked), now(), &error.into());
        }
    }
    for model in fleet.known() {
        match (model.found, model.begins) {
            (Standing::Active, Standing::Active) => model.queue.become_(ModelState::Active),
            (Standing::Active, Standing::Off) => leave(fleet, model, Reason::Asked).await,
            (Standing::Off, _) => {}
        }
    }
    for model in fleet.known() {
        if (model.found, model.begins) == (Standing::Off, Standing::Active) {
            come(fleet, model, Reason::Asked).await;
        }
    }
}

/// Waits until a server answers, and learns what it is.
async fn meet(model: &Model, limit: Duration) -> Result<(), BackendError> {
    let began = Instant::now();
    let names = loop {
        match model.backend.models().await {
            Ok(names) => break names,
            Err(error) if !error.means_gone() || began.elapsed() >= limit => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    };
    model.meet(names, model.backend.info().await?);
    Ok(())
}

/// Does what the rules say next, if they say anything; models that are given up are none to them.
async fn step(fleet: &Fleet) {
    let known: Vec<&Model> = fleet.known().collect();
    let has_room = fleet.has_room();
    let views: Vec<View> = known.iter().map(|m| m.queue.view(has_room)).collect();
    match decide(now(), &views, &fleet.config.rules) {
        None => {}
        Some(Action::SwitchOff { model, reason }) => leave(fleet, known[model], reason).await,
        Some(Action::SwitchOn {
            model,
            reason,
            victim,
        }) => {
            if let Some(victim) = victim {
                leave(fleet, known[victim], Reason::Victim).await;
            }
            // A victim that did not leave is still there.
            if fleet.has_room() {
                come(fleet, known[model], reason).await;
            }
        }
    }
}

/// Takes a model off the device once its requests have ended; new ones wait from now on.
async fn leave(fleet: &Fleet, model: &Model, reason: Reason) {
    let began = now();
    model.queue.become_(ModelState::InTransit);
    match drain_and_release(model, fleet.config.swap_timeout).await {
        Ok(moved) => {
            let ended = now();
            model.queue.become_(ModelState::Off);
            tell(fleet, model, (Way::Out, reason), [began, ended], moved);
        }
        Err(error) => fail(fleet, model, (Way::Out, reason), began, &error),
    }
}

async fn drain_and_release(model: &Model, limit: Duration) -> Result<Moved, MoveError> {
    let began = Instant::now();
    let drained = tokio::time::timeout(limit, model.queue.drained()).await;
    drained.map_err(|_| MoveError::Undrained {
        n_running: model.queue.figures().n_running,
        limit,
    })?;
    let drained = began.elapsed();
    let mut moved = model.backend.release(limit.saturating_sub(drained)).await?;
    moved.drain_s += drained.as_secs_f64();
    Ok(moved)
}

/// Brings a model onto the device, and lets its requests through.
async fn come(fleet: &Fleet, model: &Model, reason: Reason) {
    let began = now();
    model.queue.become_(ModelState::InTransit);
    match model.backend.resume(fleet.config.swap_timeout).await {
        Ok(moved) => {
            let ended = now();
            model.queue.become_(ModelState::Active);
            tell(fleet, model, (Way::In, reason), [began, ended], moved);
        }
        Err(error) => fail(fleet, model, (Way::In, reason), began, &error.into()),
    }
}

fn tell(
    fleet: &Fleet,
    model: &Model,
    (direction, reason): (Way, Reason),
    [began_ns, ended_ns]: [Nanos; 2],
    moved: Moved,
) {
    fleet.moves.push(Move {
        model: model.name.clone(),
        direction,
        reason,
        began_ns,
        ended_ns,
        drain_s: moved.drain_s,
        copy_s: moved.copy_s,
        pool_s: moved.pool_s,
        bytes: moved.bytes,
        pool_bytes: moved.pool_bytes,
    });
}

/// Gives a model up that did not come or go.
fn fail(
    fleet: &Fleet,
    model: &Model,
    (direction, reason): (Way, Reason),
    began_ns: Nanos,
    error: &MoveError,
) {
    let name = &model.name;
    let what = match direction {
        Way::In => format!("model `{name}` could not come onto the device"),
        Way::Out => format!("model `{name}` could not leave the device"),
    };
    fleet.failed(Failure {
        model: name.clone(),
        direction,
        reason,
        began_ns,
        ended_ns: now(),
        error: error.to_string(),
    });
    model.break_(Broken {
        reason: format!("{what}: {error}"),
        holds_device: !error.means_gone(),
    });
}

/// Tells those that wait for room that there will be none.
fn give_up_waiting(fleet: &Fleet) {
    let broken = fleet.models.iter().filter_map(Model::broken);
    let holders = broken.filter(|broken| broken.holds_device);
    let reasons: Vec<&str> = holders.map(|broken| &*broken.reason).collect();
    for model in fleet.known() {
        let name = &model.name;
        let why = reasons.join("; ");
        let reason = format!("model `{name}` finds no room on the device: {why}");
        model.break_(Broken {
            reason,
            holds_device: false,
        });
    }
}

fn now() -> Nanos {
    MonotonicClock.now()
}

/// A model that did not come or go.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    /// Requests did not end.
    #[error(
        "{n_running} of its requests did not end within {} s; raise `swap_timeout`",
        limit.as_secs()
    )]
    Undrained {
        /// How many.
        n_running: usize,
        /// How long they had.
        limit: Duration,
    },
    /// The server did not do it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl MoveError {
    /// Whether the server is gone, and with it what it held.
    fn means_gone(&self) -> bool {
        matches!(self, MoveError::Backend(error) if error.means_gone())
    }
}
