//! The server without sockets and threads: exact instants, and the same ones every time.

use axum::body::Bytes;
use embedded_server::clock::Nanos;
use embedded_server::offline::{Offline, Piece, Told};
use embedded_server::swapping::SwapPolicy;
use embedded_server::{ExecutorKind, ModelOptions, ServerOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const MS: u64 = 1_000_000;
const END: Nanos = Nanos(3600 * 1000 * MS);

fn options() -> ServerOptions {
    ServerOptions {
        executor: ExecutorKind::Sim,
        sim_steps: true,
        // A prompt token takes a millisecond, a decode step ten.
        sim_prefill_us: 1000.0,
        sim_tpot_ms: 10.0,
        sim_bytes_per_token: Some(1024),
        sim_weight_bytes: Some(1 << 20),
        max_total_tokens: Some(4096),
        disable_radix_cache: true,
        ..ServerOptions::default()
    }
}

fn body(model: &str, n_prompt: u32, max_tokens: u32, slo: Option<f64>) -> Bytes {
    let prompt: Vec<u32> = (20..20 + n_prompt).collect();
    let body = json!({ "model": model, "prompt": prompt, "max_tokens": max_tokens, "stream": true,
        "ignore_eos": true, "slo": slo });
    Bytes::from(body.to_string())
}

const COMPLETIONS: &str = "/v1/completions";

/// When the tokens of a request came, in milliseconds: each has an event.
fn tokens(told: &[Told], request: u64) -> Vec<u64> {
    let of_request = told.iter().filter(|told| told.request == request);
    let is_event = |piece: &Piece| matches!(piece, Piece::Body(b) if b.starts_with(b"data: {"));
    let events = of_request.filter(|told| is_event(&told.piece));
    events.map(|told| told.at.0 / MS).collect()
}

fn everything(server: &mut Offline) -> Vec<Told> {
    std::iter::from_fn(|| server.next(END)).collect()
}

#[test]
fn steps_take_what_they_are_said_to_and_nothing_else_takes_time() {
    let mut server = Offline::new(&options()).unwrap();
    server.ask(1, COMPLETIONS, &body("default", 30, 3, None), Nanos(5 * MS));
    // Nothing more comes before the prefill is over.
    let head = server.next(Nanos(34 * MS)).unwrap();
    assert_eq!((head.at, head.request), (Nanos(5 * MS), 1));
    assert_eq!(server.next(Nanos(34 * MS)), None);
    // It arrives while the step is under way, and is computed after it: 35 + 20.
    server.ask(
        2,
        COMPLETIONS,
        &body("default", 20, 2, None),
        Nanos(34 * MS),
    );
    let told = everything(&mut server);
    assert_eq!(tokens(&told, 1), [35, 65, 75]);
    assert_eq!(tokens(&told, 2), [55, 65]);
}

#[test]
fn what_tells_answers_apart_is_made_up_too() {
    let mut server = Offline::new(&options()).unwrap();
    for (request, at) in [(1, 0), (2, 2500 * MS)] {
        server.ask(
            request,
            COMPLETIONS,
            &body("default", 30, 1, None),
            Nanos(at),
        );
        let told = everything(&mut server);
        let first = told.iter().find_map(|told| match &told.piece {
            Piece::Body(bytes) => Some(std::str::from_utf8(bytes).unwrap()),
            _ => None,
        });
        let (number, seconds) = (request - 1, at / (1000 * MS));
        let begins = format!(r#"data: {{"id":"cmpl-0-{number}","#);
        let first = first.unwrap();
        assert!(first.starts_with(&begins), "{first}");
        assert!(
            first.contains(&format!(r#""created":{seconds},"#)),
            "{first}"
        );
    }
}

#[test]
fn a_refusal_and_a_request_that_is_broken_off_are_told_with_their_status() {
    let mut server = Offline::new(&options()).unwrap();
    server.ask(1, COMPLETIONS, &body("default", 30, 1, None), Nanos(0));
    // The step that ends at 30 has been computed.
    assert_eq!(server.next(Nanos(7)).map(|told| told.at), Some(Nanos(0)));
    assert_eq!(server.next(Nanos(7)), None);
    server.ask(2, COMPLETIONS, &Bytes::from_static(b"{"), Nanos(7));
    let told = everything(&mut server);
    let is_event_stream = false;
    let head = Piece::Head {
        status: 400,
        is_event_stream,
    };
    assert_eq!(told[0].piece, head);
    assert!(matches!(&told[1].piece, Piece::Body(words) if words.starts_with(b"{\"error\"")));
    assert_eq!(told[2].piece, Piece::End);
    let instants = told.iter().map(|told| (told.request, told.at));
    let (refused, answered) = ((2, Nanos(7)), (1, Nanos(30 * MS)));
    let expected = [refused, refused, refused, answered, answered];
    assert_eq!(instants.collect::<Vec<_>>(), expected);
}

fn model(name: &str, share: f64, is_active: bool) -> ModelOptions {
    ModelOptions {
        path: PathBuf::new(),
        name: name.to_owned(),
        mem_fraction_static: share,
        is_active,
    }
}

fn pair() -> ServerOptions {
    let mut options = options();
    options.models = vec![model("a", 0.8, true), model("b", 0.8, false)];
    options.device_memory_bytes = Some(4 << 20);
    options.swap.queue_threshold = 2;
    options.swap.quantum = Duration::ZERO;
    // A mebibyte of weights takes a second.
    options.swap_bandwidth = Some(f64::from(1 << 20));
    options
}

#[test]
fn models_swap_at_exact_instants_and_the_same_ones_every_time() {
    let play = || {
        let mut server = Offline::new(&pair()).unwrap();
        server.ask(1, COMPLETIONS, &body("a", 10, 40, None), Nanos(0));
        server.ask(2, COMPLETIONS, &body("b", 10, 2, None), Nanos(0));
        server.ask(3, COMPLETIONS, &body("b", 10, 2, None), Nanos(0));
        let told = everything(&mut server);
        (told, server.swaps(), server.timeline())
    };
    let (told, swaps, timeline) = play();
    // That `b` has to come is decided at 100 ms: `a` computes to its end, at 400, leaves within a second,
    // and `b` comes within another.
    let last = tokens(&told, 1).pop();
    assert_eq!((tokens(&told, 1).len(), last), (40, Some(400)));
    assert_eq!(tokens(&told, 2), [2420, 2430]);
    assert_eq!(tokens(&told, 3), [2420, 2430]);
    let moves: Vec<Value> = swaps["swaps"].as_array().unwrap().clone();
    let spent = |i: usize| [&moves[i]["drain_s"], &moves[i]["copy_s"]].map(Value::as_f64);
    assert_eq!(spent(0), [Some(0.3), Some(1.0)]);
    assert_eq!(spent(1), [Some(0.0), Some(1.0)]);
    assert_eq!(timeline["models"], json!(["a", "b"]));
    assert_eq!(play(), (told, swaps, timeline));
}

/// Names, directions and reasons of moves, and when each began and ended, in milliseconds.
fn moves(server: &Offline) -> Vec<(String, [u64; 2])> {
    let swaps = server.swaps();
    let told = |m: &Value| {
        let what = format!("{} {} {}", m["model"], m["direction"], m["reason"]);
        let at = [&m["began_ns"], &m["ended_ns"]].map(|at| at.as_u64().unwrap() / MS);
        (what.replace('"', ""), at)
    };
    swaps["swaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(told)
        .collect()
}

fn moved(what: &str, at: [u64; 2]) -> (String, [u64; 2]) {
    (what.to_owned(), at)
}

#[test]
fn a_model_comes_beside_an_active_one_and_computes_in_turn_with_it() {
    let mut options = pair();
    options.models = vec![model("a", 0.4, true), model("b", 0.4, false)];
    let mut server = Offline::new(&options).unwrap();
    server.ask(1, COMPLETIONS, &body("a", 10, 40, None), Nanos(0));
    server.ask(2, COMPLETIONS, &body("b", 10, 2, None), Nanos(0));
    let told = everything(&mut server);
    // Decided at 100 ms; its weights hold the other up for a second.
    assert_eq!(moves(&server), [moved("b in room", [100, 1100])]);
    assert_eq!(tokens(&told, 2), [1110, 1130]);
    let of_a = tokens(&told, 1);
    assert_eq!(of_a[9..12], [100, 1120, 1140]);
    assert_eq!((of_a.len(), of_a.last()), (40, Some(&1420)));
    let timeline = server.timeline();
    let samples = timeline["samples"].as_array().unwrap();
    let seen = |sample: &Value| {
        let of = |model: usize, what: &str| sample["models"][model][what].clone();
        let at = sample["at_ns"].as_u64().unwrap() / MS;
        (at, of(0, "running"), of(1, "state"))
    };
    let expected = [
        (0, "off"),
        (250, "in_transit"),
        (500, "in_transit"),
        (750, "in_transit"),
        (1000, "in_transit"),
        (1250, "active"),
    ];
    let expected = expected.map(|(at, state)| (at, json!(1), json!(state)));
    assert_eq!(samples.iter().map(seen).collect::<Vec<_>>(), expected);
}

#[test]
fn an_idle_model_leaves_at_the_first_decision_after_its_time() {
    let mut options = pair();
    options.swap.policy = SwapPolicy::Enhanced;
    options.swap.idle = Duration::from_secs(1);
    let mut server = Offline::new(&options).unwrap();
    server.ask(1, COMPLETIONS, &body("a", 10, 2, None), Nanos(0));
    assert_eq!(tokens(&everything(&mut server), 1), [10, 20]);
    assert_eq!(moves(&server), [moved("a out idle", [1100, 2100])]);
    // The device is free: the other one comes for its first request.
    let at = 5050 * MS;
    server.ask(2, COMPLETIONS, &body("b", 10, 2, None), Nanos(at));
    assert_eq!(tokens(&everything(&mut server), 2), [6110, 6120]);
    let b = [
        moved("b in room", [5100, 6100]),
        moved("b out idle", [7200, 8200]),
    ];
    assert_eq!(moves(&server)[1..], b);
}

#[test]
fn as_many_models_leave_as_another_needs_the_room_of() {
    let mut options = pair();
    let (a, b, c) = (
        model("a", 0.4, true),
        model("b", 0.4, true),
        model("c", 0.9, false),
    );
    options.models = vec![a, b, c];
    options.device_memory_bytes = Some(8 << 20);
    let mut server = Offline::new(&options).unwrap();
    for request in [1, 2] {
        server.ask(request, COMPLETIONS, &body("c", 10, 1, None), Nanos(0));
    }
    assert_eq!(tokens(&everything(&mut server), 2), [3120]);
    let expected = [
        moved("a out victim", [100, 1100]),
        moved("b out victim", [1100, 2100]),
        moved("c in queue", [2100, 3100]),
    ];
    assert_eq!(moves(&server), expected);
}

#[test]
fn who_came_just_now_stays_a_while_and_those_that_left_do_not_come_back_meanwhile() {
    let mut options = pair();
    let (a, b, c) = (
        model("a", 0.4, true),
        model("b", 0.4, false),
        model("c", 0.9, false),
    );
    options.models = vec![a, b, c];
    options.device_memory_bytes = Some(8 << 20);
    options.swap.quantum = Duration::from_secs(2);
    let mut server = Offline::new(&options).unwrap();
    server.ask(1, COMPLETIONS, &body("b", 10, 1, None), Nanos(1000 * MS));
    everything(&mut server);
    for request in [2, 3] {
        server.ask(
            request,
            COMPLETIONS,
            &body("c", 10, 1, None),
            Nanos(2100 * MS),
        );
    }
    server.ask(4, COMPLETIONS, &body("a", 10, 1, None), Nanos(2100 * MS));
    everything(&mut server);
    let expected = [
        moved("b in room", [1000, 2000]),
        moved("a out victim", [2100, 3100]),
        moved("b out victim", [4000, 5000]),
        moved("c in queue", [5000, 6000]),
    ];
    assert_eq!(moves(&server), expected);
}

#[test]
fn nobody_leaves_for_a_model_that_nobody_waits_for_any_more() {
    let mut options = pair();
    let (a, b, c) = (
        model("a", 0.4, true),
        model("b", 0.4, true),
        model("c", 0.9, false),
    );
    options.models = vec![a, b, c];
    options.device_memory_bytes = Some(8 << 20);
    let mut server = Offline::new(&options).unwrap();
    for request in [1, 2] {
        server.ask(request, COMPLETIONS, &body("c", 10, 1, None), Nanos(0));
    }
    // The first of the two that have to leave is on its way by then.
    while server.next(Nanos(500 * MS)).is_some() {}
    server.cancel(1);
    server.cancel(2);
    everything(&mut server);
    assert_eq!(moves(&server), [moved("a out victim", [100, 1100])]);
}

#[test]
fn what_waits_beyond_its_objective_is_broken_off_at_its_instant() {
    let mut options = pair();
    options.aborts_late = true;
    options.swap.queue_threshold = 100;
    options.swap.lead = Duration::ZERO;
    let mut server = Offline::new(&options).unwrap();
    server.ask(1, COMPLETIONS, &body("b", 10, 2, Some(3.0)), Nanos(0));
    let told = everything(&mut server);
    let Piece::Head { status, .. } = told[0].piece else {
        panic!("{told:?}")
    };
    assert_eq!((status, told[0].at.0 / MS), (408, 2500));
}

#[test]
fn what_is_computed_cannot_be_played() {
    let computed = ServerOptions {
        executor: ExecutorKind::Cpu,
        model_path: crate::fixture::model_folder().keep(),
        ..ServerOptions::default()
    };
    let message = Offline::new(&computed).err().unwrap().to_string();
    std::fs::remove_dir_all(&computed.model_path).unwrap();
    assert!(message.contains("made-up time is for `sim`"), "{message}");
}
