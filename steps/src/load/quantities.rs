//! What servers call the same things: their series by our names.
//!
//! One table for whatever reads a server's metrics. Names are those of SGLang, vLLM,
//! LMDeploy, TensorRT-LLM and llama.cpp; the embedded server has SGLang's.

use std::collections::BTreeSet;
use telemetry::exposition::{self, Exposition, Limits, Series};

/// Labels of ranks that repeat one another's counts, where SGLang is asked for the metrics of all.
const REPEATED: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];
/// The label under which SGLang tells a queue by priorities; the whole queue has it empty.
const PRIORITY: &str = "priority";
/// Whose missing series is a count of nothing.
const SGLANG: &str = "sglang:";

/// What servers tell of images.
const IMAGES: &[&[&str]] = &[
    &["vllm:mm_cache_queries_total"],
    &["sglang:encoder_mm_items_per_request_sum"],
];

/// llama.cpp's counts of prompts: its first leaves out what the second counts.
const LLAMA_CPP_PROMPTS: &[&str] = &[
    "llamacpp:prompt_tokens_total",
    "llamacpp:prompt_tokens_cached_total",
];
/// llama.cpp tells six digits: from here on its values are rounded, and say nothing of a load.
const LLAMA_CPP_ROUNDS: (&str, f64) = ("llamacpp:", 1e6);

/// What a server may tell of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Requests that run.
    Running,
    /// Requests that wait.
    Waiting,
    /// Share of its key-value cache in use, 0 to 1.
    CacheUse,
    /// Prompt tokens so far.
    PromptTokens,
    /// Prompt tokens that it has looked for in its prefix cache so far.
    QueriedTokens,
    /// Those of them that it has found.
    CachedTokens,
    /// Tokens that it has made so far.
    OutputTokens,
    /// Times so far that a running request had to give its cache back.
    Preemptions,
    /// Images so far, and whatever else of prompts is no text: vLLM looks for each in a cache of them, SGLang counts them
    /// where a server of its own encodes them.
    Images,
}

/// How series that differ in labels only are one value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Together {
    Sum,
    Mean,
}

impl Quantity {
    /// All, in the order of columns.
    pub(crate) const ALL: [Self; 9] = [
        Self::Running,
        Self::Waiting,
        Self::CacheUse,
        Self::PromptTokens,
        Self::QueriedTokens,
        Self::CachedTokens,
        Self::OutputTokens,
        Self::Preemptions,
        Self::Images,
    ];

    /// The name of its column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::CacheUse => "cache_use",
            Self::PromptTokens => "prompt_tokens",
            Self::QueriedTokens => "queried_tokens",
            Self::CachedTokens => "cached_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Preemptions => "preemptions",
            Self::Images => "images",
        }
    }

    /// The series that tell it, of which the first that is there counts; some are the
    /// sum of several, which have to be there all.
    fn series(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Running => &[
                &["sglang:num_running_reqs"],
                &["vllm:num_requests_running"],
                &["lmdeploy:num_requests_running"],
                &["trtllm_num_requests_running"],
                &["llamacpp:requests_processing"],
            ],
            Self::Waiting => &[
                &["sglang:num_queue_reqs"],
                &["vllm:num_requests_waiting"],
                &["lmdeploy:num_requests_waiting"],
                &["trtllm_num_requests_waiting"],
                &["llamacpp:requests_deferred"],
            ],
            // The last two are what older versions of vLLM and llama.cpp tell.
            Self::CacheUse => &[
                &["sglang:token_usage"],
                &["vllm:kv_cache_usage_perc"],
                &["lmdeploy:gpu_cache_usage_perc"],
                &["trtllm_kv_cache_utilization"],
                &["vllm:gpu_cache_usage_perc"],
                &["llamacpp:kv_cache_usage_ratio"],
            ],
            Self::PromptTokens => &[
                &["sglang:prompt_tokens_total"],
                &["vllm:prompt_tokens_total"],
                &["lmdeploy:prompt_tokens_total"],
                &["trtllm_prompt_tokens_total"],
                LLAMA_CPP_PROMPTS,
            ],
            Self::QueriedTokens => &[
                &["sglang:prompt_tokens_total"],
                &["vllm:prefix_cache_queries_total"],
                LLAMA_CPP_PROMPTS,
            ],
            Self::CachedTokens => &[
                &["sglang:cached_tokens_total"],
                &["vllm:prefix_cache_hits_total"],
                &["lmdeploy:cached_tokens_total"],
                &["trtllm_prompt_cached_tokens_total"],
                &["llamacpp:prompt_tokens_cached_total"],
            ],
            Self::OutputTokens => &[
                &["sglang:generation_tokens_total"],
                &["vllm:generation_tokens_total"],
                &["lmdeploy:generation_tokens_total"],
                &["trtllm_generation_tokens_total"],
                &["llamacpp:tokens_predicted_total"],
            ],
            // The embedded server's own name stands last.
            Self::Preemptions => &[
                &["sglang:num_retracted_requests_total"],
                &["vllm:num_preemptions_total"],
                &["sglang:num_retractions_total"],
            ],
            Self::Images => IMAGES,
        }
    }

    fn together(self) -> Together {
        match self {
            // Of several caches the mean, as they are equally large.
            Self::CacheUse => Together::Mean,
            _ => Together::Sum,
        }
    }
}

/// What a server told at once, by our names.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Told([Option<f64>; Quantity::ALL.len()]);

impl Told {
    /// Reads the text of a server, with its further series that are wanted by their own names.
    ///
    /// # Errors
    /// In words, if the text is larger than any server's.
    pub(super) fn read(text: &str, further: &[String]) -> Result<(Self, Exposition), String> {
        let mut wanted: BTreeSet<&str> = further.iter().map(String::as_str).collect();
        for quantity in Quantity::ALL {
            wanted.extend(quantity.series().iter().copied().flatten());
        }
        let found = exposition::read(text, &wanted, &Limits::default());
        let found = found.map_err(|e| e.to_string())?;
        Ok((Self::of(&found), found))
    }

    fn of(found: &Exposition) -> Self {
        let mut told = Self::default();
        for quantity in Quantity::ALL {
            let total = |names: &&[&str]| -> Option<f64> {
                let each = names.iter().map(|name| value(found, name, quantity));
                each.sum()
            };
            told.set(quantity, quantity.series().iter().find_map(total));
        }
        // Before anything was found in the cache SGLang has no such series.
        let mut names = found.series.iter().map(|series| &series.name);
        if names.any(|name| name.starts_with(SGLANG)) && told.get(Quantity::CachedTokens).is_none()
        {
            let is_asked = told.get(Quantity::QueriedTokens).is_some();
            told.set(Quantity::CachedTokens, is_asked.then_some(0.0));
        }
        told
    }

    /// Returns a value, where the server tells it.
    pub(crate) fn get(&self, quantity: Quantity) -> Option<f64> {
        self.0[quantity as usize]
    }

    /// Sets a value; what is not finite is none.
    pub(super) fn set(&mut self, quantity: Quantity, value: Option<f64>) {
        self.0[quantity as usize] = value.filter(|value| value.is_finite());
    }

    /// Returns whether nothing of it is told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// The values of the series of a name, each once.
fn values(found: &Exposition, name: &str) -> Vec<f64> {
    let is_whole = |series: &&Series| series.label(PRIORITY).is_some_and(str::is_empty);
    let has_whole = found.named(name).any(|series| is_whole(&series));
    let of_whole = |series: &&Series| !has_whole || is_whole(series);
    let mut seen: BTreeSet<Vec<&(String, String)>> = BTreeSet::new();
    let mut values = Vec::new();
    for series in found.named(name).filter(of_whole) {
        let labels = series.labels.iter();
        let labels = labels.filter(|(label, _)| !REPEATED.contains(&label.as_str()));
        if seen.insert(labels.collect()) {
            values.push(series.value);
        }
    }
    values
}

/// The value of the series of a name; none if it is not there, or rounded.
fn value(found: &Exposition, name: &str, quantity: Quantity) -> Option<f64> {
    let values = values(found, name);
    let (server, most) = LLAMA_CPP_ROUNDS;
    let is_rounded = |value: &f64| name.starts_with(server) && *value >= most;
    if values.is_empty() || values.iter().any(is_rounded) {
        return None;
    }
    let sum: f64 = values.iter().sum();
    Some(match quantity.together() {
        Together::Sum => sum,
        #[expect(clippy::cast_precision_loss, reason = "a few caches")]
        Together::Mean => sum / values.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(&'static str, f64)> {
        let (told, _) = Told::read(text, &[]).expect("a small text");
        let all = Quantity::ALL.into_iter();
        all.filter_map(|q| Some((q.name(), told.get(q)?))).collect()
    }

    #[test]
    fn sglang_s_names_are_ours() {
        let text = include_str!("fixtures/sglang.prom");
        let expected = [
            ("running", 3.0),
            ("waiting", 2.0),
            ("cache_use", 0.25),
            ("prompt_tokens", 80.0),
            ("queried_tokens", 80.0),
            ("cached_tokens", 35.0),
            ("output_tokens", 12.0),
            ("preemptions", 1.0),
        ];
        assert_eq!(told(text), expected);
    }

    #[test]
    fn vllm_s_names_are_ours() {
        let text = include_str!("fixtures/vllm.prom");
        let expected = [
            ("running", 5.0),
            ("waiting", 2.0),
            ("cache_use", 0.25),
            ("prompt_tokens", 72.0),
            ("queried_tokens", 70.0),
            ("cached_tokens", 32.0),
            ("output_tokens", 4.0),
            ("preemptions", 0.0),
            ("images", 5.0),
        ];
        assert_eq!(told(text), expected);
        let encoder = "sglang:encoder_mm_items_per_request_sum{modality=\"image\"} 7.0\n";
        assert_eq!(told(encoder), [("images", 7.0)]);
    }

    #[test]
    fn llama_cpp_tells_less() {
        let text = include_str!("fixtures/llamacpp.prom");
        let expected = [
            ("running", 2.0),
            ("waiting", 1.0),
            ("prompt_tokens", 20.0),
            ("queried_tokens", 20.0),
            ("cached_tokens", 8.0),
            ("output_tokens", 64.0),
        ];
        assert_eq!(told(text), expected);
        let rounded = text.replace("_total 12", "_total 1.23457e+06");
        assert!(
            !told(&rounded)
                .iter()
                .any(|(name, _)| *name == "prompt_tokens")
        );
    }

    #[test]
    fn names_of_servers_that_were_not_run_are_as_their_sources_have_them() {
        let lmdeploy = "lmdeploy:num_requests_running{engine=\"0\"} 3\n\
            lmdeploy:num_requests_waiting{engine=\"0\"} 1\n\
            lmdeploy:gpu_cache_usage_perc{engine=\"0\"} 0.5\n";
        let expected = [("running", 3.0), ("waiting", 1.0), ("cache_use", 0.5)];
        assert_eq!(told(lmdeploy), expected);
        let trtllm = "trtllm_num_requests_running 3\ntrtllm_num_requests_waiting 1\n\
            trtllm_kv_cache_utilization 0.5\n";
        assert_eq!(told(trtllm), expected);
    }

    #[test]
    fn what_a_server_has_not_counted_yet_is_nothing_where_it_counts_at_all() {
        let names: Vec<_> = told("sglang:prompt_tokens_total 6\n").into_iter().collect();
        let expected = [
            ("prompt_tokens", 6.0),
            ("queried_tokens", 6.0),
            ("cached_tokens", 0.0),
        ];
        assert_eq!(names, expected);
        assert_eq!(
            told("vllm:prompt_tokens_total 6\n"),
            [("prompt_tokens", 6.0)]
        );
        let (nothing, _) = Told::read("process_cpu_seconds_total 1\n", &[]).expect("small");
        assert!(nothing.is_empty());
    }

    #[test]
    fn ranks_that_repeat_each_other_count_once_and_others_each() {
        let line = |rank: u32, dp: u32| {
            format!("sglang:num_running_reqs{{tp_rank=\"{rank}\",dp_rank=\"{dp}\"}} 4\n")
        };
        let text = line(0, 0) + &line(1, 0) + &line(2, 1) + &line(3, 1);
        assert_eq!(told(&text), [("running", 8.0)]);
        assert_eq!(told("vllm:num_requests_running NaN\n"), []);
    }
}
