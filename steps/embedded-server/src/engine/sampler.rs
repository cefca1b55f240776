//! From logits to a token.
//!
//! Each request has its own generator, seeded once, so what is drawn depends neither on the batch
//! it ran in nor on whether it was retracted. Knows no sequence and no text.

/// How tokens of one request are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 chooses the largest.
    pub temperature: f32,
    /// Only the likeliest tokens that hold this share of the probability, in `(0, 1]`.
    pub top_p: f32,
    /// Only so many of the likeliest tokens; `None`: all.
    pub top_k: Option<usize>,
    /// Start of the request's generator.
    pub seed: u64,
}

/// A candidate: logit over temperature, and its id.
type Candidate = (f32, u32);

/// Chooses the tokens of one request.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    state: u64,
}

impl Sampler {
    /// A sampler at its beginning.
    #[must_use]
    pub fn new(params: SamplingParams) -> Self {
        Sampler {
            params,
            // Scattered, so that no seed begins where another one is after a few draws.
            state: scatter(params.seed ^ 0xD1B5_4A32_D192_ED03),
        }
    }

    /// Chooses one id among `logits`, `[n_ids]`, but none of `banned`, which is ascending.
    ///
    /// `scratch` is only there to be reused. With every id banned the answer is 0.
    pub fn sample(&mut self, logits: &[f32], banned: &[u32], scratch: &mut Vec<Candidate>) -> u32 {
        if self.params.temperature <= 0.0 || self.params.top_k == Some(1) {
            return greedy(logits, banned);
        }
        scratch.clear();
        let inverse = self.params.temperature.recip();
        for (start, segment) in allowed(logits, banned) {
            let ids = start as u32..;
            scratch.extend(
                segment
                    .iter()
                    .zip(ids)
                    .map(|(logit, id)| (logit * inverse, id)),
            );
        }
        if let Some(k) = self.params.top_k {
            keep_largest(scratch, k);
        }
        let largest = scratch
            .iter()
            .map(|(logit, _)| *logit)
            .fold(f32::NEG_INFINITY, f32::max);
        for (logit, _) in scratch.iter_mut() {
            *logit = (*logit - largest).exp();
        }
        if self.params.top_p < 1.0 {
            keep_share(scratch, f64::from(self.params.top_p));
        }
        let target = self.uniform() * total(scratch);
        draw(scratch, target)
    }

    /// The next number of the request's generator, in `[0, 1)`. SplitMix64 (Steele, Lea and
    /// Flood, 2014): one draw per token needs no more.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (scatter(self.state) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads the bits of a number: the finaliser of SplitMix64.
fn scatter(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The runs of `logits` between banned ids, each with the id it starts at.
fn allowed<'a>(logits: &'a [f32], banned: &'a [u32]) -> impl Iterator<Item = (usize, &'a [f32])> {
    let ends = banned
        .iter()
        .map(|id| *id as usize)
        .filter(|id| *id < logits.len());
    let mut start = 0;
    ends.chain([logits.len()]).map(move |end| {
        let segment = (start, &logits[start..end.max(start)]);
        start = end + 1;
        segment
    })
}

/// The id of the largest logit, the smallest such id.
fn greedy(logits: &[f32], banned: &[u32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (start, segment) in allowed(logits, banned) {
        // Two passes: the first has no index in it and becomes vector code.
        let largest = segment.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if largest > best.0
            && let Some(at) = segment.iter().position(|logit| *logit == largest)
        {
            best = (largest, start + at);
        }
    }
    best.1 as u32
}

/// Likelier first; equally likely ones by id, so that the order never depends on the sort.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

fn keep_largest(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, likelier);
        candidates.truncate(k);
    }
}

/// Keeps the fewest of the largest weights that hold `share` of the total, at least one.
///
/// Sorts only as many candidates as that takes: of a vocabulary of 150 000 it is mostly few.
fn keep_share(candidates: &mut Vec<Candidate>, share: f64) {
    let wanted = share * total(candidates);
    let mut n_sorted = 64.min(candidates.len());
    while n_sorted < candidates.len() {
        candidates.select_nth_unstable_by(n_sorted - 1, likelier);
        if total(&candidates[..n_sorted]) >= wanted {
            break;
        }
        n_sorted = (n_sorted * 8).min(candidates.len());
    }
    candidates.truncate(n_sorted);
    candidates.sort_unstable_by(likelier);
    let mut held = 0.0;
    let enough = candidates.iter().position(|(weight, _)| {
        held += f64::from(*weight);
        held >= wanted
    });
    if let Some(last) = enough {
        candidates.truncate(last + 1);
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates
        .iter()
        .map(|(weight, _)| f64::from(*weight))
        .sum()
}

fn draw(candidates: &[Candidate], mut target: f64) -> u32 {
    for (weight, id) in candidates {
        target -= f64::from(*weight);
        if target < 0.0 {
            return *id;
        }
    }
    // Rounding may leave a remainder at the very end.
    candidates.last().map_or(0, |(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(temperature: f32, top_p: f32, top_k: Option<usize>) -> SamplingParams {
        SamplingParams {
            temperature,
            top_p,
            top_k,
            seed: 7,
        }
    }

    fn counts(params: SamplingParams, logits: &[f32], banned: &[u32]) -> Vec<usize> {
        let mut sampler = Sampler::new(params);
        let mut scratch = Vec::new();
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.sample(logits, banned, &mut scratch) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let logits = [0.5, 2.0, -1.0, 2.0, f32::NAN];
        assert_eq!(greedy(&logits, &[]), 1);
        assert_eq!(greedy(&logits, &[1]), 3);
        assert_eq!(greedy(&logits, &[1, 3]), 0);
        assert_eq!(greedy(&logits, &[0, 1, 2, 3, 4, 9]), 0);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0, 2.0f32.ln(), 3.0f32.ln(), 4.0f32.ln()];
        let counts = counts(params(1.0, 1.0, None), &logits, &[]);
        for (count, share) in counts.iter().zip([0.1, 0.2, 0.3, 0.4]) {
            // Four standard deviations of 20 000 draws are below 0.014.
            assert!(
                (*count as f64 / 20_000.0 - share).abs() < 0.015,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0, 2.0f32.ln(), 3.0f32.ln(), 4.0f32.ln()];
        let top_two = counts(params(1.0, 1.0, Some(2)), &logits, &[]);
        assert!(top_two[0] == 0 && top_two[1] == 0 && top_two[2] > 0 && top_two[3] > 0);
        // 0.4 + 0.3 is the fewest that holds 0.65.
        let share = counts(params(1.0, 0.65, None), &logits, &[]);
        assert!(share[1] == 0 && share[2] > 0 && share[3] > 0, "{share:?}");
        let banned = counts(params(1.0, 0.4, None), &logits, &[3]);
        assert!(banned[3] == 0 && banned[2] > 0);
    }

    #[test]
    fn no_seed_continues_another() {
        let draws = |seed: u64| -> Vec<u64> {
            let mut sampler = Sampler::new(SamplingParams {
                seed,
                ..params(1.0, 1.0, None)
            });
            (0..8).map(|_| sampler.uniform().to_bits()).collect()
        };
        // A step of the generator apart, as the seeds of successive requests may be.
        let (one, next) = (draws(5), draws(5_u64.wrapping_add(0x9E37_79B9_7F4A_7C15)));
        assert!(one.iter().all(|draw| !next.contains(draw)));
    }

    #[test]
    fn a_seed_repeats_itself_and_another_differs() {
        let logits = vec![0.0; 1000];
        let run = |seed| {
            let mut sampler = Sampler::new(SamplingParams {
                seed,
                ..params(1.0, 1.0, None)
            });
            let mut scratch = Vec::new();
            (0..8)
                .map(|_| sampler.sample(&logits, &[], &mut scratch))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    proptest! {
        #[test]
        fn keeping_a_share_equals_the_naive_way(
            weights in proptest::collection::vec(0.01f32..1.0, 1..400), share in 0.01f64..0.999,
        ) {
            let mut kept: Vec<Candidate> = weights.iter().copied().zip(0..).collect();
            let mut naive = kept.clone();
            naive.sort_by(likelier);
            let wanted = share * total(&kept);
            keep_share(&mut kept, share);
            let n = kept.len();
            prop_assert_eq!(&kept[..], &naive[..n]);
            prop_assert!(total(&naive[..n]) >= wanted * (1.0 - 1e-9));
            prop_assert!(total(&naive[..n - 1]) < wanted * (1.0 + 1e-9));
        }

        #[test]
        fn a_banned_id_is_never_chosen(
            logits in proptest::collection::vec(-5.0f32..5.0, 2..40), banned in 0u32..40, seed: u64,
        ) {
            let warm = SamplingParams { seed, ..params(1.0, 0.9, None) };
            for params in [warm, SamplingParams { temperature: 0.0, ..warm }] {
                let id = Sampler::new(params).sample(&logits, &[banned], &mut Vec::new());
                prop_assert!((id as usize) < logits.len() && id != banned);
            }
        }
    }
}
