//! What a server counts itself, before a load and after it: tokens of prompts, how many of them it found in
//! its prefix cache, tokens that it made. By our names, whatever the server calls them.
//!
//! The server's counts say what it did, also for requests of others; records say what it told of each
//! request. Where they differ, something else has run on it.

use super::quantities::{Quantity, Told};
use crate::http::{self, Peer};
use crate::result::{Definition, MeasuredFile};
use crate::server::METRICS;
use engine::service::Endpoint;
use loadgen::{Check, Grade, Outcome, Reason, Record, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long counts may come after the answers that they are of.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long that is waited for at a time.
const PAUSE: Duration = Duration::from_millis(100);

/// How much more than the records have a server may count, as a share: what it counts of an end of a text or of a
/// template is not what everybody counts.
const MORE: f64 = 0.01;

/// A count by our name: what it is, and what tells it.
struct Counter {
    name: &'static str,
    formula: &'static str,
    quantity: Quantity,
}

/// The one that is told only where it counted anything: vLLM has it of every model.
const IMAGES: &str = "server_images";

/// Counts of what is in prompts, in the cache, and in answers.
const COUNTERS: &[Counter] = &[
    Counter {
        name: "server_prompt_tokens",
        formula: "prompt tokens that the server counted during the load",
        quantity: Quantity::PromptTokens,
    },
    Counter {
        name: "server_cached_tokens",
        formula: "prompt tokens that the server counted as found in its prefix cache during the load",
        quantity: Quantity::CachedTokens,
    },
    Counter {
        name: "server_output_tokens",
        formula: "tokens that the server counted as made during the load",
        quantity: Quantity::OutputTokens,
    },
    Counter {
        name: IMAGES,
        formula: "images that the server counted during the load; absent where it counted none",
        quantity: Quantity::Images,
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
    (status == 200).then(|| counts(&text))?
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
    let is_told = |(name, added): &(String, f64)| name != IMAGES || *added > 0.0;
    now.iter().map(difference).filter(is_told).collect()
}

/// The counts in a server's text; none if it cannot be one.
fn counts(text: &str) -> Option<Counts> {
    let (told, _) = Told::read(text, &[]).ok()?;
    let count = |counter: &Counter| Some((counter.name.to_owned(), told.get(counter.quantity)?));
    Some(COUNTERS.iter().filter_map(count).collect())
}

/// A verdict that knows, too, whether the server did more than the records have. Where requests failed that cannot be
/// told: the server has counted of them what no answer says.
pub(super) fn judged(verdict: Verdict, found: Option<&Counts>, records: &[Record]) -> Verdict {
    let sent = || records.iter().filter(|r| r.outcome != Outcome::Dropped);
    let Some(found) = found.filter(|_| sent().all(|r| r.completed() && r.usage.is_some())) else {
        return verdict;
    };
    let told = |of: fn(&Record) -> u64| -> u64 { sent().map(of).sum() };
    let answers = [
        (
            "server_output_tokens",
            "tokens made",
            told(Record::answer_tokens),
        ),
        (
            "server_prompt_tokens",
            "prompt tokens",
            told(Record::prompt_tokens),
        ),
    ];
    let beyond = answers.into_iter().filter_map(|(name, what, told)| {
        let counted = *found.get(name)?;
        #[expect(clippy::cast_precision_loss, reason = "no load has 2^53 tokens")]
        let (told, one_each) = (told as f64, sent().count() as f64);
        let more = counted - told;
        (more > (told * MORE).max(one_each)).then_some((what, counted, told))
    });
    beyond.fold(verdict, |verdict, (what, counted, told)| {
        verdict.with(Reason {
            check: Check::ServerCounts,
            grade: Grade::Degraded,
            measured: Some((counted - told) / told.max(1.0)),
            threshold: MORE,
            message: format!(
                "the server counted {counted} {what} during the load, of which its answers have {told}"
            ),
            help: "measure a server that nobody else uses meanwhile".to_owned(),
        })
    })
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
    let unit = |name| if name == IMAGES { "images" } else { "tokens" };
    let told = told.map(|c| definition(c.name, unit(c.name), c.formula));
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

    use super::super::recompute::one_record;

    const LMDEPLOY: &str = "lmdeploy:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 72.0
lmdeploy:generation_tokens_total{engine=\"0\",model_name=\"m\"} 4.0
lmdeploy:cached_tokens_total{engine=\"0\",model_name=\"m\"} 16.0
";
    const TRTLLM: &str = "trtllm_prompt_tokens_total{engine_type=\"undefined\"} 48.0
trtllm_generation_tokens_total{engine_type=\"undefined\"} 6.0
trtllm_prompt_cached_tokens_total{engine_type=\"undefined\"} 24.0
";

    const LLAMA_CPP: &str = "llamacpp:prompt_tokens_total 39
llamacpp:prompt_tokens_cached_total 21
llamacpp:tokens_predicted_total 10
";

    fn of(text: &str) -> Vec<(String, f64)> {
        counts(text).expect("a small text").into_iter().collect()
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
        let sglang = include_str!("fixtures/sglang.prom");
        assert_eq!(of(sglang), expected(35.0, 12.0, 80.0));
        let vllm = include_str!("fixtures/vllm.prom");
        let mut with_images = expected(32.0, 4.0, 72.0);
        with_images.insert(1, (IMAGES.to_owned(), 5.0));
        assert_eq!(of(vllm), with_images);
        assert_eq!(of(LMDEPLOY), expected(16.0, 4.0, 72.0));
        assert_eq!(of(TRTLLM), expected(24.0, 6.0, 48.0));
        assert_eq!(of(LLAMA_CPP), expected(21.0, 10.0, 60.0));
        assert_eq!(of("# nothing\nprocess_cpu_seconds_total 1\n"), []);
    }

    #[test]
    fn a_series_that_was_not_there_was_zero() {
        let before = counts("sglang:prompt_tokens_total 6.0\n").expect("counts");
        let now = counts(include_str!("fixtures/sglang.prom")).expect("counts");
        let now: Vec<(String, f64)> = added(&before, &now).into_iter().collect();
        assert_eq!(now, expected(35.0, 12.0, 74.0));
    }

    #[test]
    fn images_are_told_of_loads_that_had_some() {
        let counts =
            |n: u32| counts(&format!("vllm:mm_cache_queries_total {n}\n")).expect("counts");
        assert!(added(&counts(3), &counts(3)).is_empty());
        let some = added(&counts(3), &counts(5));
        assert_eq!(some.get(IMAGES), Some(&2.0));
    }

    #[test]
    fn a_server_that_did_more_than_was_asked_is_told_of() {
        let valid = Verdict {
            grade: Grade::Valid,
            reasons: Vec::new(),
            notes: Vec::new(),
        };
        let record = |tokens: u32| Record {
            usage: Some(loadgen::Usage {
                prompt_tokens: tokens,
                completion_tokens: tokens,
                cached_tokens: None,
            }),
            ..one_record()
        };
        let records = [record(100), record(100)];
        let judged = |output: f64, records: &[Record]| {
            let found = expected(0.0, output, 200.0).into_iter().collect();
            super::judged(valid.clone(), Some(&found), records)
        };
        // One token of each may be the end of its text.
        assert_eq!(judged(202.0, &records).grade, Grade::Valid);
        let found = judged(300.0, &records);
        assert_eq!(found.grade, Grade::Degraded);
        let words =
            "the server counted 300 tokens made during the load, of which its answers have 200";
        assert_eq!(found.reasons[0].message, words);
        let mut failed = records.clone();
        failed[0].outcome = Outcome::Failed(loadgen::Class::Timeout);
        assert_eq!(judged(300.0, &failed).grade, Grade::Valid);
    }
}
