//! The load generator's client against a paced server of known truth, beside its peers.
//!
//! ```text
//! cargo bench -p loadgen --bench client                    # everything, five runs each
//! cargo bench -p loadgen --bench client -- accuracy 256    # one mode, one number of streams
//! BENCHWRIGHT_PEERS=FOLDER cargo bench -p loadgen --bench client -- accuracy
//! ```
//!
//! Modes: `accuracy` (CPU per token and errors, at 64, 256 and 1,024 streams of 10 and 50 ms a
//! token), `events` (several events per write), `requests` (short ones, as many as go), `open` (5,000
//! arrivals a second), `many` (10,000 streams at once).
//!
//! Client and server are processes of their own, the server on the first processor, the client on the
//! second. `FOLDER` holds scripts of what peers there are: `sglang-bench` (SGLang's Rust client,
//! `_bench.run_argv` of its wheel), and with `PEERS=slow` also `aiperf`, `sglang-py`
//! (`python -m sglang.bench_serving`), `vllm` (`vllm bench serve`) and `guidellm`; and `tokenizer/` for
//! those that want one. `RUNS` says how many runs are interleaved.

/// Writes a line to standard output, which is what a benchmark is for.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // Nobody listens: then there is nobody to tell.
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod floor;
mod load;
mod ours;
mod paced;
mod peers;
mod processes;

use load::{Load, Outcome};
use loadgen::EventTime;
use processes::{Served, pin};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => {
            pin(0);
            paced::serve(paced::Pace::read(&arguments[1..])).expect("a server");
        }
        Some("--client") => {
            pin(1);
            ours::client(&Load::read(&arguments[1..]), EventTime::Read);
        }
        Some("--client-by-kernel-time") => {
            pin(1);
            ours::client(&Load::read(&arguments[1..]), EventTime::Kernel);
        }
        Some("--floor") => {
            pin(1);
            floor::client(&Load::read(&arguments[1..])).expect("answers");
        }
        _ => all(&arguments),
    }
}

fn all(wanted: &[String]) {
    let runs = std::env::var("RUNS").ok().and_then(|n| n.parse().ok());
    let runs: usize = runs.unwrap_or(5);
    let is_wanted = |mode: &str| {
        let modes: Vec<&String> = wanted
            .iter()
            .filter(|w| w.parse::<u64>().is_err())
            .collect();
        modes.is_empty() || modes.iter().any(|w| *w == mode)
    };
    let streams: Vec<u64> = wanted.iter().filter_map(|w| w.parse().ok()).collect();
    if is_wanted("accuracy") {
        accuracy(runs, &streams);
    }
    for (mode, title, load, runs, with_peers) in others(runs) {
        if is_wanted(mode) {
            let peers = if with_peers { peers::all() } else { Vec::new() };
            compare(title, &load, runs, &peers);
        }
    }
}

/// Loads besides those for accuracy: mode, title, load, runs, whether peers take part.
fn others(runs: usize) -> [(&'static str, &'static str, Load, usize, bool); 4] {
    let load = |streams, requests, tokens, ttft_us, tpot_us, batch, rate| Load {
        streams,
        requests,
        tokens,
        ttft_us,
        tpot_us,
        batch,
        rate,
    };
    let events = load(50, 500, 2000, 20_000, 100, 20, 0);
    let requests = load(64, 60_000, 4, 0, 0, 4, 0);
    let open = load(0, 25_000, 1, 1000, 0, 1, 5000);
    let many = load(10_000, 20_000, 20, 1_000_000, 500_000, 1, 0);
    [
        (
            "events",
            "events: 50 streams, 20 events a write",
            events,
            runs,
            false,
        ),
        (
            "requests",
            "requests: 64 users, 4 tokens at once",
            requests,
            runs,
            true,
        ),
        ("open", "open loop: 5,000 requests/s", open, runs, false),
        ("many", "many: 10,000 streams", many, 1, false),
    ]
}

fn accuracy(runs: usize, streams: &[u64]) {
    for (n, tpot_us, tokens) in [
        (64, 10_000, 100),
        (64, 50_000, 50),
        (256, 10_000, 100),
        (256, 50_000, 50),
        (1024, 10_000, 100),
        (1024, 50_000, 50),
    ] {
        if !streams.is_empty() && !streams.contains(&n) {
            continue;
        }
        let load = Load {
            streams: n,
            requests: n * 10,
            tokens,
            ttft_us: 100_000,
            tpot_us,
            batch: 1,
            rate: 0,
        };
        let title = format!(
            "accuracy: {n} streams, {} ms a token, ten waves",
            tpot_us / 1000
        );
        compare(&title, &load, runs, &peers::all());
    }
}

/// Runs every client in turn, so often, and shows medians.
fn compare(title: &str, load: &Load, runs: usize, peers: &[peers::Peer]) {
    say!("\n{title}; medians of {runs}");
    let mut outcomes: Vec<(String, Vec<Outcome>)> = Vec::new();
    let mut add = |name: &str, outcome: Outcome| match outcomes.iter_mut().find(|(n, _)| n == name)
    {
        Some((_, all)) => all.push(outcome),
        None => outcomes.push((name.to_owned(), vec![outcome])),
    };
    for _ in 0..runs {
        for (name, time) in [
            ("benchwright", EventTime::Read),
            ("kernel time", EventTime::Kernel),
        ] {
            add(name, ours::measured(load, &Served::start(load), time));
        }
        if load.rate == 0 {
            add(
                "(reading alone)",
                floor::measured(load, &Served::start(load)),
            );
        }
        for peer in peers {
            add(peer.name, peer.measured(load, &Served::start(load)));
        }
    }
    for (name, all) in &outcomes {
        say!("  {name:16} {}", Outcome::medians(all));
    }
}
