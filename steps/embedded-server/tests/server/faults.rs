//! Faults on purpose, as this project's own client meets them: what it records is what was done.

use std::collections::BTreeSet;

use embedded_server::{AnswerOutcome, AnswerTrace, FaultKind, FaultPlan, Faults};
use loadgen::{Causality, Class, HttpVersion, Outcome, Protocol, Record};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::client::{get, post};
use crate::fixture::Server;
use crate::played::{Play, Played, TOKENS, play, simulated};

/// The faults of a play, by which it can be told beforehand who is hit.
fn faults(play: &Play) -> Faults {
    Faults::new(&play.faults, play.seed).unwrap()
}

fn planned(play: &Play, answer: &AnswerTrace) -> FaultPlan {
    faults(play).plan(answer.number, TOKENS as usize)
}

/// The kinds of faults that an answer's trace tells.
fn kinds(answer: &AnswerTrace) -> BTreeSet<&'static str> {
    answer
        .faults
        .iter()
        .map(|fault| fault.fault.name())
        .collect()
}

/// Nothing that was recorded contradicts the server's word.
fn assert_sound(played: &Played) {
    let found = Causality::of(&played.run.info, &played.run.records, &played.truths());
    assert_eq!(found.reason(), None, "{found:?}");
    assert_eq!(found.requests as usize, played.run.records.len());
}

/// Splits answers by whether a fault hit them; both must be there.
fn split(played: &Played, fault: FaultKind) -> (Vec<(&Record, &AnswerTrace)>, Vec<&Record>) {
    let is_hit = |answer: &AnswerTrace| answer.faults.iter().any(|f| f.fault == fault);
    let (hit, spared): (Vec<_>, Vec<_>) = played.pairs().partition(|(_, answer)| is_hit(answer));
    assert!(!hit.is_empty() && !spared.is_empty(), "{} hit", hit.len());
    (hit, spared.into_iter().map(|(record, _)| record).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_has_its_gap_where_the_trace_says() {
    let asked = Play::with(&["stall=0.3:60ms"]);
    let played = play(&asked).await;
    assert_sound(&played);
    let (hit, spared) = split(&played, FaultKind::Stall);
    assert!(spared.iter().all(|record| record.completed()));
    for (record, answer) in hit {
        let [stall] = answer.faults[..] else {
            panic!("{answer:?}")
        };
        let (event, lasts) = planned(&asked, answer).stall.unwrap();
        assert_eq!(stall.event, Some(event));
        let lasted = stall.until_ns.unwrap() - stall.at_ns;
        assert!(u128::from(lasted) >= lasts.as_nanos());
        // The events before it were sent before it began, and read by the client in time.
        assert!(answer.sent_ns[event - 1] <= stall.at_ns);
        assert!(answer.sent_ns[event] >= stall.until_ns.unwrap());
        assert!(record.completed());
        let start = played.run.info.started_monotonic_ns;
        assert!(record.events[event].at + start >= stall.until_ns.unwrap());
        assert_eq!(record.events.len(), TOKENS as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_leaves_what_was_sent_before() {
    for http in [HttpVersion::One, HttpVersion::Two] {
        let asked = Play {
            http,
            ..Play::with(&["reset=0.3"])
        };
        let played = play(&asked).await;
        assert_sound(&played);
        let (hit, spared) = split(&played, FaultKind::Reset);
        assert!(spared.iter().all(|record| record.completed()), "{spared:?}");
        for (record, answer) in hit {
            let event = planned(&asked, answer).reset.unwrap();
            assert_eq!(answer.outcome, AnswerOutcome::Reset);
            assert_eq!(answer.sent_ns.len(), event);
            assert_eq!(
                record.outcome,
                Outcome::Failed(Class::Truncated),
                "{record:?}"
            );
            assert_eq!(record.events.len(), event, "{record:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_within_a_stream_is_one_in_the_record() {
    for protocol in [Protocol::Completions, Protocol::Chat, Protocol::Sglang] {
        let asked = Play {
            protocol,
            ..Play::with(&["error=0.3"])
        };
        let played = play(&asked).await;
        assert_sound(&played);
        let (hit, spared) = split(&played, FaultKind::Error);
        assert!(spared.iter().all(|record| record.completed()));
        for (record, answer) in hit {
            assert_eq!(answer.outcome, AnswerOutcome::Failed("injected".into()));
            assert_eq!(record.outcome, Outcome::Failed(Class::InBand));
            let error = record.error.as_deref().unwrap();
            assert!(error.contains("`--fault error`"), "{error}");
            assert_eq!(record.events.len(), planned(&asked, answer).error.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_status_and_are_never_queued() {
    let asked = Play::with(&["429=0.3", "503=0.3"]);
    let played = play(&asked).await;
    assert_sound(&played);
    for (record, answer) in played.pairs() {
        let refusal = faults(&asked).refusal(answer.number);
        let status = refusal.map(|fault| match fault {
            FaultKind::TooManyRequests => 429,
            _ => 503,
        });
        match status {
            Some(status) => {
                assert_eq!(record.outcome, Outcome::Failed(Class::HttpStatus(status)));
                assert_eq!(answer.outcome, AnswerOutcome::Refused(status));
                assert_eq!((answer.enqueued_ns, answer.tokens.len()), (None, 0));
            }
            None => assert!(record.completed()),
        }
        assert_eq!(
            kinds(answer),
            refusal.map(FaultKind::name).into_iter().collect()
        );
    }
    let (hit, _) = split(&played, FaultKind::TooManyRequests);
    assert!(hit.len() < 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tokens_in_an_event_are_counted_where_the_server_counts() {
    for (protocol, counts_on) in [
        (Protocol::Completions, true),
        (Protocol::Chat, true),
        (Protocol::Sglang, false),
        (Protocol::Completions, false),
    ] {
        let played = play(&Play {
            protocol,
            counts_on,
            ..Play::with(&["tokens=5"])
        })
        .await;
        assert_sound(&played);
        for (record, answer) in played.pairs() {
            assert_eq!(answer.sent_tokens, [5, 5, 2]);
            assert_eq!(record.usage.unwrap().completion_tokens, TOKENS);
            let counted: Vec<u32> = record.events.iter().map(|event| event.tokens).collect();
            match counts_on || protocol == Protocol::Sglang {
                true => assert_eq!(counted, [5, 5, 2]),
                false => assert_eq!(counted, [1, 1, 1]),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_events_come_together_and_are_told_apart() {
    let played = play(&Play::with(&["merge=5"])).await;
    assert_sound(&played);
    for (record, answer) in played.pairs() {
        assert_eq!(record.events.len(), TOKENS as usize);
        // Their instants are those of three writes.
        for (event, sent) in answer.sent_ns.iter().enumerate() {
            let last = (event / 5 * 5 + 4).min(TOKENS as usize - 1);
            assert!(*sent >= answer.tokens[last].ready_ns, "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_hit_every_stream_change_no_text() {
    let texts = play(&Play::with(&[])).await;
    let texts = texts.texts();
    for fault in [
        "split=7", "split=1", "merge=3", "tokens=4", "no_done", "comments",
    ] {
        let played = play(&Play::with(&[fault])).await;
        assert_sound(&played);
        assert_eq!(played.texts(), texts, "{fault}");
        let name = fault.split('=').next().unwrap();
        for (record, answer) in played.pairs() {
            assert!(record.completed(), "{fault}: {record:?}");
            assert_eq!(kinds(answer), BTreeSet::from([name]));
        }
    }
}

fn streams() -> impl Strategy<Value = Play> {
    let counted = |name: &'static str, most: usize| {
        prop::option::of(1..most).prop_map(move |n| n.map(|n| format!("{name}={n}")))
    };
    let plain =
        |name: &'static str| any::<bool>().prop_map(move |is_on| is_on.then(|| name.to_owned()));
    let faults = (
        counted("split", 90),
        counted("merge", 15),
        counted("tokens", 15),
        plain("no_done"),
        plain("comments"),
    );
    let protocols = select(vec![
        Protocol::Completions,
        Protocol::Chat,
        Protocol::Sglang,
    ]);
    let versions = select(vec![HttpVersion::One, HttpVersion::Two]);
    (faults, protocols, versions, any::<bool>()).prop_map(
        |((split, merge, tokens, no_done, comments), protocol, http, counts_on)| {
            let faults = [split, merge, tokens, no_done, comments];
            let faults: Vec<String> = faults.into_iter().flatten().collect();
            Play {
                protocol,
                http,
                counts_on: counts_on && protocol != Protocol::Sglang,
                requests: 8,
                ..Play::with(&faults.iter().map(String::as_str).collect::<Vec<_>>())
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn texts_are_the_same_byte_for_byte_however_they_are_cut(asked in streams()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let plain = play(&Play { faults: Vec::new(), ..asked.clone() }).await;
            let cut = play(&asked).await;
            assert_sound(&cut);
            assert!(cut.run.records.iter().all(Record::completed), "{:?}", cut.run.records);
            assert_eq!(cut.texts(), plain.texts());
            for record in &cut.run.records {
                assert_eq!(record.usage.unwrap().completion_tokens, TOKENS);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_stand_in_what_the_server_says_of_itself() {
    let server = Server::start(|options| {
        simulated(options);
        options.faults = vec!["stall=0.5:2s".parse().unwrap()];
    })
    .await;
    let info = get(server.at, "/server_info").await.json();
    assert_eq!(info["options"]["faults"], json!(["stall=0.5:2s"]));
    assert_eq!(info["faults"], "stall=0.5:2s");
    // An answer in one piece is no stream: nothing but a refusal happens to it.
    let body = json!({ "model": "tiny", "prompt": [8], "max_tokens": 3 });
    for _ in 0..4 {
        assert_eq!(post(server.at, "/v1/completions", &body).await.status, 200);
    }
    server.stop().await.unwrap();
}
