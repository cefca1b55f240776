//! What both tools compute from the answers that were finished. Where they read the same bytes
//! differently, a [`Reading`] says how.

use std::collections::BTreeMap;

use crate::{Outcome, Protocol, Record};

/// How a tool's client reads an answer.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// vLLM's: an answer ends with its last content, its prompt is as long as the server says, and
    /// gaps are those of events.
    Vllm,
    /// SGLang's: an answer ends with its stream, its prompt is as long as the workload says, and
    /// in its own protocol a gap is shared by the tokens of an event.
    Sglang(Protocol),
}

impl Reading {
    fn prompt(self, record: &Record) -> u64 {
        match self {
            Self::Vllm => record.prompt_tokens(),
            Self::Sglang(_) => record.input_tokens.into(),
        }
    }

    fn end(self, record: &Record) -> Option<u64> {
        match self {
            Self::Vllm | Self::Sglang(Protocol::Triton) => record.last_content(),
            Self::Sglang(_) => Some(record.done),
        }
    }

    /// Gaps between tokens, in seconds.
    pub(super) fn gaps(self, record: &Record) -> Vec<f64> {
        match self {
            Self::Sglang(Protocol::Sglang) => shared_gaps(record),
            _ => {
                let pairs = record.events.windows(2);
                pairs.map(|pair| seconds(pair[1].at - pair[0].at)).collect()
            }
        }
    }
}

/// The gap before an event, divided by its tokens and repeated for each of them; an event without
/// one adds its time to the next.
fn shared_gaps(record: &Record) -> Vec<f64> {
    let mut gaps = Vec::new();
    let Some(mut before) = record.first_content() else {
        return gaps;
    };
    let later = record.events.iter().skip(1);
    for event in later.filter(|event| event.tokens > 0) {
        let gap = seconds(event.at - before) / f64::from(event.tokens);
        gaps.extend(std::iter::repeat_n(gap, event.tokens as usize));
        before = event.at;
    }
    gaps
}

/// What both tools compute; times are in seconds.
#[derive(Default)]
pub(super) struct Basis {
    pub(super) duration: f64,
    pub(super) failed: usize,
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) ttft: Vec<f64>,
    /// One for each answer of more than one token.
    pub(super) tpot: Vec<f64>,
    pub(super) itl: Vec<f64>,
    pub(super) e2el: Vec<f64>,
    /// Requests that finished in time.
    pub(super) good: usize,
    seconds: BTreeMap<u64, Busy>,
}

/// What one second of a run saw.
#[derive(Clone, Copy, Default)]
struct Busy {
    tokens: u64,
    requests: u64,
}

impl Basis {
    pub(super) fn of(records: &[Record], reading: Reading) -> Self {
        let sent = || records.iter().filter(|r| r.outcome != Outcome::Dropped);
        let first = sent().filter_map(|r| r.dispatched).min().unwrap_or(0);
        let last = sent().map(|r| r.done).max().unwrap_or(first);
        let mut basis = Self {
            duration: seconds(last.saturating_sub(first)),
            failed: sent().filter(|r| !r.completed()).count(),
            ..Self::default()
        };
        let finished = || sent().filter(|r| r.completed());
        let start = finished().filter_map(|r| r.dispatched).min().unwrap_or(0);
        finished().for_each(|record| basis.add(record, reading, start));
        basis
    }

    /// Adds an answer that was finished; `start` is when the first of them was asked for.
    fn add(&mut self, record: &Record, reading: Reading, start: u64) {
        let (Some(from), Some(first), Some(end)) = (
            record.dispatched,
            record.first_content(),
            reading.end(record),
        ) else {
            return;
        };
        let (ttft, latency) = (seconds(first - from), seconds(end - from));
        let tokens = record.answer_tokens();
        let tpot = (tokens > 1).then(|| (latency - ttft) / (tokens - 1) as f64);
        let gaps = reading.gaps(record);
        self.input += reading.prompt(record);
        self.output += tokens;
        self.good += usize::from(is_good(record, [ttft, tpot.unwrap_or(0.0), latency]));
        self.ttft.push(ttft);
        self.tpot.extend(tpot);
        self.e2el.push(latency);
        self.count(seconds(from - start), ttft, latency, &gaps);
        self.itl.extend(gaps);
    }

    /// Counts an answer's tokens in the second of each, and the request in every second it touches.
    fn count(&mut self, from: f64, ttft: f64, latency: f64, gaps: &[f64]) {
        let mut at = from + ttft;
        self.second(at).tokens += 1;
        for gap in gaps {
            at += gap;
            self.second(at).tokens += 1;
        }
        for second in from as u64..=(from + latency) as u64 {
            self.seconds.entry(second).or_default().requests += 1;
        }
    }

    fn second(&mut self, at: f64) -> &mut Busy {
        self.seconds.entry(at as u64).or_default()
    }

    pub(super) fn completed(&self) -> usize {
        self.e2el.len()
    }

    pub(super) fn per_second(&self, n: f64) -> f64 {
        if self.duration > 0.0 {
            n / self.duration
        } else {
            0.0
        }
    }

    /// The most tokens, as the tool places them, that any second saw.
    pub(super) fn most_tokens(&self) -> u64 {
        self.seconds.values().map(|s| s.tokens).max().unwrap_or(0)
    }

    /// The most requests that any second saw.
    pub(super) fn most_requests(&self) -> u64 {
        self.seconds.values().map(|s| s.requests).max().unwrap_or(0)
    }
}

/// Whether an answer kept to its objectives as vLLM judges them: from its dispatch.
fn is_good(record: &Record, [ttft, tpot, latency]: [f64; 3]) -> bool {
    let slo = record.slo.unwrap_or_default();
    let pairs = [(ttft, slo.ttft), (tpot, slo.tpot), (latency, slo.e2el)];
    pairs
        .iter()
        .all(|(value, bound)| bound.is_none_or(|bound| *value <= bound.as_secs_f64()))
}

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
