//! The same records in other tools' words and by other tools' arithmetic, so that results can be set
//! beside theirs.
//!
//! Both count only answers that were finished, take the whole run from its first dispatch to its last
//! end, and pool the gaps between events whatever tokens those carry.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use statistics::{Sorted, mean};

use crate::{Arrivals, Load, Outcome, Process, Record, RunInfo};

/// What both tools compute, in seconds.
struct Basis {
    duration: f64,
    completed: usize,
    failed: usize,
    input: u64,
    output: u64,
    ttft: Vec<f64>,
    tpot: Vec<f64>,
    itl: Vec<f64>,
    e2el: Vec<f64>,
}

impl Basis {
    fn of(records: &[Record]) -> Self {
        let sent = || records.iter().filter(|r| r.outcome != Outcome::Dropped);
        let first = sent().filter_map(|r| r.dispatched).min().unwrap_or(0);
        let last = sent().map(|r| r.done).max().unwrap_or(first);
        let mut basis = Self {
            duration: seconds(last.saturating_sub(first)),
            completed: 0,
            failed: sent().filter(|r| !r.completed()).count(),
            input: 0,
            output: 0,
            ttft: Vec::new(),
            tpot: Vec::new(),
            itl: Vec::new(),
            e2el: Vec::new(),
        };
        for record in sent().filter(|r| r.completed()) {
            let (Some(from), Some(first), Some(last)) = (
                record.dispatched,
                record.first_content(),
                record.last_content(),
            ) else {
                continue;
            };
            let (ttft, latency) = (seconds(first - from), seconds(last - from));
            let tokens = record.answer_tokens();
            basis.completed += 1;
            basis.input += record.prompt_tokens();
            basis.output += tokens;
            basis.ttft.push(ttft);
            basis.e2el.push(latency);
            if tokens > 1 {
                basis.tpot.push((latency - ttft) / (tokens - 1) as f64);
            }
            let pairs = record.events.windows(2);
            basis
                .itl
                .extend(pairs.map(|pair| seconds(pair[1].at - pair[0].at)));
        }
        basis
    }

    fn per_second(&self, n: f64) -> f64 {
        if self.duration > 0.0 {
            n / self.duration
        } else {
            0.0
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Deviation as numpy has it: divided by the number of values.
fn deviation(values: &[f64]) -> f64 {
    let Some(centre) = mean(values) else {
        return 0.0;
    };
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (squares / values.len() as f64).sqrt()
}

/// Adds `mean_NAME_ms`, `median_NAME_ms`, `std_NAME_ms` and percentiles; all 0 without a value.
fn summarise(to: &mut Map<String, Value>, name: &str, values: &[f64], percentiles: &[u8]) {
    let ms = |v: f64| json!(v * 1e3);
    let sorted = Sorted::new(values.to_vec());
    let at = |q: f64| sorted.as_ref().and_then(|s| s.linear(q)).unwrap_or(0.0);
    to.insert(format!("mean_{name}_ms"), ms(mean(values).unwrap_or(0.0)));
    to.insert(format!("median_{name}_ms"), ms(at(0.5)));
    to.insert(format!("std_{name}_ms"), ms(deviation(values)));
    for p in percentiles {
        to.insert(format!("p{p}_{name}_ms"), ms(at(f64::from(*p) / 100.0)));
    }
}

/// The most events and the most requests that any second of the run saw; a request counts in every
/// second that it touches.
fn most_per_second(records: &[Record]) -> (u64, u64) {
    const SECOND: u64 = 1_000_000_000;
    let finished = || records.iter().filter(|r| r.completed());
    let first = finished().filter_map(|r| r.dispatched).min().unwrap_or(0);
    let second = |at: u64| at.saturating_sub(first) / SECOND;
    let mut seconds: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for record in finished() {
        for event in &record.events {
            seconds.entry(second(event.at)).or_default().0 += 1;
        }
        let from = second(record.dispatched.unwrap_or(first));
        for at in from..=second(record.last_content().unwrap_or(first)) {
            seconds.entry(at).or_default().1 += 1;
        }
    }
    let most = |of: fn(&(u64, u64)) -> u64| seconds.values().map(of).max().unwrap_or(0);
    (most(|s| s.0), most(|s| s.1))
}

/// The rate as both tools write it: `inf` where all requests come at once or users send.
fn rate(load: &Load) -> Value {
    match load {
        Load::Open {
            arrivals: Arrivals::Paced { rate, .. },
            ..
        } => rate
            .first()
            .map_or_else(|| json!("inf"), |rate| json!(rate.get())),
        _ => json!("inf"),
    }
}

fn concurrency(load: &Load) -> Value {
    match load {
        Load::Closed { concurrency, .. } => json!(concurrency),
        Load::Open { max_in_flight, .. } => json!(max_in_flight),
    }
}

/// What both tools say, and say alike.
fn of_both(info: &RunInfo, records: &[Record], basis: &Basis) -> Map<String, Value> {
    let (tokens, requests) = most_per_second(records);
    let all = [
        ("request_rate", rate(&info.load)),
        ("max_concurrency", concurrency(&info.load)),
        ("duration", json!(basis.duration)),
        ("completed", json!(basis.completed)),
        ("total_input_tokens", json!(basis.input)),
        ("total_output_tokens", json!(basis.output)),
        (
            "request_throughput",
            json!(basis.per_second(basis.completed as f64)),
        ),
        (
            "output_throughput",
            json!(basis.per_second(basis.output as f64)),
        ),
        ("max_output_tokens_per_s", json!(tokens)),
        ("max_concurrent_requests", json!(requests)),
    ];
    all.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// The result of `vllm bench serve --save-result --save-detailed`, as of version 0.32.
#[must_use]
pub fn vllm(info: &RunInfo, records: &[Record]) -> Value {
    let basis = Basis::of(records);
    let burstiness = match &info.load {
        Load::Open {
            arrivals:
                Arrivals::Paced {
                    process: Process::Gamma { burstiness },
                    ..
                },
            ..
        } => burstiness.get(),
        _ => 1.0,
    };
    let n_sent = records
        .iter()
        .filter(|r| r.outcome != Outcome::Dropped)
        .count();
    let mut result = of_both(info, records, &basis);
    let mut set = |name: &str, value: Value| result.insert(name.to_owned(), value);
    set("backend", json!("openai"));
    set("endpoint_type", json!(info.protocol.name()));
    set("model_id", json!(info.model));
    set("num_prompts", json!(n_sent));
    set("burstiness", json!(burstiness));
    set("failed", json!(basis.failed));
    set("request_goodput", Value::Null);
    set(
        "total_token_throughput",
        json!(basis.per_second((basis.input + basis.output) as f64)),
    );
    detail(&mut result, records);
    summarise(&mut result, "ttft", &basis.ttft, &[99]);
    summarise(&mut result, "tpot", &basis.tpot, &[99]);
    summarise(&mut result, "itl", &basis.itl, &[99]);
    summarise(&mut result, "e2el", &basis.e2el, &[99]);
    Value::Object(result)
}

/// What stands in lists, request by request.
fn detail(result: &mut Map<String, Value>, records: &[Record]) {
    let sent: Vec<&Record> = records
        .iter()
        .filter(|r| r.outcome != Outcome::Dropped)
        .collect();
    // A request that failed stands in the lists with nothing.
    let listed = |of: &dyn Fn(&Record) -> Value, nothing: Value| -> Vec<Value> {
        let value = |r: &&Record| {
            if r.completed() {
                of(r)
            } else {
                nothing.clone()
            }
        };
        sent.iter().map(value).collect()
    };
    let ttft = |r: &Record| {
        let span = r
            .first_content()
            .zip(r.dispatched)
            .map(|(at, from)| at - from);
        json!(seconds(span.unwrap_or(0)))
    };
    let gaps = |r: &Record| -> Value {
        r.events
            .windows(2)
            .map(|p| seconds(p[1].at - p[0].at))
            .collect()
    };
    let mut set = |name: &str, value: Value| result.insert(name.to_owned(), value);
    set(
        "input_lens",
        listed(&|r| json!(r.prompt_tokens()), json!(0)).into(),
    );
    set(
        "output_lens",
        listed(&|r| json!(r.answer_tokens()), json!(0)).into(),
    );
    set("ttfts", listed(&ttft, json!(0.0)).into());
    set("itls", listed(&gaps, json!([])).into());
    let errors = sent.iter().map(|r| r.error.clone().unwrap_or_default());
    set("errors", errors.collect::<Vec<_>>().into());
}

/// One line of the result file of SGLang's `bench_serving`, as of version 0.5.23.
#[must_use]
pub fn sglang(info: &RunInfo, records: &[Record]) -> Value {
    let basis = Basis::of(records);
    let mut result = of_both(info, records, &basis);
    let mut set = |name: &str, value: Value| result.insert(name.to_owned(), value);
    set("backend", json!(info.protocol.name()));
    set(
        "input_throughput",
        json!(basis.per_second(basis.input as f64)),
    );
    set(
        "total_throughput",
        json!(basis.per_second((basis.input + basis.output) as f64)),
    );
    // Requests under way on average, by Little's law.
    set(
        "concurrency",
        json!(basis.per_second(basis.e2el.iter().sum())),
    );
    set("accept_length", Value::Null);
    let percentiles = [90, 95, 99];
    summarise(&mut result, "e2e_latency", &basis.e2el, &percentiles);
    summarise(&mut result, "ttft", &basis.ttft, &percentiles);
    summarise(&mut result, "tpot", &basis.tpot, &percentiles);
    summarise(&mut result, "itl", &basis.itl, &percentiles);
    Value::Object(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::samples::{closed, completed, failed, info};

    fn records() -> Vec<Record> {
        vec![
            // 10 ms to the first of 4 tokens, then gaps of 20 and 30 ms, the last with 2 tokens.
            completed(0, 0, &[(10, 1), (30, 1), (60, 2)]),
            completed(0, 100, &[(140, 1), (150, 1)]),
            failed(Class::Truncated, 4, 300, completed(0, 200, &[(250, 1)])),
        ]
    }

    fn near(value: &Value, name: &str, wanted: f64) {
        let found = value[name].as_f64().unwrap_or(f64::NAN);
        assert!(
            (found - wanted).abs() < 1e-9 * wanted.abs().max(1.0),
            "{name}: {found}, not {wanted}"
        );
    }

    #[test]
    fn vllm_s_arithmetic() {
        let records = records();
        let value = vllm(&info(closed(1), &records), &records);
        near(&value, "duration", 0.3);
        near(&value, "completed", 2.0);
        near(&value, "failed", 1.0);
        near(&value, "mean_ttft_ms", 25.0);
        near(&value, "std_ttft_ms", 15.0);
        // (60 - 10) / 3 and (50 - 40) / 1.
        near(&value, "mean_tpot_ms", (50.0 / 3.0 + 10.0) / 2.0);
        // Gaps of events, not of tokens: 20, 30, 10.
        near(&value, "mean_itl_ms", 20.0);
        near(&value, "median_e2el_ms", 55.0);
        near(&value, "output_throughput", 6.0 / 0.3);
        assert_eq!(value["ttfts"], json!([0.01, 0.04, 0.0]));
        assert_eq!(value["itls"][0], json!([0.02, 0.03]));
        assert_eq!(value["itls"][2], json!([]));
    }

    #[test]
    fn sglang_s_arithmetic() {
        let records = records();
        let value = sglang(&info(closed(1), &records), &records);
        near(&value, "concurrency", 0.11 / 0.3);
        near(&value, "total_throughput", 26.0 / 0.3);
        near(&value, "p90_e2e_latency_ms", 59.0);
        assert_eq!(
            (&value["request_rate"], &value["max_concurrency"]),
            (&json!("inf"), &json!(1))
        );
    }

    #[test]
    fn nothing_is_zero_and_no_error() {
        let value = vllm(&info(closed(1), &[]), &[]);
        near(&value, "mean_ttft_ms", 0.0);
        near(&value, "request_throughput", 0.0);
    }
}
