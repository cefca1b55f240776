//! The thread that owns everything: it schedules, computes, samples and delivers, step by step.
//!
//! One thread, no locks around its state. Requests come in through a bounded inbox, tokens go out
//! through a channel per submission, and a reader that has gone away is noticed before the next
//! step. It knows no HTTP and no JSON.

mod active;
mod deadlines;
mod handle;
mod lanes;
mod moving;
mod offline;
mod paced;
mod record;
mod request;
mod residence;
mod sampler;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::cache::TransferKind;
use crate::clock::{Clock, Nanos};
use crate::device::Turn;
use crate::executor::{Direction, Executor, StepOutput};
use crate::metrics::Metrics;
use crate::scheduler::{Limits, NewSequence, PlanEntry, Scheduler, SequenceId, StepPlan};
use crate::steplog::{StepLog, StepRecord};
use crate::tokenizer::Tokenizer;
use active::Active;
use deadlines::Deadlines;
use handle::{Arrival, FlushRequest, Message};
use lanes::{Lanes, Waits};
use record::{nanos, operation_ns, shape_of};
use residence::Residence;

pub use handle::{EngineHandle, Flushed, SubmitError};
pub(crate) use offline::Moving;
pub use offline::Unstarted;
pub use request::{Ending, Event, EventKind, Failure, FinishReason, Origin, Request};
pub use residence::{
    Come, Home, Leave, MOST_MOVES, Move, MoveError, MoveLog, Parts, Running, Status, Way,
};
pub use sampler::{Sampler, SamplingParams};

/// The longest wait for a copy before messages are looked at again.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// Flushes that may wait.
const MOST_FLUSHES: usize = 64;
/// A request that waits is broken off when less than this is left until its objective.
const ABORT_LEAD: Duration = Duration::from_millis(500);

/// When tokens are told that nobody computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the arrival of a request to its first token.
    pub first: Duration,
    /// From one token to the next.
    pub each: Duration,
}

/// Starts a thread that answers at a stated pace and computes nothing, as [`start`] does one that
/// computes.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start_paced(
    pace: Pace,
    tokenizer: Arc<Tokenizer>,
    queue_limit: usize,
    metrics: Arc<Metrics>,
) -> std::io::Result<(EngineHandle, oneshot::Receiver<()>)> {
    let clock = Arc::new(crate::clock::MonotonicClock);
    let (handle, inbox) = EngineHandle::new(queue_limit, clock.clone());
    let (alive, ended) = oneshot::channel();
    let paced = paced::Paced {
        pace,
        tokenizer,
        clock,
        metrics,
        is_stopping: handle.stop_flag(),
        answers: slab::Slab::new(),
        due: std::collections::BinaryHeap::new(),
    };
    let thread = std::thread::Builder::new()
        .name("paced".into())
        .spawn(move || {
            // Dropped when the thread ends, by panic too.
            let _alive: oneshot::Sender<()> = alive;
            paced.run(inbox);
        })?;
    handle.wakes(thread.thread().clone());
    Ok((handle, ended))
}

/// What an engine is made of.
pub struct EngineParts {
    /// Computes.
    pub executor: Box<dyn Executor>,
    /// Says which ids are control tokens and which end a sequence.
    pub tokenizer: Arc<Tokenizer>,
    /// Bounds of a step.
    pub limits: Limits,
    /// Bytes per second between the cache and host memory, each way; `None`: as it comes.
    pub host_bandwidth: Option<f64>,
    /// Where the model lives.
    pub home: Home,
    /// How it fares.
    pub status: Arc<Status>,
    /// Whether requests that wait and would miss their objective are broken off.
    pub aborts_late: bool,
    /// Requests that may wait.
    pub queue_limit: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Where it records its steps.
    pub steps: Arc<StepLog>,
}

/// Starts the engine thread. The receiver resolves, with an error, when the thread has ended.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(parts: EngineParts) -> std::io::Result<(EngineHandle, oneshot::Receiver<()>)> {
    let (handle, inbox) = EngineHandle::new(parts.queue_limit, Arc::clone(&parts.clock));
    let (alive, ended) = oneshot::channel();
    let engine = Engine::new(parts, handle.stop_flag());
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .stack_size(crate::kernels::STACK)
        .spawn(move || {
            // Dropped when the thread ends, by panic too.
            let _alive: oneshot::Sender<()> = alive;
            engine.run(inbox);
        })?;
    handle.wakes(thread.thread().clone());
    Ok((handle, ended))
}

struct Engine {
    parts: EngineParts,
    /// Set by [`EngineHandle::stop`]. The engine holds no handle: the last one dropped ends it.
    is_stopping: Arc<AtomicBool>,
    scheduler: Scheduler,
    active: HashMap<SequenceId, Active>,
    next_id: u64,
    lanes: Lanes,
    residence: Residence,
    deadlines: Deadlines,
    /// Flushes that wait until nothing runs, or until their time is up.
    flushes: Vec<FlushRequest>,
    /// Width of a row of logits.
    vocab_size: usize,
    /// Ids that may be sampled: those the tokenizer knows.
    n_ids: usize,
    /// End of the last step's sampling, or of the last wait for work.
    last_end: Nanos,
    candidates: Vec<(f32, u32)>,
    /// Since when there has always been something to compute; `None`: there is nothing.
    works_since: Option<Nanos>,
}

impl Engine {
    fn new(parts: EngineParts, is_stopping: Arc<AtomicBool>) -> Self {
        let shape = parts.executor.cache_shape();
        let vocab_size = parts.executor.vocab_size();
        parts.metrics.n_blocks.set(shape.n_blocks as usize);
        parts.metrics.block_tokens.set(shape.block_tokens as usize);
        let block_bytes = shape.bytes_per_token * u64::from(shape.block_tokens);
        Engine {
            lanes: Lanes::new(parts.host_bandwidth, block_bytes),
            residence: Residence::new(parts.home.is_active),
            deadlines: Deadlines::default(),
            flushes: Vec::new(),
            scheduler: Scheduler::new(parts.limits, shape),
            vocab_size,
            n_ids: vocab_size.min(parts.tokenizer.vocab_size()),
            last_end: parts.clock.now(),
            active: HashMap::new(),
            next_id: 0,
            candidates: Vec::new(),
            works_since: None,
            parts,
            is_stopping,
        }
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        if self.parts.executor.states_times() {
            // A system that refuses wakes it up to 50 µs late, which the lateness shows.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        loop {
            self.take_messages(&mut inbox);
            if self.is_told_to_stop() {
                break;
            }
            match self.turn() {
                Turned::Stepped => {}
                Turned::WaitsForCopies => self.wait_for_copies(),
                Turned::Rests => self.rest(),
            }
        }
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.take(message);
        }
        let ids: Vec<_> = self.active.keys().copied().collect();
        self.fail(&ids, &Failure::Stopping);
        self.publish();
    }

    /// Does what is to be done, and computes a step if there is one.
    fn turn(&mut self) -> Turned {
        self.drop_abandoned();
        self.abort_late();
        self.acknowledge_copies();
        self.answer_flushes();
        self.leave_if_drained();
        let plan = match (self.residence.is_whole(), &self.residence.leaving) {
            (false, _) => None,
            (true, None) => self.scheduler.schedule(),
            (true, Some(_)) => self.scheduler.schedule_begun(),
        };
        let waits = self.copy_blocks();
        if plan.is_none() {
            self.works_since = None;
        }
        let turned = match plan {
            Some(plan) => {
                self.note_plan(&plan);
                self.step(&plan, waits);
                if self.scheduler.is_idle() {
                    self.works_since = None;
                }
                Turned::Stepped
            }
            None if self.residence.is_whole() => Turned::WaitsForCopies,
            None => Turned::Rests,
        };
        #[cfg(debug_assertions)]
        self.scheduler.check();
        self.publish();
        turned
    }

    fn is_told_to_stop(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Takes what lies in the inbox; waits for something where there is nothing else to do.
    fn take_messages(&mut self, inbox: &mut mpsc::Receiver<Message>) {
        let is_leaving = self.residence.leaving.is_some();
        if self.scheduler.is_idle() && self.flushes.is_empty() && !is_leaving {
            match inbox.blocking_recv() {
                Some(message) => self.take(message),
                None => self.is_stopping.store(true, Ordering::Release),
            }
            self.last_end = self.parts.clock.now();
        }
        self.take_what_is_there(inbox);
    }

    fn take_what_is_there(&mut self, inbox: &mut mpsc::Receiver<Message>) {
        loop {
            match inbox.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.is_stopping.store(true, Ordering::Release);
                    break;
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(arrivals) => arrivals.into_iter().for_each(|one| self.arrive(one)),
            Message::Flush(request) if self.flushes.len() < MOST_FLUSHES => {
                self.flushes.push(request);
            }
            Message::Flush(request) => {
                let n_requests = self.active.len();
                // Whoever asked may have left.
                let _ = request.reply.send(Flushed::Busy { n_requests });
            }
            Message::Leave(leave, reply) => self.begin_leaving(leave, reply),
            Message::Come(come, reply) => self.come(come, reply),
            // The flag is set already: this only ends the wait.
            Message::Stop => {}
        }
    }

    fn arrive(&mut self, mut arrival: Arrival) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.parts.metrics.arrived.add(1);
        let n_prompt = arrival.request.prompt.len();
        let max_tokens = arrival.request.ending.max_tokens;
        self.scheduler.enqueue(NewSequence {
            id,
            prompt: std::mem::take(&mut arrival.request.prompt),
            max_tokens,
            writes_all: arrival.request.ending.ignores_eos,
        });
        let active = Active::new(arrival, n_prompt, &self.parts.tokenizer);
        if let Some(deadline) = active.deadline() {
            self.deadlines.came(deadline, id);
        }
        self.active.insert(id, active);
        // The door knows the cache that the model began with; one that came back may have a smaller one.
        let n_most = self.scheduler.cache().blocks().capacity_tokens();
        if self.residence.keeps_cache() && n_prompt.saturating_add(max_tokens) > n_most {
            self.fail(&[id], &Failure::TooLarge);
        }
    }

    /// Empties the cache for whoever asked, if nothing uses it; says so where time is up.
    fn answer_flushes(&mut self) {
        let n_requests = self.active.len();
        let now = self.parts.clock.now();
        // Nobody's cache is emptied for one who has left.
        self.flushes.retain(|request| !request.reply.is_closed());
        let is_answered = |request: &mut FlushRequest| n_requests == 0 || request.deadline <= now;
        let answered: Vec<_> = self.flushes.extract_if(.., is_answered).collect();
        if answered.is_empty() {
            return;
        }
        let flushed = match n_requests {
            0 => {
                self.scheduler.flush();
                Flushed::Done
            }
            n_requests => Flushed::Busy { n_requests },
        };
        self.publish();
        for request in answered {
            // Whoever asked may have left.
            let _ = request.reply.send(flushed);
        }
    }

    /// Lets go of blocks whose copies to the host are done.
    fn acknowledge_copies(&mut self) {
        let now = self.parts.clock.now();
        while let Some(ticket) = self.lanes.next_done(now) {
            self.scheduler.acknowledge(ticket);
        }
    }

    /// Makes the copies that the scheduler asked for.
    fn copy_blocks(&mut self) -> Waits {
        let mut waits = Waits::default();
        for transfer in self.scheduler.take_transfers() {
            let direction = match transfer.kind {
                TransferKind::BackUp(_) | TransferKind::WriteBack => Direction::ToHost,
                TransferKind::Load => Direction::ToDevice,
            };
            let began = self.parts.clock.now();
            self.parts.executor.copy(direction, &transfer.pairs);
            let times = (began, self.parts.clock.now());
            let n_blocks = transfer.pairs.len();
            self.lanes
                .copied(transfer.kind, n_blocks, times, &mut waits);
        }
        waits
    }

    /// Where nothing fits before a copy to the host is done, waits for the next one.
    fn wait_for_copies(&mut self) {
        if let (false, Some(at)) = (self.scheduler.is_idle(), self.lanes.next_at()) {
            let longest = self.parts.clock.now().after(LONGEST_SLEEP);
            self.parts.clock.sleep_until(at.min(longest));
        }
    }

    /// Forgets requests whose reader has gone away.
    fn drop_abandoned(&mut self) {
        let gone = self
            .active
            .iter()
            .filter(|(_, active)| active.is_abandoned());
        let ids: Vec<_> = gone.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            self.scheduler.remove(&ids);
            self.active.retain(|id, _| !ids.contains(id));
            self.parts.metrics.aborted.add(ids.len());
        }
    }

    fn note_plan(&mut self, plan: &StepPlan) {
        self.note_retracted(&plan.retracted);
        let now = self.parts.clock.now();
        for admission in &plan.admitted {
            if let Some(active) = self.active.get_mut(&admission.id) {
                active.admitted(admission, now, &self.parts.metrics);
            }
        }
        self.publish();
    }

    /// Counts sequences that went back to wait, whose deadlines press again.
    fn note_retracted(&mut self, ids: &[SequenceId]) {
        self.parts.metrics.retractions.add(ids.len());
        for id in ids {
            if let Some(active) = self.active.get_mut(id) {
                active.retracted();
                if let Some(deadline) = active.deadline() {
                    self.deadlines.retracted(deadline, *id);
                }
            }
        }
    }

    /// Computes a plan, samples, records the step and delivers.
    fn step(&mut self, plan: &StepPlan, waits: Waits) {
        let clock = Arc::clone(&self.parts.clock);
        let place = Arc::clone(&self.parts.home.place);
        let planned = clock.now();
        clock.sleep_until(waits.before);
        let turn = place.turn();
        if self.is_told_to_stop() {
            return;
        }
        let start = clock.now();
        let mut record = StepRecord {
            start,
            scheduling_ns: nanos(planned.since(self.last_end)),
            ..shape_of(plan)
        };
        let since = (*self.works_since.get_or_insert(planned)).max(waits.before);
        let outcome = self.parts.executor.step(&self.scheduler.batch(plan));
        if let Ok(Some(takes)) = outcome.as_ref().map(|output| output.takes) {
            let began = begins(&turn, since, start, &*clock);
            let late = wait_out(&turn, began.after(takes).max(waits.during), &*clock);
            record.late_ns = nanos(late);
            self.parts.metrics.lateness.observe(late);
        }
        clock.sleep_until(waits.during);
        drop(turn);
        let computed = clock.now();
        let sampled = match outcome {
            Ok(output) => {
                record.operation_ns = operation_ns(&output.operations);
                let widths = (self.vocab_size, self.n_ids);
                sample(
                    plan,
                    &output,
                    widths,
                    &mut self.active,
                    &mut self.candidates,
                )
            }
            Err(error) => {
                let ids: Vec<_> = plan.entries.iter().map(|entry| entry.id).collect();
                self.last_end = computed;
                return self.fail(&ids, &Failure::Step(error));
            }
        };
        self.last_end = clock.now();
        record.duration_ns = nanos(computed.since(start));
        record.sampling_ns = nanos(self.last_end.since(computed));
        record.n_sampled = sampled.len() as u32;
        let step = self.parts.steps.push(record);
        self.scheduler.computed(plan);
        self.deliver(&sampled, step);
        // What ended is backed up now: the next request may be long in coming. It holds nobody up.
        let _ = self.copy_blocks();
        self.acknowledge_copies();
    }

    /// Hands the tokens of a step out. Everything is counted and freed before anyone hears of it, so that
    /// whoever has seen the end of an answer also sees it in the metrics.
    fn deliver(&mut self, sampled: &[Sampled], step: u64) {
        let mut finished = Vec::new();
        let mut news = Vec::with_capacity(sampled.len());
        for Sampled {
            index,
            sequence,
            token,
        } in sampled
        {
            self.scheduler.append(*index, *token);
            let Some(active) = self.active.get_mut(sequence) else {
                continue;
            };
            let cached = active.newly_cached();
            let finish = active.accept(*token, self.last_end, &self.parts.metrics);
            finished.extend(finish.map(|_| *sequence));
            let token = EventKind::Token {
                id: *token,
                finish,
                cached,
                origin: active.origin(Some(step), self.last_end),
            };
            news.push((*sequence, token));
        }
        self.scheduler.remove(&finished);
        self.publish();
        for (sequence, kind) in news {
            if let Some(active) = self.active.get(&sequence) {
                active.tell(kind);
            }
        }
        finished
            .iter()
            .for_each(|sequence| drop(self.active.remove(sequence)));
    }

    /// Breaks requests off and says why.
    fn fail(&mut self, ids: &[SequenceId], failure: &Failure) {
        self.scheduler.remove(ids);
        self.parts.metrics.aborted.add(ids.len());
        self.publish();
        for id in ids {
            if let Some(active) = self.active.remove(id) {
                active.tell(EventKind::Failed(failure.clone()));
            }
        }
    }

    fn publish(&mut self) {
        let begins = self.first_deadline().map(|(deadline, _)| deadline);
        let active = &self.active;
        let waits = |id: SequenceId| active.get(&id).is_some_and(Active::waits_again);
        let goes_on = self.deadlines.first_to_go_on(waits);
        let deadline = begins.into_iter().chain(goes_on).min();
        self.parts.status.set_deadline(deadline);
        if !self.active.is_empty() {
            self.parts.status.busy(self.parts.clock.now());
        }
        let (metrics, cache) = (&self.parts.metrics, self.scheduler.cache());
        metrics.n_running.set(self.scheduler.n_running());
        metrics.n_queued.set(self.scheduler.n_waiting());
        let n_blocks = cache.blocks().n_blocks();
        metrics.n_used_blocks.set(n_blocks - cache.n_available());
        metrics.n_evictable_blocks.set(cache.n_evictable());
        let (n_used, n_all) = cache.host_usage();
        metrics.n_used_host_blocks.set(n_used);
        metrics.n_host_blocks.set(n_all);
        let counts = cache.counts();
        metrics.evicted_blocks.set(counts.evicted);
        metrics.backed_up_blocks.set(counts.backed_up);
        metrics.loaded_blocks.set(counts.loaded);
        metrics.host_evicted_blocks.set(counts.host_evicted);
    }
}

/// When a step of stated time counts as begun that is called at `start`, where there has been something to compute
/// since `since`: when the one before it was to be over, so that scheduling or a late wake-up is not added to
/// every step. In made-up time neither takes any.
fn begins(turn: &Turn<'_>, since: Nanos, start: Nanos, clock: &dyn Clock) -> Nanos {
    match clock.goes_on() {
        true => turn.was_due().max(since).min(start),
        false => start,
    }
}

/// Waits until what is computed is to be over; how much later it is then.
fn wait_out(turn: &Turn<'_>, due: Nanos, clock: &dyn Clock) -> Duration {
    turn.is_due(due);
    clock.sleep_until(due);
    clock.now().since(due)
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turned {
    /// A step was computed.
    Stepped,
    /// There is nothing to compute, or not before a copy is done.
    WaitsForCopies,
    /// The model is not on the device.
    Rests,
}

/// A token that a step ended with.
struct Sampled {
    /// Position in the running set.
    index: usize,
    sequence: SequenceId,
    token: u32,
}

/// Chooses a token for each sequence that wanted logits, in their order. Only ids that have a
/// text, the first `n_ids`, are considered: models pad their vocabulary.
fn sample(
    plan: &StepPlan,
    output: &StepOutput<'_>,
    (vocab_size, n_ids): (usize, usize),
    active: &mut HashMap<SequenceId, Active>,
    candidates: &mut Vec<(f32, u32)>,
) -> Vec<Sampled> {
    let wanted = plan.entries.iter().filter(|entry| entry.wants_logits);
    let sampled = |(i, entry): (usize, &PlanEntry)| {
        let active = active.get_mut(&entry.id)?;
        let token = match output.certain.get(i) {
            Some(id) => active.settle(*id, u32::try_from(n_ids).unwrap_or(u32::MAX)),
            None => {
                let row = output.logits.chunks_exact(vocab_size).nth(i)?;
                active.sample(&row[..n_ids], candidates)
            }
        };
        Some(Sampled {
            index: entry.index,
            sequence: entry.id,
            token,
        })
    };
    wanted.enumerate().filter_map(sampled).collect()
}

#[cfg(test)]
mod tests;
