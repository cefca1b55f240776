//! Whole loads over a real tiny model: whatever is cached, shared, evicted, copied, retracted or
//! aborted, every sequence gets the bits that it gets alone.
//!
//! A case follows from its seed. The short run makes a few of them; `cargo xtask soak cached_loads`
//! makes as many as it is told, and says how to repeat the one that failed.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

use serde_json::json;

use super::*;
use crate::cache::{HostOptions, TransferKind, WritePolicy};
use crate::executor::cpu::{CpuExecutor, CpuOptions};
use crate::executor::{BlockId, Direction, Executor};
use crate::model::{LoadFormat, ModelConfig, Weights};

const VOCAB: usize = 24;
/// Longest prompt and output.
const CONTEXT: usize = 96;
const CASES_PER_ROUND: u64 = 20;

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` to below `high`.
    fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.within(0, n) == 0
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.within(0, VOCAB) as u32).collect()
    }
}

fn executor(n_blocks: usize, block_tokens: usize, host_blocks: u32) -> CpuExecutor {
    let config = ModelConfig::from_json(&json!({
        "model_type": "qwen2", "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "tie_word_embeddings": true
    }))
    .unwrap();
    let weights = Weights::load(&config, &LoadFormat::DummyScaled { seed: 5 }).unwrap();
    let options = CpuOptions {
        cache_tokens: n_blocks * block_tokens,
        block_tokens,
        host_blocks,
        threads: NonZeroUsize::MIN,
    };
    CpuExecutor::new(config, weights, options).unwrap()
}

/// A sampled token and a digest of the bits of all logits that it was chosen from.
type Output = (u32, u64);

fn output(logits: &[f32]) -> Output {
    let best = logits
        .iter()
        .zip(0..)
        .reduce(|a, b| if b.0 > a.0 { b } else { a });
    let fold = |digest: u64, value: &f32| {
        (digest.rotate_left(5) ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01B3)
    };
    (best.unwrap().1, logits.iter().fold(7, fold))
}

/// What a prompt gets alone, without scheduler and cache.
fn alone(executor: &mut CpuExecutor, prompt: &[u32], n_outputs: usize) -> Vec<Output> {
    let blocks: Vec<_> = (0..executor.cache_shape().n_blocks).map(BlockId).collect();
    let mut tokens = prompt.to_vec();
    let mut outputs = Vec::new();
    let mut position = 0;
    while outputs.len() < n_outputs {
        let chunk = SequenceChunk {
            tokens: &tokens[position..],
            position,
            blocks: &blocks,
            wants_logits: true,
        };
        let batch = Batch {
            phase: Phase::Prefill,
            sequences: vec![chunk],
        };
        let next = output(executor.step(&batch).unwrap().logits);
        position = tokens.len();
        tokens.push(next.0);
        outputs.push(next);
    }
    outputs
}

#[derive(Debug)]
struct Asked {
    prompt: Vec<u32>,
    max_tokens: usize,
    writes_all: bool,
    arrives_at: usize,
    aborted_at: Option<usize>,
    expected: Vec<Output>,
}

#[derive(Debug)]
struct Case {
    limits: Limits,
    block_tokens: usize,
    n_blocks: usize,
    /// Steps until a copy to the host is acknowledged, at most.
    lag: usize,
    requests: Vec<Asked>,
}

/// Prompts that share beginnings, and prompts that go on where an earlier answer ended.
fn requests(random: &mut Random, reference: &mut CpuExecutor) -> Vec<Asked> {
    let shared: Vec<_> = (0..3)
        .map(|_| {
            let n = random.within(8, 60);
            random.tokens(n)
        })
        .collect();
    let mut requests: Vec<Asked> = Vec::new();
    for _ in 0..random.within(2, 16) {
        let earlier = requests.len().checked_sub(1).map(|last| &requests[last]);
        let mut prompt = match earlier {
            Some(earlier) if random.one_in(3) => {
                let answer = earlier.expected.iter().map(|output| output.0);
                earlier.prompt.iter().copied().chain(answer).collect()
            }
            _ => shared[random.within(0, shared.len())].clone(),
        };
        prompt.truncate(random.within(1, 56));
        let n = random.within(0, 8);
        prompt.extend(random.tokens(n));
        let n_outputs = random.within(1, 28);
        let is_short = !random.one_in(4);
        requests.push(Asked {
            expected: alone(reference, &prompt, n_outputs),
            prompt,
            max_tokens: n_outputs + if is_short { random.within(0, 4) } else { 0 },
            writes_all: !is_short,
            arrives_at: random.within(0, 24),
            aborted_at: random.one_in(5).then(|| random.within(0, 60)),
        });
    }
    requests
}

fn case(seed: u64, reference: &mut CpuExecutor) -> Case {
    let mut random = Random(seed);
    let requests = requests(&mut random, reference);
    let block_tokens = [1, 2, 4, 16][random.within(0, 4)];
    let most = |asked: &Asked| (asked.prompt.len() + asked.max_tokens).div_ceil(block_tokens);
    let least = requests.iter().map(most).max().unwrap_or(1);
    let n_blocks = least + random.within(0, least * 2) / random.within(1, 4);
    let policies = [
        WritePolicy::WriteThrough,
        WritePolicy::WriteThroughSelective,
        WritePolicy::WriteBack,
    ];
    let host = HostOptions {
        n_blocks: random.within(1, n_blocks * 3 + 1) as u32,
        policy: policies[random.within(0, 3)],
    };
    let keeping = match random.within(0, 6) {
        0 => Keeping::Nothing,
        1 | 2 => Keeping::Prefixes,
        _ => Keeping::PrefixesAndHost(host),
    };
    let is_lpm = random.one_in(2);
    Case {
        limits: Limits {
            max_running_requests: random.within(1, 7),
            chunked_prefill_size: random.one_in(2).then(|| random.within(1, 30)),
            max_prefill_tokens: random.within(1, 100),
            policy: if is_lpm { Policy::Lpm } else { Policy::Fcfs },
            conservativeness: [0.02, 0.05, 1.0][random.within(0, 3)],
            keeping,
        },
        block_tokens,
        n_blocks,
        lag: random.within(1, 6),
        requests,
    }
}

/// What a load came across, so that a test can say that it tests something.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    cached: usize,
    from_host: usize,
    evicted: usize,
    retracted: usize,
    aborted: usize,
}

/// A case under way.
struct Load<'a> {
    case: &'a Case,
    scheduler: Scheduler,
    executor: CpuExecutor,
    got: BTreeMap<SequenceId, Vec<Output>>,
    unacknowledged: VecDeque<(usize, Ticket)>,
    step: usize,
    seen: Seen,
}

impl<'a> Load<'a> {
    fn new(case: &'a Case) -> Self {
        let host_blocks = match case.limits.keeping {
            Keeping::PrefixesAndHost(host) => host.n_blocks,
            Keeping::Nothing | Keeping::Prefixes => 0,
        };
        let executor = executor(case.n_blocks, case.block_tokens, host_blocks);
        Load {
            case,
            scheduler: Scheduler::new(case.limits, executor.cache_shape()),
            executor,
            got: BTreeMap::new(),
            unacknowledged: VecDeque::new(),
            step: 0,
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> Seen {
        let last = self
            .case
            .requests
            .iter()
            .map(|asked| asked.arrives_at)
            .max();
        while self.step <= last.unwrap_or(0) || !self.scheduler.is_idle() {
            assert!(self.step < 20_000, "the load does not end");
            self.come_and_go();
            let plan = self.scheduler.schedule();
            self.scheduler.check();
            self.copy_blocks();
            if let Some(plan) = plan {
                self.perform(&plan);
            }
            self.scheduler.check();
            self.step += 1;
        }
        self.end()
    }

    fn come_and_go(&mut self) {
        while let Some((at, ticket)) = self.unacknowledged.front().copied()
            && at <= self.step
        {
            self.unacknowledged.pop_front();
            self.scheduler.acknowledge(ticket);
        }
        for (asked, id) in self.case.requests.iter().zip(0..) {
            let id = SequenceId(id);
            if asked.arrives_at == self.step {
                self.got.insert(id, Vec::new());
                self.scheduler.enqueue(NewSequence {
                    id,
                    prompt: asked.prompt.clone(),
                    max_tokens: asked.max_tokens,
                    writes_all: asked.writes_all,
                });
            }
            if asked.aborted_at == Some(self.step) {
                self.scheduler.remove(&[id]);
                self.seen.aborted += 1;
            }
        }
    }

    fn copy_blocks(&mut self) {
        for transfer in self.scheduler.take_transfers() {
            let direction = match transfer.kind {
                TransferKind::BackUp(ticket) => {
                    let lag = (self.step + transfer.pairs.len()) % self.case.lag;
                    let at = self.unacknowledged.back().map_or(0, |(at, _)| *at);
                    self.unacknowledged
                        .push_back((at.max(self.step + lag), ticket));
                    Direction::ToHost
                }
                TransferKind::WriteBack => Direction::ToHost,
                TransferKind::Load => Direction::ToDevice,
            };
            self.executor.copy(direction, &transfer.pairs);
        }
    }

    fn perform(&mut self, plan: &StepPlan) {
        for Admission { id, cached, .. } in &plan.admitted {
            let entry = plan.entries.iter().find(|entry| entry.id == *id);
            // What is cached is not computed again.
            assert_eq!(entry.unwrap().start, cached.total());
            self.seen.cached += cached.total();
            self.seen.from_host += cached.host;
        }
        self.seen.retracted += plan.retracted.len();
        let sampled = self.executor.step(&self.scheduler.batch(plan)).unwrap();
        let outputs: Vec<_> = sampled.logits.chunks(VOCAB).map(output).collect();
        self.scheduler.computed(plan);
        let mut finished = Vec::new();
        let wanted = plan.entries.iter().filter(|entry| entry.wants_logits);
        for (entry, output) in wanted.zip(outputs) {
            self.scheduler.append(entry.index, output.0);
            let got = self.got.get_mut(&entry.id).unwrap();
            got.push(output);
            let expected = &self.case.requests[entry.id.0 as usize].expected;
            assert_eq!(got[..], expected[..got.len()], "{:?}", entry.id);
            if got.len() == expected.len() {
                finished.push(entry.id);
            }
        }
        self.scheduler.remove(&finished);
    }

    fn end(mut self) -> Seen {
        for (asked, got) in self.case.requests.iter().zip(self.got.values()) {
            let is_whole = got.len() == asked.expected.len();
            assert!(is_whole || asked.aborted_at.is_some(), "not answered");
        }
        self.seen.evicted = self.scheduler.cache().counts().evicted;
        self.scheduler.flush();
        self.scheduler.check();
        let blocks = self.scheduler.cache().blocks();
        assert_eq!(blocks.n_free(), self.case.n_blocks);
        self.seen
    }
}

/// Runs `n` cases from a seed on; the message of a failure begins with the seed of its case.
fn run_cases(first: u64, n: u64) -> Seen {
    let mut reference = executor(CONTEXT, 1, 0);
    let mut total = Seen::default();
    for seed in first..first + n {
        let case = case(seed, &mut reference);
        let outcome = std::panic::catch_unwind(|| Load::new(&case).run());
        let seen = outcome.unwrap_or_else(|_| panic!("seed {seed}: {case:#?}"));
        total.cached += seen.cached;
        total.from_host += seen.from_host;
        total.evicted += seen.evicted;
        total.retracted += seen.retracted;
        total.aborted += seen.aborted;
    }
    total
}

#[test]
fn cached_loads_get_the_bits_that_each_sequence_gets_alone() {
    let seen = run_cases(1, 300);
    let all = [
        seen.cached,
        seen.from_host,
        seen.evicted,
        seen.retracted,
        seen.aborted,
    ];
    assert!(all.iter().all(|n| *n > 20), "hardly tried: {seen:?}");
}

#[test]
#[ignore = "a soak: `cargo xtask soak cached_loads`"]
fn soak_cached_loads() {
    let number = |name: &str, otherwise: u64| {
        let text = std::env::var(name).ok();
        text.map_or(otherwise, |text| text.parse().unwrap())
    };
    let rounds = number("BENCHWRIGHT_SOAK_ROUNDS", 5);
    let seed = number("BENCHWRIGHT_SOAK_SEED", 1);
    let seen = run_cases(seed, rounds * CASES_PER_ROUND);
    assert!(seen.cached > 0, "nothing was cached: {seen:?}");
}
