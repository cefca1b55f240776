//! Expected numbers here were worked out by hand from the definitions.

use std::{num::NonZeroU32, time::Duration};

use super::*;
use crate::{
    Class, Outcome, Slo, Usage,
    samples::{MS, closed, completed, failed, info, open},
};

const INF: Option<f64> = Some(f64::INFINITY);

fn usage(prompt_tokens: u32, completion_tokens: u32, cached: u32) -> Option<Usage> {
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens: Some(cached),
    })
}

/// Two completed requests, one cut off after two tokens of five, one dropped unsent.
fn four() -> Vec<Record> {
    let mut a = completed(0, 1, &[(11, 1), (21, 1), (41, 2)]);
    a.connected = Some(3 * MS);
    a.usage = usage(10, 4, 5);
    a.cacheable_tokens = Some(7);
    a.done = 42 * MS;
    let mut b = completed(10, 10, &[(30, 1), (60, 1)]);
    b.usage = usage(20, 2, 0);
    b.cacheable_tokens = Some(0);
    let c = failed(
        Class::Truncated,
        5,
        56,
        completed(21, 22, &[(50, 1), (55, 1)]),
    );
    let mut d = completed(30, 30, &[]);
    d.outcome = Outcome::Dropped;
    d.dispatched = None;
    vec![a, b, c, d]
}

fn close(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-9 * b.abs().max(1.0))
}

fn measured(records: &[Record]) -> Metrics {
    Metrics::of(&info(open(), records), records)
}

#[test]
fn latencies_count_failures_as_never() {
    let m = measured(&four());
    // 10, 20, inf
    assert_eq!(
        (m.ttft.all.p50, m.ttft.all.p90, m.ttft.all.mean),
        (Some(20.0), INF, INF)
    );
    assert_eq!(
        (m.ttft.completed.p50, m.ttft.completed.count),
        (Some(15.0), 2.0)
    );
    assert!(close(m.ttft.completed.p90, 19.0));
    // 11, 20
    assert_eq!(m.ttft_scheduled.completed.mean, Some(15.5));
    // (41 - 11) / (4 - 1) and (60 - 30) / (2 - 1)
    assert_eq!(
        (m.tpot.completed.p50, m.tpot.all.p50),
        (Some(20.0), Some(30.0))
    );
    assert_eq!(
        (m.e2el.completed.mean, m.e2el_scheduled.completed.mean),
        (Some(45.0), Some(45.5))
    );
    // Lag is known of the failed request, too: 1, 0, 1; only one made a connection.
    assert_eq!(
        (m.client_lag.all.p50, m.client_lag.all.count),
        (Some(1.0), 3.0)
    );
    assert_eq!((m.connect.all.mean, m.connect.all.count), (Some(2.0), 1.0));
}

#[test]
fn gaps_are_per_token_and_weighted_by_tokens() {
    let m = measured(&four());
    // 10, then 20 ms for 2 tokens; 30. Mean (10 + 2 · 10 + 30) / 4.
    let completed = m.itl.completed;
    assert_eq!((completed.mean, completed.count), (Some(15.0), 4.0));
    assert_eq!((completed.p50, completed.p90), (Some(10.0), Some(30.0)));
    // The cut stream adds 5 ms once, and inf for three undelivered tokens: 5, 10 ×3, 30, inf ×3.
    assert_eq!(
        (m.itl.all.count, m.itl.all.p50, m.itl.all.p90),
        (8.0, Some(10.0), INF)
    );
}

#[test]
fn rates_and_counts() {
    let m = measured(&four());
    assert_eq!((m.window.start, m.window.end), (0, 21 * MS));
    assert_eq!(m.window.kind, WindowKind::Steady);
    // Inside: two tokens of A, the second one exactly at the end, and A's prompt.
    assert_eq!(m.steady.requests, Some(0.0));
    assert!(close(m.steady.output_tokens, 2.0 / 0.021));
    assert!(close(m.steady.total_tokens, 12.0 / 0.021));
    // From A's dispatch at 1 to B's last content at 60.
    assert!(close(m.whole.requests, 2.0 / 0.059));
    assert!(close(m.whole.output_tokens, 6.0 / 0.059));
    assert!(close(m.whole.total_tokens, 36.0 / 0.059));
    assert!(close(m.offered_rate, 2.0 / 0.021) && close(m.achieved_rate, 2.0 / 0.021));
    assert!(close(m.cache_hit_rate, 5.0 / 30.0));
    // By the workload both prompts are of ten tokens.
    assert!(close(m.cache_hit_rate_ideal, 7.0 / 20.0));
    let c = &m.counts;
    assert_eq!(
        (c.arrived, c.sent, c.completed, c.failed, c.dropped),
        (4, 3, 2, 1, 1)
    );
    assert_eq!(
        (c.by_outcome["truncated"], c.input_tokens, c.output_tokens),
        (1, 30, 6)
    );
    assert!(close(c.error_rate(), 1.0 / 3.0));
}

#[test]
fn concurrency_and_series() {
    let m = measured(&four());
    assert_eq!(m.concurrency_peak, 3);
    // Up to 21 ms: A for 20, B for 11.
    assert!(close(m.concurrency_mean, 31.0 / 21.0));
    let [second] = m.series[..] else {
        panic!("one second")
    };
    assert_eq!(
        (second.arrivals, second.completed, second.failed),
        (4, 2, 1)
    );
    assert_eq!(second.output_tokens, 8.0);
    assert!(close(Some(second.in_flight), 0.041 + 0.050 + 0.034));
    let long = measured(&[completed(500, 500, &[(1000, 1), (2250, 3)])]);
    let flight: Vec<f64> = long.series.iter().map(|s| s.in_flight).collect();
    assert_eq!(flight, [0.5, 1.0, 0.25]);
    assert_eq!(
        long.series
            .iter()
            .map(|s| s.output_tokens)
            .collect::<Vec<_>>(),
        [0.0, 1.0, 3.0]
    );
}

#[test]
fn window_edges_open_left_and_closed_right() {
    let edges = [
        completed(10, 10, &[(10, 1), (20, 2), (30, 4), (31, 8)]),
        completed(30, 30, &[(40, 1)]),
    ];
    let m = measured(&edges);
    assert_eq!((m.window.start, m.window.end), (10 * MS, 30 * MS));
    assert!(close(m.steady.output_tokens, 6.0 / 0.020));
    assert_eq!(m.steady.requests, Some(0.0));
}

#[test]
fn the_servers_count_is_spread_over_later_events() {
    let mut record = completed(0, 0, &[(10, 1), (20, 1), (40, 1)]);
    record.usage = usage(10, 5, 0);
    let m = measured(&[record]);
    // Two tokens in each later event: 10 / 2 and 20 / 2; 30 ms for 4 tokens.
    assert_eq!(
        (m.itl.completed.mean, m.itl.completed.count),
        (Some(7.5), 4.0)
    );
    assert_eq!(m.tpot.completed.mean, Some(7.5));
    let mut single = completed(0, 0, &[(10, 1)]);
    single.usage = usage(10, 8, 0);
    let m = measured(&[single]);
    assert_eq!((m.itl.completed.mean, m.tpot.completed.mean), (None, None));
    assert!(close(m.whole.output_tokens, 8.0 / 0.010));
    let mut fewer = completed(0, 0, &[(10, 1), (20, 1), (30, 1)]);
    fewer.usage = usage(10, 0, 0);
    assert_eq!(measured(&[fewer]).counts.output_tokens, 0);
}

#[test]
fn a_token_in_two_pieces_belongs_to_the_first() {
    let m = measured(&[completed(0, 0, &[(10, 1), (20, 1), (25, 0), (40, 1)])]);
    // 10 ms and, from 20 to 40, 20 ms.
    assert_eq!(
        (m.itl.completed.mean, m.itl.completed.count),
        (Some(15.0), 2.0)
    );
}

#[test]
fn objectives_are_judged_over_all_that_arrived() {
    let slo = Slo {
        ttft: Some(Duration::from_millis(15)),
        ..Slo::default()
    };
    let mut records = four();
    for record in &mut records {
        record.slo = Some(slo);
    }
    records[0].output_tokens = NonZeroU32::new(4).unwrap();
    let met = measured(&records).slo.unwrap();
    assert_eq!((met.requests, met.met, met.goodput), (3, 1, Some(0.0)));
    assert!(close(met.attainment, 1.0 / 3.0) && close(met.token_attainment, 4.0 / 11.0));
    // From the scheduled instant A took 11 ms: dispatch does not start the clock.
    records[0].slo = Some(Slo {
        ttft: Some(Duration::from_micros(10_500)),
        ..slo
    });
    assert_eq!(measured(&records).slo.unwrap().met, 0);
    records[0].slo = Some(Slo {
        tpot: Some(Duration::from_millis(10)),
        ..slo
    });
    assert_eq!(measured(&records).slo.unwrap().met, 1);
    records[0].slo = Some(Slo {
        e2el: Some(Duration::from_millis(40)),
        ..slo
    });
    assert_eq!(measured(&records).slo.unwrap().met, 0);
    assert_eq!(measured(&four()).slo, None);
}

#[test]
fn a_burst_and_a_closed_loop_offer_no_rate() {
    let burst = [completed(0, 0, &[(10, 1)]), completed(0, 1, &[(20, 1)])];
    let m = measured(&burst);
    assert_eq!((m.window.kind, m.window.end), (WindowKind::Whole, 20 * MS));
    assert_eq!(m.steady.requests, Some(100.0));
    assert_eq!(m.offered_rate, None);
    assert_eq!(
        Metrics::of(&info(closed(1), &four()), &four()).offered_rate,
        None
    );
}

#[test]
fn nothing_measured_is_absent_and_never_nan() {
    let m = measured(&[]);
    assert_eq!(
        (m.ttft.all.p50, m.steady.requests, m.concurrency_mean),
        (None, None, None)
    );
    let all_failed = [failed(Class::Refused, 4, 2, completed(0, 1, &[]))];
    for m in [m, measured(&all_failed), measured(&four())] {
        assert!(m.values().iter().all(|(_, value)| !value.is_nan()));
    }
    assert_eq!(measured(&all_failed).ttft.all.p50, INF);
    assert_eq!(measured(&all_failed).ttft.completed.p50, None);
}

#[test]
fn flat_names_have_definitions_and_infinity_survives_json() {
    let mut records = four();
    records[0].slo = Some(Slo {
        ttft: Some(Duration::from_secs(1)),
        ..Slo::default()
    });
    let m = measured(&records);
    let values = m.values();
    let value = |name: &str| {
        values
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| *value)
    };
    assert_eq!(value("ttft_p50_ms"), Some(20.0));
    assert_eq!(value("ttft_p50_completed_ms"), Some(15.0));
    assert_eq!(value("itl_p99_ms"), INF);
    assert!(close(value("output_throughput"), 2.0 / 0.021));
    for (name, _) in &values {
        assert!(Definition::of(name).is_some(), "{name}");
    }
    assert_eq!(
        Definition::of("ttft_scheduled_p99_ms").unwrap().name,
        "ttft_scheduled"
    );
    assert!(Definition::of("ttfb_p99_ms").is_none());
    // Each definition is of a number that exists.
    for definition in Metrics::definitions() {
        let of = |(name, _): &(String, f64)| Definition::of(name) == Some(definition);
        assert!(values.iter().any(of), "{}", definition.name);
    }
    let json = serde_json::to_string(&m).unwrap();
    let read: Metrics = serde_json::from_str(&json).unwrap();
    assert_eq!((read.itl.all.p99, read.ttft.all.p50), (INF, Some(20.0)));
    assert_eq!(read.values().len(), values.len());
}
