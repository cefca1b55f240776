//! How long a step takes that nobody computes: a function of what it would have had to do.

use std::time::Duration;

use crate::device_profile::{Fitted, Roofline};
use crate::executor::{Batch, Phase};
use crate::model::ModelConfig;

/// No step takes longer: a profile that says so would hold up the server's end.
const LONGEST: Duration = Duration::from_secs(60);

/// How long steps take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepTimes {
    /// A prefill so long per token that it computes, a decode so long whatever runs.
    Linear {
        /// Time per token of a prefill.
        prefill_token: Duration,
        /// Time of a decode step.
        decode_step: Duration,
    },
    /// As long as it takes to compute or to read memory, whichever is longer, and the overhead.
    Roofline {
        /// What computes.
        device: Roofline,
        /// What is computed.
        model: ModelFigures,
    },
    /// As steps took that were measured.
    Fitted(Fitted),
}

/// What of a model decides how much a step computes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelFigures {
    /// Parameters that every token is multiplied with: all but the embeddings and the head.
    pub body_parameters: u64,
    /// Parameters of the head, which a token is multiplied with only if its logits are wanted.
    pub head_parameters: u64,
    /// Layers.
    pub n_layers: u64,
    /// Width of all query heads: their number times their size.
    pub query_width: u64,
    /// Bytes of the weights that every step reads.
    pub read_bytes: u64,
    /// Bytes of keys and values per token, all layers together.
    pub bytes_per_token: u64,
}

impl ModelFigures {
    /// Those of a model whose weights have `dtype_bytes` each, and whose keys and values come to
    /// `bytes_per_token`.
    #[must_use]
    pub fn of(config: &ModelConfig, dtype_bytes: u64, bytes_per_token: u64) -> Self {
        let (body_parameters, head_parameters) =
            (config.body_parameters(), config.head_parameters());
        ModelFigures {
            body_parameters,
            head_parameters,
            n_layers: config.num_hidden_layers as u64,
            query_width: config.query_width() as u64,
            read_bytes: (body_parameters + head_parameters).saturating_mul(dtype_bytes),
            bytes_per_token,
        }
    }
}

/// What a step has to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Prefill or decode.
    pub phase: Phase,
    /// Sequences that take part.
    pub n_sequences: f64,
    /// Tokens that are computed.
    pub n_tokens: f64,
    /// Tokens whose logits are wanted.
    pub n_logits: f64,
    /// Tokens that are attended to: per sequence those before and now, all together.
    pub context_tokens: f64,
    /// Pairs of tokens of which one attends to the other: `Σ n_i (p_i + n_i / 2)`, where `n_i` tokens
    /// of a sequence are computed behind `p_i`.
    pub n_pairs: f64,
}

impl Work {
    /// What a batch has to do.
    #[must_use]
    pub fn of(batch: &Batch<'_>) -> Self {
        let mut work = Work {
            phase: batch.phase,
            n_sequences: batch.sequences.len() as f64,
            n_tokens: 0.0,
            n_logits: 0.0,
            context_tokens: 0.0,
            n_pairs: 0.0,
        };
        for sequence in &batch.sequences {
            let (before, now) = (sequence.position as f64, sequence.tokens.len() as f64);
            work.n_tokens += now;
            work.n_logits += f64::from(u8::from(sequence.wants_logits));
            work.context_tokens += before + now;
            work.n_pairs += now * (before + now / 2.0);
        }
        work
    }
}

impl StepTimes {
    /// How long a step takes that has to do this: a minute at most.
    #[must_use]
    pub fn of(&self, work: &Work) -> Duration {
        let took = match (self, work.phase) {
            (StepTimes::Linear { prefill_token, .. }, Phase::Prefill) => {
                seconds(prefill_token.as_secs_f64() * work.n_tokens)
            }
            (StepTimes::Linear { decode_step, .. }, Phase::Decode) => *decode_step,
            (StepTimes::Roofline { device, model }, _) => seconds(roofline(device, model, work)),
            (StepTimes::Fitted(fitted), Phase::Prefill) => {
                seconds(fitted.prefill.us(work.n_tokens, work.n_pairs) / 1e6)
            }
            (StepTimes::Fitted(fitted), Phase::Decode) => {
                seconds(fitted.decode.us(work.n_sequences, work.context_tokens) / 1e6)
            }
        };
        took.min(LONGEST)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST)
}

/// Seconds of a step by the roofline model (Williams, Waterman and Patterson, 2009): overhead and
/// the longer of the times to compute and to read.
///
/// A token costs two operations per parameter, and four per layer and element of its queries for
/// each token that it attends to: one multiplication and one addition for the score, as many for the
/// value. Every step reads the weights once, and keys and values of what is attended to.
fn roofline(device: &Roofline, model: &ModelFigures, work: &Work) -> f64 {
    let products =
        model.body_parameters as f64 * work.n_tokens + model.head_parameters as f64 * work.n_logits;
    let attention = (model.n_layers * model.query_width) as f64 * work.n_pairs;
    let flops = 2.0 * products + 4.0 * attention;
    let bytes = model.read_bytes as f64 + model.bytes_per_token as f64 * work.context_tokens;
    let computing = flops / (device.flops_per_s * device.flops_efficiency);
    let reading = bytes / (device.bytes_per_s * device.bytes_efficiency);
    device.overhead_us / 1e6 + computing.max(reading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_profile::{DecodeTimes, PrefillTimes};
    use crate::executor::SequenceChunk;

    /// The work of chunks of so many tokens behind so many.
    fn work(phase: Phase, chunks: &[(usize, usize)]) -> Work {
        let tokens = vec![0; chunks.iter().map(|(_, n)| *n).max().unwrap_or(0)];
        let chunk = |&(position, n): &(usize, usize)| SequenceChunk {
            tokens: &tokens[..n],
            position,
            blocks: &[],
            wants_logits: true,
        };
        let sequences = chunks.iter().map(chunk).collect();
        Work::of(&Batch { phase, sequences })
    }

    fn device(flops_per_s: f64, bytes_per_s: f64) -> Roofline {
        Roofline {
            flops_per_s,
            bytes_per_s,
            flops_efficiency: 0.5,
            bytes_efficiency: 0.5,
            overhead_us: 100.0,
        }
    }

    const MODEL: ModelFigures = ModelFigures {
        body_parameters: 1_000_000,
        head_parameters: 500_000,
        n_layers: 10,
        query_width: 100,
        read_bytes: 3_000_000,
        bytes_per_token: 1000,
    };

    #[test]
    fn a_step_s_work_is_that_of_its_sequences_together() {
        let work = work(Phase::Prefill, &[(0, 8), (100, 2)]);
        assert_eq!((work.n_sequences, work.n_tokens), (2.0, 10.0));
        assert_eq!((work.context_tokens, work.n_logits), (110.0, 2.0));
        // 8 · (0 + 4) + 2 · (100 + 1).
        assert_eq!(work.n_pairs, 234.0);
    }

    #[test]
    fn what_computes_slowly_takes_as_long_as_its_operations() {
        let times = StepTimes::Roofline {
            device: device(2e9, 1e15),
            model: MODEL,
        };
        let took = times.of(&work(Phase::Prefill, &[(50, 10)]));
        // 2 · (1e6 · 10 + 5e5 · 1) + 4 · 10 · 100 · 10 · (50 + 5) operations at 1e9 a second.
        let operations = 21_000_000 + 2_200_000;
        assert_eq!(took, Duration::from_nanos(100_000 + operations));
    }

    #[test]
    fn what_reads_slowly_takes_as_long_as_its_bytes() {
        let times = StepTimes::Roofline {
            device: device(1e18, 2e9),
            model: MODEL,
        };
        let took = times.of(&work(Phase::Decode, &[(499, 1), (299, 1)]));
        // The weights, and 800 tokens of 1000 bytes, at 1e9 a second.
        assert_eq!(took, Duration::from_nanos(100_000 + 3_800_000));
    }

    #[test]
    fn fitted_times_are_the_fit_s() {
        let times = StepTimes::Fitted(Fitted {
            prefill: PrefillTimes {
                base_us: 1000.0,
                token_us: 10.0,
                pair_us: 0.5,
                quality: None,
            },
            decode: DecodeTimes {
                base_us: 500.0,
                sequence_us: 25.0,
                context_token_us: 0.25,
                quality: None,
            },
        });
        let prefill = times.of(&work(Phase::Prefill, &[(4, 8)]));
        assert_eq!(prefill, Duration::from_micros(1000 + 80 + 32));
        let decode = times.of(&work(Phase::Decode, &[(99, 1), (299, 1)]));
        assert_eq!(decode, Duration::from_micros(500 + 50 + 100));
    }

    #[test]
    fn a_prefill_costs_its_tokens_and_a_decode_the_same_whatever_runs() {
        let times = StepTimes::Linear {
            prefill_token: Duration::from_micros(100),
            decode_step: Duration::from_micros(300),
        };
        let prefill = times.of(&work(Phase::Prefill, &[(0, 3), (8, 2)]));
        assert_eq!(prefill, Duration::from_micros(500));
        let decode = times.of(&work(Phase::Decode, &[(9, 1), (3, 1)]));
        assert_eq!(decode, Duration::from_micros(300));
    }

    #[test]
    fn no_step_takes_longer_than_a_minute() {
        let times = StepTimes::Roofline {
            device: device(1e-300, 1.0),
            model: MODEL,
        };
        assert_eq!(times.of(&work(Phase::Decode, &[(0, 1)])), LONGEST);
    }
}
