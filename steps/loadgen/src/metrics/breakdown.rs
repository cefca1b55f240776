//! The headline numbers of a run by model, by turn and by group.
//!
//! A part is the requests that have one value in common. Its rates are over the windows of the
//! whole run, so that the rates of all parts add up to those of the run. Parts are bounded in
//! number: the values with the most requests stand for themselves, and one more part holds the
//! requests of all others together, so that no request is left out.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Counts, Distribution, Metrics, SloResults, Throughput, Window, latency::Latencies, rates,
};
use crate::Record;

/// Parts that stand for themselves in one breakdown: more are no reading matter, and each costs
/// a row in every table.
const MOST: usize = 1000;

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The model asked for.
    Model,
    /// Which turn of its conversation a request is, from 0.
    Turn,
    /// The request's label.
    Group,
}

/// A run in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Breakdown {
    /// What the parts differ in.
    pub by: By,
    /// Turns in their order; models and groups beginning with the one of the most requests.
    /// What holds the others together comes last.
    pub parts: Vec<Part>,
}

/// Requests that have one value in common, or those of all values without a part of their own.
/// Latencies are milliseconds, rates are per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The value; `None` for requests without a group, and for the others together.
    pub value: Option<String>,
    /// How many values it holds: 1, or how many the others are.
    pub n_values: u64,
    /// What was counted.
    pub counts: Counts,
    /// First content − dispatched.
    pub ttft: Distribution,
    /// First content − scheduled.
    pub ttft_scheduled: Distribution,
    /// Time per output token after the first event, per request.
    pub tpot: Distribution,
    /// Last content − dispatched.
    pub e2el: Distribution,
    /// Rates in the steady window of the run.
    pub steady: Throughput,
    /// Rates over the whole run, from its first dispatch to its last content.
    pub whole: Throughput,
    /// Results against objectives, if requests have any.
    pub slo: Option<SloResults>,
    /// Cached prompt tokens ÷ prompt tokens, over completed requests whose server reports it.
    pub cache_hit_rate: Option<f64>,
    /// The same for a prefix cache without limits, by the workload's own counts.
    pub cache_hit_rate_ideal: Option<f64>,
}

impl By {
    /// The name as tables spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Turn => "turn",
            Self::Group => "group",
        }
    }
}

impl Breakdown {
    /// Takes a run apart by everything of which it has more than one value; `metrics` are those
    /// of the same records. Dropped requests are in no part.
    #[must_use]
    pub fn all(metrics: &Metrics, records: &[Record]) -> Vec<Self> {
        let windows = [metrics.window, metrics.whole.window];
        let mut turns = Groups::of(records, |record| record.turn);
        turns.parts.sort_by_key(|(turn, _)| *turn);
        let all = [
            Groups::of(records, |record| record.model.as_str()).measured(
                By::Model,
                windows,
                |model| Some(model.to_owned()),
            ),
            turns.measured(By::Turn, windows, |turn| Some(turn.to_string())),
            Groups::of(records, |record| record.group.as_deref()).measured(
                By::Group,
                windows,
                |group| group.map(str::to_owned),
            ),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Part {
    /// Every number under the flat name that [`Metrics::values`] has for it in the whole run.
    #[must_use]
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        self.counts.values(&mut values);
        self.ttft.values("ttft", &mut values);
        self.ttft_scheduled.values("ttft_scheduled", &mut values);
        self.tpot.values("tpot", &mut values);
        self.e2el.values("e2el", &mut values);
        self.steady.values("", &mut values);
        self.whole.values("_whole", &mut values);
        SloResults::values(self.slo.as_ref(), &mut values);
        super::add(&mut values, "cache_hit_rate", self.cache_hit_rate);
        let ideal = self.cache_hit_rate_ideal;
        super::add(&mut values, "cache_hit_rate_ideal", ideal);
        values
    }

    fn of(
        value: Option<String>,
        n_values: usize,
        [steady, whole]: [Window; 2],
        records: &[&Record],
    ) -> Self {
        let records = records.iter().copied();
        let latencies = Latencies::of(records.clone());
        Self {
            value,
            n_values: n_values as u64,
            counts: Counts::of(records.clone()),
            ttft: latencies.ttft,
            ttft_scheduled: latencies.ttft_scheduled,
            tpot: latencies.tpot,
            e2el: latencies.e2el,
            steady: Throughput::within(steady, records.clone()),
            whole: Throughput::within(whole, records.clone()),
            slo: SloResults::of(steady, records.clone()),
            cache_hit_rate: rates::cache_hit_rate(records.clone()),
            cache_hit_rate_ideal: rates::cache_hit_rate_ideal(records),
        }
    }
}

/// Records by a key that some of them share.
struct Groups<'a, K> {
    /// Keys with a part of their own, those of the most records first.
    parts: Vec<(K, Vec<&'a Record>)>,
    n_others: usize,
    others: Vec<&'a Record>,
}

impl<'a, K: Ord + Copy> Groups<'a, K> {
    fn of(records: &'a [Record], key: impl Fn(&'a Record) -> K) -> Self {
        let mut found: BTreeMap<K, Vec<&Record>> = BTreeMap::new();
        for record in rates::arrived(records.iter()) {
            found.entry(key(record)).or_default().push(record);
        }
        let mut parts: Vec<_> = found.into_iter().collect();
        // Stable, so that of those with as many records the order is that of the keys.
        parts.sort_by_key(|(_, records)| Reverse(records.len()));
        let rest = parts.split_off(parts.len().min(MOST));
        Self {
            parts,
            n_others: rest.len(),
            others: rest.into_iter().flat_map(|(_, records)| records).collect(),
        }
    }

    /// `None` if all records have one key.
    fn measured(
        self,
        by: By,
        windows: [Window; 2],
        name: impl Fn(K) -> Option<String>,
    ) -> Option<Breakdown> {
        if self.parts.len() < 2 {
            return None;
        }
        let own = |(key, records): (K, Vec<&Record>)| Part::of(name(key), 1, windows, &records);
        let mut parts: Vec<Part> = self.parts.into_iter().map(own).collect();
        if self.n_others > 0 {
            parts.push(Part::of(None, self.n_others, windows, &self.others));
        }
        Some(Breakdown { by, parts })
    }
}

#[cfg(test)]
mod tests {
    //! Expected numbers were worked out by hand.

    use std::time::Duration;

    use super::*;
    use crate::{
        Class, Outcome, Slo, Usage,
        samples::{completed, failed, info, open},
    };

    const INF: Option<f64> = Some(f64::INFINITY);

    fn of(record: Record, turn: u32, group: Option<&str>, model: &str) -> Record {
        Record {
            turn,
            group: group.map(str::to_owned),
            model: model.into(),
            slo: Some(Slo {
                ttft: Some(Duration::from_millis(25)),
                ..Slo::default()
            }),
            ..record
        }
    }

    /// Arrivals from 0 to 100 ms, the last content at 160: two first turns, two second turns of
    /// which one was cut, one third turn that an interruption dropped.
    fn five() -> Vec<Record> {
        let mut first = completed(0, 0, &[(20, 1), (40, 2)]);
        first.usage = Some(Usage {
            prompt_tokens: 10,
            completion_tokens: 3,
            cached_tokens: Some(4),
        });
        let cut = failed(Class::Truncated, 3, 90, completed(60, 60, &[(80, 1)]));
        let mut dropped = completed(70, 70, &[]);
        dropped.outcome = Outcome::Dropped;
        vec![
            of(first, 0, Some("a"), "m"),
            of(completed(50, 52, &[(82, 1), (102, 1)]), 0, Some("b"), "m"),
            of(cut, 1, Some("a"), "n"),
            of(completed(100, 100, &[(130, 1), (160, 3)]), 1, None, "m"),
            of(dropped, 2, Some("c"), "o"),
        ]
    }

    fn taken_apart(records: &[Record]) -> Vec<Breakdown> {
        Breakdown::all(&Metrics::of(&info(open(), records), records), records)
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9 * b.abs().max(1.0))
    }

    #[test]
    fn turns_stand_in_their_order_with_the_windows_of_the_run() {
        let all = taken_apart(&five());
        assert_eq!(
            all.iter().map(|b| b.by).collect::<Vec<_>>(),
            [By::Model, By::Turn, By::Group]
        );
        let [first, second] = &all[1].parts[..] else {
            panic!("two turns: the third was dropped")
        };
        assert_eq!((first.value.as_deref(), first.n_values), (Some("0"), 1));
        assert_eq!((first.counts.completed, first.counts.failed), (2, 0));
        // 20 and 82 - 52; from 0 and 50: 20 and 32.
        assert_eq!(first.ttft.all.p50, Some(25.0));
        assert_eq!(first.ttft_scheduled.all.p50, Some(26.0));
        // 20 / 2 and 20 / 1; 40 and 50.
        assert_eq!(first.tpot.all.p50, Some(15.0));
        assert_eq!(first.e2el.all.mean, Some(45.0));
        // The window is (0, 100]: one request, and 3 + 1 tokens. The run is 0 to 160.
        assert!(close(first.steady.requests, 1.0 / 0.1));
        assert!(close(first.steady.output_tokens, 4.0 / 0.1));
        assert!(close(first.whole.output_tokens, 5.0 / 0.16));
        assert!(close(first.cache_hit_rate, 4.0 / 10.0));
        // 20 ms is within 25, 32 is not.
        let slo = first.slo.unwrap();
        assert_eq!((slo.met, slo.requests), (1, 2));
        assert!(close(slo.goodput, 1.0 / 0.1) && close(slo.attainment, 0.5));

        assert_eq!((second.counts.completed, second.counts.failed), (1, 1));
        assert_eq!((second.ttft.all.p99, second.tpot.all.p99), (INF, INF));
        assert_eq!(second.ttft.completed.p99, Some(30.0));
        assert_eq!(second.steady.requests, Some(0.0));
        assert_eq!(second.cache_hit_rate, None);
        assert_eq!(second.slo.unwrap().attainment, Some(0.0));
    }

    #[test]
    fn groups_and_models_of_the_most_requests_stand_first() {
        let all = taken_apart(&five());
        let values = |b: &Breakdown| -> Vec<(Option<String>, u64)> {
            let part = |p: &Part| (p.value.clone(), p.counts.arrived);
            b.parts.iter().map(part).collect()
        };
        assert_eq!(
            values(&all[0]),
            [(Some("m".into()), 3), (Some("n".into()), 1)]
        );
        // Requests without a group are a part, too.
        assert_eq!(
            values(&all[2]),
            [(Some("a".into()), 2), (None, 1), (Some("b".into()), 1)]
        );
    }

    #[test]
    fn rates_of_parts_add_up_to_those_of_the_run() {
        let records = five();
        let metrics = Metrics::of(&info(open(), &records), &records);
        for breakdown in Breakdown::all(&metrics, &records) {
            let sum = |of: fn(&Part) -> Option<f64>| breakdown.parts.iter().filter_map(of).sum();
            assert!(close(
                metrics.steady.output_tokens,
                sum(|p| p.steady.output_tokens)
            ));
            assert!(close(metrics.whole.requests, sum(|p| p.whole.requests)));
            let goodput = metrics.slo.and_then(|slo| slo.goodput);
            assert!(close(goodput, sum(|p| p.slo?.goodput)));
        }
    }

    #[test]
    fn too_many_groups_are_held_together_and_counted() {
        let group = |i: u64| {
            let record = completed(i, i, &[(i + 5, 1)]);
            // The last three have one request each, all others two.
            of(record, 0, Some(&format!("g{:04}", i % 1003)), "m")
        };
        let records: Vec<Record> = (0..2003).map(group).collect();
        let all = taken_apart(&records);
        let [groups] = &all[..] else {
            panic!("one model and one turn are no parts")
        };
        assert_eq!(groups.parts.len(), MOST + 1);
        let others = groups.parts.last().unwrap();
        assert_eq!((&others.value, others.n_values), (&None, 3));
        assert_eq!(others.counts.arrived, 3);
        assert_eq!(others.ttft.all.p50, Some(5.0));
        let sum: u64 = groups.parts.iter().map(|p| p.counts.arrived).sum();
        assert_eq!(sum, 2003);
    }

    #[test]
    fn every_number_of_a_part_has_a_definition() {
        let all = taken_apart(&five());
        let values = all[1].parts[0].values();
        for (name, value) in &values {
            assert!(
                crate::Definition::of(name).is_some() && !value.is_nan(),
                "{name}"
            );
        }
        let value = |name: &str| values.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        assert_eq!(value("requests"), Some(2.0));
        assert_eq!(value("ttft_p50_ms"), Some(25.0));
        assert!(close(value("goodput"), 10.0));
    }

    #[test]
    fn a_run_without_requests_has_no_parts() {
        assert_eq!(taken_apart(&[]), []);
    }
}
