//! Whether load, workload and end condition fit together, and the work list they make.
//!
//! Everything that can be refused is refused here, before anything is sent. Pure: instants
//! are durations after a start that nobody has chosen yet.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use crate::{
    Arrivals, Load, PlanError, Rate, ReadyOrder, Reuse, Rounds, RunPlan, Stop, Target,
    arrivals::paced, protocol::RESERVED, run::ReadyQueue,
};

/// More arrivals than this would need gigabytes just to be listed.
pub(crate) const MOST_ARRIVALS: usize = 20_000_000;
/// Arrivals per second that look for conversations at most: a lane could do nothing else.
const MOST_READY: f64 = 100_000.0;

impl RunPlan {
    /// The instants of an open loop, or the most requests a closed one may send.
    pub(crate) fn prepare(&self) -> Result<Schedule, PlanError> {
        if let Some(key) = RESERVED
            .into_iter()
            .find(|key| self.target.extra.contains_key(*key))
        {
            return Err(PlanError::ReservedKey(key.to_owned()));
        }
        for request in self.workload.requests() {
            let Target {
                protocol, model, ..
            } = &self.target;
            protocol.accepts(request, model)?;
        }
        match &self.load {
            Load::Open {
                arrivals,
                seed,
                ready_queue: Some(order),
                rounds,
                ..
            } => self
                .ready(arrivals, *seed, (*order, *rounds))
                .map(|queue| Schedule::Ready(Arc::new(queue))),
            Load::Closed { sessions: true, .. } => {
                let (most, sessions) = (self.closed()?, Some(self.sessions()?));
                Ok(Schedule::Closed { most, sessions })
            }
            Load::Open {
                rounds: Rounds::Barrier,
                ..
            } => Err(PlanError::Sessions(
                "only rounds of a ready queue can wait for each other; help: give the queue an order",
            )),
            _ if self.workload.continues() => Err(PlanError::Sessions(
                "turns of the workload continue their conversations, which only a closed loop with sessions or an open one with a ready queue waits for",
            )),
            Load::Open { arrivals, seed, .. } => self.open(arrivals, *seed).map(Schedule::Open),
            Load::Closed { .. } => Ok(Schedule::Closed {
                most: self.closed()?,
                sessions: None,
            }),
        }
    }

    /// The conversations that arrivals take turns of.
    fn ready(
        &self,
        arrivals: &Arrivals,
        seed: u64,
        (order, rounds): (ReadyOrder, Rounds),
    ) -> Result<ReadyQueue, PlanError> {
        let Arrivals::Paced { process, rate } = arrivals else {
            return Err(PlanError::Sessions(
                "only arrivals with a rate can find conversations ready; help: give a request rate, or users of a closed loop with sessions",
            ));
        };
        if rate.highest().is_some_and(|rate| rate > MOST_READY) {
            return Err(PlanError::Sessions(
                "over 100,000 arrivals per second would look for conversations without end; help: lower the request rate",
            ));
        }
        let conversations = self.sessions()?;
        let mut instants = paced(*process, rate, seed).peekable();
        let end = match self.stop {
            Stop::Requests(n) => {
                self.enough(n.get())?;
                Duration::MAX
            }
            Stop::After(end) => end,
        };
        if instants.peek().is_none_or(|first| *first >= end) {
            return Err(PlanError::NoArrivals);
        }
        let instants = instants.take_while(move |at| *at < end);
        Ok(ReadyQueue::new(
            Box::new(instants),
            conversations,
            (order, rounds),
            seed,
        ))
    }

    /// The requests of each conversation, by turn; one that belongs to none is one by itself.
    fn sessions(&self) -> Result<Vec<Vec<u64>>, PlanError> {
        if self.reuse == Reuse::Cycle {
            return Err(PlanError::Sessions(
                "whole conversations cannot cycle; help: make the workload longer",
            ));
        }
        Ok(self.workload.conversations())
    }

    fn closed(&self) -> Result<Option<u64>, PlanError> {
        let have = self.workload.requests().len();
        match (self.stop, self.reuse) {
            (Stop::Requests(n), _) => self.enough(n.get()).map(|()| Some(n.get())),
            (Stop::After(_), Reuse::Once) => Ok(Some(have as u64)),
            (Stop::After(_), Reuse::Cycle) => Ok(None),
        }
    }

    fn open(&self, arrivals: &Arrivals, seed: u64) -> Result<Vec<Duration>, PlanError> {
        if let (Arrivals::AllAtOnce, Stop::After(_), Reuse::Cycle) =
            (arrivals, self.stop, self.reuse)
        {
            return Err(PlanError::Endless {
                load: "all-at-once arrivals",
                stop: "a cycling workload and a time to stop",
                help: "stop after a number of requests",
            });
        }
        let instants: Box<dyn Iterator<Item = Duration>> = match arrivals {
            Arrivals::Paced { process, rate } => Box::new(paced(*process, rate, seed)),
            Arrivals::AllAtOnce => Box::new(std::iter::repeat_n(Duration::ZERO, self.burst())),
            Arrivals::Listed { speed } => Box::new(self.listed(*speed)?.into_iter()),
        };
        let instants: Vec<Duration> = match self.stop {
            Stop::Requests(n) => {
                self.enough(n.get())?;
                instants.take(count(n).min(MOST_ARRIVALS + 1)).collect()
            }
            Stop::After(end) => instants
                .take_while(|at| *at < end)
                .take(MOST_ARRIVALS + 1)
                .collect(),
        };
        self.bounded(instants)
    }

    fn bounded(&self, instants: Vec<Duration>) -> Result<Vec<Duration>, PlanError> {
        if instants.is_empty() {
            return Err(PlanError::NoArrivals);
        }
        if instants.len() > MOST_ARRIVALS {
            return Err(PlanError::TooManyArrivals);
        }
        self.enough(instants.len() as u64).map(|()| instants)
    }

    /// How many requests arrive at once: as many as asked for, else one of each.
    fn burst(&self) -> usize {
        match self.stop {
            Stop::Requests(n) => count(n),
            Stop::After(_) => self.workload.requests().len(),
        }
    }

    fn listed(&self, speed: Rate) -> Result<Vec<Duration>, PlanError> {
        if self.reuse == Reuse::Cycle {
            return Err(PlanError::ListedCycle);
        }
        let mut before = Duration::ZERO;
        let instant = |request: &crate::Request| {
            let bad = |problem| PlanError::BadArrival {
                id: request.id.clone(),
                problem,
            };
            let at = request.arrival.ok_or_else(|| bad("lists no arrival"))?;
            if at < before {
                return Err(bad("arrives before the one above it"));
            }
            before = at;
            Duration::try_from_secs_f64(at.as_secs_f64() / speed.get())
                .map_err(|_| bad("arrives too late"))
        };
        self.workload.requests().iter().map(instant).collect()
    }

    fn enough(&self, needed: u64) -> Result<(), PlanError> {
        let have = self.workload.requests().len();
        if self.reuse == Reuse::Once && needed > have as u64 {
            return Err(PlanError::WorkloadTooShort { needed, have });
        }
        Ok(())
    }
}

fn count(requests: NonZeroU64) -> usize {
    usize::try_from(requests.get()).unwrap_or(usize::MAX)
}

/// A checked plan's work list.
pub(crate) enum Schedule {
    /// Instants after the start, ascending.
    Open(Vec<Duration>),
    /// Instants after the start, each of which takes a conversation that is ready.
    Ready(Arc<ReadyQueue>),
    /// Users who send.
    Closed {
        /// The most requests to send; `None` where only time ends the run.
        most: Option<u64>,
        /// Positions in the workload that one user takes one after the other, if it matters.
        sessions: Option<Vec<Vec<u64>>>,
    },
}

impl Schedule {
    /// How many requests will be sent by the time of `stop`, where that is known.
    pub(crate) fn planned(&self, stop: Stop) -> Option<u64> {
        match (self, stop) {
            (Self::Open(instants), _) => Some(instants.len() as u64),
            (Self::Closed { .. } | Self::Ready(_), Stop::Requests(n)) => Some(n.get()),
            (Self::Closed { .. } | Self::Ready(_), Stop::After(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::Value;

    use super::*;
    use crate::{Process, Prompt, Protocol, Request, Target, Workload};

    fn plan(load: Load, stop: Stop, reuse: Reuse) -> RunPlan {
        let request = |i: u32| Request {
            arrival: Some(Duration::from_secs(u64::from(i))),
            ..Request::new(i.to_string(), Prompt::Text("x".into()), 1, NonZeroU32::MIN)
        };
        let workload = Workload::new((0..4).map(request).collect()).unwrap();
        let address = "http://127.0.0.1:1".parse().unwrap();
        let target = Target::new(address, "m", Protocol::Completions);
        RunPlan {
            reuse,
            ..RunPlan::new(workload, load, stop, target)
        }
    }

    fn open(arrivals: Arrivals) -> Load {
        Load::Open {
            arrivals,
            seed: 1,
            max_in_flight: None,
            ready_queue: None,
            rounds: Rounds::Overlap,
        }
    }

    fn requests(n: u64) -> Stop {
        Stop::Requests(NonZeroU64::new(n).unwrap())
    }

    fn instants(plan: &RunPlan) -> Vec<f64> {
        match plan.prepare().unwrap() {
            Schedule::Open(at) => at.iter().map(Duration::as_secs_f64).collect(),
            _ => panic!("an open plan"),
        }
    }

    fn per_second(rate: f64) -> Rate {
        Rate::per_second(rate).unwrap()
    }

    #[test]
    fn a_barrier_needs_a_ready_queue() {
        let barrier = |ready_queue| {
            let mut load = open(Arrivals::at(
                Process::Constant,
                Rate::per_second(1.0).unwrap(),
            ));
            if let Load::Open {
                rounds,
                ready_queue: queue,
                ..
            } = &mut load
            {
                (*rounds, *queue) = (Rounds::Barrier, ready_queue);
            }
            let stop = Stop::Requests(NonZeroU64::new(4).unwrap());
            plan(load, stop, Reuse::Once).check()
        };
        let refused = barrier(None).unwrap_err().to_string();
        assert!(
            refused.contains("only rounds of a ready queue"),
            "{refused}"
        );
        barrier(Some(ReadyOrder::Fifo)).unwrap();
    }

    #[test]
    fn the_end_cuts_the_arrivals() {
        let constant = open(Arrivals::at(Process::Constant, per_second(2.0)));
        assert_eq!(
            instants(&plan(constant.clone(), requests(3), Reuse::Once)),
            [0.0, 0.5, 1.0]
        );
        let timed = plan(constant, Stop::After(Duration::from_secs(1)), Reuse::Once);
        assert_eq!(instants(&timed), [0.0, 0.5]);
        let listed = open(Arrivals::Listed {
            speed: per_second(2.0),
        });
        assert_eq!(
            instants(&plan(listed, requests(4), Reuse::Once)),
            [0.0, 0.5, 1.0, 1.5]
        );
        let burst = plan(
            open(Arrivals::AllAtOnce),
            Stop::After(Duration::from_secs(1)),
            Reuse::Once,
        );
        assert_eq!(instants(&burst), [0.0; 4]);
    }

    #[test]
    fn a_workload_too_short_is_refused_unless_it_may_cycle() {
        let constant = open(Arrivals::at(Process::Constant, per_second(2.0)));
        for load in [constant.clone(), Load::closed(NonZeroU32::MIN)] {
            let error = plan(load.clone(), requests(5), Reuse::Once)
                .check()
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("needs 5 requests but the workload has 4"),
                "{error}"
            );
            plan(load, requests(5), Reuse::Cycle).check().unwrap();
        }
        let timed = plan(constant, Stop::After(Duration::from_secs(3)), Reuse::Once);
        assert!(matches!(
            timed.check(),
            Err(PlanError::WorkloadTooShort { needed: 6, have: 4 })
        ));
    }

    #[test]
    fn what_cannot_end_or_begin_is_refused() {
        let hour = Stop::After(Duration::from_secs(3600));
        let burst = plan(open(Arrivals::AllAtOnce), hour, Reuse::Cycle);
        assert!(matches!(burst.check(), Err(PlanError::Endless { .. })));
        let fast = plan(
            open(Arrivals::at(Process::Constant, per_second(1e9))),
            hour,
            Reuse::Cycle,
        );
        assert!(matches!(fast.check(), Err(PlanError::TooManyArrivals)));
        let never = plan(
            open(Arrivals::at(Process::Poisson, per_second(1e-9))),
            hour,
            Reuse::Once,
        );
        assert!(matches!(never.check(), Err(PlanError::NoArrivals)));
        let listed = plan(
            open(Arrivals::Listed {
                speed: per_second(1.0),
            }),
            hour,
            Reuse::Cycle,
        );
        assert!(matches!(listed.check(), Err(PlanError::ListedCycle)));
    }

    #[test]
    fn reserved_keys_are_refused() {
        let mut plan = plan(open(Arrivals::AllAtOnce), requests(1), Reuse::Once);
        plan.target
            .extra
            .insert("stream".into(), Value::Bool(false));
        assert!(plan.check().unwrap_err().to_string().contains("`stream`"));
    }
}
