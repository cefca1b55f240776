//! What a server counts itself, before a load and after it: tokens of prompts, how many of them it found in
//! its prefix cache, tokens that it made. By our names, whatever the server calls them.
//!
//! The server's counts say what it did, also for requests of others; records say what it told of each
//! request. Where they differ, something else has run on it.

use crate::http::{self, Peer};
use crate::result::{Definition, MeasuredFile};
use crate::server::known::METRICS;
use engine::service::Endpoint;
use loadgen::Record;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long counts may come after the answers that they are of.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long that is waited for at a time.
const PAUSE: Duration = Duration::from_millis(100);

/// A count by our name: what it is, and the series that tell it, of which the first that is there counts;
/// some are the sum of several, which have to be there all.
struct Counter {
    name: &'static str,
    formula: &'static str,
    series: &'static [&'static [&'static str]],
}

/// Counts of what is in prompts, in the cache, and in answers. Names are those of SGLang, vLLM and llama.cpp.
const COUNTERS: &[Counter] = &[
    Counter {
        name: "server_prompt_tokens",
        formula: "prompt tokens that the server counted during the load",
        series: &[
            &["sglang:prompt_tokens_total"],
            &["vllm:prompt_tokens_total"],
            // Its first leaves out what the second counts.
            &[
                "llamacpp:prompt_tokens_total",
                "llamacpp:prompt_tokens_cached_total",
            ],
        ],
    },
    Counter {
        name: "server_cached_tokens",
        formula: "prompt tokens that the server counted as found in its prefix cache during the load",
        series: &[
            &["sglang:cached_tokens_total"],
            &["vllm:prefix_cache_hits_total"],
            &["llamacpp:prompt_tokens_cached_total"],
        ],
    },
    Counter {
        name: "server_output_tokens",
        formula: "tokens that the server counted as made during the load",
        series: &[
            &["sglang:generation_tokens_total"],
            &["vllm:generation_tokens_total"],
            &["llamacpp:tokens_predicted_total"],
        ],
    },
];

/// What is said of the share that follows from two counts.
const HIT_RATE: (&str, &str) = (
    "server_cache_hit_rate",
    "server_cached_tokens ÷ server_prompt_tokens",
);

/// Counts by our names.
pub(super) type Counts = BTreeMap<String, f64>;

/// The counts of a server that tells them; nothing of one that does not.
pub(super) async fn read(endpoint: &Endpoint) -> Option<Counts> {
    let path = endpoint.facts.get(METRICS)?;
    let (status, text) = http::get_text(Peer::of(endpoint), path).await.ok()?;
    (status == 200).then(|| counts(&text))
}

/// What was added since `before`, once the answers of `records` are counted.
pub(super) async fn since(
    before: Option<Counts>,
    endpoint: &Endpoint,
    records: &[Record],
) -> Option<Counts> {
    let before = before?;
    let made: u64 = records
        .iter()
        .filter_map(|r| Some(u64::from(r.usage.as_ref()?.completion_tokens)))
        .sum();
    let begun = Instant::now();
    loop {
        let now = read(endpoint).await?;
        let added = added(&before, &now);
        #[expect(clippy::cast_precision_loss, reason = "no load has 2^53 tokens")]
        let is_whole = added
            .get("server_output_tokens")
            .is_none_or(|counted| *counted >= made as f64);
        if is_whole || begun.elapsed() > PATIENCE {
            return Some(added);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The differences. A server makes a series when it first counts: what was absent was zero.
fn added(before: &Counts, now: &Counts) -> Counts {
    let difference = |(name, value): (&String, &f64)| {
        let before = before.get(name).copied().unwrap_or(0.0);
        (name.clone(), value - before)
    };
    now.iter().map(difference).collect()
}

/// Reads the text of Prometheus; series that differ in labels only are added.
fn counts(text: &str) -> Counts {
    let sum = |series: &str| {
        let values = text.lines().filter_map(|line| value_of(line, series));
        values.fold(None, |sum: Option<f64>, v| Some(sum.unwrap_or(0.0) + v))
    };
    let total = |all: &&[&str]| all.iter().map(|series| sum(series)).sum::<Option<f64>>();
    let mut counts: Counts = COUNTERS
        .iter()
        .filter_map(|c| Some((c.name.to_owned(), c.series.iter().find_map(total)?)))
        .collect();
    // Before anything was found in the cache SGLang has no such series.
    if counts.contains_key("server_prompt_tokens") {
        counts
            .entry("server_cached_tokens".to_owned())
            .or_insert(0.0);
    }
    counts
}

fn value_of(line: &str, series: &str) -> Option<f64> {
    let rest = line.strip_prefix(series)?;
    let value = match rest.strip_prefix('{') {
        // A label may hold anything but a line's end; what follows the last brace is the value.
        Some(labels) => labels.rsplit_once('}')?.1,
        None => rest.strip_prefix(' ')?,
    };
    let value = value.split_whitespace().next()?;
    // It tells six digits: what is as large as to need an exponent is rounded, and says nothing of a load.
    let is_rounded = series.starts_with("llamacpp:") && value.contains('e');
    value.parse().ok().filter(|_| !is_rounded)
}

/// Puts the counts into a result.
pub(super) fn describe(found: Option<&Counts>, result: &mut MeasuredFile) {
    let Some(found) = found else { return };
    let share = match (
        found.get("server_cached_tokens"),
        found.get("server_prompt_tokens"),
    ) {
        (Some(cached), Some(prompt)) if *prompt > 0.0 => cached / prompt,
        _ => f64::NAN,
    };
    for row in &mut result.rows {
        found
            .iter()
            .for_each(|(name, value)| row.set(name.clone(), *value));
        row.set(HIT_RATE.0, share);
    }
    let definition = |name: &str, unit: &str, formula: &str| Definition {
        name: name.to_owned(),
        unit: unit.to_owned(),
        formula: formula.to_owned(),
    };
    let told = COUNTERS.iter().filter(|c| found.contains_key(c.name));
    let told = told.map(|c| definition(c.name, "tokens", c.formula));
    result.definitions.extend(told);
    result
        .definitions
        .push(definition(HIT_RATE.0, "1", HIT_RATE.1));
    if let Value::Object(details) = &mut result.details {
        details.insert("counters".to_owned(), serde_json::json!(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SGLANG: &str = "# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{is_streaming=\"false\",model_name=\"/m\"} 78.0
sglang:prompt_tokens_total{is_streaming=\"true\",model_name=\"/m\"} 2.0
sglang:generation_tokens_total{model_name=\"/m{}\"} 1.2e1
sglang:cached_tokens_total{cache_source=\"device\",model_name=\"/m\"} 35.0
sglang:cached_tokens_total_sum 7.0
";
    const VLLM: &str = "vllm:prefix_cache_hits_total{engine=\"0\"} 32.0
vllm:prefix_cache_hits_created{engine=\"0\"} 1.7e9
vllm:prompt_tokens_total{engine=\"0\"} 72.0
vllm:generation_tokens_total 4.0
";

    const LLAMA_CPP: &str = "llamacpp:prompt_tokens_total 39
llamacpp:prompt_tokens_cached_total 21
llamacpp:tokens_predicted_total 10
";

    fn of(text: &str) -> Vec<(String, f64)> {
        counts(text).into_iter().collect()
    }

    fn expected(cached: f64, output: f64, prompt: f64) -> Vec<(String, f64)> {
        let all = [
            ("server_cached_tokens", cached),
            ("server_output_tokens", output),
            ("server_prompt_tokens", prompt),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    #[test]
    fn each_server_s_own_names_become_ours() {
        assert_eq!(of(SGLANG), expected(35.0, 12.0, 80.0));
        assert_eq!(of(VLLM), expected(32.0, 4.0, 72.0));
        assert_eq!(of(LLAMA_CPP), expected(21.0, 10.0, 60.0));
        assert_eq!(of("# nothing\nprocess_cpu_seconds_total 1\n"), []);
    }

    #[test]
    fn a_rounded_count_is_none() {
        let rounded = LLAMA_CPP.replace(" 39", " 1.23457e+06");
        let told: Vec<String> = of(&rounded).into_iter().map(|(name, _)| name).collect();
        assert_eq!(told, ["server_cached_tokens", "server_output_tokens"]);
    }

    #[test]
    fn a_series_that_was_not_there_was_zero() {
        let before = counts("sglang:prompt_tokens_total 6.0\n");
        let now = added(&before, &counts(SGLANG));
        let now: Vec<(String, f64)> = now.into_iter().collect();
        assert_eq!(now, expected(35.0, 12.0, 74.0));
    }
}
