//! Brings models onto the device and takes them off it by the rules of [`crate::swapping`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, MonotonicClock};
use crate::engine::{Come, Leave, MoveError, Parts, Running};
use crate::fleet::{Fleet, SAMPLE_EVERY};
use crate::swapping::{Action, Reason, Rules, decide, is_wanted, may_leave, victim};

/// Looks every `period` whether a model should move, and moves it, for ever.
pub(crate) async fn control(fleet: Arc<Fleet>, rules: Rules, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(action) = decide(MonotonicClock.now(), &fleet.views(), &rules) {
            // What could not be done is decided anew.
            let _ = act(&fleet, action, &rules, period).await;
        }
    }
}

/// Samples how models fare, for ever.
pub(crate) async fn sample(fleet: Arc<Fleet>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        fleet.sample(MonotonicClock.now());
    }
}

/// How a model leaves.
pub(crate) fn leave(reason: Reason) -> Leave {
    Leave {
        parts: Parts::ALL,
        running: Running::Finish,
        evicts_waiting: false,
        reason,
    }
}

/// How a model comes.
pub(crate) fn come(reason: Reason) -> Come {
    Come {
        parts: Parts::ALL,
        cache_bytes: None,
        reason,
    }
}

async fn act(
    fleet: &Fleet,
    action: Action,
    rules: &Rules,
    period: Duration,
) -> Result<(), MoveError> {
    match action {
        Action::SwitchOff { model, reason } => {
            fleet.models[model].engine.leave(leave(reason)).await?;
        }
        Action::SwitchOn { model, reason, .. } => {
            // Without room it waits for the next round.
            if make_room(fleet, model, rules, period).await? {
                fleet.models[model].engine.come(come(reason)).await?;
            }
        }
    }
    Ok(())
}

/// Lets as many models leave as another needs, one after the other, as long as somebody waits for it; whether
/// there is room then. Where one that came just now has to leave too, that is waited for: those that have left
/// would come back otherwise, and nobody would ever get room.
async fn make_room(
    fleet: &Fleet,
    model: usize,
    rules: &Rules,
    period: Duration,
) -> Result<bool, MoveError> {
    loop {
        let views = fleet.views();
        if !is_wanted(&views[model]) {
            return Ok(false);
        }
        if fleet.models[model].place.has_room() {
            return Ok(true);
        }
        match victim(MonotonicClock.now(), &views, rules) {
            Some(victim) => {
                let engine = &fleet.models[victim].engine;
                engine.leave(leave(Reason::Victim)).await?;
            }
            None if may_leave(&views) => tokio::time::sleep(period).await,
            None => return Ok(false),
        }
    }
}
