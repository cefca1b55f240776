//! Brings models onto the device and takes them off it, by the rules of
//! [`embedded_server::swapping`]: one at a time, and none before its requests have ended.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded_server::clock::{Clock, MonotonicClock, Nanos};
use embedded_server::engine::Way;
use embedded_server::swapping::{Action, ModelState, Reason, View, decide};

use crate::backend::{BackendError, Limit, Moved};
use crate::config::Standing;
use crate::fleet::{Broken, Failure, Fleet, Model, Move};

/// Between samples of the time line.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Between two looks for a server that does not answer yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Brings every model to where it shall begin, and then moves models until the gateway is ending. A
/// server that is doing what it was asked for is waited for even then.
pub(crate) async fn control(fleet: Arc<Fleet>) {
    let mut asked = fleet.asked();
    prepare(&fleet).await;
    fleet.become_ready();
    let mut ticks = tokio::time::interval(fleet.config.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = fleet.closed() => return,
            // The fleet has the other end.
            _ = asked.changed() => {
                let n = *asked.borrow_and_update();
                arrange(&fleet).await;
                fleet.was_reset(n);
            }
            _ = ticks.tick() => step(&fleet).await,
        }
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

async fn prepare(fleet: &Fleet) {
    for model in &fleet.models {
        let met = tokio::select! {
            met = meet(model, fleet.config.swap_timeout) => met,
            () = fleet.closed() => return,
        };
        if let Err(error) = met {
            let way = match model.found {
                Standing::Active => Way::Out,
                Standing::Off => Way::In,
            };
            let reason = note(fleet, model, (way, Reason::Asked), now(), &error);
            // One that was off has not come.
            let is_there = model.found == Standing::Active;
            let holds_device = is_there && !model.backend.is_gone().await;
            model.break_(Broken {
                reason,
                holds_device,
            });
        }
    }
    for model in fleet.known() {
        if (model.found, model.begins) == (Standing::Active, Standing::Active) {
            model.queue.become_(ModelState::Active);
        }
    }
    arrange(fleet).await;
}

/// Brings models to where they begin. Those that leave go first, so that there is room for those that
/// come; where one of them could not leave there may be none.
async fn arrange(fleet: &Fleet) {
    let state = |model: &Model| model.queue.figures().state;
    for model in fleet.known() {
        if model.begins == Standing::Off && state(model) != ModelState::Off {
            leave(fleet, model, Reason::Asked).await;
        }
    }
    for model in fleet.known() {
        let comes = model.begins == Standing::Active && state(model) == ModelState::Off;
        if comes && fleet.has_room() {
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
            Err(BackendError::Unreachable { .. }) if began.elapsed() < limit => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    };
    model.meet(names, model.backend.info().await);
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

/// Takes a model off the device once its requests have ended; new ones wait from now on. One whose
/// requests do not end stays, and whatever waits for it goes on.
async fn leave(fleet: &Fleet, model: &Model, reason: Reason) {
    let (began, what) = (now(), (Way::Out, reason));
    model.queue.become_(ModelState::InTransit);
    match drain_and_release(fleet, model, began).await {
        Ok(moved) => {
            let ended = now();
            model.queue.become_(ModelState::Off);
            keep_move(fleet, model, what, [began, ended], moved);
        }
        Err(MoveError::Stopping) => model.queue.become_(ModelState::Active),
        Err(error @ (MoveError::Undrained { .. } | MoveError::Busy(_))) => {
            note(fleet, model, what, began, &error);
            model.queue.become_(ModelState::Active);
        }
        Err(MoveError::Backend(error)) => give_up(fleet, model, what, began, &error).await,
    }
}

async fn drain_and_release(fleet: &Fleet, model: &Model, began: Nanos) -> Result<Moved, MoveError> {
    let whole = fleet.config.swap_timeout;
    let is_at_rest = tokio::select! {
        biased;
        () = fleet.closed() => return Err(MoveError::Stopping),
        is_at_rest = come_to_rest(model, whole) => is_at_rest?,
    };
    let drained = now().since(began);
    let mut moved = match is_at_rest {
        // In a time of its own: of a server that is late with this nobody knows where it is.
        true => model.backend.give_back(Limit::new(whole)).await?,
        false => Moved::default(),
    };
    moved.drain_s += drained.as_secs_f64();
    Ok(moved)
}

/// Waits until nothing runs, here and at the server; false if the server has left before.
async fn come_to_rest(model: &Model, whole: Duration) -> Result<bool, MoveError> {
    let limit = Limit::new(whole);
    let drained = tokio::time::timeout(limit.left(), model.queue.drained()).await;
    drained.map_err(|_| MoveError::Undrained {
        n_running: model.queue.figures().n_running,
        limit: whole,
    })?;
    match model.backend.come_to_rest(limit).await {
        Err(error @ BackendError::Unfinished { .. }) => Err(MoveError::Busy(error)),
        other => Ok(other?),
    }
}

/// Brings a model onto the device, and lets its requests through.
async fn come(fleet: &Fleet, model: &Model, reason: Reason) {
    if fleet.is_closed() {
        return;
    }
    let (began, what) = (now(), (Way::In, reason));
    model.queue.become_(ModelState::InTransit);
    match model.backend.resume(fleet.config.swap_timeout).await {
        Ok(moved) => {
            let ended = now();
            model.queue.become_(ModelState::Active);
            keep_move(fleet, model, what, [began, ended], moved);
        }
        Err(error) => give_up(fleet, model, what, began, &error).await,
    }
}

/// Keeps a move that is done, for whoever asks.
fn keep_move(
    fleet: &Fleet,
    model: &Model,
    (direction, reason): (Way, Reason),
    [began_ns, ended_ns]: [Nanos; 2],
    moved: Moved,
) {
    fleet.moved(Move {
        model: model.name.clone(),
        direction,
        reason,
        began_ns,
        ended_ns,
        moved,
    });
}

/// Gives a model up that its server did not bring or take away.
async fn give_up(
    fleet: &Fleet,
    model: &Model,
    what: (Way, Reason),
    began: Nanos,
    error: &BackendError,
) {
    let reason = note(fleet, model, what, began, error);
    let holds_device = !model.backend.is_gone().await;
    model.break_(Broken {
        reason,
        holds_device,
    });
}

/// Notes a move that failed, and tells of it; returns the words.
fn note(
    fleet: &Fleet,
    model: &Model,
    (direction, reason): (Way, Reason),
    began_ns: Nanos,
    error: &dyn Display,
) -> String {
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
    let words = format!("{what}: {error}");
    fleet.tell_trouble(&words);
    words
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
        fleet.tell_trouble(&reason);
        model.break_(Broken {
            reason,
            holds_device: false,
        });
    }
}

fn now() -> Nanos {
    MonotonicClock.now()
}

/// A model that did not leave.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    /// Requests did not end.
    #[error(
        "{n_running} of its requests did not end within {} s; raise `swap_timeout`",
        limit.as_secs_f64()
    )]
    Undrained {
        /// How many.
        n_running: usize,
        /// How long they had.
        limit: Duration,
    },
    /// Its server has requests that others sent, which did not end.
    #[error(transparent)]
    Busy(BackendError),
    /// The gateway is ending.
    #[error("the gateway is stopping")]
    Stopping,
    /// The server did not do it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
