//! What the scheduler and its cache cost per step, without anything being computed.
//!
//! `cargo bench -p embedded-server --bench scheduler`

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]

use std::time::{Duration, Instant};

use embedded_server::cache::{HostOptions, Keeping, WritePolicy};
use embedded_server::executor::{CacheShape, Phase};
use embedded_server::scheduler::{Limits, NewSequence, Policy, Scheduler, SequenceId};

const BLOCK_TOKENS: u32 = 16;
const OUTPUTS: usize = 64;
const RUNNING: usize = 64;
const STEPS: usize = 4000;
const PROMPT_TOKENS: usize = 2000;
const WAITING: usize = 128;

fn main() {
    println!(
        "{:<44} {:>9} {:>9} {:>9}",
        "scheduler and cache", "mean µs", "p50 µs", "p99 µs"
    );
    let host = HostOptions {
        n_blocks: 16_000,
        policy: WritePolicy::WriteThrough,
    };
    for (name, keeping, policy) in [
        ("nothing kept", Keeping::Nothing, Policy::Fcfs),
        ("radix, fcfs", Keeping::Prefixes, Policy::Fcfs),
        ("radix, lpm", Keeping::Prefixes, Policy::Lpm),
        (
            "radix and host, lpm",
            Keeping::PrefixesAndHost(host),
            Policy::Lpm,
        ),
    ] {
        let (all, decodes) = steps(keeping, policy);
        report(&format!("a step of 64 running: {name}"), all);
        report(&format!("  decode steps: {name}"), decodes);
    }
    report(
        "128 waiting prompts of 2,000 tokens: fcfs",
        passes(Policy::Fcfs),
    );
    report(
        "128 waiting prompts of 2,000 tokens: lpm",
        passes(Policy::Lpm),
    );
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let mean = us(times.iter().sum::<Duration>()) / times.len() as f64;
    let at = |share: f64| us(times[((times.len() - 1) as f64 * share) as usize]);
    println!("{name:<44} {mean:>9.1} {:>9.1} {:>9.1}", at(0.5), at(0.99));
}

fn limits(max_running_requests: usize, keeping: Keeping, policy: Policy) -> Limits {
    Limits {
        max_running_requests,
        chunked_prefill_size: Some(2048),
        max_prefill_tokens: 16_384,
        policy,
        conservativeness: 1.0,
        keeping,
    }
}

fn shape(n_blocks: u32) -> CacheShape {
    CacheShape {
        n_blocks,
        block_tokens: BLOCK_TOKENS,
        bytes_per_token: 1,
    }
}

/// A prompt whose first half it shares with every sixteenth other.
fn prompt(number: u64, n_tokens: usize) -> Vec<u32> {
    let shared = (number % 16) as u32 * 100_000;
    let own = 10_000_000 + number as u32 * 10_000;
    let half = n_tokens as u32 / 2;
    (shared..shared + half).chain(own..own + half).collect()
}

fn sequence(number: u64, n_tokens: usize) -> NewSequence {
    NewSequence {
        id: SequenceId(number),
        prompt: prompt(number, n_tokens),
        max_tokens: OUTPUTS,
        writes_all: true,
    }
}

/// A closed loop: 64 run, 32 wait, and whoever ends is followed by another. Times of all steps, and
/// of those that decode.
fn steps(keeping: Keeping, policy: Policy) -> (Vec<Duration>, Vec<Duration>) {
    // Room for what runs and as much again, so that prefixes are evicted all the time.
    let mut scheduler = Scheduler::new(limits(RUNNING, keeping, policy), shape(8000));
    let mut next = 0;
    let (mut all, mut decodes, mut n_running) = (Vec::new(), Vec::new(), 0);
    while all.len() < STEPS {
        while scheduler.n_running() + scheduler.n_waiting() < RUNNING + 32 {
            scheduler.enqueue(sequence(next, 800));
            next += 1;
        }
        let began = Instant::now();
        let plan = scheduler.schedule().expect("work");
        for transfer in scheduler.take_transfers() {
            if let embedded_server::cache::TransferKind::BackUp(ticket) = transfer.kind {
                scheduler.acknowledge(ticket);
            }
        }
        std::hint::black_box(scheduler.batch(&plan));
        scheduler.computed(&plan);
        let mut finished = Vec::new();
        for entry in plan.entries.iter().filter(|entry| entry.wants_logits) {
            scheduler.append(entry.index, entry.start as u32);
            if scheduler.running()[entry.index].n_outputs() == OUTPUTS {
                finished.push(entry.id);
            }
        }
        scheduler.remove(&finished);
        let took = began.elapsed();
        all.push(took);
        n_running += scheduler.n_running();
        if plan.phase == Phase::Decode {
            decodes.push(took);
        }
    }
    let cached = scheduler.cache().counts();
    println!(
        "{policy:?}: {} running on average, {} blocks evicted, {} backed up, {} loaded",
        n_running / STEPS,
        cached.evicted,
        cached.backed_up,
        cached.loaded
    );
    (all, decodes)
}

/// One pass over a full queue, which admits its first: in a tree that has the first half of every
/// prompt, and all of some.
fn passes(policy: Policy) -> Vec<Duration> {
    let keeping = Keeping::Prefixes;
    let mut scheduler = Scheduler::new(limits(1, keeping, policy), shape(60_000));
    for number in 0..64 {
        scheduler.enqueue(sequence(number, PROMPT_TOKENS));
        while let Some(plan) = scheduler.schedule() {
            scheduler.computed(&plan);
            scheduler.remove(&[SequenceId(number)]);
        }
    }
    let mut times = Vec::new();
    for number in 32..32 + WAITING as u64 {
        scheduler.enqueue(sequence(number, PROMPT_TOKENS));
    }
    while times.len() < 500 {
        let began = Instant::now();
        let plan = scheduler.schedule().expect("work");
        times.push(began.elapsed());
        let id = plan.entries[0].id;
        scheduler.remove(&[id]);
        scheduler.enqueue(sequence(id.0, PROMPT_TOKENS));
    }
    times
}
