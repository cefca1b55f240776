//! One run that is beyond doubt, and what each kind of damage does to it.

use super::*;
use crate::{
    Class, Ended, Load, Outcome, OutputLength,
    samples::{MS, closed, completed, failed, info, open},
};

/// 100 requests, 10 ms apart, each with two tokens after 20 and 30 ms.
fn sound() -> Vec<Record> {
    (0..100)
        .map(|i| completed(10 * i, 10 * i, &[(10 * i + 20, 1), (10 * i + 30, 1)]))
        .collect()
}

fn judged(load: Load, records: &[Record], change: impl FnOnce(&mut RunInfo)) -> Verdict {
    let mut info = info(load, records);
    change(&mut info);
    judge(
        &info,
        records,
        &Metrics::of(&info, records),
        None,
        &Thresholds::default(),
    )
}

fn verdict(records: &[Record]) -> Verdict {
    judged(open(), records, |_| {})
}

/// The reasons, without their words.
fn found(verdict: &Verdict) -> Vec<(Check, Grade)> {
    verdict
        .reasons
        .iter()
        .map(|reason| (reason.check, reason.grade))
        .collect()
}

#[test]
fn a_sound_run_is_valid_and_says_which_percentiles_it_cannot_carry() {
    let v = verdict(&sound());
    assert_eq!((v.grade, found(&v)), (Grade::Valid, vec![]));
    let note = Note::UnsupportedPercentiles {
        requests: 100,
        percentiles: vec![95, 99],
        needed: 200,
    };
    assert_eq!(v.notes, [note]);
}

#[test]
fn failures_degrade_and_many_invalidate() {
    let mut records = sound();
    let fail =
        |record: &mut Record, class| *record = failed(class, 2, record.done / MS, record.clone());
    fail(&mut records[7], Class::HttpStatus(500));
    let v = verdict(&records);
    assert_eq!(found(&v), [(Check::Failures, Grade::Degraded)]);
    assert_eq!(v.reasons[0].message, "1 of 100 requests failed (1.0 %)");
    assert!(v.reasons[0].help.contains("`http_500`: no reason"));
    for record in &mut records[10..20] {
        fail(record, Class::HttpStatus(500));
    }
    assert_eq!(
        found(&verdict(&records)),
        [(Check::Failures, Grade::Invalid)]
    );
    for record in &mut records {
        fail(record, Class::Refused);
    }
    let v = verdict(&records);
    assert_eq!(v.grade, Grade::Invalid);
    assert_eq!(v.reasons[0].message, "all 100 requests failed");
}

#[test]
fn broken_streams_weigh_more_than_refusals() {
    let mut records = sound();
    for i in [1, 2] {
        records[i] = failed(
            Class::Truncated,
            2,
            records[i].done / MS,
            records[i].clone(),
        );
    }
    let v = verdict(&records);
    assert_eq!(
        found(&v),
        [
            (Check::Truncated, Grade::Invalid),
            (Check::Failures, Grade::Degraded)
        ]
    );
    records[1].outcome = Outcome::Failed(Class::InBand);
    let checks = found(&verdict(&records));
    assert!(checks.contains(&(Check::InBandErrors, Grade::Degraded)));
    assert!(checks.contains(&(Check::Truncated, Grade::Degraded)));
}

#[test]
fn a_late_client_is_found_by_rate_and_by_lag() {
    // Everything is sent ever later: 12 ms apart instead of 10.
    let late = |i: u64| completed(10 * i, 12 * i, &[(12 * i + 20, 1), (12 * i + 30, 1)]);
    let v = verdict(&(0..100).map(late).collect::<Vec<_>>());
    let checks = found(&v);
    assert!(
        checks.contains(&(Check::OfferedRate, Grade::Invalid)),
        "{checks:?}"
    );
    assert!(checks.contains(&(Check::ClientLag, Grade::Invalid)));
    let rate = v
        .reasons
        .iter()
        .find(|r| r.check == Check::OfferedRate)
        .unwrap();
    assert_eq!(
        rate.message,
        "100.000 requests/s were offered but 83.333 achieved"
    );
    assert!((rate.measured.unwrap() - 1.0 / 6.0).abs() < 1e-9 && rate.threshold == 0.10);
}

#[test]
fn a_busy_client_is_not_believed_nor_one_of_which_nothing_is_known() {
    let with = |cpu: fn(u64) -> Option<u64>| {
        found(&judged(open(), &sound(), |info| {
            info.client.cpu_ns = cpu(info.wall_ns)
        }))
    };
    // Two threads on four processors: both busy all the time is 100 %.
    assert_eq!(
        with(|wall| Some(2 * wall)),
        [(Check::ClientCpu, Grade::Invalid)]
    );
    assert_eq!(
        with(|wall| Some(wall * 8 / 5)),
        [(Check::ClientCpu, Grade::Degraded)]
    );
    assert_eq!(with(|_| None), [(Check::ClientCpu, Grade::Degraded)]);
}

#[test]
fn lost_records_break_littles_law() {
    let v = judged(open(), &sound(), |info| {
        info.in_flight_area_ns += info.in_flight_area_ns / 4
    });
    assert_eq!(found(&v), [(Check::LittlesLaw, Grade::Invalid)]);
    assert!((v.reasons[0].measured.unwrap() - 0.2).abs() < 1e-9);
}

#[test]
fn answers_are_as_long_as_asked_for_and_counted() {
    let mut records = sound();
    records[3].usage.as_mut().unwrap().completion_tokens = 1;
    assert_eq!(
        found(&verdict(&records)),
        [(Check::OutputLength, Grade::Degraded)]
    );
    let shorter = judged(open(), &records, |info| info.length = OutputLength::AtMost);
    assert_eq!(shorter.grade, Grade::Valid);
    records[3].usage = None;
    assert_eq!(found(&verdict(&records)), [(Check::Usage, Grade::Degraded)]);
}

#[test]
fn a_server_that_falls_behind_is_in_no_steady_state() {
    // One request every 1 ms, one answer every 2: the queue grows all the time.
    let queued = |i: u64| completed(i, i, &[(2 * i + 20, 1), (2 * i + 30, 1)]);
    let v = verdict(&(0..2000).map(queued).collect::<Vec<_>>());
    assert!(
        found(&v).contains(&(Check::Backlog, Grade::Degraded)),
        "{v:?}"
    );
    // 15 ms of arrivals for latencies of 30 ms.
    let short: Vec<Record> = sound().into_iter().take(2).collect();
    assert_eq!(
        found(&verdict(&short)),
        [(Check::WindowLength, Grade::Degraded)]
    );
}

#[test]
fn users_who_are_not_busy_are_noticed() {
    let turns = |i: u64| completed(40 * i, 40 * i, &[(40 * i + 10, 1), (40 * i + 20, 1)]);
    let records: Vec<Record> = (0..50).map(turns).collect();
    let v = judged(closed(1), &records, |_| {});
    assert_eq!(found(&v), [(Check::Concurrency, Grade::Invalid)]);
    assert!((v.reasons[0].measured.unwrap() - 0.5).abs() < 1e-9);
}

#[test]
fn an_unfinished_run_and_an_empty_one_are_invalid() {
    let v = judged(open(), &sound(), |info| info.ended = Ended::Interrupted);
    assert_eq!(found(&v), [(Check::Complete, Grade::Invalid)]);
    let v = judged(closed(3), &sound(), |info| info.ended = Ended::Exhausted);
    assert_eq!(found(&v), [(Check::Exhausted, Grade::Degraded)]);
    assert_eq!(found(&verdict(&[])), [(Check::Complete, Grade::Invalid)]);
}
