//! From what a measurement left to step times: by the server's own record of its steps, or by what
//! a client saw of any server.
//!
//! A client sees no steps. It sees a prefill where a request had the server to itself until its
//! first token, and decode steps where the same requests, all past their first token, got tokens and
//! no other request was under way. Everything else is passed over.

use embedded_server::executor::Phase;
use embedded_server::executor::sim::Work;
use loadgen::Record;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Decode steps that make one observation of a client, so that the jitter of single events
/// counts little.
const WINDOW: usize = 16;

/// How long something took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Observation {
    /// What was to be done.
    pub(super) work: Work,
    /// Microseconds that it took.
    pub(super) us: f64,
}

/// A forward step as `profile.phases` keeps it; the rest of it is of no use here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RecordedStep {
    phase: Phase,
    n_sequences: u32,
    n_tokens: u32,
    context_tokens: u64,
    duration_ns: u64,
    sampling_ns: u64,
    scheduling_ns: u64,
}

/// The times of a server's own steps with their scheduling and sampling: what `sim` needs for
/// either it takes from a step's time. Of sequences that were computed together it is taken that they were
/// alike.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a step and tokens are far below 2^53"
)]
pub(super) fn of_steps(steps: &[RecordedStep]) -> Vec<Observation> {
    let observation = |step: &RecordedStep| {
        let (sequences, tokens) = (f64::from(step.n_sequences), f64::from(step.n_tokens));
        let context = step.context_tokens as f64;
        Observation {
            work: Work {
                phase: step.phase,
                n_sequences: sequences,
                n_tokens: tokens,
                n_logits: sequences,
                context_tokens: context,
                n_pairs: tokens * (context - tokens / 2.0) / sequences,
            },
            us: (step.scheduling_ns + step.duration_ns + step.sampling_ns) as f64 / 1e3,
        }
    };
    let is_whole = |step: &&RecordedStep| step.n_sequences > 0 && step.duration_ns > 0;
    steps.iter().filter(is_whole).map(observation).collect()
}

/// A request while the server had it; instants as in its record.
struct Span<'a> {
    record: &'a Record,
    sent: u64,
    /// Its first token, or, if it failed, its end.
    first: u64,
    last: u64,
    /// Tokens after each of its events.
    tokens: Vec<u64>,
}

impl<'a> Span<'a> {
    fn of(record: &'a Record) -> Option<Self> {
        let dispatched = record.dispatched?;
        let events = match record.completed() {
            true => record.events.as_slice(),
            false => &[],
        };
        let tokens = events.iter().scan(0, |sum, event| {
            *sum += u64::from(event.tokens);
            Some(*sum)
        });
        Some(Span {
            record,
            // A connection of its own is no work of the server.
            sent: record.connected.map_or(dispatched, |at| at.max(dispatched)),
            first: events.first().map_or(record.done, |event| event.at),
            last: events.last().map_or(record.done, |event| event.at),
            tokens: tokens.collect(),
        })
    }

    /// Prompt tokens, and how many of them were cached.
    fn prompt(&self) -> (f64, f64) {
        let usage = self.record.usage.as_ref();
        let prompt = usage.map_or(self.record.input_tokens, |usage| usage.prompt_tokens);
        let cached = usage.and_then(|usage| usage.cached_tokens).unwrap_or(0);
        (f64::from(prompt), f64::from(cached.min(prompt)))
    }

    /// Tokens that it had at an instant.
    fn tokens_at(&self, at: u64) -> u64 {
        let n_events = self.record.events.partition_point(|event| event.at <= at);
        let before = n_events.checked_sub(1);
        before
            .and_then(|i| self.tokens.get(i))
            .copied()
            .unwrap_or(0)
    }
}

/// The times of steps as far as a client could see them: what lies between it and the server
/// counts in.
pub(super) fn of_records(records: &[Record]) -> Vec<Observation> {
    let mut spans: Vec<Span<'_>> = records.iter().filter_map(Span::of).collect();
    spans.sort_by_key(|span| (span.sent, span.record.index));
    let mut found = prefills(&spans);
    found.extend(decodes(&spans));
    found
}

/// Requests that had the server to themselves until their first token. `spans` in the order in which
/// they were sent.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of an answer are far below 2^53"
)]
fn prefills(spans: &[Span<'_>]) -> Vec<Observation> {
    let mut busy_until = 0;
    let mut found = Vec::new();
    for (i, span) in spans.iter().enumerate() {
        let next = spans.get(i + 1).map_or(u64::MAX, |next| next.sent);
        let is_alone = busy_until <= span.sent && next >= span.first;
        busy_until = busy_until.max(span.last);
        let (prompt, cached) = span.prompt();
        let (n_tokens, took) = (prompt - cached, span.first.saturating_sub(span.sent));
        // An event of several tokens came after as many steps.
        if !is_alone || span.tokens.first() != Some(&1) || n_tokens < 1.0 || took == 0 {
            continue;
        }
        found.push(Observation {
            work: Work {
                phase: Phase::Prefill,
                n_sequences: 1.0,
                n_tokens,
                n_logits: 1.0,
                context_tokens: prompt,
                n_pairs: n_tokens * (cached + n_tokens / 2.0),
            },
            us: took as f64 / 1e3,
        });
    }
    found
}

/// What changes at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// A request is on its way.
    Sent,
    /// A request has its first token.
    Began,
    /// A request is answered.
    Ended,
}

/// Stretches in which the same requests got tokens and nothing else was under way.
fn decodes(spans: &[Span<'_>]) -> Vec<Observation> {
    let changes = spans.iter().enumerate().flat_map(|(i, span)| {
        let Span {
            sent, first, last, ..
        } = *span;
        [
            (sent, Change::Sent, i),
            (first, Change::Began, i),
            (last, Change::Ended, i),
        ]
    });
    let mut changes: Vec<(u64, Change, usize)> = changes.collect();
    changes.sort_unstable();
    // Requests in the order in which they were sent, first those without a token.
    let (mut waiting, mut running) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        match change.1 {
            Change::Sent => {
                waiting.insert(change.2);
            }
            Change::Began => {
                waiting.remove(&change.2);
                running.insert(change.2);
            }
            Change::Ended => {
                running.remove(&change.2);
            }
        }
        let until = changes.get(at + 1).map_or(change.0, |next| next.0);
        if waiting.is_empty() && until > change.0 {
            let together: Vec<&Span<'_>> = running.iter().map(|i| &spans[*i]).collect();
            found.extend(windows(&together, change.0, until));
        }
    }
    found
}

/// Decode steps of requests that ran together between two instants.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds and tokens of a stretch are far below 2^53"
)]
fn windows(together: &[&Span<'_>], from: u64, until: u64) -> Vec<Observation> {
    let Some(lead) = together.first() else {
        return Vec::new();
    };
    let events = &lead.record.events;
    let begin = events.partition_point(|event| event.at < from);
    let end = events.partition_point(|event| event.at <= until);
    let n_sequences = together.len() as f64;
    let mut found = Vec::new();
    let mut at = begin;
    while at + 1 < end {
        let to = (at + WINDOW).min(end - 1);
        let n_steps = (lead.tokens[to] - lead.tokens[at]) as f64;
        let took = events[to].at.saturating_sub(events[at].at);
        let begun = together.iter().map(|span| {
            let (prompt, _) = span.prompt();
            prompt + span.tokens_at(events[at].at) as f64
        });
        let context_tokens = begun.sum::<f64>() + n_sequences * (n_steps - 1.0) / 2.0;
        if n_steps >= 1.0 && took > 0 {
            found.push(Observation {
                work: Work {
                    phase: Phase::Decode,
                    n_sequences,
                    n_tokens: n_sequences,
                    n_logits: n_sequences,
                    context_tokens,
                    n_pairs: context_tokens - n_sequences / 2.0,
                },
                us: took as f64 / 1e3 / n_steps,
            });
        }
        at = to;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen::{Event, Outcome, Usage};
    use std::num::NonZeroU32;

    const MS: u64 = 1_000_000;

    /// A request whose tokens came at these milliseconds.
    fn record(index: u64, prompt: u32, cached: u32, sent: u64, tokens: &[u64]) -> Record {
        Record {
            index,
            request: String::new(),
            conversation: None,
            turn: 0,
            group: None,
            model: String::new(),
            input_tokens: prompt,
            cacheable_tokens: None,
            output_tokens: NonZeroU32::MIN,
            slo: None,
            scheduled: sent * MS,
            dispatched: Some(sent * MS),
            connected: None,
            headers: None,
            events: tokens
                .iter()
                .map(|at| Event {
                    at: at * MS,
                    tokens: 1,
                })
                .collect(),
            done: tokens.last().unwrap_or(&sent) * MS,
            attempts: 1,
            outcome: Outcome::Completed,
            error: None,
            usage: Some(Usage {
                prompt_tokens: prompt,
                completion_tokens: 1,
                cached_tokens: Some(cached),
            }),
            finish: None,
            text_digest: None,
        }
    }

    fn of(phase: Phase, records: &[Record]) -> Vec<Observation> {
        let all = of_records(records).into_iter();
        all.filter(|seen| seen.work.phase == phase).collect()
    }

    #[test]
    fn a_request_alone_shows_its_prefill_without_what_was_cached() {
        let [seen] = of(Phase::Prefill, &[record(0, 100, 20, 5, &[45])])[..] else {
            panic!()
        };
        assert_eq!((seen.us, seen.work.n_tokens), (40_000.0, 80.0));
        assert_eq!(seen.work.n_pairs, 80.0 * (20.0 + 40.0));
    }

    #[test]
    fn requests_beside_others_show_no_prefill() {
        let beside = [
            record(0, 10, 0, 0, &[20, 30, 40]),
            record(1, 10, 0, 25, &[35]),
        ];
        assert_eq!(of(Phase::Prefill, &beside).len(), 1);
        let one_after_the_other = [record(0, 10, 0, 0, &[20]), record(1, 10, 0, 20, &[35])];
        assert_eq!(of(Phase::Prefill, &one_after_the_other).len(), 2);
        let mut failed = record(1, 10, 0, 5, &[]);
        failed.outcome = Outcome::Failed(loadgen::Class::HttpStatus(503));
        assert!(of(Phase::Prefill, &[record(0, 10, 0, 0, &[20]), failed]).is_empty());
    }

    #[test]
    fn requests_that_run_together_show_decode_steps_with_their_context() {
        let tokens: Vec<u64> = (0..9).map(|i| 100 + 10 * i).collect();
        let both = [record(0, 50, 0, 0, &tokens), record(1, 30, 0, 0, &tokens)];
        let [seen] = of(Phase::Decode, &both)[..] else {
            panic!()
        };
        assert_eq!((seen.us, seen.work.n_sequences), (10_000.0, 2.0));
        // The first of eight steps attends to 51 and 31 tokens, the last to 58 and 38.
        assert_eq!(seen.work.context_tokens, (82.0 + 96.0) / 2.0);
    }

    #[test]
    fn tokens_beside_a_prefill_are_passed_over() {
        let first: Vec<u64> = [10, 20, 30, 70, 80, 90].to_vec();
        let records = [
            record(0, 50, 0, 0, &first),
            record(1, 30, 0, 31, &[70, 80, 90]),
        ];
        let seen = of(Phase::Decode, &records);
        let batches: Vec<f64> = seen.iter().map(|seen| seen.work.n_sequences).collect();
        assert_eq!(batches, [1.0, 2.0]);
        assert!(seen.iter().all(|seen| seen.us == 10_000.0), "{seen:?}");
    }

    #[test]
    fn long_stretches_make_several_observations_and_events_of_many_tokens_as_many_steps() {
        let tokens: Vec<u64> = (1..=41).map(|i| 10 * i).collect();
        let mut one = record(0, 50, 0, 0, &tokens);
        assert_eq!(of(Phase::Decode, std::slice::from_ref(&one)).len(), 3);
        for event in &mut one.events[1..] {
            event.tokens = 4;
        }
        let seen = of(Phase::Decode, &[one]);
        assert!(seen.iter().all(|seen| seen.us == 2500.0), "{seen:?}");
    }

    #[test]
    fn a_server_s_own_steps_are_taken_as_alike() {
        let steps = serde_json::json!([
            { "phase": "prefill", "n_sequences": 2, "n_tokens": 20, "context_tokens": 60,
              "duration_ns": 4_970_000, "sampling_ns": 0, "scheduling_ns": 30_000, "id": 7 },
            { "phase": "decode", "n_sequences": 3, "n_tokens": 3, "context_tokens": 90,
              "duration_ns": 1_850_000, "sampling_ns": 100_000, "scheduling_ns": 50_000 },
        ]);
        let steps: Vec<RecordedStep> = serde_json::from_value(steps).expect("steps");
        let [prefill, decode] = of_steps(&steps)[..] else {
            panic!()
        };
        // Ten tokens behind twenty, twice.
        assert_eq!(prefill.work.n_pairs, 2.0 * 10.0 * (20.0 + 5.0));
        assert_eq!((prefill.us, decode.us), (5000.0, 2000.0));
        assert_eq!(decode.work.context_tokens, 90.0);
    }
}
