//! Random answers, our views of them, and the peers' own numbers.

use std::{
    io::Write,
    num::NonZeroU32,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use loadgen::{
    Class, ClientUse, Ended, Event, EventTime, Load, Outcome, OutputLength, Protocol, Record,
    Reuse, RunInfo, Slo, Stop, Usage, views,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::{Map, Value, json};

const REQUESTS: u64 = 150;
/// Requests begin within so many nanoseconds.
const SPAN: u64 = 20_000_000_000;
/// How far two numbers may differ, relative to the larger: both sum thousands of floats.
const TOLERANCE: f64 = 1e-6;

/// What every request is to keep to, where requests have objectives.
const SLO: Slo = Slo {
    ttft: Some(Duration::from_millis(150)),
    tpot: Some(Duration::from_millis(30)),
    e2el: Some(Duration::from_millis(900)),
};

/// One in ten is cut, one in twenty refused, one in thirty dropped by an interruption.
fn record(index: u64, slo: Option<Slo>, random: &mut ChaCha12Rng) -> Record {
    let scheduled = random.random_range(0..SPAN);
    let from = scheduled + random.random_range(0..50_000_000);
    let mut at = from + random.random_range(1_000_000..300_000_000);
    let mut events = vec![Event {
        at,
        tokens: random.random_range(1..3),
    }];
    for _ in 0..random.random_range(0..40) {
        at += random.random_range(100_000..80_000_000);
        let tokens = random.random_range(0..4);
        events.push(Event { at, tokens });
    }
    let tokens: u32 = events.iter().map(|event| event.tokens).sum();
    let input = random.random_range(1..500);
    let usage = Usage {
        // A server may count another token than the workload did.
        prompt_tokens: input + random.random_range(0..2),
        completion_tokens: tokens,
        cached_tokens: None,
    };
    let mut record = Record {
        index,
        request: format!("r{index}"),
        conversation: None,
        turn: 0,
        group: None,
        model: "m".into(),
        input_tokens: input,
        cacheable_tokens: None,
        output_tokens: NonZeroU32::new(tokens).unwrap(),
        slo,
        scheduled,
        dispatched: Some(from),
        connected: None,
        headers: None,
        events,
        done: at + random.random_range(0..3_000_000),
        attempts: 1,
        outcome: Outcome::Completed,
        error: None,
        usage: Some(usage),
        finish: Some("length".into()),
        text_digest: None,
    };
    let failed = |record: &mut Record, class| {
        record.outcome = Outcome::Failed(class);
        record.usage = None;
    };
    match random.random_range(0..60) {
        0..6 => failed(&mut record, Class::Truncated),
        6..9 => {
            failed(&mut record, Class::Refused);
            record.events.clear();
            record.dispatched = None;
        }
        9..11 => record.outcome = Outcome::Dropped,
        _ => {}
    }
    record
}

fn info(protocol: Protocol) -> RunInfo {
    RunInfo {
        load: Load::closed(NonZeroU32::MIN),
        stop: Stop::After(Duration::from_secs(20)),
        reuse: Reuse::Once,
        workload_digest: String::new(),
        address: "http://h:80".into(),
        model: "m".into(),
        protocol,
        length: OutputLength::Exact,
        started_unix_ms: 0,
        event_time: EventTime::Read,
        request_prefix: String::new(),
        started_monotonic_ns: 0,
        wall_ns: 0,
        ended: Ended::Reached,
        client: ClientUse {
            threads: 1,
            cores: 1,
            cpu_ns: None,
            wait_ns: None,
        },
        in_flight_area_ns: 0,
        in_flight_peak: 0,
        unused_arrivals: 0,
        images: 0,
        image_bytes: 0,
        is_offline: false,
    }
}

/// What is played: requests that an interruption took back were never seen by a peer's client.
fn played(records: &[Record], protocol: Protocol, slo: Option<Slo>, usage_last: bool) -> Value {
    let sent = records.iter().filter(|r| r.outcome != Outcome::Dropped);
    let answer = |record: &Record| {
        let events: Vec<(u64, u32)> = record.events.iter().map(|e| (e.at, e.tokens)).collect();
        json!({
            "dispatched_ns": record.dispatched,
            "events": events,
            "done_ns": record.done,
            "completed": record.completed(),
            "input_tokens": record.input_tokens,
            "prompt_tokens": record.prompt_tokens(),
            "output_tokens": record.output_tokens,
            "ends_with_usage": usage_last,
        })
    };
    let ms = |bound: Option<Duration>| bound.map(|bound| bound.as_secs_f64() * 1e3);
    json!({
        "protocol": protocol.name(),
        "slo": slo.map(|s| json!({ "ttft": ms(s.ttft), "tpot": ms(s.tpot), "e2el": ms(s.e2el) })),
        "answers": sent.map(answer).collect::<Vec<_>>(),
    })
}

fn python(script: &str) -> Command {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/arithmetic");
    let mut command = Command::new("python3");
    // Nothing is written beside the sources.
    command.arg("-B").arg(folder.join(script));
    command.stdout(Stdio::piped());
    command
}

/// Whether the peers' code is there; `cargo xtask test` fetches it, or says in one line that
/// these tests are skipped.
fn is_here() -> bool {
    let mut check = python("fetch.py");
    check.arg("--check").stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success())
}

/// What the peer's own code says of `played`.
fn said(peer: &str, played: &Value) -> Map<String, Value> {
    let mut command = python("peers.py");
    let mut child = command.arg(peer).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(played.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "peers.py {peer} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        _ => {
            let pair = ours.as_f64().zip(theirs.as_f64());
            pair.is_some_and(|(a, b)| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()))
        }
    }
}

/// Compares everything that the peer says and names what only it has.
fn compare(ours: &Value, theirs: &Map<String, Value>) -> Vec<String> {
    let mut only_theirs = Vec::new();
    for (name, theirs) in theirs {
        match ours.get(name) {
            Some(ours) => assert!(is_same(ours, theirs), "{name}: {ours}, they say {theirs}"),
            None => only_theirs.push(name.clone()),
        }
    }
    only_theirs.sort();
    only_theirs
}

fn records(seed: u64, slo: Option<Slo>) -> Vec<Record> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    (0..REQUESTS).map(|i| record(i, slo, &mut random)).collect()
}

#[test]
fn vllm_says_the_same_of_the_same_answers() {
    if !is_here() {
        return;
    }
    for (seed, protocol, slo) in [
        (1, Protocol::Completions, None),
        (2, Protocol::Completions, Some(SLO)),
        (3, Protocol::Chat, Some(SLO)),
    ] {
        let records = records(seed, slo);
        let mut theirs = said("vllm", &played(&records, protocol, slo, true));
        if slo.is_none() {
            // Its result has none then, whatever its code has computed.
            theirs.remove("request_goodput");
        }
        let ours = views::vllm(&info(protocol), &records);
        assert_eq!(compare(&ours, &theirs), ["rtfx"]);
        assert!(
            theirs.len() >= 31 && theirs["completed"].as_f64() > Some(100.0),
            "{theirs:?}"
        );
    }
}

#[test]
fn sglang_says_the_same_of_the_same_answers() {
    if !is_here() {
        return;
    }
    for (seed, protocol) in [
        (4, Protocol::Completions),
        (5, Protocol::Chat),
        (6, Protocol::Sglang),
    ] {
        let records = records(seed, None);
        // Its client for completions fails at an event with usage alone, and never asks for one.
        let usage_last = protocol == Protocol::Chat;
        let theirs = said("sglang", &played(&records, protocol, None, usage_last));
        let ours = views::sglang(&info(protocol), &records);
        // What is counted again by a tokenizer, and of what kind a prompt is, no record knows.
        let unknown = [
            "output_throughput_retokenized",
            "total_input_text",
            "total_input_vision",
            "total_output_retokenized",
            "total_throughput_retokenized",
        ];
        assert_eq!(compare(&ours, &theirs), unknown);
        assert!(
            theirs.len() >= 40 && theirs["completed"].as_f64() > Some(100.0),
            "{theirs:?}"
        );
    }
}
