//! Brings models onto the device and takes them off it by the rules of [`crate::swapping`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, MonotonicClock};
use crate::engine::{Come, Leave, MoveError, Parts, Running};
use crate::fleet::Fleet;
use crate::swapping::{Action, Reason, Rules, View, decide};

/// Between samples of the time line.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Looks every `period` whether a model should move, and moves it, for ever.
pub(crate) async fn control(fleet: Arc<Fleet>, rules: Rules, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let views: Vec<View> = fleet.models.iter().map(|model| model.view()).collect();
        if let Some(action) = decide(MonotonicClock.now(), &views, &rules) {
            // What could not be done is decided anew.
            let _ = act(&fleet, action).await;
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

async fn act(fleet: &Fleet, action: Action) -> Result<(), MoveError> {
    match action {
        Action::SwitchOff { model, reason } => {
            fleet.models[model].engine.leave(leave(reason)).await?;
        }
        Action::SwitchOn {
            model,
            reason,
            victim,
        } => {
            if let Some(victim) = victim {
                fleet.models[victim]
                    .engine
                    .leave(leave(Reason::Victim))
                    .await?;
            }
            // One that needs the room of several waits for the next round.
            if victim.is_none() || fleet.models[model].place.has_room() {
                fleet.models[model].engine.come(come(reason)).await?;
            }
        }
    }
    Ok(())
}
