//! The engine over a scripted executor: no server, no model.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::cache::Keeping;
use crate::clock::{MadeUpClock, MonotonicClock};
use crate::device::Device;
use crate::executor::{Batch, CacheShape, Direction, Operation, Phase, StepError, StepOutput};
use crate::scheduler::Policy;
use crate::tokenizer::tests::word_tokenizer;
use crate::tokenizer::{Detokenizer, StopStrings, TextStream};

const VOCAB: usize = 300;
/// Bytes of the weights, and blocks of the cache.
pub(super) const WEIGHTS: u64 = 100;
pub(super) const N_BLOCKS: u32 = 16;

/// Answers every sequence with its last token plus one; each step waits for a permission.
struct Counting {
    permits: Option<Receiver<()>>,
    logits: Vec<f32>,
    fails: bool,
    n_blocks: u32,
}

impl Executor for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn cache_shape(&self) -> CacheShape {
        CacheShape {
            n_blocks: self.n_blocks,
            block_tokens: 4,
            bytes_per_token: 1,
        }
    }

    fn weight_bytes(&self) -> u64 {
        WEIGHTS
    }

    fn move_weights(&mut self, _: Direction) {}

    fn resize_cache(&mut self, n_blocks: u32) {
        self.n_blocks = n_blocks;
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError> {
        if let Some(permits) = &self.permits {
            // A closed channel lets every step pass.
            let _ = permits.recv();
        }
        if self.fails {
            return Err(StepError::Empty);
        }
        self.logits.clear();
        for chunk in batch.sequences.iter().filter(|chunk| chunk.wants_logits) {
            let next = (chunk.tokens[chunk.tokens.len() - 1] as usize + 1) % VOCAB;
            self.logits
                .extend((0..VOCAB).map(|id| if id == next { 5.0 } else { 0.0 }));
        }
        let operations = vec![(Operation::Head, Duration::from_nanos(7))];
        Ok(StepOutput {
            logits: &self.logits,
            certain: &[],
            operations,
            takes: None,
        })
    }
}

pub(super) struct Bench {
    pub(super) handle: EngineHandle,
    pub(super) metrics: Arc<Metrics>,
    steps: Arc<StepLog>,
    tokenizer: Arc<Tokenizer>,
    ended: oneshot::Receiver<()>,
    pub(super) status: Arc<Status>,
    pub(super) moves: Arc<MoveLog>,
    pub(super) device: Arc<Device>,
}

pub(super) fn bench(queue_limit: usize, permits: Option<Receiver<()>>, fails: bool) -> Bench {
    let metrics = Arc::new(Metrics::default());
    let steps = Arc::new(StepLog::new(64));
    let tokenizer = Arc::new(word_tokenizer(VOCAB));
    let device = Device::new(Some(WEIGHTS + u64::from(N_BLOCKS) * 4));
    let place = Arc::new(device.place(1.0));
    place.take_weights(WEIGHTS).unwrap();
    place.take_cache(0, 4, u64::from(N_BLOCKS)).unwrap();
    let status = Status::begin(true, &MonotonicClock);
    let moves = Arc::new(MoveLog::default());
    let parts = EngineParts {
        executor: Box::new(Counting {
            permits,
            logits: Vec::new(),
            fails,
            n_blocks: N_BLOCKS,
        }),
        tokenizer: tokenizer.clone(),
        limits: Limits {
            max_running_requests: 2,
            chunked_prefill_size: None,
            max_prefill_tokens: 64,
            policy: Policy::Fcfs,
            conservativeness: 1.0,
            keeping: Keeping::Prefixes,
        },
        host_bandwidth: None,
        status: status.clone(),
        home: Home {
            model: "counting".to_owned(),
            place,
            is_active: true,
            most_blocks: u64::from(N_BLOCKS),
            link: None,
            moves: moves.clone(),
        },
        aborts_late: true,
        queue_limit,
        clock: Arc::new(MonotonicClock),
        metrics: metrics.clone(),
        steps: steps.clone(),
    };
    let (handle, ended) = start(parts).unwrap();
    Bench {
        handle,
        metrics,
        steps,
        tokenizer,
        ended,
        status,
        moves,
        device,
    }
}

pub(super) fn gate() -> (SyncSender<()>, Option<Receiver<()>>) {
    let (permit, permits) = sync_channel(64);
    (permit, Some(permits))
}

pub(super) fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: SamplingParams {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            seed: 0,
        },
        ending: Ending {
            max_tokens,
            min_tokens: 0,
            ignores_eos: true,
            stop_ids: Vec::new(),
        },
        watched: None,
        objective: None,
    }
}

pub(super) fn collect(answers: &mut mpsc::Receiver<Event>) -> Vec<EventKind> {
    std::iter::from_fn(|| answers.blocking_recv())
        .map(|event| event.kind)
        .collect()
}

pub(super) fn ids(events: &[EventKind]) -> Vec<u32> {
    let id = |event: &EventKind| match event {
        EventKind::Token { id, .. } => Some(*id),
        EventKind::Failed(_) => None,
    };
    events.iter().filter_map(id).collect()
}

fn last_finish(events: &[EventKind]) -> Option<FinishReason> {
    match events.last() {
        Some(EventKind::Token { finish, .. }) => *finish,
        _ => None,
    }
}

#[test]
fn a_request_is_answered_counted_and_logged() {
    let bench = bench(4, None, false);
    let mut answers = bench
        .handle
        .submit(vec![request(&[20, 21, 22], 4)])
        .unwrap();
    let events = collect(&mut answers);
    assert_eq!(ids(&events), [23, 24, 25, 26]);
    assert_eq!(last_finish(&events), Some(FinishReason::Length));
    assert_eq!(bench.metrics.requests.get(), 1);
    assert_eq!(bench.metrics.prompt_tokens.get(), 3);
    assert_eq!(bench.metrics.generation_tokens.get(), 4);
    assert_eq!(bench.metrics.n_used_blocks.get(), 0);
    let page = bench.steps.since(0);
    let shapes: Vec<_> = page.steps.iter().map(|step| step.record).collect();
    let counts: Vec<_> = shapes
        .iter()
        .map(|step| (step.phase, step.n_tokens))
        .collect();
    let decode = (Phase::Decode, 1);
    assert_eq!(counts, [(Phase::Prefill, 3), decode, decode, decode]);
    assert_eq!(
        shapes
            .iter()
            .map(|step| step.context_tokens)
            .collect::<Vec<_>>(),
        [3, 4, 5, 6]
    );
    assert!(
        shapes
            .iter()
            .all(|step| step.operation_ns == [0, 0, 0, 0, 0, 0, 7])
    );
    assert!(shapes.windows(2).all(|pair| pair[0].start < pair[1].start));
}

#[test]
fn an_end_of_sequence_ends_unless_it_is_ignored_or_too_early() {
    let bench = bench(4, None, false);
    let eos = bench.tokenizer.eos_ids()[0];
    // The executor's next id after `<unk>` is `<eos>`.
    let mut ends = request(&[eos - 1], 5);
    ends.ending.ignores_eos = false;
    let events = collect(&mut bench.handle.submit(vec![ends.clone()]).unwrap());
    assert_eq!(ids(&events), [eos]);
    assert_eq!(last_finish(&events), Some(FinishReason::StopToken));
    let mut early = ends.clone();
    early.ending.min_tokens = 2;
    let events = collect(&mut bench.handle.submit(vec![early]).unwrap());
    assert!(!ids(&events).contains(&eos) && ids(&events).len() == 5);
    let mut stop_id = request(&[20], 5);
    stop_id.ending.stop_ids = vec![22];
    let events = collect(&mut bench.handle.submit(vec![stop_id]).unwrap());
    assert_eq!(ids(&events), [21, 22]);
}

#[test]
fn a_stop_string_ends_the_tokens() {
    let bench = bench(4, None, false);
    let stop = bench.tokenizer.decode(&[23]);
    let mut watched = request(&[20], 9);
    let stop = StopStrings {
        strings: vec![stop],
        min_tokens: 0,
    };
    watched.watched = Some(TextStream::new(
        Detokenizer::after(bench.tokenizer.clone(), &[20]),
        stop,
    ));
    let events = collect(&mut bench.handle.submit(vec![watched]).unwrap());
    assert_eq!(ids(&events), [21, 22, 23]);
    assert_eq!(last_finish(&events), Some(FinishReason::StopString));
}

#[test]
fn the_queue_is_bounded_and_empties_again() {
    let (permit, permits) = gate();
    let bench = bench(2, permits, false);
    let refused = bench
        .handle
        .submit(vec![request(&[9], 2), request(&[9], 2), request(&[9], 2)]);
    assert!(matches!(
        refused,
        Err(SubmitError::QueueFull {
            n_requests: 3,
            limit: 2
        })
    ));
    let mut answers = bench
        .handle
        .submit(vec![request(&[9], 2), request(&[30], 2)])
        .unwrap();
    drop(permit);
    let events: Vec<_> = std::iter::from_fn(|| answers.blocking_recv()).collect();
    let of = |index| events.iter().filter(|event| event.index == index).count();
    assert_eq!((of(0), of(1)), (2, 2));
    assert!(
        bench
            .handle
            .submit(vec![request(&[9], 2), request(&[9], 2)])
            .is_ok()
    );
}

#[test]
fn a_reader_that_left_frees_its_blocks() {
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    let mut answers = bench.handle.submit(vec![request(&[20; 8], 40)]).unwrap();
    permit.send(()).unwrap();
    assert!(answers.blocking_recv().is_some());
    assert!(bench.metrics.n_used_blocks.get() > 0);
    drop(answers);
    drop(permit);
    // The next answer comes from an engine that has forgotten the first request.
    collect(&mut bench.handle.submit(vec![request(&[20], 1)]).unwrap());
    assert_eq!(bench.metrics.aborted.get(), 1);
    assert_eq!(bench.metrics.n_used_blocks.get(), 0);
    assert_eq!(bench.metrics.requests.get(), 1);
}

#[test]
fn stopping_breaks_off_and_refuses() {
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    let mut running = bench.handle.submit(vec![request(&[20], 40)]).unwrap();
    permit.send(()).unwrap();
    assert!(running.blocking_recv().is_some());
    bench.handle.stop();
    drop(permit);
    let events = collect(&mut running);
    assert_eq!(events.last(), Some(&EventKind::Failed(Failure::Stopping)));
    assert_eq!(
        bench.handle.submit(vec![request(&[20], 1)]).unwrap_err(),
        SubmitError::Stopping
    );
    assert!(bench.ended.blocking_recv().is_err());
}

#[test]
fn a_failed_step_fails_its_requests_and_the_engine_goes_on() {
    let bench = bench(4, None, true);
    for _ in 0..2 {
        let events = collect(&mut bench.handle.submit(vec![request(&[20], 4)]).unwrap());
        assert_eq!(events, [EventKind::Failed(Failure::Step(StepError::Empty))]);
    }
    assert_eq!(bench.metrics.n_used_blocks.get(), 0);
}

#[test]
fn a_flush_is_refused_while_requests_run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    assert_eq!(
        runtime.block_on(bench.handle.flush(Duration::ZERO)),
        Ok(Flushed::Done)
    );
    let mut answers = bench.handle.submit(vec![request(&[20], 40)]).unwrap();
    permit.send(()).unwrap();
    assert!(answers.blocking_recv().is_some());
    // The flush is asked for while a step waits, and answered once that step may end.
    let flushed = runtime.block_on(async {
        tokio::join!(bench.handle.flush(Duration::ZERO), async {
            permit.send(()).unwrap()
        })
        .0
    });
    assert_eq!(flushed, Ok(Flushed::Busy { n_requests: 1 }));
    // One with patience is asked for while the request runs, and answered when it has ended.
    let patience = Duration::from_secs(60);
    let flushed = runtime
        .block_on(async { tokio::join!(bench.handle.flush(patience), async { drop(permit) }).0 });
    assert_eq!(flushed, Ok(Flushed::Done));
    collect(&mut answers);
    assert_eq!(
        runtime.block_on(bench.handle.flush(Duration::ZERO)),
        Ok(Flushed::Done)
    );
}

#[test]
fn a_step_of_stated_time_begins_when_the_one_before_it_was_to_be_over() {
    let device = Device::new(None);
    let place = device.place(1.0);
    let clock = MonotonicClock;
    let turn = place.turn();
    // Nothing was computed before: it begins when there is something to compute.
    assert_eq!(begins(&turn, Nanos(70), Nanos(100), &clock), Nanos(70));
    turn.is_due(Nanos(90));
    assert_eq!(begins(&turn, Nanos(70), Nanos(100), &clock), Nanos(90));
    // Another model's step of that device has ended meanwhile, or something came only after it.
    assert_eq!(begins(&turn, Nanos(95), Nanos(100), &clock), Nanos(95));
    // It never begins before it is asked for.
    turn.is_due(Nanos(130));
    assert_eq!(begins(&turn, Nanos(70), Nanos(100), &clock), Nanos(100));
    let made_up = MadeUpClock::default();
    assert_eq!(begins(&turn, Nanos(70), Nanos(140), &made_up), Nanos(140));
}
