//! What a sequence gets does not depend on how it was served: the same bits in every batch.

use crate::models;
use crate::runner::{Runner, prompt};
use embedded_server::executor::{Batch, BlockId, Executor, Phase, SequenceChunk, StepError};

#[test]
fn logits_have_the_same_bits_however_a_prompt_is_chunked_and_on_any_threads() {
    for (name, model) in models::all() {
        let tokens = prompt(name, 100, model.size("vocab_size"));
        for block_tokens in [16, 6] {
            let whole = Runner::new(model.load(), block_tokens, 1).alone(&tokens, 100);
            for (chunk, n_threads) in [(1, 1), (7, 1), (64, 1), (99, 1), (100, 3), (33, 2)] {
                let found =
                    Runner::new(model.load(), block_tokens, n_threads).alone(&tokens, chunk);
                assert_eq!(
                    found, whole,
                    "{name}: chunks of {chunk}, {n_threads} threads"
                );
            }
        }
    }
}

#[test]
fn logits_have_the_same_bits_in_every_company() {
    for (name, model) in models::all() {
        let mut runner = Runner::new(model.load(), 16, 1);
        let vocab_size = model.size("vocab_size");
        let tokens = prompt(name, 40, vocab_size);
        let alone = runner.alone(&tokens, 40);
        for n_others in [1, 6, 7, 40] {
            let lengths = (0..n_others).map(|i| 1 + i % 5);
            let mut others: Vec<_> = lengths
                .map(|n| prompt(&format!("other {n}"), n, vocab_size))
                .map(|tokens| runner.sequence(&tokens, tokens.len()))
                .collect();
            let mut probe = runner.sequence(&tokens, 40);
            // The prompt's last token is decoded in company, the rest prefilled in company.
            let mut found = Vec::new();
            for n in [39, 1] {
                others.iter_mut().for_each(|other| other.n_computed = 0);
                let mut work: Vec<_> = others.iter_mut().map(|other| (other, 1)).collect();
                work.insert(n_others / 2, (&mut probe, n));
                found = runner.step(&mut work).swap_remove(n_others / 2);
            }
            assert_eq!(found, alone, "{name} among {n_others}");
            others
                .into_iter()
                .chain([probe])
                .for_each(|sequence| runner.finish(sequence));
        }
    }
}

#[test]
fn a_prefix_in_shared_blocks_serves_two_sequences() {
    let model = models::qwen2();
    let mut runner = Runner::new(model.load(), 16, 1);
    let prefix = prompt("prefix", 32, 61);
    let mut first = runner.sequence(&[prefix.clone(), vec![1, 2, 3]].concat(), 48);
    runner.step(&mut [(&mut first, 32)]);
    let mut second = runner.sequence(&[prefix.clone(), vec![4, 5]].concat(), 48);
    second.blocks.splice(..2, first.blocks[..2].iter().copied());
    second.n_computed = 32;
    let shared = runner.step(&mut [(&mut first, 3), (&mut second, 2)]);
    for (sequence, shared) in [&first, &second].into_iter().zip(shared) {
        let fresh = Runner::new(model.load(), 16, 1).alone(&sequence.tokens, 100);
        assert_eq!(shared, fresh);
    }
}

#[test]
fn a_refused_batch_changes_nothing() {
    let model = models::llama();
    let mut runner = Runner::new(model.load(), 16, 1);
    let tokens = prompt("kept", 20, 53);
    let expected = runner.alone(&tokens, 20);
    let mut kept = runner.sequence(&tokens, 20);
    runner.step(&mut [(&mut kept, 19)]);
    // The first sequence would overwrite what the kept one computed; the second is unsound.
    let chunk = |tokens, position| SequenceChunk {
        tokens,
        position,
        blocks: &kept.blocks,
        wants_logits: true,
    };
    for (unsound, error) in [
        (
            chunk(&[53], 0),
            StepError::TokenOutOfRange {
                id: 53,
                vocab_size: 53,
            },
        ),
        (chunk(&[], 0), StepError::Empty),
        (
            chunk(&[1], 256),
            StepError::PositionOutOfRange {
                position: 256,
                max: 256,
            },
        ),
        (
            chunk(&[1], 32),
            StepError::BlockTable {
                sequence: 1,
                needed: 33,
                available: 32,
            },
        ),
    ] {
        let sequences = vec![chunk(&[7, 7, 7], 0), unsound];
        let batch = Batch {
            phase: Phase::Prefill,
            sequences,
        };
        assert_eq!(runner.executor.step(&batch).unwrap_err(), error);
    }
    let blocks = [BlockId(u32::MAX), kept.blocks[0]];
    let missing = SequenceChunk {
        tokens: &[1],
        position: 0,
        blocks: &blocks,
        wants_logits: true,
    };
    let batch = Batch {
        phase: Phase::Decode,
        sequences: vec![missing],
    };
    let error = StepError::BlockTable {
        sequence: 0,
        needed: 1,
        available: 0,
    };
    assert_eq!(runner.executor.step(&batch).unwrap_err(), error);
    assert_eq!(runner.step(&mut [(&mut kept, 1)]), [expected]);
}
