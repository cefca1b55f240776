//! The server without sockets and threads, in time that is made up.
//!
//! Requests go in as the bytes that would be posted, answers come out as the bytes that would be sent, each at
//! an exact instant: the queue, cache, batches and swaps are those of the server that listens, and only the
//! time of a step is a number instead of a wait. It is for executors that wait rather than compute. Models on
//! one device compute in turn; weights that come or go hold all of them up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::oneshot::error::TryRecvError;

use crate::clock::{Clock, MadeUpClock, Nanos};
use crate::controller::{come, leave};
use crate::engine::{EngineHandle, EngineParts, Moving, Pace, Unstarted};
use crate::fleet::{self, Fleet, SAMPLE_EVERY};
use crate::http::{Counter, Said, Saying, ServiceParts};
use crate::load::{Computing, LoadedModel, load};
use crate::options::ServerOptions;
use crate::server::{Launch, ServeError, Shared, assemble};
use crate::swapping::{Action, Reason, Rules, View, decide, idle_at, is_wanted, may_leave, victim};

/// The smallest step of time.
const INSTANT: Duration = Duration::from_nanos(1);

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
    clock: Arc<SampledClock>,
    /// When what is asked arrives.
    arrivals: Arc<MadeUpClock>,
    engines: Vec<Unstarted>,
    /// Whose turn on the device is next.
    turn: usize,
    open: BTreeMap<u64, Saying>,
    /// In the order of their instants.
    told: VecDeque<Told>,
    swaps: Swaps,
}

/// Who comes and goes.
struct Swaps {
    rules: Rules,
    /// Nanoseconds between decisions, which are made at multiples of it.
    period: u64,
    /// When that is decided next; `None`: there is one model.
    next: Option<Nanos>,
    moving: Option<Moving>,
    /// Who comes once there is room.
    then: Option<(usize, Reason)>,
}

impl Swaps {
    fn new(options: &ServerOptions, is_several: bool) -> Self {
        let period = u64::try_from(options.swap_period.as_nanos()).unwrap_or(u64::MAX);
        Swaps {
            rules: options.swap,
            period,
            next: is_several.then_some(Nanos(period)),
            moving: None,
            then: None,
        }
    }

    /// The first decision at an instant or after it.
    fn not_before(&self, instant: Nanos) -> Nanos {
        Nanos(instant.0.div_ceil(self.period).saturating_mul(self.period))
    }

    /// Nothing happens until an instant: decisions before it would change nothing.
    fn skip_to(&mut self, instant: Nanos) {
        let at = self.not_before(instant);
        self.next = self.next.map(|next| next.max(at));
    }
}

/// Made-up time that notes how models fare at every instant of the time line that it passes, before anything
/// of later happens.
#[derive(Default)]
struct SampledClock {
    time: MadeUpClock,
    /// Whose models; set once there are any.
    fleet: OnceLock<Arc<Fleet>>,
    next: AtomicU64,
}

impl SampledClock {
    /// Goes on to an instant; it never goes back.
    fn advance_to(&self, instant: Nanos) {
        let every = u64::try_from(SAMPLE_EVERY.as_nanos()).unwrap_or(u64::MAX);
        // Earlier ones would be forgotten at once.
        let kept = (instant.0 / every).saturating_sub(fleet::CAPACITY as u64);
        let mut at = self.next.load(Relaxed).max(kept * every);
        while at < instant.0 {
            if let Some(fleet) = self.fleet.get() {
                fleet.sample(Nanos(at));
            }
            at = at.saturating_add(every);
        }
        self.next.store(at, Relaxed);
        self.time.advance_to(instant);
    }
}

impl Clock for SampledClock {
    fn now(&self) -> Nanos {
        self.time.now()
    }

    fn sleep_until(&self, instant: Nanos) {
        self.advance_to(instant);
    }
}

impl Offline {
    /// A server of the models that `options` name; host, port, trace and faults count for nothing.
    ///
    /// # Errors
    /// [`ServeError`], naming the file or the option that has to change; also for executors that compute.
    pub fn new(options: &ServerOptions) -> Result<Self, ServeError> {
        let options = &options.clone().with_device()?;
        options.check()?;
        let clock = Arc::new(SampledClock::default());
        let arrivals = Arc::new(MadeUpClock::default());
        let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let models = load(options)?;
        models.iter().try_for_each(states_times)?;
        let mut launch = ByHand {
            engines: Vec::new(),
            arrivals: Arc::clone(&arrivals),
        };
        let (fleet, served) = assemble(options, models, &dynamic, &mut launch)?;
        clock.fleet.get_or_init(|| Arc::clone(&fleet));
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
            swaps: Swaps::new(options, is_several),
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
        self.rest_until(at);
        self.arrivals.advance_to(at);
        let (saying, head) = self.counter.ask(path, body, at);
        self.engines.iter_mut().for_each(Unstarted::take);
        self.open.insert(request, saying);
        if let Some(head) = head {
            self.say(request, head, at);
        }
        self.tell(request, at);
    }

    /// Nobody waits for an answer any more.
    pub fn cancel(&mut self, request: u64) {
        self.open.remove(&request);
        self.engines.iter_mut().for_each(Unstarted::drop_abandoned);
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
            // What is broken off now is told before a step takes time, and who comes or goes does so.
            self.engines.iter_mut().for_each(Unstarted::abort_late);
            self.collect();
            if !self.told.is_empty() || self.swap() {
                continue;
            }
            if self.step() {
                self.collect();
                continue;
            }
            match self.alarm(now) {
                Some(at) if at <= until => self.rest_until(at),
                _ => return None,
            }
        }
    }

    /// Lets time pass in which nothing happens.
    fn rest_until(&mut self, at: Nanos) {
        if at > self.clock.now() {
            self.swaps.skip_to(at);
            self.clock.advance_to(at);
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
            self.tell(request, now);
        }
    }

    /// Takes what an answer has to say, at an instant.
    fn tell(&mut self, request: u64, at: Nanos) {
        while let Some(saying) = self.open.remove(&request) {
            let (saying, said) = saying.next();
            let is_pause = matches!(said, Said::Nothing);
            if !matches!(said, Said::End) {
                self.open.insert(request, saying);
            }
            self.say(request, said, at);
            if is_pause {
                break;
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
        // A step may have ended after the instant that something else is told of.
        let place = self.told.partition_point(|told| told.at <= at);
        self.told.insert(place, Told { request, at, piece });
    }

    /// Goes on with what is moving, and decides whether something should; whether anything has changed.
    fn swap(&mut self) -> bool {
        if let Some(moving) = &mut self.swaps.moving {
            match moving.try_recv() {
                Err(TryRecvError::Empty) => return false,
                // What could not be done is decided anew.
                Ok(Err(_)) | Err(TryRecvError::Closed) => self.swaps.then = None,
                Ok(Ok(_)) => {}
            }
            self.swaps.moving = None;
        }
        match self.swaps.then {
            Some((model, reason)) => self.make_way(model, reason),
            None => self.decide(),
        }
    }

    /// Brings a model, or lets the next one leave for it.
    fn make_way(&mut self, model: usize, reason: Reason) -> bool {
        let views = self.counter.fleet().views();
        if !is_wanted(&views[model]) {
            self.swaps.then = None;
            return false;
        }
        if self.counter.fleet().models[model].place.has_room() {
            self.swaps.then = None;
            self.swaps.moving = Some(self.engines[model].come(come(reason)));
            return true;
        }
        if let Some(victim) = victim(self.clock.now(), &views, &self.swaps.rules) {
            self.swaps.moving = Some(self.engines[victim].leave(leave(Reason::Victim)));
            return true;
        }
        if !may_leave(&views) {
            self.swaps.then = None;
        }
        self.swaps.skip_to(self.clock.now().after(INSTANT));
        false
    }

    /// Decides whether a model should come or go, if that is due.
    fn decide(&mut self) -> bool {
        let now = self.clock.now();
        if self.swaps.next.is_none_or(|at| at > now) {
            return false;
        }
        self.swaps.skip_to(now.after(INSTANT));
        match decide(now, &self.counter.fleet().views(), &self.swaps.rules) {
            Some(Action::SwitchOff { model, reason }) => {
                self.swaps.moving = Some(self.engines[model].leave(leave(reason)));
            }
            Some(Action::SwitchOn { model, reason, .. }) => self.swaps.then = Some((model, reason)),
            None => return false,
        }
        true
    }

    /// When something may change although nothing can be computed.
    fn alarm(&mut self, now: Nanos) -> Option<Nanos> {
        let aborts = self.engines.iter_mut().filter_map(Unstarted::next_abort);
        let abort = aborts.min();
        let decision = self.swaps.next.and_then(|next| self.next_move(next));
        let first = abort.into_iter().chain(decision).min()?;
        Some(first.max(now.after(INSTANT)))
    }

    /// The first decision, `next` or one after it, that may move a model.
    fn next_move(&self, next: Nanos) -> Option<Nanos> {
        let rules = &self.swaps.rules;
        let may_come = |view: &View| {
            let may =
                view.has_room || view.deadline.is_some() || view.n_waiting >= rules.queue_threshold;
            is_wanted(view) && may
        };
        let views = self.counter.fleet().views();
        let is_moving = self.swaps.moving.is_some() || self.swaps.then.is_some();
        if is_moving || views.iter().any(may_come) {
            return Some(next);
        }
        let idle = views.iter().filter_map(|view| idle_at(view, rules)).min()?;
        Some(self.swaps.not_before(idle).max(next))
    }
}

/// That a model states how long its steps take.
fn states_times(model: &LoadedModel) -> Result<(), ServeError> {
    let waits = match &model.computing {
        Computing::Model(executor) => executor.states_times(),
        Computing::Paced(_) => false,
    };
    let problem =
        "made-up time is for `sim` with steps; a model that is computed takes the time it takes";
    let refused = || ServeError::Option {
        name: "executor",
        problem: problem.to_owned(),
    };
    waits.then_some(()).ok_or_else(refused)
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
