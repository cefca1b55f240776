//! Whether records can be true: each token beside what the server wrote down of it, on one clock.
//!
//! A request is sent before the server reads it, read before it is scheduled, scheduled before its
//! tokens are ready; a token is ready before it is written and written before it is read. Where an instant
//! comes before its cause, a clock or a program is wrong, and so may be every number. Pure; like
//! [`crate::ClientError`] it takes the server's word, and here finds out whether that can be.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Check, EventTime, Grade, Protocol, Reason, Record, RunInfo, Truth};

/// Instants by the kernel are converted between two clocks, which may be read so far apart.
const KERNEL_SLACK_NS: i64 = 200_000;

/// One step on a token's way, from its cause to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// From the client's dispatch to when the server had read the request.
    Request,
    /// From there to when it was first scheduled.
    Queue,
    /// From there to when a token was ready.
    Compute,
    /// From there to when its event was written.
    Write,
    /// From there to when the client had read that.
    Read,
}

impl Link {
    /// All of them, in the order of a token's way.
    pub const ALL: [Link; 5] = [
        Link::Request,
        Link::Queue,
        Link::Compute,
        Link::Write,
        Link::Read,
    ];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Link::Request => "request",
            Link::Queue => "queue",
            Link::Compute => "compute",
            Link::Write => "write",
            Link::Read => "read",
        }
    }

    /// What is wrong where it takes less than no time.
    fn wrong(self) -> &'static str {
        match self {
            Link::Request => "was read by the server before the client sent it",
            Link::Queue => "was scheduled before the server had read it",
            Link::Compute => "was ready before its request was scheduled",
            Link::Write => "was written before it was ready",
            Link::Read => "was read by the client before the server wrote it",
        }
    }
}

/// How long a link took at least and at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// Which link.
    pub link: Link,
    /// How often it was looked at.
    pub n: u64,
    /// The shortest, in nanoseconds; below zero it is no way that a token can go.
    pub least_ns: i64,
    /// Whose that is: the request's name, and the token from 0 where it is a token's.
    pub least_of: (String, Option<usize>),
    /// The longest, in nanoseconds.
    pub most_ns: i64,
    /// How many took less than no time.
    pub violations: u64,
}

/// Records beside the truth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Causality {
    /// Requests that the server wrote down.
    pub requests: u64,
    /// Completed requests that it did not.
    pub unknown: u64,
    /// Tokens of these requests, each of which was looked at.
    pub tokens: u64,
    /// Of these, how many the client never read, because its answer was cut.
    pub unread: u64,
    /// Requests whose events, tokens or cached tokens the two count differently, and how, of the first
    /// few.
    pub mismatches: u64,
    /// Their words.
    pub mismatched: Vec<String>,
    /// By link, in the order of [`Link::ALL`], those that were there to be looked at.
    pub margins: Vec<Margin>,
}

/// How many mismatches are told in words.
const TOLD: usize = 5;

impl Causality {
    /// Sets records beside the truth.
    #[must_use]
    pub fn of(info: &RunInfo, records: &[Record], truths: &[Truth]) -> Self {
        let named = truths.iter().map(|truth| (truth.request.as_str(), truth));
        let named: HashMap<&str, &Truth> = named.collect();
        let mut found = Self::default();
        for record in records {
            let name = format!("{}{}", info.request_prefix, record.index);
            match named.get(name.as_str()) {
                Some(truth) => Case {
                    info,
                    record,
                    truth,
                }
                .look(&mut found),
                None => found.unknown += u64::from(record.completed()),
            }
        }
        let place = |margin: &Margin| Link::ALL.iter().position(|link| *link == margin.link);
        found.margins.sort_by_key(place);
        found
    }

    /// Instants that come before their cause.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.margins.iter().map(|margin| margin.violations).sum()
    }

    /// Objects to what cannot be.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let impossible = self.margins.iter().filter(|margin| margin.violations > 0);
        let mut wrong: Vec<String> = impossible.map(said).collect();
        if self.mismatches > 0 {
            wrong.push(format!(
                "{} answers were counted differently by the server ({})",
                self.mismatches,
                self.mismatched.join("; ")
            ));
        }
        if self.unknown > 0 {
            wrong.push(format!(
                "the server wrote nothing down of {} completed requests",
                self.unknown
            ));
        }
        (!wrong.is_empty()).then(|| Reason {
            check: Check::Causality,
            grade: Grade::Invalid,
            measured: Some((self.violations() + self.mismatches + self.unknown) as f64),
            threshold: 0.0,
            message: wrong.join("; "),
            help: "a clock, the client or the server is wrong: look at the request in the server's trace".into(),
        })
    }

    /// Every number under a flat name, such as `causality_read_least_us`.
    #[must_use]
    pub fn values(&self) -> Vec<(String, f64)> {
        let counts = [
            ("requests", self.requests),
            ("tokens", self.tokens),
            ("unread", self.unread),
            ("violations", self.violations()),
            ("mismatches", self.mismatches),
            ("unknown", self.unknown),
        ];
        let counts = counts.map(|(name, n)| (format!("causality_{name}"), n as f64));
        let margins = self.margins.iter().flat_map(|margin| {
            let name = margin.link.name();
            [
                (
                    format!("causality_{name}_least_us"),
                    margin.least_ns as f64 / 1e3,
                ),
                (
                    format!("causality_{name}_most_us"),
                    margin.most_ns as f64 / 1e3,
                ),
            ]
        });
        counts.into_iter().chain(margins).collect()
    }

    /// What each of [`Self::values`] means: its name or the stem of it, its unit, how it is computed.
    #[must_use]
    pub fn definitions() -> [(&'static str, &'static str, &'static str); 11] {
        [
            (
                "causality_requests",
                "requests",
                "requests that the server's trace has",
            ),
            (
                "causality_tokens",
                "tokens",
                "tokens of these requests, each looked at",
            ),
            (
                "causality_unread",
                "tokens",
                "of these, tokens that the client never read because the answer was cut",
            ),
            (
                "causality_violations",
                "instants",
                "instants that come before their cause",
            ),
            (
                "causality_mismatches",
                "requests",
                "answers whose events, tokens or cached tokens client and server count differently",
            ),
            (
                "causality_unknown",
                "requests",
                "completed requests that the server's trace does not have",
            ),
            (
                "causality_request",
                "us",
                "request read by the server - dispatched, least and most",
            ),
            (
                "causality_queue",
                "us",
                "first scheduled - request read, least and most",
            ),
            (
                "causality_compute",
                "us",
                "token ready - first scheduled, least and most",
            ),
            (
                "causality_write",
                "us",
                "event written - token ready, least and most",
            ),
            (
                "causality_read",
                "us",
                "event read by the client - event written, least and most",
            ),
        ]
    }

    fn note(&mut self, link: Link, took_ns: i64, slack_ns: i64, of: (&str, Option<usize>)) {
        let owned = || (of.0.to_owned(), of.1);
        let violations = u64::from(took_ns < -slack_ns);
        let Some(margin) = self.margins.iter_mut().find(|margin| margin.link == link) else {
            self.margins.push(Margin {
                link,
                n: 1,
                least_ns: took_ns,
                least_of: owned(),
                most_ns: took_ns,
                violations,
            });
            return;
        };
        margin.n += 1;
        margin.violations += violations;
        margin.most_ns = margin.most_ns.max(took_ns);
        if took_ns < margin.least_ns {
            margin.least_ns = took_ns;
            margin.least_of = owned();
        }
    }

    fn differs(&mut self, why: String) {
        self.mismatches += 1;
        if self.mismatched.len() < TOLD {
            self.mismatched.push(why);
        }
    }
}

/// What a link that cannot be says of itself.
fn said(margin: &Margin) -> String {
    let (request, token) = &margin.least_of;
    let whose = match token {
        Some(token) => format!("token {token} of request `{request}`"),
        None => format!("request `{request}`"),
    };
    format!(
        "{whose} {}, by {:.3} ms, the worst of {} in {}",
        margin.link.wrong(),
        margin.least_ns.unsigned_abs() as f64 / 1e6,
        margin.violations,
        margin.n,
    )
}

/// From one instant to another, in nanoseconds.
fn from_to(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

/// One request on both sides.
struct Case<'a> {
    info: &'a RunInfo,
    record: &'a Record,
    truth: &'a Truth,
}

impl Case<'_> {
    fn look(&self, found: &mut Causality) {
        let Truth {
            request,
            received,
            scheduled,
            ready,
            ..
        } = self.truth;
        found.requests += 1;
        found.tokens += ready.len() as u64;
        if let Some(dispatched) = self.record.dispatched {
            let took = from_to(self.on_clock(dispatched), *received);
            found.note(Link::Request, took, 0, (request, None));
        }
        if let Some(scheduled) = scheduled {
            let took = from_to(*received, *scheduled);
            found.note(Link::Queue, took, 0, (request, None));
            for (token, ready) in ready.iter().enumerate() {
                let took = from_to(*scheduled, *ready);
                found.note(Link::Compute, took, 0, (request, Some(token)));
            }
        }
        self.follow_events(found);
        self.count(found);
    }

    /// Looks at the way of each token from the step that made it to the client.
    fn follow_events(&self, found: &mut Causality) {
        let Truth {
            request,
            ready,
            sent,
            tokens,
            ..
        } = self.truth;
        let slack = match self.info.event_time {
            EventTime::Read => 0,
            EventTime::Kernel => KERNEL_SLACK_NS,
        };
        let (mut token, mut n_seen) = (0, 0);
        for (event, (sent, n_tokens)) in sent.iter().zip(tokens).enumerate() {
            let read = self.read(n_seen);
            n_seen += usize::from(self.is_seen(event));
            let carried = ready.iter().enumerate().skip(token);
            for (at, ready) in carried.take(*n_tokens as usize) {
                let of = (request.as_str(), Some(at));
                found.note(Link::Write, from_to(*ready, *sent), 0, of);
                match read {
                    Some(read) => found.note(Link::Read, from_to(*sent, read), slack, of),
                    None => found.unread += 1,
                }
            }
            token += *n_tokens as usize;
        }
        found.unread += ready.len().saturating_sub(token) as u64;
    }

    /// When the client had read the event with content that comes after `n` others; one without content
    /// was read by the time of the next that has some, or of the end.
    fn read(&self, n: usize) -> Option<u64> {
        let at = match self.record.events.get(n) {
            Some(event) => event.at,
            None if self.record.completed() => self.record.done,
            None => return None,
        };
        Some(self.on_clock(at))
    }

    /// Whether the client takes note of an event of the server: where each tells how many tokens there
    /// are by then it does so always, elsewhere where there is text.
    fn is_seen(&self, event: usize) -> bool {
        self.info.protocol == Protocol::Sglang || self.truth.silent.binary_search(&event).is_err()
    }

    /// Whether both count alike. Of an answer that was cut the client has no more than was written.
    fn count(&self, found: &mut Causality) {
        let Truth { request, sent, .. } = self.truth;
        let n_written = (0..sent.len()).filter(|event| self.is_seen(*event)).count();
        let n_read = self.record.events.len();
        if n_read > n_written || (self.record.completed() && n_read < n_written) {
            let why = format!("`{request}`: {n_written} events written, {n_read} read");
            return found.differs(why);
        }
        if !self.record.completed() {
            return;
        }
        if !self.truth.is_finished {
            return found.differs(format!(
                "`{request}`: completed, but not written to its end"
            ));
        }
        let Some(usage) = self.record.usage else {
            return;
        };
        let pairs = [
            (
                "tokens",
                Some(self.truth.ready.len() as u64),
                Some(u64::from(usage.completion_tokens)),
            ),
            (
                "cached tokens",
                self.truth.cached,
                usage.cached_tokens.map(u64::from),
            ),
        ];
        for (what, server, client) in pairs {
            if let (Some(server), Some(client)) = (server, client)
                && server != client
            {
                return found.differs(format!(
                    "`{request}`: {server} {what} by the server's trace, {client} by its answer"
                ));
            }
        }
    }

    /// An instant of the record on the clock of the server.
    fn on_clock(&self, at: u64) -> u64 {
        at + self.info.started_monotonic_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::samples::{MS, closed, completed, failed, info};

    const START: u64 = 1000 * MS;

    /// A request of three tokens, the second without text, dispatched after 1 ms and read at 12, 14 ms.
    fn record() -> Record {
        let mut record = completed(0, 1, &[(12, 1), (14, 1)]);
        if let Some(usage) = &mut record.usage {
            usage.completion_tokens = 3;
            usage.cached_tokens = Some(4);
        }
        record
    }

    fn truth() -> Truth {
        let at = |ms: u64| START + ms * MS;
        Truth {
            request: "x-0".into(),
            received: at(2),
            scheduled: Some(at(5)),
            cached: Some(4),
            ready: vec![at(10), at(11), at(12)],
            sent: vec![at(11), at(12), at(13)],
            tokens: vec![1, 1, 1],
            silent: vec![1],
            is_finished: true,
        }
    }

    fn looked_at(records: &[Record], truths: &[Truth]) -> Causality {
        let mut info = info(closed(1), records);
        info.started_monotonic_ns = START;
        info.request_prefix = "x-".into();
        Causality::of(&info, records, truths)
    }

    #[test]
    fn every_token_is_looked_at_on_its_whole_way() {
        let found = looked_at(&[record()], &[truth()]);
        assert_eq!((found.requests, found.tokens, found.unread), (1, 3, 0));
        assert_eq!((found.violations(), found.reason()), (0, None));
        let least: Vec<_> = found
            .margins
            .iter()
            .map(|margin| (margin.link, margin.n, margin.least_ns / 1_000_000))
            .collect();
        let wanted = [
            (Link::Request, 1, 1),
            (Link::Queue, 1, 3),
            (Link::Compute, 3, 5),
            (Link::Write, 3, 1),
            (Link::Read, 3, 1),
        ];
        assert_eq!(least, wanted);
    }

    #[test]
    fn what_comes_before_its_cause_is_told_with_the_worst() {
        let mut early = truth();
        early.sent[2] = START + 17 * MS;
        let found = looked_at(&[record()], &[early]);
        assert_eq!(found.violations(), 1);
        let reason = found.reason().expect("a reason");
        assert_eq!(reason.grade, Grade::Invalid);
        let wanted = "token 2 of request `x-0` was read by the client before the server wrote it, by 3.000 ms, the worst of 1 in 3";
        assert_eq!(reason.message, wanted);

        let mut late = truth();
        late.received = START;
        let message = looked_at(&[record()], &[late]).reason().map(|r| r.message);
        assert!(
            message.is_some_and(|m| m.starts_with("request `x-0` was read by the server before"))
        );
    }

    #[test]
    fn events_share_tokens_and_answers_are_cut() {
        let cut = failed(Class::Truncated, 3, 13, completed(0, 1, &[(12, 1)]));
        let mut shared = truth();
        (shared.sent, shared.tokens) = (vec![START + 11 * MS, START + 13 * MS], vec![2, 1]);
        shared.silent.clear();
        shared.is_finished = false;
        let found = looked_at(&[cut], &[shared]);
        assert_eq!((found.tokens, found.unread), (3, 1));
        assert_eq!(found.reason(), None);
    }

    #[test]
    fn other_counts_are_told_too() {
        let mut fewer = truth();
        fewer.ready.pop();
        fewer.tokens = vec![1, 1];
        fewer.sent.pop();
        let mut uncached = truth();
        uncached.cached = Some(0);
        let mut broken = truth();
        broken.is_finished = false;
        for (truth, why) in [
            (fewer, "`x-0`: 1 events written, 2 read"),
            (
                uncached,
                "`x-0`: 0 cached tokens by the server's trace, 4 by its answer",
            ),
            (broken, "`x-0`: completed, but not written to its end"),
        ] {
            let reason = looked_at(&[record()], &[truth]).reason().expect(why);
            assert!(reason.message.contains(why), "{}", reason.message);
        }
        let reason = looked_at(&[record()], &[]).reason().expect("unknown");
        assert!(reason.message.contains("nothing down of 1 completed"));
    }

    #[test]
    fn every_value_has_its_definition() {
        let found = looked_at(&[record()], &[truth()]);
        for (name, _) in found.values() {
            let is_defined = |(stem, _, _): &(&str, &str, &str)| name.starts_with(stem);
            assert!(Causality::definitions().iter().any(is_defined), "{name}");
        }
    }
}
