//! Latencies of requests and of tokens.

use super::{Distribution, Records, ms};
use crate::{Outcome, Record};

/// The latencies that each request has one of, failures counted as `+inf`.
pub(super) struct Latencies {
    pub(super) ttft: Distribution,
    pub(super) ttft_scheduled: Distribution,
    pub(super) tpot: Distribution,
    pub(super) e2el: Distribution,
    pub(super) e2el_scheduled: Distribution,
}

impl Latencies {
    pub(super) fn of<'a>(records: impl Records<'a>) -> Self {
        let failed = || {
            let failed = |record: &&Record| matches!(record.outcome, Outcome::Failed(_));
            records.clone().filter(failed)
        };
        let failures = failed().count();
        let each = |value: fn(&Record) -> Option<f64>, failures| {
            let completed = records.clone().filter(|record| record.completed());
            Distribution::per_request(completed.filter_map(value).collect(), failures)
        };
        // A failed request that was to give one token would have had no time per token.
        let without_tpot = failed()
            .filter(|record| record.output_tokens.get() > 1)
            .count();
        Self {
            ttft: each(ttft, failures),
            ttft_scheduled: each(ttft_scheduled, failures),
            tpot: each(tpot, without_tpot),
            e2el: each(e2el, failures),
            e2el_scheduled: each(e2el_scheduled, failures),
        }
    }
}

fn since(start: Option<u64>, end: Option<u64>) -> Option<f64> {
    Some(ms(end?.saturating_sub(start?)))
}

pub(super) fn ttft(record: &Record) -> Option<f64> {
    since(record.dispatched, record.first_content())
}

pub(super) fn ttft_scheduled(record: &Record) -> Option<f64> {
    since(Some(record.scheduled), record.first_content())
}

pub(super) fn e2el(record: &Record) -> Option<f64> {
    since(record.dispatched, record.last_content())
}

pub(super) fn e2el_scheduled(record: &Record) -> Option<f64> {
    since(Some(record.scheduled), record.last_content())
}

pub(super) fn lag(record: &Record) -> Option<f64> {
    since(Some(record.scheduled), record.dispatched)
}

pub(super) fn connect(record: &Record) -> Option<f64> {
    since(record.dispatched, record.connected)
}

/// `None` for an answer that came in one event, or had one token.
pub(super) fn tpot(record: &Record) -> Option<f64> {
    let first = carried(record).next()?;
    let later = record.answer_tokens() as f64 - first.tokens;
    (later > 0.0 && record.events.len() > 1)
        .then(|| since(record.first_content(), record.last_content()))
        .flatten()
        .map(|span| span / later)
}

/// What the client knows of every request it dispatched, failed ones included.
pub(super) fn known(records: &[Record], value: fn(&Record) -> Option<f64>) -> Distribution {
    let sent = || {
        records
            .iter()
            .filter(|record| record.outcome != Outcome::Dropped)
    };
    let completed = sent().filter(|record| record.completed()).filter_map(value);
    Distribution::known(sent().filter_map(value).collect(), completed.collect())
}

/// Pools the gaps of all requests; a failed one adds, beside the gaps it had, `+inf` for every
/// token that it was asked for and did not deliver.
pub(super) fn itl(records: &[Record]) -> Distribution {
    let (mut all, mut completed) = (Vec::new(), Vec::new());
    for record in records {
        match record.outcome {
            Outcome::Completed => gaps(record, &mut completed),
            Outcome::Failed(_) => {
                gaps(record, &mut all);
                // The first token has a time to first token and no gap.
                let delivered = record.event_tokens().max(1);
                let missing = u64::from(record.output_tokens.get()).saturating_sub(delivered);
                all.push((f64::INFINITY, missing as f64));
            }
            Outcome::Dropped => {}
        }
    }
    all.extend_from_slice(&completed);
    Distribution::weighted(all, completed)
}

/// Appends `(gap per token, tokens)` for every event after the first.
fn gaps(record: &Record, to: &mut Vec<(f64, f64)>) {
    let mut events = carried(record);
    let Some(first) = events.next() else { return };
    let mut before = first.at;
    for event in events.filter(|event| event.tokens > 0.0) {
        to.push((
            ms(event.at.saturating_sub(before)) / event.tokens,
            event.tokens,
        ));
        before = event.at;
    }
}

/// A content event with its share of the answer's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Carried {
    pub(super) at: u64,
    pub(super) tokens: f64,
}

/// The events of an answer, reconciled with the server's count: the first keeps what it was
/// seen to carry, and the later ones are scaled alike so that the sum is the server's. A
/// server that sends several tokens in a chunk, holds half a character back, or counts the
/// end of sequence makes the two differ.
pub(super) fn carried(record: &Record) -> impl Iterator<Item = Carried> + '_ {
    let total = record.answer_tokens() as f64;
    let seen = record.event_tokens() as f64;
    let first = record
        .events
        .first()
        .map_or(0.0, |event| f64::from(event.tokens))
        .min(total);
    let later = seen
        - record
            .events
            .first()
            .map_or(0.0, |event| f64::from(event.tokens));
    let (first, scale) = if later > 0.0 {
        (first, (total - first) / later)
    } else {
        (total, 0.0)
    };
    record.events.iter().enumerate().map(move |(i, event)| {
        let tokens = if i == 0 {
            first
        } else {
            f64::from(event.tokens) * scale
        };
        Carried {
            at: event.at,
            tokens,
        }
    })
}
