//! Step times of the cpu executor on two layers of Qwen2.5-0.5B's shape with a small vocabulary.
//!
//! `cargo bench -p embedded-server --bench step -- [THREADS] [VOCABULARY]`

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]

use embedded_server::executor::cpu::{CpuExecutor, CpuOptions};
use embedded_server::executor::{Batch, BlockId, Executor, Phase, SequenceChunk};
use embedded_server::model::{LoadFormat, ModelConfig, Weights};
use serde_json::json;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

const BLOCK_TOKENS: usize = 16;
const BLOCKS_PER_SEQUENCE: usize = 136;

fn main() {
    // cargo passes its own flags, such as `--bench`.
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let threads = numbers
        .next()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN);
    let vocab_size = numbers.next().unwrap_or(8192);
    let config = json!({
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 2, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": vocab_size, "max_position_embeddings": 4096, "tie_word_embeddings": true
    });
    let config = ModelConfig::from_json(&config).expect("a sound configuration");
    let begin = Instant::now();
    let weights = Weights::load(&config, &LoadFormat::Dummy { seed: 1 }).expect("dummy weights");
    println!(
        "made up {} parameters in {:.0?}",
        config.parameter_count(),
        begin.elapsed()
    );
    let cache_tokens = 64 * BLOCKS_PER_SEQUENCE * BLOCK_TOKENS;
    let options = CpuOptions {
        cache_tokens,
        block_tokens: BLOCK_TOKENS,
        host_blocks: 0,
        threads,
    };
    let mut executor = CpuExecutor::new(config, weights, options).expect("an executor");
    println!(
        "{threads} thread(s), {}, vocabulary {vocab_size}",
        executor.isa().name()
    );
    println!("{:<28} {:>10} {:>10}", "step", "median ms", "best ms");
    for (n_sequences, context) in [
        (1, 64),
        (2, 64),
        (4, 64),
        (8, 64),
        (16, 64),
        (32, 64),
        (64, 256),
    ] {
        let name = format!("decode {n_sequences} at {context}");
        report(&mut executor, &name, Phase::Decode, n_sequences, context, 1);
    }
    for (n_tokens, prefix) in [(64, 0), (512, 0), (2048, 0), (512, 1536), (64, 1984)] {
        let name = format!("prefill {n_tokens} after {prefix}");
        report(&mut executor, &name, Phase::Prefill, 1, prefix, n_tokens);
    }
}

/// Times one batch shape for about two seconds, and prints its operations.
fn report(
    executor: &mut CpuExecutor,
    name: &str,
    phase: Phase,
    n_sequences: usize,
    position: usize,
    n_tokens: usize,
) {
    let tokens: Vec<u32> = (0..n_tokens as u32).map(|i| i * 7919 % 8192).collect();
    let tables: Vec<Vec<BlockId>> = (0..n_sequences)
        .map(|s| {
            (s * BLOCKS_PER_SEQUENCE..(s + 1) * BLOCKS_PER_SEQUENCE).map(|b| BlockId(b as u32))
        })
        .map(Iterator::collect)
        .collect();
    let chunk = |blocks| SequenceChunk {
        tokens: &tokens,
        position,
        blocks,
        wants_logits: true,
    };
    let batch = Batch {
        phase,
        sequences: tables.iter().map(|t| chunk(t)).collect(),
    };
    let begin = Instant::now();
    let mut steps = Vec::new();
    while steps.len() < 3 || begin.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        let output = executor.step(&batch).expect("a sound batch");
        let operations = output.operations;
        steps.push((start.elapsed(), operations));
    }
    steps.sort_by_key(|(elapsed, _)| *elapsed);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (median, operations) = &steps[steps.len() / 2];
    print!(
        "{name:<28} {:>10.2} {:>10.2}  ",
        ms(*median),
        ms(steps[0].0)
    );
    for (operation, total) in operations {
        print!(" {operation:?} {:.2}", ms(*total));
    }
    println!();
}
