//! Properties of whole schedules, and the rules one by one.

use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn limits(max_running: usize, chunk: Option<usize>, max_prefill: usize) -> Limits {
    Limits {
        max_running_requests: max_running,
        chunked_prefill_size: chunk,
        max_prefill_tokens: max_prefill,
        policy: Policy::Fcfs,
        conservativeness: 1.0,
        keeping: Keeping::Nothing,
    }
}

fn shape(n_blocks: u32, block_tokens: u32) -> CacheShape {
    CacheShape {
        n_blocks,
        block_tokens,
        bytes_per_token: 1,
    }
}

fn sequence(id: u64, n_prompt: usize, max_tokens: usize) -> NewSequence {
    NewSequence {
        id: SequenceId(id),
        prompt: vec![0; n_prompt],
        max_tokens,
        writes_all: false,
    }
}

/// Performs a plan with a token that equals the position it is written at.
fn perform(scheduler: &mut Scheduler, plan: &StepPlan, done: &mut Vec<SequenceId>) {
    scheduler.computed(plan);
    let mut finished = Vec::new();
    for entry in plan.entries.iter().filter(|entry| entry.wants_logits) {
        scheduler.append(entry.index, (entry.start + entry.n_tokens) as u32);
        let sequence = &scheduler.running()[entry.index];
        if sequence.n_left_to_write() == 0 {
            finished.push(sequence.id);
        }
    }
    scheduler.remove(&finished);
    done.extend(finished);
}

fn widths(plan: &StepPlan) -> Vec<usize> {
    plan.entries.iter().map(|entry| entry.n_tokens).collect()
}

#[test]
fn a_batch_that_arrives_together_is_one_prefill_step() {
    let mut scheduler = Scheduler::new(limits(8, None, 64), shape(64, 16));
    (0..4).for_each(|id| scheduler.enqueue(sequence(id, 16, 4)));
    let plan = scheduler.schedule().unwrap();
    assert_eq!((plan.phase, widths(&plan)), (Phase::Prefill, vec![16; 4]));
    perform(&mut scheduler, &plan, &mut Vec::new());
    let plan = scheduler.schedule().unwrap();
    assert_eq!((plan.phase, widths(&plan)), (Phase::Decode, vec![1; 4]));
}

#[test]
fn the_prefill_budget_splits_a_burst_but_never_blocks_a_long_prompt() {
    let mut scheduler = Scheduler::new(limits(8, None, 10), shape(64, 16));
    for (id, n_prompt) in [6, 4, 1, 30].into_iter().enumerate() {
        scheduler.enqueue(sequence(id as u64, n_prompt, 4));
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let plan = scheduler.schedule().unwrap();
        seen.push((plan.phase, widths(&plan)));
        perform(&mut scheduler, &plan, &mut Vec::new());
    }
    let prefill = Phase::Prefill;
    assert_eq!(
        seen,
        [
            (prefill, vec![6, 4]),
            (prefill, vec![1]),
            (prefill, vec![30])
        ]
    );
}

#[test]
fn a_long_prompt_is_computed_in_chunks_and_shares_its_last_one() {
    let mut scheduler = Scheduler::new(limits(8, Some(8), 64), shape(64, 4));
    scheduler.enqueue(sequence(0, 19, 2));
    scheduler.enqueue(sequence(1, 3, 2));
    scheduler.enqueue(sequence(2, 9, 2));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let plan = scheduler.schedule().unwrap();
        let wants: Vec<bool> = plan
            .entries
            .iter()
            .map(|entry| entry.wants_logits)
            .collect();
        seen.push((widths(&plan), wants));
        perform(&mut scheduler, &plan, &mut Vec::new());
    }
    assert_eq!(seen[0], (vec![8], vec![false]));
    assert_eq!(seen[1], (vec![8], vec![false]));
    assert_eq!(seen[2], (vec![3, 3, 2], vec![true, true, false]));
    assert_eq!(seen[3], (vec![7], vec![true]));
    assert_eq!(seen[4], (vec![1, 1, 1], vec![true; 3]));
}

#[test]
fn the_running_set_is_bounded() {
    let mut scheduler = Scheduler::new(limits(2, None, 64), shape(64, 16));
    (0..3).for_each(|id| scheduler.enqueue(sequence(id, 4, 4)));
    scheduler.schedule().unwrap();
    assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (2, 1));
}

#[test]
fn an_overfull_cache_retracts_the_fewest_outputs_and_finishes_all() {
    // Both are admitted on the expectation that they end early, and then neither does.
    let mut scheduler = Scheduler::new(limits(4, None, 64), shape(12, 1));
    (0..600).for_each(|_| scheduler.reservation.decay());
    let mut done = Vec::new();
    scheduler.enqueue(sequence(0, 2, 7));
    let plan = scheduler.schedule().unwrap();
    perform(&mut scheduler, &plan, &mut done);
    let plan = scheduler.schedule().unwrap();
    perform(&mut scheduler, &plan, &mut done);
    scheduler.enqueue(sequence(1, 2, 5));
    let mut retracted = Vec::new();
    while let Some(plan) = scheduler.schedule() {
        retracted.extend(plan.retracted.clone());
        perform(&mut scheduler, &plan, &mut done);
    }
    assert_eq!(retracted, [SequenceId(1)]);
    assert_eq!(done, [SequenceId(0), SequenceId(1)]);
    assert_eq!(scheduler.cache().blocks().n_free(), 12);
}

#[test]
fn a_retracted_sequence_finds_its_prompt_and_not_its_outputs() {
    let mut keeping = limits(4, None, 64);
    (keeping.keeping, keeping.conservativeness) = (Keeping::Prefixes, 0.01);
    let mut scheduler = Scheduler::new(keeping, shape(18, 1));
    for (id, max_tokens) in [(0, 12), (1, 10)] {
        let mut new = sequence(id, 3, max_tokens);
        new.prompt = vec![100 + id as u32; 3];
        scheduler.enqueue(new);
    }
    let (mut admitted, mut done) = (Vec::new(), Vec::new());
    while let Some(plan) = scheduler.schedule() {
        admitted.extend(plan.admitted.clone());
        perform(&mut scheduler, &plan, &mut done);
        scheduler.check();
    }
    let again: Vec<_> = admitted.iter().filter(|one| one.is_again).collect();
    assert!(!again.is_empty(), "nothing was retracted");
    assert!(again.iter().all(|one| one.cached.total() <= 3), "{again:?}");
    let first = admitted.iter().filter(|one| !one.is_again);
    assert!(first.clone().all(|one| one.cached.total() == 0));
    assert_eq!(first.count(), 2);
    assert_eq!(done.len(), 2);
}

#[test]
fn a_longer_match_overtakes_and_a_long_queue_does_not() {
    for (n_others, expected) in [(127, 1), (128, 0)] {
        let mut keeping = limits(1, None, 64);
        (keeping.keeping, keeping.policy) = (Keeping::Prefixes, Policy::Lpm);
        let mut scheduler = Scheduler::new(keeping, shape(256, 4));
        let mut warm = sequence(500, 40, 1);
        warm.prompt = (0..40).collect();
        scheduler.enqueue(warm.clone());
        let plan = scheduler.schedule().unwrap();
        perform(&mut scheduler, &plan, &mut Vec::new());
        for id in 0..n_others {
            let mut cold = sequence(id, 8, 1);
            cold.prompt = vec![1000 + id as u32; 8];
            scheduler.enqueue(cold);
        }
        warm.id = SequenceId(501);
        scheduler.enqueue(warm);
        let plan = scheduler.schedule().unwrap();
        let first = plan.admitted[0];
        assert_eq!(usize::from(first.id == SequenceId(501)), expected);
        assert_eq!(first.cached.total(), 36 * expected);
    }
}

#[test]
fn a_removed_sequence_frees_its_blocks_wherever_it_was() {
    let mut scheduler = Scheduler::new(limits(1, None, 64), shape(8, 4));
    scheduler.enqueue(sequence(0, 8, 4));
    scheduler.enqueue(sequence(1, 8, 4));
    scheduler.schedule().unwrap();
    scheduler.remove(&[SequenceId(0), SequenceId(1)]);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.cache().blocks().n_free(), 8);
}

#[derive(Debug, Clone)]
struct Case {
    limits: Limits,
    shape: CacheShape,
    /// Prompt length, outputs, whether all will be written, steps before it arrives.
    requests: Vec<(usize, usize, bool, usize)>,
    /// Requests that are cancelled after so many steps.
    cancelled: Vec<(usize, usize)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let limits = (1usize..6, proptest::option::of(1usize..12), 1usize..24)
        .prop_map(|(running, chunk, prefill)| limits(running, chunk, prefill));
    let shape = (4u32..24, 1u32..5).prop_map(|(n, size)| shape(n, size));
    let requests =
        proptest::collection::vec((1usize..20, 1usize..12, any::<bool>(), 0usize..20), 1..14);
    let cancelled = proptest::collection::vec((0usize..14, 0usize..40), 0..4);
    (limits, shape, requests, cancelled).prop_map(|(limits, shape, requests, cancelled)| Case {
        limits,
        shape,
        requests,
        cancelled,
    })
}

fn check_plan(scheduler: &Scheduler, plan: &StepPlan, case: &Case) {
    let batch = scheduler.batch(plan);
    let mut owned = HashSet::new();
    for sequence in scheduler.running() {
        assert!(
            sequence.blocks().iter().all(|block| owned.insert(*block)),
            "shared block"
        );
    }
    for chunk in &batch.sequences {
        let n_slots = chunk.blocks.len() * case.shape.block_tokens as usize;
        assert!(!chunk.tokens.is_empty() && chunk.position + chunk.tokens.len() <= n_slots);
    }
    assert!(plan.entries.len() <= case.limits.max_running_requests);
    let n_tokens: usize = widths(plan).iter().sum();
    match plan.phase {
        Phase::Decode => assert!(batch.sequences.iter().all(|chunk| chunk.tokens.len() == 1)),
        Phase::Prefill => {
            assert!(n_tokens <= case.limits.chunked_prefill_size.unwrap_or(usize::MAX));
            let is_single = plan.entries.len() == 1;
            assert!(is_single || n_tokens <= case.limits.max_prefill_tokens);
            let n_unfinished = plan
                .entries
                .iter()
                .filter(|entry| !entry.wants_logits)
                .count();
            assert!(n_unfinished <= 1, "more than one prompt in chunks");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_schedule_ends_within_its_bounds(case in cases()) {
        let door = Door::new(usize::MAX, case.shape);
        let mut scheduler = Scheduler::new(case.limits, case.shape);
        let mut expected = HashMap::new();
        let mut done = Vec::new();
        let mut first_admissions = Vec::new();
        for step in 0.. {
            prop_assert!(step < 20_000, "the schedule does not end");
            for (id, (n_prompt, max_tokens, writes_all, at)) in case.requests.iter().enumerate() {
                if *at == step && door.check(*n_prompt, *max_tokens).is_ok() {
                    let mut new = sequence(id as u64, *n_prompt, *max_tokens);
                    new.writes_all = *writes_all;
                    scheduler.enqueue(new);
                    expected.insert(SequenceId(id as u64), (*at, id));
                }
            }
            for (id, at) in &case.cancelled {
                let id = SequenceId(*id as u64);
                if *at == step && !done.contains(&id) {
                    scheduler.remove(&[id]);
                    expected.remove(&id);
                }
            }
            let was_idle = scheduler.is_idle();
            match scheduler.schedule() {
                None => {
                    prop_assert!(was_idle, "nothing planned although there is work");
                    if step > 20 { break; }
                }
                Some(plan) => {
                    check_plan(&scheduler, &plan, &case);
                    for Admission { id, .. } in &plan.admitted {
                        if !first_admissions.contains(id) { first_admissions.push(*id); }
                    }
                    scheduler.check();
                    perform(&mut scheduler, &plan, &mut done);
                }
            }
        }
        let finished: HashSet<_> = done.iter().copied().collect();
        prop_assert_eq!(finished.len(), done.len());
        prop_assert!(expected.keys().all(|id| finished.contains(id)));
        prop_assert_eq!(scheduler.cache().blocks().n_free(), case.shape.n_blocks as usize);
        // First come, first served: nobody is admitted before an earlier arrival.
        let order: Vec<_> = first_admissions.iter().filter_map(|id| expected.get(id)).collect();
        prop_assert!(order.is_sorted());
    }
}
