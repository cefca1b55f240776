//! The server without sockets and threads: exact instants, and the same ones every time.

use axum::body::Bytes;
use embedded_server::clock::Nanos;
use embedded_server::offline::{Offline, Piece, Told};
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

/// When the tokens of a request came, in milliseconds.
fn tokens(told: &[Told], request: u64) -> Vec<u64> {
    let of_request = told.iter().filter(|told| told.request == request);
    let text = |told: &&Told| match &told.piece {
        Piece::Body(bytes) => std::str::from_utf8(bytes).unwrap().contains("\"text\":\" "),
        _ => false,
    };
    let is_token = |told: &&Told| {
        text(told) || matches!(&told.piece, Piece::Body(b) if b.starts_with(b"data: {"))
    };
    of_request
        .filter(is_token)
        .map(|told| told.at.0 / MS)
        .collect()
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
fn a_refusal_and_a_request_that_is_broken_off_are_told_with_their_status() {
    let mut server = Offline::new(&options()).unwrap();
    server.ask(1, COMPLETIONS, &Bytes::from_static(b"{"), Nanos(7));
    let told = everything(&mut server);
    let is_event_stream = false;
    let head = Piece::Head {
        status: 400,
        is_event_stream,
    };
    assert_eq!((told[0].at, &told[0].piece), (Nanos(7), &head));
    assert!(matches!(&told[1].piece, Piece::Body(words) if words.starts_with(b"{\"error\"")));
    assert_eq!(told[2].piece, Piece::End);
}

fn pair() -> ServerOptions {
    let model = |name: &str, is_active| ModelOptions {
        path: PathBuf::new(),
        name: name.to_owned(),
        mem_fraction_static: 0.8,
        is_active,
    };
    let mut options = options();
    options.models = vec![model("a", true), model("b", false)];
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
