//! Turns that stand behind what was said before, and arrivals that take conversations which are
//! ready.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use loadgen::{
    Arrivals, Ended, Load, Outcome, PlanError, Process, Prompt, Protocol, Rate, ReadyOrder, Record,
    Request, Reuse, Rounds, RunPlan, Stop, Workload,
};
use serde_json::{Value, json};

use crate::server::{DONE, FINISH, HEAD, Server, Then, USAGE, chunk, good, piece, write};
use crate::{go, plan};

/// The turns of conversations, round by round.
fn turns(conversations: &[&str], rounds: u32, prompt: impl Fn(&str, u32) -> Prompt) -> Workload {
    let turn = |name: &str, turn: u32| {
        let prompt = prompt(name, turn);
        let input_tokens = match &prompt {
            Prompt::Tokens(ids) => u32::try_from(ids.len()).unwrap(),
            Prompt::Text(_) | Prompt::Messages(_) => 10,
        };
        let output_tokens = NonZeroU32::new(2).unwrap();
        Request {
            conversation: Some(name.to_owned()),
            turn,
            continues: turn > 0,
            cacheable_tokens: Some(0),
            ..Request::new(format!("{name}{turn}"), prompt, input_tokens, output_tokens)
        }
    };
    let rounds = (0..rounds).flat_map(|round| conversations.iter().map(move |name| (name, round)));
    Workload::new(rounds.map(|(name, round)| turn(name, round)).collect()).unwrap()
}

fn text(name: &str, turn: u32) -> Prompt {
    Prompt::Text(format!(" {name}{turn}"))
}

/// One user who holds the conversations of a workload one after the other.
fn held(address: impl std::fmt::Display, workload: Workload) -> RunPlan {
    let mut plan = plan(address, 1);
    plan.stop = Stop::Requests(NonZeroU64::new(workload.requests().len() as u64).unwrap());
    plan.workload = Arc::new(workload);
    plan.load = Load::Closed {
        concurrency: NonZeroU32::MIN,
        think: None,
        sessions: true,
    };
    plan
}

/// Arrivals that take turns of conversations which are ready.
fn ready(plan: &mut RunPlan, process: Process, rate: f64, order: ReadyOrder) {
    plan.load = Load::Open {
        arrivals: Arrivals::at(process, Rate::per_second(rate).unwrap()),
        seed: 7,
        max_in_flight: None,
        ready_queue: Some(order),
        rounds: Rounds::Overlap,
    };
}

fn refuses() -> String {
    "HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nfull".to_owned()
}

/// A good answer to every request but the one of this number.
fn server_that_refuses(number: usize) -> Server {
    Server::start(move |n, stream| {
        let answer = if n == number { refuses() } else { good() };
        write(stream, answer);
        Then::KeepAlive
    })
}

fn of<'a>(records: &'a [Record], conversation: &str) -> Vec<&'a Record> {
    let is_of = |r: &&Record| r.conversation.as_deref() == Some(conversation);
    records.iter().filter(is_of).collect()
}

#[tokio::test]
async fn a_turn_sends_everything_that_was_said_before_it() {
    let server = server_that_refuses(usize::MAX);
    let result = go(held(server.address, turns(&["a", "b"], 3, text))).await;
    let asked: Vec<Value> = server
        .asked()
        .iter()
        .map(|a| a.body["prompt"].clone())
        .collect();
    let history = |n: &str| {
        [
            format!(" {n}0"),
            format!(" {n}0héllo {n}1"),
            format!(" {n}0héllo {n}1héllo {n}2"),
        ]
    };
    assert_eq!(json!(asked), json!([history("a"), history("b")].concat()));
    // Ten tokens of each prompt, two of each answer; all of them but the prompt's own could be cached.
    for name in ["a", "b"] {
        let told = |r: &&Record| (r.input_tokens, r.cacheable_tokens);
        let lengths: Vec<_> = of(&result.records, name).iter().map(told).collect();
        assert_eq!(lengths, [(10, Some(0)), (22, Some(12)), (34, Some(24))]);
    }
}

#[tokio::test]
async fn chat_is_given_its_answers_as_messages() {
    let server = Server::start(|_, stream| {
        let event =
            |delta: Value| format!("data: {}\n\n", json!({ "choices": [{ "delta": delta }] }));
        let events = [
            event(json!({ "reasoning_content": "hm" })),
            event(json!({ "content": "yes" })),
            FINISH.into(),
            USAGE.into(),
            DONE.into(),
            String::new(),
        ];
        let chunks: String = events.iter().map(|event| chunk(event)).collect();
        write(stream, format!("{HEAD}{chunks}"));
        Then::KeepAlive
    });
    let system = |name: &str, turn: u32| match turn {
        0 => Prompt::Messages(vec![
            json!({ "role": "system", "content": "s" }),
            json!({ "role": "user", "content": name }),
        ]),
        _ => Prompt::Messages(vec![json!({ "role": "user", "content": turn })]),
    };
    for (prompt, first) in [
        (
            &system as &dyn Fn(&str, u32) -> Prompt,
            json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "a" }]),
        ),
        (&text, json!([{ "role": "user", "content": " a0" }])),
    ] {
        let mut plan = held(server.address, turns(&["a"], 2, prompt));
        plan.target.protocol = Protocol::Chat;
        let result = go(plan).await;
        assert!(result.records.iter().all(Record::completed));
        let asked = server.asked().last().unwrap().body["messages"].clone();
        let messages = asked.as_array().unwrap();
        let n = messages.len();
        assert_eq!(json!(messages[..n - 2]), first);
        assert_eq!(
            messages[n - 2],
            json!({ "role": "assistant", "content": "yes" })
        );
        assert_eq!(messages[n - 1]["role"], "user");
    }
}

/// An answer of two tokens whose ids the server tells.
fn with_ids(ids: &[u32]) -> String {
    let event = json!({ "choices": [{ "text": "x", "token_ids": ids }] });
    let event = format!("data: {event}\n\n");
    let events = [
        event,
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
        String::new(),
    ];
    let chunks: String = events.iter().map(|event| chunk(event)).collect();
    format!("{HEAD}{chunks}")
}

#[tokio::test]
async fn token_ids_go_on_with_those_of_the_answer() {
    let server = Server::start(|n, stream| {
        let n = u32::try_from(n).unwrap();
        write(stream, with_ids(&[100 + n, 200 + n]));
        Then::KeepAlive
    });
    let ids = |_: &str, turn: u32| Prompt::Tokens(vec![turn; 3]);
    let result = go(held(server.address, turns(&["a"], 3, ids))).await;
    let lengths: Vec<u32> = result.records.iter().map(|r| r.input_tokens).collect();
    assert_eq!(lengths, [3, 8, 13]);
    let asked = server.asked();
    assert!(asked.iter().all(|a| a.body["return_token_ids"] == true));
    let last = json!([0, 0, 0, 100, 200, 1, 1, 1, 101, 201, 2, 2, 2]);
    assert_eq!(asked[2].body["prompt"], last);
}

#[tokio::test]
async fn a_server_that_tells_no_ids_ends_conversations_of_ids() {
    let server = server_that_refuses(usize::MAX);
    let ids = |_: &str, turn: u32| Prompt::Tokens(vec![turn; 3]);
    let result = go(held(server.address, turns(&["a", "b"], 2, ids))).await;
    let outcomes: Vec<Outcome> = result.records.iter().map(|r| r.outcome).collect();
    let pair = [Outcome::Completed, Outcome::Dropped];
    assert_eq!(outcomes, [pair, pair].concat());
    let why = result.records[1].error.as_deref().unwrap();
    assert!(why.contains("told 0 token ids of the 2 tokens"), "{why}");
}

#[tokio::test]
async fn a_turn_that_fails_ends_its_own_conversation_alone() {
    // The second request: the second turn of the first conversation.
    let server = server_that_refuses(1);
    let result = go(held(server.address, turns(&["a", "b"], 4, text))).await;
    assert_eq!(
        (result.info.ended, result.records.len()),
        (Ended::Reached, 8)
    );
    let outcomes = |name| -> Vec<String> {
        let all = of(&result.records, name);
        all.iter().map(|r| r.outcome.to_string()).collect()
    };
    assert_eq!(
        outcomes("a"),
        ["completed", "http_503", "dropped", "dropped"]
    );
    assert!(outcomes("b").iter().all(|o| o == "completed"));
    for dropped in &of(&result.records, "a")[2..] {
        let why = dropped.error.as_deref().unwrap();
        assert_eq!(
            why,
            "not sent: turn 1 of its conversation failed (http_503)"
        );
        assert_eq!((dropped.dispatched, dropped.attempts), (None, 0));
    }
    assert_eq!(server.asked().len(), 6);
    let indices: Vec<u64> = result.records.iter().map(|r| r.index).collect();
    assert_eq!(indices, (0..8).collect::<Vec<u64>>());
}

#[tokio::test]
async fn histories_are_bounded() {
    let server = server_that_refuses(usize::MAX);
    let mut plan = held(server.address, turns(&["a"], 3, text));
    // Enough for the first turn and its answer, not for two.
    plan.limits.histories = 12;
    let result = go(plan).await;
    let outcomes: Vec<String> = result
        .records
        .iter()
        .map(|r| r.outcome.to_string())
        .collect();
    assert_eq!(outcomes, ["completed", "completed", "dropped"]);
    let why = result.records[2].error.as_deref().unwrap();
    assert!(why.contains("larger than 12 bytes"), "{why}");
}

#[tokio::test]
async fn what_does_not_wait_for_answers_cannot_continue_them() {
    let mut plan = held("127.0.0.1:1", turns(&["a"], 2, text));
    let wants_ready = |plan: &RunPlan| match plan.check() {
        Err(PlanError::Sessions(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    };
    plan.load = Load::closed(NonZeroU32::MIN);
    assert!(wants_ready(&plan).contains("a ready queue waits for"));
    ready(&mut plan, Process::Constant, 5.0, ReadyOrder::Fifo);
    plan.check().unwrap();
    plan.reuse = Reuse::Cycle;
    assert!(wants_ready(&plan).contains("cannot cycle"));
    if let Load::Open { arrivals, .. } = &mut plan.load {
        *arrivals = Arrivals::AllAtOnce;
    }
    assert!(wants_ready(&plan).contains("arrivals with a rate"));
}

#[tokio::test]
async fn arrivals_take_whoever_is_ready_and_keep_their_instants() {
    let names = ["a", "b", "c", "d", "e", "f"];
    for (order, threads) in [(ReadyOrder::Fifo, 1), (ReadyOrder::Random, 3)] {
        let server = server_that_refuses(usize::MAX);
        let mut plan = held(server.address, turns(&names, 3, text));
        ready(&mut plan, Process::Constant, 200.0, order);
        plan.threads.count = NonZeroU32::new(threads);
        let result = go(plan).await;
        assert_eq!(
            (result.records.len(), result.info.ended),
            (18, Ended::Reached)
        );
        assert!(result.records.iter().all(Record::completed));
        // 5 ms apart and never moved, however many pass unused.
        assert!(result.records.iter().all(|r| r.scheduled % 5_000_000 == 0));
        let last = result.records.iter().map(|r| r.scheduled).max().unwrap();
        let arrivals = last / 5_000_000 + 1;
        assert!(arrivals <= 18 + result.info.unused_arrivals, "{arrivals}");
        for name in names {
            let turns = of(&result.records, name);
            let numbers: Vec<u32> = turns.iter().map(|r| r.turn).collect();
            assert_eq!(numbers, [0, 1, 2], "{name}");
            assert!(
                turns
                    .windows(2)
                    .all(|pair| pair[1].dispatched.unwrap() >= pair[0].done)
            );
        }
        let first: Vec<&str> = result.records[..6]
            .iter()
            .map(|r| r.conversation.as_deref().unwrap())
            .collect();
        if order == ReadyOrder::Fifo {
            // Nobody whose answer has ended overtakes one who has waited from the beginning.
            assert_eq!(first, names);
        }
    }
}

/// The order in which conversations are taken of which none comes back.
async fn drawn(seed: u64) -> Vec<String> {
    let server = server_that_refuses(usize::MAX);
    let names: Vec<String> = (0..20).map(|i| format!("c{i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut plan = held(server.address, turns(&names, 1, text));
    ready(&mut plan, Process::Constant, 2000.0, ReadyOrder::Random);
    if let Load::Open { seed: s, .. } = &mut plan.load {
        *s = seed;
    }
    let records = go(plan).await.records;
    records.into_iter().filter_map(|r| r.conversation).collect()
}

#[tokio::test]
async fn a_seed_says_who_is_taken() {
    let order = drawn(3).await;
    assert_eq!(order, drawn(3).await);
    assert_ne!(order, drawn(4).await);
    assert!(!order.is_sorted());
}

#[tokio::test]
async fn an_arrival_that_finds_nobody_ready_passes_unused() {
    // The first answer ends only when as many instants have passed as the whole run needs.
    let server = Server::start(|n, stream| {
        if n == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = held(server.address, turns(&["a"], 2, text));
    ready(&mut plan, Process::Constant, 200.0, ReadyOrder::Fifo);
    let result = go(plan).await;
    assert_eq!(result.records.len(), 2);
    let second = &result.records[1];
    assert!(second.scheduled >= result.records[0].done && second.scheduled % 5_000_000 == 0);
    assert_eq!(
        result.info.unused_arrivals,
        second.scheduled / 5_000_000 - 1
    );
}

#[tokio::test]
async fn a_failure_costs_a_ready_queue_one_conversation() {
    let server = server_that_refuses(0);
    let mut plan = held(server.address, turns(&["a", "b"], 3, text));
    ready(&mut plan, Process::Constant, 500.0, ReadyOrder::Fifo);
    // One after the other: the server's first request is the first conversation's.
    if let Load::Open { max_in_flight, .. } = &mut plan.load {
        *max_in_flight = Some(NonZeroU32::MIN);
    }
    let result = go(plan).await;
    let outcomes: Vec<String> = of(&result.records, "a")
        .iter()
        .map(|r| r.outcome.to_string())
        .collect();
    assert_eq!(outcomes, ["http_503", "dropped", "dropped"]);
    assert!(of(&result.records, "b").iter().all(|r| r.completed()));
    assert_eq!((server.asked().len(), result.records.len()), (4, 6));
}

#[tokio::test]
async fn a_cap_holds_turns_back_that_were_taken() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (open.clone(), most.clone());
    let both = Barrier::new(2);
    let server = Server::start(move |n, stream| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // The first is answered once there is a second; turns arrive faster than others are answered.
        if n < 2 {
            both.wait();
        }
        std::thread::sleep(Duration::from_millis(3));
        now.fetch_sub(1, Ordering::SeqCst);
        write(
            stream,
            [
                HEAD,
                &chunk(&piece("a")),
                &chunk(FINISH),
                &chunk(DONE),
                &chunk(""),
            ]
            .concat(),
        );
        Then::KeepAlive
    });
    let mut plan = held(server.address, turns(&["a", "b", "c", "d"], 3, text));
    ready(&mut plan, Process::Constant, 2000.0, ReadyOrder::Random);
    if let Load::Open { max_in_flight, .. } = &mut plan.load {
        *max_in_flight = NonZeroU32::new(2);
    }
    plan.stop = Stop::After(Duration::from_secs(60));
    let result = go(plan).await;
    // Every turn was taken long before the time was up, and that is said.
    assert_eq!(
        (result.records.len(), result.info.ended),
        (12, Ended::Exhausted)
    );
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn rounds_wait_for_each_other_on_every_thread() {
    let server = server_that_refuses(1);
    let mut plan = held(server.address, turns(&["a", "b", "c"], 3, text));
    ready(&mut plan, Process::Constant, 2000.0, ReadyOrder::Random);
    if let Load::Open { rounds, .. } = &mut plan.load {
        *rounds = Rounds::Barrier;
    }
    plan.threads.count = NonZeroU32::new(3);
    let records = go(plan).await.records;
    let sent = |turn| {
        let is_sent = move |r: &&Record| r.turn == turn && r.dispatched.is_some();
        records.iter().filter(is_sent)
    };
    // One conversation has ended with its first turn.
    assert_eq!([0, 1, 2].map(|turn| sent(turn).count()), [3, 2, 2]);
    for turn in [1, 2] {
        let ended = sent(turn - 1).map(|r| r.done).max();
        assert!(sent(turn).filter_map(|r| r.dispatched).min() >= ended);
    }
}
