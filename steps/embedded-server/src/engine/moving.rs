//! How a model leaves the device and comes back: drained, copied, and given a new cache.
//!
//! The engine's thread does it, so that no step is computed meanwhile. Requests that come find it at
//! its inbox as always; those that wait are told if they can no longer be served.

use std::time::Duration;

use super::residence::{Come, Leave, Leaving, Move, MoveError, Reply, Running, Way};
use super::{Active, Engine, Failure, LONGEST_SLEEP, Lanes};
use crate::clock::Nanos;
use crate::executor::{CacheShape, Direction};
use crate::scheduler::SequenceId;
use crate::swapping::ModelState;

impl Engine {
    /// Begins to leave, or says why not.
    pub(super) fn begin_leaving(&mut self, mut leave: Leave, reply: Reply) {
        leave.parts = self.residence.there(leave.parts);
        let n_requests = self.active.len();
        let refusal = if self.residence.leaving.is_some() {
            Some(MoveError::InTransit)
        } else if leave.parts.is_none() {
            Some(MoveError::Already("the model has left the device already"))
        } else if leave.running == Running::Refuse && n_requests > 0 {
            Some(MoveError::Busy { n_requests })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // Whoever asked may have left.
            let _ = reply.send(Err(refusal));
            return;
        }
        // Before what runs joins those that wait.
        if leave.evicts_waiting {
            let waiting: Vec<_> = self.scheduler.unbegun_ids().collect();
            self.fail(&waiting, &Failure::Evicted);
        }
        match leave.running {
            Running::Refuse | Running::Finish => {}
            Running::Retract => {
                let retracted = self.scheduler.retract_all();
                self.note_retracted(&retracted);
                self.publish();
            }
            Running::BreakOff => {
                let begun: Vec<_> = self.scheduler.begun_ids().collect();
                self.fail(&begun, &Failure::Evicted);
            }
        }
        let began = self.parts.clock.now();
        self.parts.status.become_(ModelState::InTransit, began);
        self.residence.leaving = Some(Leaving {
            leave,
            began,
            reply,
        });
    }

    /// Whether it stays until what has begun has ended. Without all its parts it computes nothing.
    fn is_draining(&self) -> bool {
        let leaving = self.residence.leaving.as_ref();
        let finishes = leaving.is_some_and(|leaving| leaving.leave.running == Running::Finish);
        finishes && self.residence.is_whole() && self.scheduler.begun_ids().next().is_some()
    }

    /// Leaves, if it is to and nothing has to end before.
    pub(super) fn leave_if_drained(&mut self) {
        if self.is_draining() {
            return;
        }
        let Some(leaving) = self.residence.leaving.take() else {
            return;
        };
        let Leaving {
            leave,
            began,
            reply,
        } = leaving;
        let drained = self.parts.clock.now();
        let held = self.parts.home.place.held();
        let mut copied = drained;
        let (mut bytes, mut pool_bytes) = (0, 0);
        if leave.parts.weights {
            bytes = held.weights;
            copied = self.copy_weights(Direction::ToHost, bytes);
            self.residence.weights = false;
            self.parts.home.place.leave_weights();
        }
        if leave.parts.cache {
            pool_bytes = held.cache;
            self.make_cache(0);
            self.residence.cache = false;
            self.parts.home.place.leave_cache();
        }
        let ended = self.parts.clock.now();
        let moved = Move {
            model: self.parts.home.model.clone(),
            direction: Way::Out,
            reason: leave.reason,
            began_ns: began,
            ended_ns: ended,
            drain_s: seconds(drained.since(began)),
            copy_s: seconds(copied.since(drained)),
            pool_s: seconds(ended.since(copied)),
            bytes,
            pool_bytes,
        };
        self.moved(moved, reply);
    }

    /// Comes back, or says why not.
    pub(super) fn come(&mut self, mut come: Come, reply: Reply) {
        come.parts = self.residence.missing(come.parts);
        let refusal = if self.residence.leaving.is_some() {
            Some(MoveError::InTransit)
        } else if come.parts.is_none() {
            Some(MoveError::Already("the model is on the device already"))
        } else {
            None
        };
        let moved = refusal.map_or_else(|| self.make_whole(come), Err);
        match moved {
            Ok(moved) => self.moved(moved, reply),
            // Whoever asked may have left.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn make_whole(&mut self, come: Come) -> Result<Move, MoveError> {
        let place = std::sync::Arc::clone(&self.parts.home.place);
        let weight_bytes = self.parts.executor.weight_bytes();
        let began = self.parts.clock.now();
        if come.parts.weights {
            place.take_weights(weight_bytes)?;
        }
        let block_bytes = self.block_bytes();
        let asked = come.cache_bytes.map(|bytes| bytes / block_bytes.max(1));
        let most = asked.unwrap_or(u64::MAX).min(self.parts.home.most_blocks);
        let taken = come
            .parts
            .cache
            .then(|| place.take_cache(weight_bytes, block_bytes, most));
        let n_blocks = match taken.transpose() {
            Ok(n_blocks) => n_blocks,
            Err(shortage) => {
                if come.parts.weights {
                    place.leave_weights();
                }
                return Err(shortage.into());
            }
        };
        self.parts.status.become_(ModelState::InTransit, began);
        let mut copied = began;
        if come.parts.weights {
            copied = self.copy_weights(Direction::ToDevice, weight_bytes);
            self.residence.weights = true;
        }
        if let Some(n_blocks) = n_blocks {
            self.make_cache(u32::try_from(n_blocks).unwrap_or(u32::MAX));
            self.residence.cache = true;
        }
        let ended = self.parts.clock.now();
        Ok(Move {
            model: self.parts.home.model.clone(),
            direction: Way::In,
            reason: come.reason,
            began_ns: began,
            ended_ns: ended,
            drain_s: 0.0,
            copy_s: seconds(copied.since(began)),
            pool_s: seconds(ended.since(copied)),
            bytes: if come.parts.weights { weight_bytes } else { 0 },
            pool_bytes: n_blocks.unwrap_or(0).saturating_mul(block_bytes),
        })
    }

    fn moved(&mut self, moved: Move, reply: Reply) {
        let state = match self.residence.is_whole() {
            true => ModelState::Active,
            false => ModelState::Off,
        };
        self.last_end = moved.ended_ns;
        self.parts.status.become_(state, moved.ended_ns);
        self.publish();
        self.parts.home.moves.push(moved.clone());
        // Whoever asked may have left.
        let _ = reply.send(Ok(moved));
    }

    /// Copies the weights, no sooner than the link can, and says when that was done.
    fn copy_weights(&mut self, direction: Direction, bytes: u64) -> Nanos {
        let began = self.parts.clock.now();
        self.parts.executor.move_weights(direction);
        let link = self.parts.home.link;
        let took = link.map_or(0.0, |per_s| bytes as f64 / per_s);
        let took = Duration::try_from_secs_f64(took).unwrap_or(Duration::MAX);
        self.sleep_until(began.after(took));
        self.parts.clock.now()
    }

    /// Sleeps, but not when the server stops meanwhile.
    fn sleep_until(&self, instant: Nanos) {
        while !self.is_told_to_stop() && self.parts.clock.now() < instant {
            let slice = self.parts.clock.now().after(LONGEST_SLEEP);
            self.parts.clock.sleep_until(instant.min(slice));
        }
    }

    /// Gives the model a cache of `n_blocks`. Nothing may run.
    fn make_cache(&mut self, n_blocks: u32) {
        self.parts.executor.resize_cache(n_blocks);
        let shape = self.parts.executor.cache_shape();
        self.parts.metrics.n_blocks.set(shape.n_blocks as usize);
        self.lanes = Lanes::new(self.parts.host_bandwidth, self.block_bytes());
        let too_large = self.scheduler.replace_cache(shape);
        if shape.n_blocks > 0 {
            self.fail(&too_large, &Failure::TooLarge);
        }
    }

    fn block_bytes(&self) -> u64 {
        let CacheShape {
            block_tokens,
            bytes_per_token,
            ..
        } = self.parts.executor.cache_shape();
        bytes_per_token.saturating_mul(u64::from(block_tokens))
    }

    /// Breaks off what waits and would miss its objective, where that is asked for.
    pub(super) fn abort_late(&mut self) {
        let now = self.parts.clock.now();
        let mut late: Vec<SequenceId> = Vec::new();
        while let Some((deadline, id)) = self.first_deadline() {
            if !self.parts.aborts_late || now.after(super::ABORT_LEAD) <= deadline {
                break;
            }
            self.deadlines.pop_first();
            late.push(id);
        }
        if !late.is_empty() {
            self.fail(&late, &Failure::Late);
            self.publish();
        }
    }

    /// The first deadline among requests that wait for the first time.
    pub(super) fn first_deadline(&mut self) -> Option<(Nanos, SequenceId)> {
        let active = &self.active;
        let waits = |id: SequenceId| active.get(&id).is_some_and(Active::waits);
        self.deadlines.first_to_begin(waits)
    }

    /// Waits for a message while the model is not on the device.
    pub(super) fn rest(&mut self) {
        let now = self.parts.clock.now();
        let lead = super::ABORT_LEAD;
        let late = self.first_deadline().filter(|_| self.parts.aborts_late);
        let left = late.map_or(LONGEST_SLEEP, |(at, _)| at.since(now.after(lead)));
        // A message unparks this thread.
        std::thread::park_timeout(left.clamp(Duration::from_millis(1), LONGEST_SLEEP));
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests;
