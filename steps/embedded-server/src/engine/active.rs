//! A request while the engine works on it: its sampler, its end, its reader and its times.

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::handle::Arrival;
use super::request::{Ending, Event, EventKind, FinishReason, Origin};
use super::sampler::Sampler;
use crate::cache::Matched;
use crate::clock::Nanos;
use crate::metrics::Metrics;
use crate::scheduler::Admission;
use crate::tokenizer::{TextStream, Tokenizer};

/// One request that waits or runs.
#[derive(Debug)]
pub(super) struct Active {
    index: usize,
    events: mpsc::Sender<Event>,
    /// Held until the request is first scheduled.
    place: Option<OwnedSemaphorePermit>,
    sampler: Sampler,
    ending: Ending,
    ends: EndIds,
    watched: Option<TextStream>,
    n_prompt: usize,
    /// Prompt tokens that it found in the cache when it was first admitted.
    cached: Matched,
    /// When it was first scheduled; before that, when it arrived.
    scheduled: Nanos,
    retractions: u32,
    /// Whether it ran, and waits to run again.
    waits_again: bool,
    n_outputs: usize,
    arrived: Nanos,
    /// When it has to be answered, if it says.
    deadline: Option<Nanos>,
    last_token: Nanos,
}

/// Which ids end this request's text, and which are never sampled.
#[derive(Debug)]
struct EndIds {
    ends: Vec<u32>,
    /// Control tokens while an end is allowed, ascending.
    banned: Vec<u32>,
    /// Control tokens and ends while it is not, ascending.
    banned_early: Vec<u32>,
}

impl EndIds {
    /// Control tokens have no text that a client could send back, so none is sampled but those
    /// that end the text where they may.
    fn new(ending: &Ending, tokenizer: &Tokenizer) -> Self {
        let mut ends = ending.stop_ids.clone();
        let mut banned_early = [tokenizer.special_ids(), &ends, tokenizer.eos_ids()].concat();
        banned_early.sort_unstable();
        banned_early.dedup();
        if !ending.ignores_eos {
            ends.extend(tokenizer.eos_ids());
        }
        let mut banned = [tokenizer.special_ids(), tokenizer.eos_ids()].concat();
        banned.sort_unstable();
        banned.dedup();
        banned.retain(|id| !ends.contains(id));
        EndIds {
            ends,
            banned,
            banned_early,
        }
    }
}

impl Active {
    pub(super) fn new(arrival: Arrival, n_prompt: usize, tokenizer: &Tokenizer) -> Self {
        let request = arrival.request;
        Active {
            index: arrival.index,
            events: arrival.events,
            place: Some(arrival.place),
            sampler: Sampler::new(request.sampling),
            ends: EndIds::new(&request.ending, tokenizer),
            ending: request.ending,
            watched: request.watched,
            n_prompt,
            cached: Matched::default(),
            scheduled: arrival.arrived,
            retractions: 0,
            waits_again: false,
            n_outputs: 0,
            arrived: arrival.arrived,
            deadline: request
                .objective
                .map(|objective| arrival.arrived.after(objective)),
            last_token: arrival.arrived,
        }
    }

    /// Whether nobody reads the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether it has never been scheduled.
    pub(super) fn waits(&self) -> bool {
        self.place.is_some()
    }

    /// Whether it has been scheduled, and waits to be scheduled again.
    pub(super) fn waits_again(&self) -> bool {
        self.waits_again
    }

    /// When it has to be answered, if it says.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// It goes back to wait.
    pub(super) fn retracted(&mut self) {
        self.waits_again = true;
    }

    /// Gives the place in the queue to another.
    pub(super) fn leave_queue(&mut self) {
        self.place = None;
    }

    /// It runs: its place in the queue is another's. What it finds when it had run before is its
    /// own work of then, and no hit.
    pub(super) fn admitted(&mut self, admission: &Admission, now: Nanos, metrics: &Metrics) {
        self.leave_queue();
        self.waits_again = false;
        if admission.is_again {
            metrics.recached_tokens.add(admission.cached.total());
            self.retractions += 1;
        } else {
            self.cached = admission.cached;
            self.scheduled = now;
        }
    }

    /// Prompt tokens that it found in the cache, told with its first token.
    pub(super) fn newly_cached(&self) -> usize {
        if self.n_outputs == 0 {
            self.cached.total()
        } else {
            0
        }
    }

    /// How a token came about that was ready at `ready`.
    pub(super) fn origin(&self, step: Option<u64>, ready: Nanos) -> Origin {
        Origin {
            step,
            ready,
            scheduled: self.scheduled,
            cached: self.cached,
            retractions: self.retractions,
        }
    }

    /// Chooses the next token.
    pub(super) fn sample(&mut self, logits: &[f32], candidates: &mut Vec<(f32, u32)>) -> u32 {
        let banned = match self.may_end() {
            true => &self.ends.banned,
            false => &self.ends.banned_early,
        };
        self.sampler.sample(logits, banned, candidates)
    }

    /// The token that the executor is certain of, or the next of `n_ids` that may come where that
    /// one may not.
    pub(super) fn settle(&self, certain: u32, n_ids: u32) -> u32 {
        let banned = match self.may_end() {
            true => &self.ends.banned,
            false => &self.ends.banned_early,
        };
        let may_come = |id: &u32| banned.binary_search(id).is_err();
        let mut ids = (certain..n_ids).chain(0..certain);
        ids.find(may_come).unwrap_or(0)
    }

    fn may_end(&self) -> bool {
        self.n_outputs + 1 > self.ending.min_tokens
    }

    /// A token that neither ends the text nor is a control token; which one does not matter.
    pub(super) fn plain_id(&self, tokenizer: &Tokenizer) -> u32 {
        let n_ids = u32::try_from(tokenizer.vocab_size())
            .unwrap_or(u32::MAX)
            .max(1);
        let first = u32::try_from(self.n_outputs).unwrap_or(0) % n_ids;
        let is_plain = |id: &u32| {
            self.ends.banned_early.binary_search(id).is_err() && !self.ends.ends.contains(id)
        };
        (first..n_ids).chain(0..first).find(is_plain).unwrap_or(0)
    }

    /// Counts a token that was ready at `now`, and says whether it was the last.
    pub(super) fn accept(
        &mut self,
        token: u32,
        now: Nanos,
        metrics: &Metrics,
    ) -> Option<FinishReason> {
        self.n_outputs += 1;
        metrics.generation_tokens.add(1);
        if self.n_outputs == 1 {
            metrics.prompt_tokens.add(self.n_prompt);
            metrics.cached_tokens.add(self.cached.total());
            metrics.host_cached_tokens.add(self.cached.host);
            metrics.ttft.observe(now.since(self.arrived));
        } else {
            metrics.itl.observe(now.since(self.last_token));
        }
        self.last_token = now;
        let finish = self.finish_reason(token);
        if finish.is_some() {
            metrics.requests.add(1);
            metrics.e2el.observe(now.since(self.arrived));
        }
        finish
    }

    fn finish_reason(&mut self, token: u32) -> Option<FinishReason> {
        if self.ends.ends.contains(&token) {
            return Some(FinishReason::StopToken);
        }
        if self
            .watched
            .as_mut()
            .is_some_and(|text| text.push(token).is_stopped)
        {
            return Some(FinishReason::StopString);
        }
        (self.n_outputs >= self.ending.max_tokens).then_some(FinishReason::Length)
    }

    /// Tells the reader. The channel has room for every token; a reader that is gone is noticed
    /// before the next step.
    pub(super) fn tell(&self, kind: EventKind) {
        let _ = self.events.try_send(Event {
            index: self.index,
            kind,
        });
    }
}
