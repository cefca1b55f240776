//! The logits are those of the model.

use crate::models::{self, Model};
use crate::reference;
use crate::runner::{Runner, Sequence, prompt};
use embedded_server::executor::cpu::{CpuExecutor, CpuOptions};
use embedded_server::executor::{Batch, BlockId, Executor, Operation, Phase, SequenceChunk};
use embedded_server::model::{LoadFormat, Weights};
use std::num::NonZeroUsize;

/// Logits have a magnitude of about five here; single precision loses some seven digits.
fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error < 2e-4,
            "{what}: logit {i} is {found}, expected {expected}"
        );
    }
    let as_f64: Vec<_> = found.iter().copied().map(f64::from).collect();
    assert_eq!(
        reference::greedy(&as_f64),
        reference::greedy(expected),
        "{what}: greedy token"
    );
}

#[test]
fn a_prompt_in_one_step_has_the_reference_logits() {
    for (name, model) in models::all() {
        let mut runner = Runner::new(model.load(), 16, 1);
        for n in [1, 2, 15, 16, 17, 70] {
            let tokens = prompt(name, n, model.size("vocab_size"));
            let expected = reference::logits(&model, &tokens);
            let found = runner.alone(&tokens, n);
            assert_close(&found, &expected[n - 1], &format!("{name}, {n} tokens"));
        }
    }
}

#[test]
fn a_prompt_in_chunks_has_the_reference_logits_for_any_block_size() {
    for (name, model) in models::all() {
        let tokens = prompt(name, 45, model.size("vocab_size"));
        let expected = reference::logits(&model, &tokens);
        for (block_tokens, chunk) in [(16, 16), (16, 7), (4, 13), (5, 1), (1, 20), (33, 44)] {
            let found = Runner::new(model.load(), block_tokens, 1).alone(&tokens, chunk);
            assert_close(
                &found,
                &expected[44],
                &format!("{name}, blocks of {block_tokens}"),
            );
        }
    }
}

/// Appends the reference's next token and says what its logits were.
fn extend(model: &Model, sequence: &mut Sequence) -> Vec<f64> {
    let logits = reference::logits(model, &sequence.tokens)
        .pop()
        .expect("tokens");
    sequence.tokens.push(reference::greedy(&logits));
    logits
}

#[test]
fn batches_whose_members_come_and_go_generate_the_reference_tokens() {
    for (name, model) in models::all() {
        let mut runner = Runner::new(model.load(), 4, 1);
        let mut running: Vec<Sequence> = Vec::new();
        for round in 0..12 {
            // Two prompts of different lengths join in one prefill, every third round.
            if round % 3 == 0 {
                let mut joining: Vec<_> = [round + 3, 2 * round + 1]
                    .map(|n| prompt(&format!("{name}{round}{n}"), n, model.size("vocab_size")))
                    .map(|tokens| runner.sequence(&tokens, tokens.len() + 12))
                    .into();
                let mut work: Vec<_> = joining.iter_mut().map(|s| (s.tokens.len(), s)).collect();
                let found = runner.step(
                    &mut work
                        .iter_mut()
                        .map(|(n, s)| (&mut **s, *n))
                        .collect::<Vec<_>>(),
                );
                for (sequence, found) in joining.iter_mut().zip(found) {
                    let expected = extend(&model, sequence);
                    assert_close(
                        &found,
                        &expected,
                        &format!("{name}, prefill, round {round}"),
                    );
                }
                running.extend(joining);
            }
            // Another order every round.
            running.rotate_left(1);
            let found = runner.step(&mut running.iter_mut().map(|s| (s, 1)).collect::<Vec<_>>());
            for (sequence, found) in running.iter_mut().zip(found) {
                let expected = extend(&model, sequence);
                assert_close(&found, &expected, &format!("{name}, decode, round {round}"));
            }
            if round % 4 == 3 {
                runner.finish(running.remove(0));
            }
        }
    }
}

#[test]
fn only_wanted_logits_come_back_and_operations_are_timed_once_each() {
    let model = models::qwen3();
    let mut runner = Runner::new(model.load(), 16, 1);
    let tokens = prompt("wanted", 9, 64);
    let alone = runner.alone(&tokens, 9);
    let blocks = [BlockId(0), BlockId(1), BlockId(2)];
    let chunk = |block: usize, wants_logits| SequenceChunk {
        tokens: &tokens,
        position: 0,
        blocks: &blocks[block..=block],
        wants_logits,
    };
    let sequences = vec![chunk(0, false), chunk(1, true), chunk(2, false)];
    let output = runner
        .executor
        .step(&Batch {
            phase: Phase::Prefill,
            sequences,
        })
        .unwrap();
    assert_eq!(output.logits, alone);
    let mut operations: Vec<_> = output.operations.iter().map(|(name, _)| *name).collect();
    operations.sort_unstable();
    let mut all = [
        Operation::Embedding,
        Operation::Norm,
        Operation::Projection,
        Operation::Rotary,
        Operation::Attention,
        Operation::Mlp,
        Operation::Head,
    ];
    all.sort_unstable();
    assert_eq!(operations, all);
}

#[test]
fn scaled_dummy_weights_give_logits_that_depend_on_the_prompt() {
    let config = models::qwen2().config();
    let options = CpuOptions {
        cache_tokens: 64,
        block_tokens: 16,
        host_blocks: 0,
        threads: NonZeroUsize::MIN,
    };
    let weights = Weights::load(&config, &LoadFormat::DummyScaled { seed: 3 }).unwrap();
    let mut executor = CpuExecutor::new(config, weights, options).unwrap();
    let mut logits = |tokens: &[u32]| {
        let blocks = [BlockId(0)];
        let chunk = SequenceChunk {
            tokens,
            position: 0,
            blocks: &blocks,
            wants_logits: true,
        };
        let batch = Batch {
            phase: Phase::Prefill,
            sequences: vec![chunk],
        };
        executor.step(&batch).unwrap().logits.to_vec()
    };
    let (a, b) = (logits(&[1, 2, 3]), logits(&[2, 1, 3]));
    assert!(a.iter().all(|logit| logit.is_finite()));
    assert_ne!(a, b);
    assert_eq!(a, logits(&[1, 2, 3]));
}
