//! Loads played in time that is made up: exact instants, and the same ones every time.

use bytes::Bytes;
use loadgen::{
    Arrivals, Class, EventTime, Generation, HttpVersion, Limits, Load, OfflineServer, Outcome,
    Piece, Process, Prompt, Protocol, Rate, Request, Reuse, Run, RunPlan, Stop, Target, Threads,
    Timeouts, Told, Trust, Workload, run_offline,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

const MS: u64 = 1_000_000;

/// Answers each request by itself: three tokens, the first after 50 ms, the others after 10 ms each.
#[derive(Default)]
struct Paced {
    due: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// One that is never answered.
    silent: Option<u64>,
    cancelled: Vec<u64>,
    bodies: Vec<serde_json::Value>,
}

impl OfflineServer for Paced {
    fn ask(&mut self, request: u64, body: Bytes, at: u64) {
        self.bodies.push(serde_json::from_slice(&body).unwrap());
        if self.silent != Some(request) {
            self.due.push(Reverse((at + 50 * MS, request, 0)));
        }
    }

    fn next(&mut self, until: u64) -> Option<Told> {
        let Reverse((at, request, n)) = *self.due.peek()?;
        if at > until {
            return None;
        }
        self.due.pop();
        let event = |text: &str, finish: &str| {
            let choice = format!("{{\"text\":\"{text}\",\"finish_reason\":{finish}}}");
            Piece::Body(format!("data: {{\"choices\":[{choice}]}}\n\n").into_bytes())
        };
        let (piece, next) = match n {
            0 => {
                let (status, is_event_stream) = (200, true);
                let head = Piece::Head {
                    status,
                    is_event_stream,
                };
                (head, at)
            }
            1 | 2 => (event("a ", "null"), at + 10 * MS),
            3 => (event("b", "\"length\""), at),
            _ => (Piece::Body(b"data: [DONE]\n\n".to_vec()), at),
        };
        if n < 4 {
            self.due.push(Reverse((next, request, n + 1)));
        }
        Some(Told { request, at, piece })
    }

    fn cancel(&mut self, request: u64) {
        self.cancelled.push(request);
    }
}

fn plan(load: Load, requests: u64) -> RunPlan {
    let request = |i: u64| {
        let prompt = Prompt::Text(format!("prompt {i}"));
        Request::new(format!("r{i}"), prompt, 2, NonZeroU32::new(3).unwrap())
    };
    RunPlan {
        workload: Arc::new(Workload::new((0..requests).map(request).collect()).unwrap()),
        load,
        stop: Stop::Requests(NonZeroU64::new(requests).unwrap()),
        reuse: Reuse::Once,
        target: Target {
            address: "http://127.0.0.1:1".parse().unwrap(),
            trust: Trust::default(),
            model: "m".into(),
            protocol: Protocol::Completions,
            http: HttpVersion::One,
            api_key: None,
            generation: Generation::default(),
            tells_objectives: false,
            extra: serde_json::Map::new(),
        },
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        threads: Threads::default(),
        event_time: EventTime::Read,
    }
}

fn play(plan: RunPlan, server: &mut Paced) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(run_offline(plan, server)).unwrap()
}

#[test]
fn users_of_a_closed_loop_go_on_at_exact_instants() {
    let two = Load::closed(NonZeroU32::new(2).unwrap());
    let mut server = Paced::default();
    let run = play(plan(two, 4), &mut server);
    assert!(run.info.is_offline);
    let seen: Vec<_> = run
        .records
        .iter()
        .map(|r| {
            let events: Vec<u64> = r.events.iter().map(|e| e.at / MS).collect();
            (
                r.scheduled / MS,
                r.dispatched.unwrap() / MS,
                events,
                r.done / MS,
            )
        })
        .collect();
    let wave = |at: u64| (at, at, vec![at + 50, at + 60, at + 70], at + 70);
    assert_eq!(seen, [wave(0), wave(0), wave(70), wave(70)]);
    assert_eq!(run.info.wall_ns, 140 * MS);
    assert_eq!(server.bodies[3]["prompt"], "prompt 3");
}

#[test]
fn an_open_loop_is_the_same_every_time() {
    let open = || Load::Open {
        arrivals: Arrivals::at(Process::Poisson, Rate::per_second(100.0).unwrap()),
        seed: 7,
        max_in_flight: NonZeroU32::new(5),
        ready_queue: None,
    };
    let once = play(plan(open(), 300), &mut Paced::default());
    let again = play(plan(open(), 300), &mut Paced::default());
    assert_eq!(once.records.len(), 300);
    assert_eq!(once.records, again.records);
    assert_eq!(once.info.in_flight_peak, 5);
    let lags = once
        .records
        .iter()
        .map(|r| r.dispatched.unwrap() - r.scheduled);
    assert!(lags.max() > Some(0), "nobody waited for a place");
}

#[test]
fn what_is_never_answered_fails_when_its_time_is_up() {
    let two = Load::closed(NonZeroU32::new(2).unwrap());
    let mut server = Paced {
        silent: Some(1),
        ..Paced::default()
    };
    let mut plan = plan(two, 3);
    plan.timeouts.request = Duration::from_secs(5);
    let run = play(plan, &mut server);
    assert_eq!(run.records[1].outcome, Outcome::Failed(Class::Timeout));
    assert_eq!(run.records[1].done, 5000 * MS);
    assert_eq!(server.cancelled, [1]);
    assert_eq!(run.records[2].outcome, Outcome::Completed);
}
