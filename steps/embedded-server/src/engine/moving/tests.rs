//! Models that leave and come back, over a scripted executor.

use super::super::EngineHandle;
use super::super::request::{EventKind, Failure};
use super::super::residence::Parts;
use super::super::tests::{Bench, N_BLOCKS, WEIGHTS, bench, collect, gate, ids, request};
use super::*;
use crate::clock::{MonotonicClock, Nanos};
use crate::swapping::Reason;
use std::future::Future;
use std::sync::Arc;

fn leave(running: Running) -> Leave {
    Leave {
        parts: Parts::ALL,
        running,
        evicts_waiting: false,
        reason: Reason::Asked,
    }
}

fn come() -> Come {
    Come {
        parts: Parts::ALL,
        cache_bytes: None,
        reason: Reason::Asked,
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

fn state(bench: &Bench) -> ModelState {
    bench.status.state().0
}

#[test]
fn requests_to_a_model_that_is_off_wait_until_it_comes() {
    let bench = bench(4, None, false);
    let left = wait(bench.handle.leave(leave(Running::Refuse))).unwrap();
    assert_eq!((left.bytes, left.pool_bytes), (WEIGHTS, 4 * 16));
    assert_eq!(
        (state(&bench), bench.device.free()),
        (ModelState::Off, Some(164))
    );
    let mut answers = bench.handle.submit(vec![request(&[20], 2)]).unwrap();
    // The engine has it, and computes nothing.
    while bench.metrics.n_queued.get() == 0 {
        std::thread::yield_now();
    }
    assert!(answers.try_recv().is_err());
    let came = wait(bench.handle.come(come())).unwrap();
    assert_eq!((came.bytes, came.pool_bytes), (WEIGHTS, 4 * 16));
    assert_eq!(ids(&collect(&mut answers)), [21, 22]);
    assert_eq!(
        (state(&bench), bench.device.free()),
        (ModelState::Active, Some(0))
    );
    let told = bench.moves.since(Nanos(0));
    let ways: Vec<_> = told.iter().map(|moved| moved.direction).collect();
    assert_eq!(ways, [Way::Out, Way::In]);
    assert!(told.iter().all(|moved| moved.began_ns <= moved.ended_ns));
}

/// Asks while one request of 40 tokens runs and another waits; steps may go on once it is asked.
fn leave_while_running(leave: Leave) -> (Bench, Result<Move, MoveError>, [Vec<EventKind>; 2]) {
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    let mut running = bench.handle.submit(vec![request(&[20; 8], 40)]).unwrap();
    permit.send(()).unwrap();
    let first = running.blocking_recv().unwrap().kind;
    // As large as the whole cache: it waits for the other.
    let mut waiting = bench.handle.submit(vec![request(&[30; 24], 40)]).unwrap();
    let moved = wait(async { tokio::join!(bench.handle.leave(leave), async { drop(permit) }).0 });
    if moved.is_ok() {
        wait(bench.handle.come(come())).unwrap();
    }
    let mut of_running = vec![first];
    of_running.extend(collect(&mut running));
    let of_waiting = collect(&mut waiting);
    (bench, moved, [of_running, of_waiting])
}

#[test]
fn what_runs_is_finished_first_and_what_waits_is_served_later() {
    let (bench, moved, [running, waiting]) = leave_while_running(leave(Running::Finish));
    assert!(moved.unwrap().drain_s > 0.0);
    assert_eq!((ids(&running).len(), ids(&waiting).len()), (40, 40));
    assert_eq!(bench.metrics.retractions.get(), 0);
}

#[test]
fn what_runs_may_be_computed_again_later() {
    let (bench, moved, [running, waiting]) = leave_while_running(leave(Running::Retract));
    assert!(moved.is_ok());
    assert_eq!(ids(&running), (21..61).collect::<Vec<_>>());
    assert_eq!(ids(&waiting).len(), 40);
    assert_eq!(bench.metrics.retractions.get(), 1);
}

#[test]
fn a_model_that_has_requests_stays_where_that_is_asked() {
    let (bench, moved, [running, waiting]) = leave_while_running(leave(Running::Refuse));
    assert_eq!(moved, Err(MoveError::Busy { n_requests: 2 }));
    assert_eq!((ids(&running).len(), ids(&waiting).len()), (40, 40));
    assert_eq!(state(&bench), ModelState::Active);
}

#[test]
fn what_waits_may_be_broken_off() {
    let evicting = Leave {
        evicts_waiting: true,
        ..leave(Running::Finish)
    };
    let (_, moved, [running, waiting]) = leave_while_running(evicting);
    assert!(moved.is_ok());
    assert_eq!(ids(&running).len(), 40);
    assert_eq!(waiting, [EventKind::Failed(Failure::Evicted)]);
}

#[test]
fn what_waits_may_be_broken_off_while_what_runs_is_computed_again_later() {
    let evicting = Leave {
        evicts_waiting: true,
        ..leave(Running::Retract)
    };
    let (_, moved, [running, waiting]) = leave_while_running(evicting);
    assert!(moved.is_ok());
    assert_eq!(ids(&running), (21..61).collect::<Vec<_>>());
    assert_eq!(waiting, [EventKind::Failed(Failure::Evicted)]);
}

#[test]
fn what_runs_may_be_broken_off_while_what_waits_is_served_later() {
    let (bench, moved, [running, waiting]) = leave_while_running(leave(Running::BreakOff));
    assert!(moved.is_ok());
    assert!(ids(&running).len() < 40);
    assert_eq!(running.last(), Some(&EventKind::Failed(Failure::Evicted)));
    assert_eq!(ids(&waiting).len(), 40);
    assert_eq!(bench.metrics.aborted.get(), 1);
}

#[test]
fn what_was_retracted_is_finished_too_before_the_model_leaves() {
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    // Expected to write a part of what they may, they fit beside each other at first, and not at last.
    let may_end = |prompt: &[u32], max_tokens| {
        let mut request = request(prompt, max_tokens);
        request.ending.ignores_eos = false;
        request
    };
    let both = vec![may_end(&[20; 8], 30), may_end(&[60; 4], 28)];
    let mut answers = bench.handle.submit(both).unwrap();
    let mut n_tokens = [0, 0];
    while bench.metrics.retractions.get() == 0 {
        permit.send(()).unwrap();
        // The second is the one that stays: each step has a token of it.
        loop {
            let event = answers.blocking_recv().unwrap();
            n_tokens[event.index] += 1;
            if event.index == 1 {
                break;
            }
        }
    }
    assert!(n_tokens[0] < 30 && n_tokens[1] < 28, "{n_tokens:?}");
    let leaving = bench.handle.leave(leave(Running::Finish));
    wait(async { tokio::join!(leaving, async { drop(permit) }).0 }).unwrap();
    while let Ok(event) = answers.try_recv() {
        assert!(matches!(event.kind, EventKind::Token { .. }), "{event:?}");
        n_tokens[event.index] += 1;
    }
    assert_eq!(n_tokens, [30, 28]);
}

#[test]
fn the_deadline_of_a_retracted_request_presses_again() {
    let (permit, permits) = gate();
    let bench = bench(4, permits, false);
    let mut pressing = request(&[20; 8], 40);
    pressing.objective = Some(Duration::from_secs(3600));
    let mut answers = bench.handle.submit(vec![pressing]).unwrap();
    permit.send(()).unwrap();
    assert!(answers.blocking_recv().is_some());
    assert_eq!(bench.status.deadline(), None);
    let leaving = bench.handle.leave(leave(Running::Retract));
    wait(async { tokio::join!(leaving, async { drop(permit) }).0 }).unwrap();
    assert!(bench.status.deadline().is_some());
    wait(bench.handle.come(come())).unwrap();
    assert_eq!(ids(&collect(&mut answers)).len(), 39);
    assert_eq!(bench.status.deadline(), None);
}

#[test]
fn a_move_that_the_engine_has_no_room_to_hear_of_is_refused_for_now() {
    let (handle, inbox) = EngineHandle::new(1, Arc::new(MonotonicClock));
    // Nobody takes them.
    while inbox.len() < inbox.max_capacity() {
        handle.stop();
    }
    assert_eq!(wait(handle.come(come())), Err(MoveError::InTransit));
    drop(inbox);
    assert_eq!(wait(handle.come(come())), Err(MoveError::Stopping));
}

#[test]
fn what_is_there_cannot_come_and_what_has_left_cannot_leave() {
    let bench = bench(4, None, false);
    let already = |moved| matches!(moved, Err(MoveError::Already(_)));
    assert!(already(wait(bench.handle.come(come()))));
    wait(bench.handle.leave(leave(Running::Finish))).unwrap();
    assert!(already(wait(bench.handle.leave(leave(Running::Finish)))));
}

#[test]
fn parts_move_by_themselves_and_the_model_computes_with_both() {
    let bench = bench(4, None, false);
    let (weights, cache) = (
        Parts {
            weights: true,
            cache: false,
        },
        Parts {
            weights: false,
            cache: true,
        },
    );
    let left = |parts| Leave {
        parts,
        ..leave(Running::Finish)
    };
    let moved = wait(bench.handle.leave(left(cache))).unwrap();
    assert_eq!((moved.bytes, moved.pool_bytes), (0, 64));
    assert_eq!(
        (state(&bench), bench.device.free()),
        (ModelState::Off, Some(64))
    );
    // Of both only what is left moves.
    let moved = wait(bench.handle.leave(left(Parts::ALL))).unwrap();
    assert_eq!((moved.bytes, moved.pool_bytes), (WEIGHTS, 0));
    wait(bench.handle.come(Come {
        parts: weights,
        ..come()
    }))
    .unwrap();
    assert_eq!(
        (state(&bench), bench.device.free()),
        (ModelState::Off, Some(64))
    );
    let moved = wait(bench.handle.come(come())).unwrap();
    assert_eq!((moved.bytes, moved.pool_bytes), (0, 64));
    let events = collect(&mut bench.handle.submit(vec![request(&[20], 2)]).unwrap());
    assert_eq!(ids(&events), [21, 22]);
}

#[test]
fn a_smaller_cache_refuses_what_no_longer_fits() {
    let bench = bench(4, None, false);
    wait(bench.handle.leave(leave(Running::Finish))).unwrap();
    let mut large = bench.handle.submit(vec![request(&[20; 30], 10)]).unwrap();
    let mut small = bench.handle.submit(vec![request(&[20; 3], 2)]).unwrap();
    let half = Come {
        cache_bytes: Some(u64::from(N_BLOCKS) * 2),
        ..come()
    };
    assert_eq!(wait(bench.handle.come(half)).unwrap().pool_bytes, 32);
    assert_eq!(collect(&mut large), [EventKind::Failed(Failure::TooLarge)]);
    assert_eq!(ids(&collect(&mut small)).len(), 2);
    // So does one that comes later.
    let mut late = bench.handle.submit(vec![request(&[20; 30], 10)]).unwrap();
    assert_eq!(collect(&mut late), [EventKind::Failed(Failure::TooLarge)]);
    let mut small = bench.handle.submit(vec![request(&[20; 30], 2)]).unwrap();
    assert_eq!(ids(&collect(&mut small)).len(), 2);
}

#[test]
fn counters_go_on_with_a_new_cache() {
    let bench = bench(4, None, false);
    for prompt in [[20; 24], [30; 24], [40; 24]] {
        collect(&mut bench.handle.submit(vec![request(&prompt, 8)]).unwrap());
    }
    // One that leaves has told what the step before it did.
    wait(bench.handle.leave(leave(Running::Finish))).unwrap();
    let evicted = bench.metrics.evicted_blocks.get();
    assert!(evicted > 0);
    wait(bench.handle.come(come())).unwrap();
    assert_eq!(bench.metrics.evicted_blocks.get(), evicted);
}

#[test]
fn without_room_a_model_stays_off() {
    let bench = bench(4, None, false);
    wait(bench.handle.leave(leave(Running::Finish))).unwrap();
    let other = bench.device.place(1.0);
    other.take_weights(WEIGHTS).unwrap();
    let moved = wait(bench.handle.come(come()));
    assert!(matches!(moved, Err(MoveError::Shortage(_))), "{moved:?}");
    assert_eq!(bench.device.free(), Some(64));
    other.leave_weights();
    assert!(wait(bench.handle.come(come())).is_ok());
}

#[test]
fn what_waits_beyond_its_objective_is_broken_off() {
    let bench = bench(4, None, false);
    wait(bench.handle.leave(leave(Running::Finish))).unwrap();
    let mut hopeless = request(&[20], 2);
    hopeless.objective = Some(Duration::from_millis(600));
    let mut patient = request(&[20], 2);
    patient.objective = Some(Duration::from_secs(3600));
    let mut answers = bench.handle.submit(vec![hopeless]).unwrap();
    let mut later = bench.handle.submit(vec![patient]).unwrap();
    assert_eq!(collect(&mut answers), [EventKind::Failed(Failure::Late)]);
    assert_eq!(bench.metrics.aborted.get(), 1);
    wait(bench.handle.come(come())).unwrap();
    assert_eq!(ids(&collect(&mut later)), [21, 22]);
}
