//! The server without sockets and threads, in time that is made up.
//!
//! Requests go in as the bytes that would be posted, answers come out as the bytes that would be sent, each at
//! an exact instant: the queue, cache, batches and swaps are those of the server that listens, and only the
//! time of a step is a number instead of a wait. It is for executors that wait rather than compute. Models on
//! one device compute in turn; weights that come or go hold all of them up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::oneshot::error::TryRecvError;

use crate::clock::{Clock, MadeUpClock, Nanos};
use crate::controller::{come, leave};
use crate::engine::{EngineHandle, EngineParts, Moving, Pace, Unstarted};
use crate::http::{Counter, Said, Saying, ServiceParts};
use crate::load::{Computing, LoadedModel, load};
use crate::options::ServerOptions;
use crate::server::{Launch, ServeError, Shared, assemble};
use crate::swapping::{Action, ModelState, Reason, Rules, View, decide};

/// Between samples of the time line.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// What comes back for a request, at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What the request was called.
    pub request: u64,
    /// When, since the server's start.
    pub at: Nanos,
    /// What.
    pub piece: Piece,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Its status.
    Head {
        /// The number.
        status: u16,
        /// Whether a stream of events follows.
        is_event_stream: bool,
    },
    /// Bytes of its body.
    Body(Vec<u8>),
    /// Its end.
    End,
}

/// A server in made-up time, which begins at 0.
pub struct Offline {
    counter: Counter,
    clock: Arc<MadeUpClock>,
    /// When what is asked arrives.
    arrivals: Arc<MadeUpClock>,
    engines: Vec<Unstarted>,
    /// Whose turn on the device is next.
    turn: usize,
    open: BTreeMap<u64, Saying>,
    told: VecDeque<Told>,
    swaps: Swaps,
    next_sample: Nanos,
}

/// Who comes and goes.
struct Swaps {
    rules: Rules,
    period: Duration,
    /// When that is decided next; `None`: there is one model.
    next: Option<Nanos>,
    moving: Option<Moving>,
    /// Who comes when the one who leaves has left.
    then: Option<(usize, Reason)>,
}

impl Offline {
    /// A server of the models that `options` name; host, port, trace and faults count for nothing.
    ///
    /// # Errors
    /// [`ServeError`], naming the file or the option that has to change; also for executors that compute.
    pub fn new(options: &ServerOptions) -> Result<Self, ServeError> {
        let options = &options.clone().with_device()?;
        options.check()?;
        let clock = Arc::new(MadeUpClock::default());
        let arrivals = Arc::new(MadeUpClock::default());
        let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let mut models: Vec<LoadedModel> = load(options)?;
        for model in &mut models {
            let waits = match &mut model.computing {
                Computing::Model(executor) => executor.keep_time_by(&dynamic),
                Computing::Paced(_) => false,
            };
            if !waits {
                return Err(ServeError::Option {
                    name: "executor",
                    problem:
                        "made-up time is for `sim` with steps; a model that is computed takes the \
                              time it takes"
                            .to_owned(),
                });
            }
        }
        let mut launch = ByHand {
            engines: Vec::new(),
            arrivals: Arc::clone(&arrivals),
        };
        let (fleet, served) = assemble(options, models, &dynamic, &mut launch)?;
        let is_several = fleet.models.len() > 1;
        let parts = ServiceParts {
            served,
            fleet,
            trace: None,
            faults: None,
            seed: options.seed,
        };
        Ok(Offline {
            counter: Counter::new(parts),
            clock,
            arrivals,
            engines: launch.engines,
            turn: 0,
            open: BTreeMap::new(),
            told: VecDeque::new(),
            swaps: Swaps {
                rules: options.swap,
                period: options.swap_period.max(Duration::from_millis(1)),
                next: is_several.then_some(Nanos(0)),
                moving: None,
                then: None,
            },
            next_sample: Nanos(0),
        })
    }

    /// The first model's name.
    #[must_use]
    pub fn model_name(&self) -> &str {
        let first = self.counter.fleet().models.first();
        first.map_or("", |model| &model.name)
    }

    /// What `/server_info` would say of the first model.
    #[must_use]
    pub fn info(&self) -> serde_json::Value {
        let first = self.counter.fleet().models.first();
        first.map(|model| model.info.clone()).unwrap_or_default()
    }

    /// What `/timeline` would say.
    #[must_use]
    pub fn timeline(&self) -> serde_json::Value {
        let fleet = self.counter.fleet();
        serde_json::json!({
            "models": fleet.names(),
            "device_memory": fleet.device.total(),
            "samples": fleet.timeline.since(Nanos(0)),
        })
    }

    /// What `/swaps` would say.
    #[must_use]
    pub fn swaps(&self) -> serde_json::Value {
        serde_json::json!({ "swaps": self.counter.fleet().moves.since(Nanos(0)) })
    }

    /// Takes a request for `path` that arrives at `at`; `request` names it in what comes back.
    pub fn ask(&mut self, request: u64, path: &str, body: &Bytes, at: Nanos) {
        self.clock.advance_to(at);
        self.arrivals.advance_to(at);
        let (saying, head) = self.counter.ask(path, body);
        self.open.insert(request, saying);
        if let Some(head) = head {
            self.say(request, head, at);
        }
    }

    /// Nobody waits for an answer any more.
    pub fn cancel(&mut self, request: u64) {
        self.open.remove(&request);
    }

    /// Goes on to what comes back next, at `until` at the latest; `None` if nothing does by then.
    pub fn next(&mut self, until: Nanos) -> Option<Told> {
        loop {
            if let Some(told) = self.told.front() {
                return match told.at <= until {
                    true => self.told.pop_front(),
                    false => None,
                };
            }
            let now = self.clock.now();
            if now > until {
                return None;
            }
            self.sample(now);
            self.swap();
            let is_done = self.step();
            self.collect();
            if is_done || !self.told.is_empty() {
                continue;
            }
            match self.alarm(now) {
                Some(at) if at <= until => self.clock.advance_to(at),
                _ => return None,
            }
        }
    }

    /// One turn of the first engine that has something to do, from the one whose turn it is on.
    fn step(&mut self) -> bool {
        let n = self.engines.len();
        for more in 0..n {
            let at = (self.turn + more) % n;
            if self.engines[at].turn() {
                self.turn = at + 1;
                return true;
            }
        }
        false
    }

    /// Takes what answers have to say now.
    fn collect(&mut self) {
        let now = self.clock.now();
        let asked: Vec<u64> = self.open.keys().copied().collect();
        for request in asked {
            while let Some(saying) = self.open.remove(&request) {
                let (saying, said) = saying.next();
                let is_pause = matches!(said, Said::Nothing);
                if !matches!(said, Said::End) {
                    self.open.insert(request, saying);
                }
                self.say(request, said, now);
                if is_pause {
                    break;
                }
            }
        }
    }

    fn say(&mut self, request: u64, said: Said, at: Nanos) {
        let piece = match said {
            Said::Head(status, is_event_stream) => Piece::Head {
                status,
                is_event_stream,
            },
            Said::Body(bytes) => Piece::Body(bytes),
            Said::End => Piece::End,
            Said::Nothing => return,
        };
        self.told.push_back(Told { request, at, piece });
    }

    fn sample(&mut self, now: Nanos) {
        if self.next_sample <= now {
            self.counter.fleet().sample(now);
            self.next_sample = now.after(SAMPLE_EVERY);
        }
    }

    fn views(&self) -> Vec<View> {
        let models = self.counter.fleet().models.iter();
        models.map(|model| model.view()).collect()
    }

    /// Goes on with what is moving, and decides whether something should.
    fn swap(&mut self) {
        if let Some(moving) = &mut self.swaps.moving {
            match moving.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(Err(_)) | Err(TryRecvError::Closed) => self.swaps.then = None,
                Ok(Ok(_)) => {}
            }
            self.swaps.moving = None;
        }
        if let Some((model, reason)) = self.swaps.then.take()
            && self.counter.fleet().models[model].place.has_room()
        {
            self.swaps.moving = Some(self.engines[model].come(come(reason)));
            return;
        }
        let now = self.clock.now();
        if self.swaps.next.is_none_or(|at| at > now) {
            return;
        }
        self.swaps.next = Some(now.after(self.swaps.period));
        match decide(now, &self.views(), &self.swaps.rules) {
            Some(Action::SwitchOff { model, reason }) => {
                self.swaps.moving = Some(self.engines[model].leave(leave(reason)));
            }
            Some(Action::SwitchOn {
                model,
                reason,
                victim,
            }) => {
                self.swaps.then = Some((model, reason));
                let leaves = |victim: usize| self.engines[victim].leave(leave(Reason::Victim));
                self.swaps.moving = victim.map(leaves);
            }
            None => {}
        }
    }

    /// When something may change although nothing can be computed.
    fn alarm(&mut self, now: Nanos) -> Option<Nanos> {
        let aborts = self.engines.iter_mut().filter_map(Unstarted::next_abort);
        let abort = aborts
            .min()
            .map(|at| at.max(now.after(Duration::from_nanos(1))));
        let rules = self.swaps.rules;
        let may_change = |view: &View| {
            let is_wanted =
                view.has_room || view.deadline.is_some() || view.n_waiting >= rules.queue_threshold;
            view.state == ModelState::Off && view.n_waiting > 0 && is_wanted
        };
        let is_moving = self.swaps.moving.is_some() || self.swaps.then.is_some();
        let is_due = is_moving || self.views().iter().any(may_change);
        let decision = self.swaps.next.filter(|_| is_due);
        let decision = decision.map(|at| at.max(now.after(Duration::from_nanos(1))));
        abort.into_iter().chain(decision).min()
    }
}

/// Engines that nobody but this server runs.
struct ByHand {
    engines: Vec<Unstarted>,
    arrivals: Arc<MadeUpClock>,
}

impl Launch for ByHand {
    fn engine(&mut self, parts: EngineParts) -> Result<EngineHandle, ServeError> {
        let arrivals = Arc::clone(&self.arrivals) as Arc<dyn Clock>;
        let (handle, engine) = Unstarted::new(parts, arrivals);
        self.engines.push(engine);
        Ok(handle)
    }

    fn paced(&mut self, _: Pace, _: &ServerOptions, _: Shared) -> Result<EngineHandle, ServeError> {
        Err(ServeError::Option {
            name: "sim_steps",
            problem: "missing; made-up time is that of steps".to_owned(),
        })
    }
}
