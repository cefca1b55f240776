//! Exchanges that take too long, found by looking at all of them now and then: timers of their own
//! would have to be moved with every event.

use std::time::Duration;

use super::connection::{Connection, Phase};
use super::{LONGEST_SLEEP, Lane};
use crate::clock::nanoseconds;
use crate::protocol::Fault;
use crate::run::sight::Sight;
use crate::{Class, Timeouts};

/// How much later than its time something may be found late.
const SHARE: u32 = 10;
const SHORTEST_LOOK: Duration = Duration::from_millis(2);

impl Lane {
    /// Ends what is late, if it is time to look.
    pub(super) fn look_at_timeouts(&mut self) {
        let now = self.context.clock.now();
        if now < self.next_look {
            return;
        }
        self.pass_on();
        let timeouts = self.context.plan.timeouts;
        self.next_look = now + nanoseconds(pause(&timeouts));
        let too_late = self.context.wire.too_late(timeouts.connect);
        let late: Vec<(usize, Option<Fault>)> = self
            .connections
            .iter()
            .filter_map(|(at, connection)| {
                let late = lateness(connection, now, &timeouts)?;
                Some((at, late.fault(&timeouts, &too_late)))
            })
            .collect();
        for (at, fault) in late {
            if let (Some(exchange), Some(fault)) = (self.close(at), fault) {
                self.deliver(exchange, Err(fault), now);
            }
        }
        self.look_at_shared(now, &too_late);
    }

    /// How long a lane may sleep so that nothing is found late much too late.
    pub(super) fn longest_sleep(&self) -> Duration {
        pause(&self.context.plan.timeouts)
    }
}

fn pause(timeouts: &Timeouts) -> Duration {
    let shortest = timeouts.request.min(timeouts.idle).min(timeouts.connect);
    (shortest / SHARE).clamp(SHORTEST_LOOK, LONGEST_SLEEP)
}

pub(super) enum Late {
    Connecting,
    Whole,
    Silent,
    Draining,
}

fn lateness(connection: &Connection, now: u64, timeouts: &Timeouts) -> Option<Late> {
    let is_over = |since: u64, limit: Duration| now.saturating_sub(since) >= nanoseconds(limit);
    match connection.phase {
        Phase::Draining { until } => return (now >= until).then_some(Late::Draining),
        Phase::Connecting { since, .. } if is_over(since, timeouts.connect) => {
            return Some(Late::Connecting);
        }
        _ => {}
    }
    of_answer(&connection.exchange.as_ref()?.sight, now, timeouts)
}

/// What of an answer takes too long.
pub(super) fn of_answer(sight: &Sight, now: u64, timeouts: &Timeouts) -> Option<Late> {
    let is_over = |since: u64, limit: Duration| now.saturating_sub(since) >= nanoseconds(limit);
    if is_over(sight.dispatched, timeouts.request) {
        return Some(Late::Whole);
    }
    let is_silent = sight.heard.is_some_and(|at| is_over(at, timeouts.idle));
    is_silent.then_some(Late::Silent)
}

impl Late {
    pub(super) fn fault(&self, timeouts: &Timeouts, too_late: &Fault) -> Option<Fault> {
        let Timeouts { request, idle, .. } = timeouts;
        let message = match self {
            Self::Draining => return None,
            Self::Connecting => return Some(too_late.clone()),
            Self::Whole => format!("the answer was not complete after {request:?}"),
            Self::Silent => format!("the answer stopped: no content for {idle:?}"),
        };
        Some(Fault {
            class: Class::Timeout,
            message,
        })
    }
}
