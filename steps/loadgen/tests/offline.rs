//! Loads played in time that is made up: exact instants, and the same ones every time.

use bytes::Bytes;
use loadgen::{
    Arrivals, Class, Ended, Load, OfflineServer, Outcome, Piece, Process, Prompt, Protocol, Rate,
    ReadyOrder, Request, Reuse, Rounds, Run, RunPlan, Stop, Target, Told, Workload, run_offline,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MS: u64 = 1_000_000;

/// Answers each request by itself: three tokens, the first after 50 ms, the others after 10 ms each.
#[derive(Default)]
struct Paced {
    due: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// One that is never answered.
    silent: Option<u64>,
    /// One that says nothing more after its first token.
    stalls: Option<u64>,
    /// One whose answer is no answer.
    garbled: Option<u64>,
    /// One that is answered a second later than others.
    slow: Option<&'static str>,
    /// Whether it refuses everything, at once.
    refuses: bool,
    cancelled: Vec<u64>,
    bodies: Vec<serde_json::Value>,
}

impl OfflineServer for Paced {
    fn ask(&mut self, request: u64, body: Bytes, at: u64) {
        self.bodies.push(serde_json::from_slice(&body).unwrap());
        if self.silent != Some(request) {
            let prompt = self.bodies.last().and_then(|body| body["prompt"].as_str());
            let is_slow = self
                .slow
                .is_some_and(|slow| prompt.is_some_and(|p| p.ends_with(slow)));
            let wait = match (self.refuses, is_slow) {
                (true, _) => 0,
                (false, true) => 1050 * MS,
                (false, false) => 50 * MS,
            };
            self.due.push(Reverse((at + wait, request, 0)));
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
            1 if self.refuses => (Piece::End, at),
            1 if self.garbled == Some(request) => (Piece::Body(b"data: <\n\n".to_vec()), at),
            0 => {
                let is_event_stream = !self.refuses;
                let status = if self.refuses { 503 } else { 200 };
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
        let is_over = n == 1 && (self.refuses || self.stalls == Some(request));
        if n < 4 && !is_over {
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
    let workload = Workload::new((0..requests).map(request).collect()).unwrap();
    let stop = Stop::Requests(NonZeroU64::new(requests).unwrap());
    let address = "http://127.0.0.1:1".parse().unwrap();
    let target = Target::new(address, "m", Protocol::Completions);
    RunPlan::new(workload, load, stop, target)
}

fn play(plan: RunPlan, server: &mut Paced) -> Run {
    play_until(plan, server, &|| false)
}

fn play_until(plan: RunPlan, server: &mut Paced, is_stopped: &(dyn Fn() -> bool + Sync)) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let run = runtime.block_on(run_offline(plan, server, is_stopped));
    run.unwrap()
}

fn users(n: u32) -> Load {
    Load::closed(NonZeroU32::new(n).unwrap())
}

#[test]
fn users_of_a_closed_loop_go_on_at_exact_instants() {
    let mut server = Paced::default();
    let run = play(plan(users(2), 4), &mut server);
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
        rounds: Rounds::Overlap,
    };
    let once = play(plan(open(), 300), &mut Paced::default());
    let again = play(plan(open(), 300), &mut Paced::default());
    assert_eq!(once.records.len(), 300);
    assert_eq!(once, again);
    assert_eq!(once.info.in_flight_peak, 5);
    let lags = once
        .records
        .iter()
        .map(|r| r.dispatched.unwrap() - r.scheduled);
    assert!(lags.max() > Some(0), "nobody waited for a place");
}

#[test]
fn what_is_never_answered_fails_when_its_time_is_up() {
    let mut server = Paced {
        silent: Some(1),
        ..Paced::default()
    };
    let mut plan = plan(users(2), 3);
    plan.timeouts.request = Duration::from_secs(5);
    let run = play(plan, &mut server);
    assert_eq!(run.records[1].outcome, Outcome::Failed(Class::Timeout));
    assert_eq!(run.records[1].done, 5000 * MS);
    assert_eq!(server.cancelled, [1]);
    assert_eq!(run.records[2].outcome, Outcome::Completed);
}

#[test]
fn an_answer_that_stops_or_is_none_is_broken_off() {
    let mut server = Paced {
        stalls: Some(0),
        garbled: Some(1),
        ..Paced::default()
    };
    let mut plan = plan(users(2), 3);
    plan.timeouts.idle = Duration::from_secs(1);
    let run = play(plan, &mut server);
    let outcomes: Vec<Outcome> = run.records.iter().map(|r| r.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Failed(Class::Timeout),
            Outcome::Failed(Class::BadOutput),
            Outcome::Completed
        ]
    );
    // A second after its only token.
    assert_eq!(run.records[0].done, 1050 * MS);
    let why = run.records[0].error.as_deref().unwrap();
    assert!(why.contains("no content for 1s"), "{why}");
    assert_eq!(server.cancelled, [1, 0]);
}

#[test]
fn users_who_are_refused_at_once_come_to_an_end() {
    let mut server = Paced {
        refuses: true,
        ..Paced::default()
    };
    let mut plan = plan(users(2), 3);
    plan.reuse = Reuse::Cycle;
    plan.stop = Stop::After(Duration::from_secs(1));
    let run = play(plan, &mut server);
    // Each asks again after 10 ms.
    assert_eq!((run.records.len(), run.info.ended), (200, Ended::Reached));
    let refused = Outcome::Failed(Class::HttpStatus(503));
    assert!(run.records.iter().all(|r| r.outcome == refused));
}

#[test]
fn a_run_that_is_stopped_drops_what_is_under_way() {
    let plan = plan(
        Load::Open {
            arrivals: Arrivals::AllAtOnce,
            seed: 0,
            max_in_flight: NonZeroU32::new(2),
            ready_queue: None,
            rounds: Rounds::Overlap,
        },
        1000,
    );
    let looks = AtomicU64::new(0);
    let is_second = || looks.fetch_add(1, Ordering::Relaxed) == 1;
    let run = play_until(plan, &mut Paced::default(), &is_second);
    assert_eq!(run.info.ended, Ended::Interrupted);
    let count = |outcome| run.records.iter().filter(|r| r.outcome == outcome).count();
    let (completed, dropped) = (count(Outcome::Completed), count(Outcome::Dropped));
    assert!(completed > 0 && dropped > 0, "{completed} {dropped}");
    assert_eq!(completed + dropped, 1000);
}

/// The suites' own example: conversations of two, three and four turns, of which the second's first
/// answer takes long. Which prompts are sent, and the records of all.
fn ordered(order: ReadyOrder, rounds: Rounds, server: &mut Paced) -> (String, Run) {
    let load = Load::Open {
        arrivals: Arrivals::at(Process::Constant, Rate::per_second(1000.0).unwrap()),
        seed: 7,
        max_in_flight: None,
        ready_queue: Some(order),
        rounds,
    };
    let mut plan = plan(load, 9);
    let turn = |(name, turn): (&str, u32)| {
        let prompt = Prompt::Text(format!(" {name}{turn}"));
        Request {
            conversation: Some(name.to_owned()),
            turn,
            continues: turn > 1,
            ..Request::new(
                format!("{name}{turn}"),
                prompt,
                2,
                NonZeroU32::new(3).unwrap(),
            )
        }
    };
    let rounds = [&["A", "B", "C"][..], &["A", "B", "C"], &["B", "C"], &["C"]];
    let turns = (1..)
        .zip(rounds)
        .flat_map(|(i, names)| names.iter().map(move |name| (*name, i)));
    plan.workload = Arc::new(Workload::new(turns.map(turn).collect()).unwrap());
    let run = play(plan, server);
    let last = |body: &serde_json::Value| {
        let prompt = body["prompt"].as_str().unwrap();
        prompt.rsplit(' ').next().unwrap().to_owned()
    };
    let sent: Vec<String> = server.bodies.iter().map(last).collect();
    (sent.join(" "), run)
}

#[test]
fn turns_are_taken_in_the_order_that_is_asked_for() {
    let slow = || Paced {
        slow: Some("B1"),
        ..Paced::default()
    };
    for (order, rounds, server, expected) in [
        // Where answers come back in order, all are the same.
        (
            ReadyOrder::Fifo,
            Rounds::Overlap,
            Paced::default(),
            "A1 B1 C1 A2 B2 C2 B3 C3 C4",
        ),
        (
            ReadyOrder::Strict,
            Rounds::Overlap,
            Paced::default(),
            "A1 B1 C1 A2 B2 C2 B3 C3 C4",
        ),
        // By completion, whoever is slow falls behind.
        (
            ReadyOrder::Fifo,
            Rounds::Overlap,
            slow(),
            "A1 B1 C1 A2 C2 C3 C4 B2 B3",
        ),
        (
            ReadyOrder::Strict,
            Rounds::Overlap,
            slow(),
            "A1 B1 C1 A2 B2 C2 B3 C3 C4",
        ),
        (
            ReadyOrder::Fifo,
            Rounds::Barrier,
            slow(),
            "A1 B1 C1 A2 B2 C2 B3 C3 C4",
        ),
        (
            ReadyOrder::Strict,
            Rounds::Barrier,
            slow(),
            "A1 B1 C1 A2 B2 C2 B3 C3 C4",
        ),
    ] {
        let mut server = server;
        let (sent, run) = ordered(order, rounds, &mut server);
        assert_eq!(sent, expected, "{order:?} {rounds:?}");
        assert!(run.records.iter().all(|r| r.outcome == Outcome::Completed));
    }
}

/// When the first request of each turn was sent, and when the last of it was over, in milliseconds.
fn rounds_of(run: &Run) -> Vec<(u64, u64)> {
    let of = |turn| run.records.iter().filter(move |r| r.turn == turn);
    let turns = (1..).take_while(|turn| of(*turn).next().is_some());
    turns
        .map(|turn| {
            let first = of(turn).filter_map(|r| r.dispatched).min();
            let last = of(turn).map(|r| r.done).max();
            (first.unwrap_or(u64::MAX) / MS, last.unwrap_or(0) / MS)
        })
        .collect()
}

#[test]
fn a_round_begins_when_all_of_the_one_before_it_has_ended() {
    for order in [ReadyOrder::Fifo, ReadyOrder::Random, ReadyOrder::Strict] {
        let mut server = Paced {
            slow: Some("B1"),
            ..Paced::default()
        };
        let (_, run) = ordered(order, Rounds::Barrier, &mut server);
        let rounds = rounds_of(&run);
        assert_eq!(rounds.len(), 4, "{order:?}");
        assert!(
            rounds.windows(2).all(|pair| pair[1].0 >= pair[0].1),
            "{rounds:?}"
        );
        assert!(rounds[0].1 >= 1000, "{rounds:?}");
    }
    // Without it the second round has begun long before.
    let mut server = Paced {
        slow: Some("B1"),
        ..Paced::default()
    };
    let (_, run) = ordered(ReadyOrder::Fifo, Rounds::Overlap, &mut server);
    assert!(rounds_of(&run)[1].0 < 200);
}

#[test]
fn a_failed_turn_holds_up_no_round_and_no_order() {
    for (order, rounds) in [
        (ReadyOrder::Strict, Rounds::Overlap),
        (ReadyOrder::Fifo, Rounds::Barrier),
        (ReadyOrder::Strict, Rounds::Barrier),
    ] {
        let mut server = Paced {
            garbled: Some(1),
            ..Paced::default()
        };
        let (sent, run) = ordered(order, rounds, &mut server);
        assert_eq!(sent, "A1 B1 C1 A2 C2 C3 C4", "{order:?} {rounds:?}");
        let outcome = |conversation: &str| -> Vec<Outcome> {
            let of = |r: &&loadgen::Record| r.conversation.as_deref() == Some(conversation);
            run.records.iter().filter(of).map(|r| r.outcome).collect()
        };
        let failed = Outcome::Failed(Class::BadOutput);
        assert_eq!(outcome("B"), [failed, Outcome::Dropped, Outcome::Dropped]);
        assert!(
            outcome("A")
                .iter()
                .chain(&outcome("C"))
                .all(|o| *o == Outcome::Completed)
        );
    }
}
