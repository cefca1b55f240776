//! The same records in other tools' words and by other tools' arithmetic, so that results can be set
//! beside theirs.
//!
//! Both count only answers that were finished, and take the whole run from its first dispatch to its
//! last end. What counts as finished, and as content, is what the records say.

mod basis;

use serde_json::{Map, Value, json};
use statistics::{Sorted, mean};

use crate::{Arrivals, Load, Outcome, Process, Record, RunInfo, Slo};
use basis::{Basis, Reading, seconds};

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
fn of_both(info: &RunInfo, basis: &Basis) -> Map<String, Value> {
    let all = [
        ("request_rate", rate(&info.load)),
        ("max_concurrency", concurrency(&info.load)),
        ("duration", json!(basis.duration)),
        ("completed", json!(basis.completed())),
        ("total_input_tokens", json!(basis.input)),
        ("total_output_tokens", json!(basis.output)),
        (
            "request_throughput",
            json!(basis.per_second(basis.completed() as f64)),
        ),
        (
            "output_throughput",
            json!(basis.per_second(basis.output as f64)),
        ),
        ("max_output_tokens_per_s", json!(basis.most_tokens())),
        ("max_concurrent_requests", json!(basis.most_requests())),
    ];
    all.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// The result of `vllm bench serve --save-result --save-detailed`, as of version 0.32.
#[must_use]
pub fn vllm(info: &RunInfo, records: &[Record]) -> Value {
    let basis = Basis::of(records, Reading::Vllm);
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
    let mut result = of_both(info, &basis);
    let mut set = |name: &str, value: Value| result.insert(name.to_owned(), value);
    set("backend", json!("openai"));
    set("endpoint_type", json!(info.protocol.name()));
    set("model_id", json!(info.model));
    set("num_prompts", json!(n_sent));
    set("burstiness", json!(burstiness));
    set("failed", json!(basis.failed));
    let goodput = has_one_slo(records).then(|| basis.per_second(basis.good as f64));
    set("request_goodput", json!(goodput));
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

/// Whether all requests that were sent have the same objectives: vLLM knows no others.
fn has_one_slo(records: &[Record]) -> bool {
    let mut sent = records.iter().filter(|r| r.outcome != Outcome::Dropped);
    let first = sent.next().and_then(|record| record.slo);
    first.is_some_and(|slo| slo != Slo::default()) && sent.all(|record| record.slo == first)
}

/// What stands in lists, request by request. One that failed stands there with what was seen of it.
fn detail(result: &mut Map<String, Value>, records: &[Record]) {
    let sent: Vec<&Record> = records
        .iter()
        .filter(|r| r.outcome != Outcome::Dropped)
        .collect();
    let output = |r: &Record| if r.completed() { r.answer_tokens() } else { 0 };
    let since = |r: &Record, at: Option<u64>| {
        let span = at.zip(r.dispatched).map(|(at, from)| at - from);
        json!(seconds(span.unwrap_or(0)))
    };
    let latency = |r: &Record| since(r, r.last_content().filter(|_| r.completed()));
    let mut list = |name: &str, of: &dyn Fn(&Record) -> Value| {
        let all = sent.iter().map(|record| of(record)).collect();
        result.insert(name.to_owned(), Value::Array(all));
    };
    list("input_lens", &|r| json!(r.prompt_tokens()));
    list("output_lens", &|r| json!(output(r)));
    list("ttfts", &|r| since(r, r.first_content()));
    list("itls", &|r| json!(Reading::Vllm.gaps(r)));
    list("latencies", &latency);
    list("errors", &|r| json!(r.error.clone().unwrap_or_default()));
}

/// One line of the result file of SGLang's `bench_serving`, as of version 0.5.23.
#[must_use]
pub fn sglang(info: &RunInfo, records: &[Record]) -> Value {
    let basis = Basis::of(records, Reading::Sglang(info.protocol));
    let mut result = of_both(info, &basis);
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
    let longest = basis.itl.iter().copied().fold(0.0, f64::max);
    result.insert("max_itl_ms".to_owned(), json!(longest * 1e3));
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
        assert_eq!(value["ttfts"], json!([0.01, 0.04, 0.05]));
        assert_eq!(value["itls"][0], json!([0.02, 0.03]));
        assert_eq!(value["itls"][2], json!([]));
        assert_eq!(value["latencies"], json!([0.06, 0.05, 0.0]));
        assert_eq!(value["request_goodput"], Value::Null);
    }

    #[test]
    fn vllm_s_goodput_is_of_one_set_of_objectives_from_the_dispatch() {
        let mut records = records();
        for record in &mut records {
            // The second was scheduled 100 ms before it was sent.
            record.slo = Some(Slo {
                ttft: Some(std::time::Duration::from_millis(40)),
                ..Slo::default()
            });
        }
        let value = vllm(&info(closed(1), &records), &records);
        near(&value, "request_goodput", 2.0 / 0.3);
        records[1].slo = Some(Slo::default());
        let value = vllm(&info(closed(1), &records), &records);
        assert_eq!(value["request_goodput"], Value::Null);
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
    fn sglang_s_client_reads_to_the_end_and_shares_gaps_in_its_own_protocol() {
        let mut records = records();
        records[0].done += 4_000_000;
        let mut of = info(closed(1), &records);
        let value = sglang(&of, &records);
        // 64 and 50 ms; (64 - 10) / 3 and (50 - 40) / 1.
        near(&value, "mean_e2e_latency_ms", 57.0);
        near(&value, "mean_tpot_ms", 14.0);
        near(&value, "max_itl_ms", 30.0);
        of.protocol = crate::Protocol::Sglang;
        let value = sglang(&of, &records);
        // 20, then 30 ms for two tokens; 10.
        near(&value, "mean_itl_ms", 15.0);
        near(&value, "max_itl_ms", 20.0);
        near(&value, "max_output_tokens_per_s", 6.0);
    }

    #[test]
    fn nothing_is_zero_and_no_error() {
        let value = vllm(&info(closed(1), &[]), &[]);
        near(&value, "mean_ttft_ms", 0.0);
        near(&value, "request_throughput", 0.0);
    }
}
