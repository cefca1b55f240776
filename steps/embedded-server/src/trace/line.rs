//! How an answer stands in the file: a JSON object whose instants are told by how far they lie from
//! others.
//!
//! | key | what it counts from |
//! | --- | --- |
//! | `accepted` | the clock's own zero |
//! | `received` | `accepted` |
//! | `parsed`, `enqueued`, `ended` | `received` |
//! | `scheduled` of a prompt | `enqueued` |
//! | `ready`, one per token | the token before, the first `enqueued` |
//! | `steps`, one per token | the token before, the first 0; absent where nothing computes |
//! | `sent`, one per event | `ready` of the event's last token |
//!
//! Two arrays are left out where they say nothing: `tokens`, one per event, where each carries one,
//! and `prompt`, one per token, where there is one prompt. Differences are signed, so that what does not
//! come in its order is kept as it came.

use serde::{Deserialize, Serialize};

use super::{AnswerOutcome, AnswerTrace, Injected, PromptTrace, TokenTrace};

/// A line.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    request: String,
    number: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    model: String,
    accepted: u64,
    received: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parsed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enqueued: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prompts: Vec<PromptLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prompt: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ready: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sent: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    silent: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Injected>,
    outcome: AnswerOutcome,
    ended: i64,
}

#[derive(Serialize, Deserialize)]
struct PromptLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduled: Option<i64>,
    /// Tokens found on the device and in host memory.
    cached: (usize, usize),
    #[serde(default, skip_serializing_if = "is_zero")]
    retractions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// How far `to` lies from `from`; exact whatever they are, as the way back wraps alike.
fn from_to(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

fn after(from: u64, by: i64) -> u64 {
    from.wrapping_add(by.cast_unsigned())
}

/// Each of `values` by how far it lies from the one before.
fn steps_of(first: u64, values: impl Iterator<Item = u64>) -> Vec<i64> {
    let step = |last: &mut u64, value| Some(from_to(std::mem::replace(last, value), value));
    values.scan(first, step).collect()
}

/// The way back from [`steps_of`].
fn values_of(first: u64, steps: &[i64]) -> Vec<u64> {
    let value = |last: &mut u64, step: &i64| {
        *last = after(*last, *step);
        Some(*last)
    };
    steps.iter().scan(first, value).collect()
}

/// When the last token of each event was ready; an event behind the last token has that one's.
fn last_ready(first: u64, ready: &[u64], tokens: impl Iterator<Item = u32>) -> Vec<u64> {
    let mut end = 0_usize;
    let mut last = |n: u32| {
        end += n as usize;
        let at = end.min(ready.len());
        at.checked_sub(1).map_or(first, |at| ready[at])
    };
    tokens.map(&mut last).collect()
}

impl From<AnswerTrace> for Line {
    fn from(answer: AnswerTrace) -> Self {
        let received = answer.received_ns;
        let since_received = |at: u64| from_to(received, at);
        let first = answer.enqueued_ns.unwrap_or(received);
        let ready: Vec<u64> = answer.tokens.iter().map(|token| token.ready_ns).collect();
        let last = last_ready(first, &ready, answer.sent_tokens.iter().copied());
        let steps: Option<Vec<u64>> = answer.tokens.iter().map(|token| token.step).collect();
        let prompts = answer.prompts.into_iter().map(|prompt| PromptLine {
            scheduled: prompt.scheduled_ns.map(|at| from_to(first, at)),
            cached: (prompt.cached_device, prompt.cached_host),
            retractions: prompt.retractions,
            finish: prompt.finish,
        });
        let prompts: Vec<_> = prompts.collect();
        let of_prompt = answer.tokens.iter().map(|token| token.prompt);
        let is_plain = answer.sent_tokens.iter().all(|n| *n == 1);
        Line {
            request: answer.request,
            number: answer.number,
            model: answer.model,
            accepted: answer.accepted_ns,
            received: from_to(answer.accepted_ns, received),
            parsed: answer.parsed_ns.map(since_received),
            enqueued: answer.enqueued_ns.map(since_received),
            prompt: match prompts.len() {
                0 | 1 => Vec::new(),
                _ => of_prompt.collect(),
            },
            prompts,
            steps: steps_of(0, steps.into_iter().flatten()),
            ready: steps_of(first, ready.iter().copied()),
            sent: last
                .iter()
                .zip(answer.sent_ns)
                .map(|(ready, sent)| from_to(*ready, sent))
                .collect(),
            tokens: match is_plain {
                true => Vec::new(),
                false => answer.sent_tokens,
            },
            silent: answer.silent,
            faults: answer.faults,
            outcome: answer.outcome,
            ended: since_received(answer.ended_ns),
        }
    }
}

/// Arrays of a line that do not belong together.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` has {found} entries, expected {expected}")]
pub(super) struct LineError {
    name: &'static str,
    found: usize,
    expected: usize,
}

impl TryFrom<Line> for AnswerTrace {
    type Error = LineError;

    fn try_from(line: Line) -> Result<Self, LineError> {
        line.check()?;
        let received_ns = after(line.accepted, line.received);
        let since_received = |by: i64| after(received_ns, by);
        let enqueued_ns = line.enqueued.map(since_received);
        let first = enqueued_ns.unwrap_or(received_ns);
        let ready = values_of(first, &line.ready);
        let sent_tokens = match line.tokens.is_empty() {
            true => vec![1; line.sent.len()],
            false => line.tokens,
        };
        let last = last_ready(first, &ready, sent_tokens.iter().copied());
        let steps = values_of(0, &line.steps);
        let tokens = ready.iter().enumerate().map(|(at, ready_ns)| TokenTrace {
            prompt: line.prompt.get(at).copied().unwrap_or(0),
            step: steps.get(at).copied(),
            ready_ns: *ready_ns,
        });
        let prompts = line.prompts.into_iter().map(|prompt| PromptTrace {
            scheduled_ns: prompt.scheduled.map(|by| after(first, by)),
            cached_device: prompt.cached.0,
            cached_host: prompt.cached.1,
            retractions: prompt.retractions,
            finish: prompt.finish,
        });
        Ok(AnswerTrace {
            request: line.request,
            number: line.number,
            model: line.model,
            accepted_ns: line.accepted,
            received_ns,
            parsed_ns: line.parsed.map(since_received),
            enqueued_ns,
            prompts: prompts.collect(),
            tokens: tokens.collect(),
            sent_ns: last
                .iter()
                .zip(&line.sent)
                .map(|(ready, by)| after(*ready, *by))
                .collect(),
            sent_tokens,
            silent: line.silent,
            faults: line.faults,
            outcome: line.outcome,
            ended_ns: since_received(line.ended),
        })
    }
}

impl Line {
    /// Whether every array is as long as what it speaks of, or not there.
    fn check(&self) -> Result<(), LineError> {
        let (n_tokens, n_events) = (self.ready.len(), self.sent.len());
        for (name, found, expected) in [
            ("steps", self.steps.len(), n_tokens),
            ("prompt", self.prompt.len(), n_tokens),
            ("tokens", self.tokens.len(), n_events),
        ] {
            if found != 0 && found != expected {
                return Err(LineError {
                    name,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultKind;
    use proptest::prelude::*;

    fn token() -> impl Strategy<Value = (u32, u64, u64)> {
        (0..3_u32, any::<u64>(), any::<u64>())
    }

    prop_compose! {
        fn answer()(
            instants in prop::collection::vec(any::<u64>(), 5),
            has_steps in any::<bool>(),
            n_prompts in 1..4_usize,
            is_enqueued in any::<bool>(),
            tokens in prop::collection::vec(token(), 0..20),
            events in prop::collection::vec((any::<u64>(), 1..4_u32), 0..20),
            number in any::<u64>(),
        ) -> AnswerTrace {
            let prompt = PromptTrace {
                scheduled_ns: is_enqueued.then_some(instants[0]),
                cached_device: 5,
                cached_host: 1,
                retractions: 2,
                finish: Some("stop".into()),
            };
            AnswerTrace {
                request: "r".into(),
                number,
                model: "m".into(),
                accepted_ns: instants[1],
                received_ns: instants[2],
                parsed_ns: is_enqueued.then_some(instants[3]),
                enqueued_ns: is_enqueued.then_some(instants[4]),
                prompts: vec![prompt; n_prompts],
                tokens: tokens.into_iter().map(|(prompt, step, ready_ns)| TokenTrace {
                    prompt: if n_prompts == 1 { 0 } else { prompt },
                    step: has_steps.then_some(step),
                    ready_ns,
                }).collect(),
                sent_ns: events.iter().map(|(at, _)| *at).collect(),
                sent_tokens: events.iter().map(|(_, n)| *n).collect(),
                silent: vec![0],
                faults: vec![Injected {
                    fault: FaultKind::Reset,
                    event: Some(2),
                    at_ns: 9,
                    until_ns: None,
                }],
                outcome: AnswerOutcome::Refused(503),
                ended_ns: instants[0],
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_says_what_it_was_made_of(answer in answer()) {
            let text = serde_json::to_string(&answer).unwrap();
            prop_assert_eq!(serde_json::from_str::<AnswerTrace>(&text).unwrap(), answer);
        }
    }

    #[test]
    fn an_answer_of_many_tokens_takes_few_bytes_of_each() {
        let tokens = (0..1000_u64).map(|n| TokenTrace {
            prompt: 0,
            step: Some(5_000 + n),
            ready_ns: 1_000_000_000_000_000 + n * 20_123_457,
        });
        let tokens: Vec<_> = tokens.collect();
        let answer = AnswerTrace {
            prompts: vec![PromptTrace::default()],
            sent_ns: tokens.iter().map(|token| token.ready_ns + 54_321).collect(),
            sent_tokens: vec![1; tokens.len()],
            enqueued_ns: Some(1_000_000_000_000_000),
            tokens,
            ..AnswerTrace::default()
        };
        let text = serde_json::to_string(&answer).unwrap();
        assert!(text.len() < 19 * 1000, "{}", text.len());
    }

    #[test]
    fn arrays_that_do_not_belong_together_are_named() {
        let text = r#"{"request":"","number":0,"accepted":1,"received":1,"ready":[1,2],"steps":[1],"outcome":"left","ended":1}"#;
        let error = serde_json::from_str::<AnswerTrace>(text).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`steps` has 1 entries, expected 2")
        );
    }
}
