//! What the server counts, in Prometheus text under SGLang's names.
//!
//! The engine thread writes and connections read, without locks: each figure is an atomic of its
//! own, so one scrape may see two figures a step apart.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const TTFT_BOUNDS_S: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0,
    64.0, 128.0,
];
const ITL_BOUNDS_S: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.2,
    0.4, 0.8, 1.6, 4.0,
];
const E2E_BOUNDS_S: &[f64] = &[
    0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
    640.0,
];

const LATENESS_BOUNDS_S: &[f64] = &[
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0,
];

/// A figure that only the engine writes.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds to a counter.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    /// Replaces a gauge.
    pub fn set(&self, n: usize) {
        self.0.store(n as u64, Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A cumulative histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    bounds_s: &'static [f64],
    /// One count per bound, and one for what exceeds them all.
    counts: Vec<AtomicU64>,
    sum_ns: AtomicU64,
}

impl Histogram {
    fn new(bounds_s: &'static [f64]) -> Self {
        let counts = (0..=bounds_s.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            bounds_s,
            counts,
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds_s.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, label: &str) {
        let mut total = 0;
        let bounds = self
            .bounds_s
            .iter()
            .map(ToString::to_string)
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Relaxed);
            line(
                out,
                &format!("{name}_bucket{{{label},le=\"{bound}\"}}"),
                total,
            );
        }
        let sum_s = self.sum_ns.load(Relaxed) as f64 / 1e9;
        line(out, &format!("{name}_sum{{{label}}}"), sum_s);
        line(out, &format!("{name}_count{{{label}}}"), total);
    }
}

/// Everything the server counts.
#[derive(Debug)]
pub struct Metrics {
    /// Sequences that hold cache blocks.
    pub n_running: Figure,
    /// Sequences that wait for the scheduler.
    pub n_queued: Figure,
    /// Cache blocks in use.
    pub n_used_blocks: Figure,
    /// Cache blocks in all.
    pub n_blocks: Figure,
    /// Tokens per cache block.
    pub block_tokens: Figure,
    /// Requests that came.
    pub arrived: Figure,
    /// Requests that ended by themselves.
    pub requests: Figure,
    /// Requests that ended because the client left, the server stopped or a step failed.
    pub aborted: Figure,
    /// Times that a running sequence had to give its blocks back.
    pub retractions: Figure,
    /// Prompt tokens of requests that reached their first token.
    pub prompt_tokens: Figure,
    /// Tokens sampled.
    pub generation_tokens: Figure,
    /// Prompt tokens that need not be computed, of requests that reached their first token.
    pub cached_tokens: Figure,
    /// Those of them that came from host memory.
    pub host_cached_tokens: Figure,
    /// Tokens that retracted requests found in the cache when they ran again.
    pub recached_tokens: Figure,
    /// Cache blocks of prefixes that nobody uses.
    pub n_evictable_blocks: Figure,
    /// Blocks of host memory in use.
    pub n_used_host_blocks: Figure,
    /// Blocks of host memory in all.
    pub n_host_blocks: Figure,
    /// Blocks that left the cache for want of room.
    pub evicted_blocks: Figure,
    /// Blocks copied to host memory.
    pub backed_up_blocks: Figure,
    /// Blocks copied back from host memory.
    pub loaded_blocks: Figure,
    /// Blocks that left host memory for want of room.
    pub host_evicted_blocks: Figure,
    /// From arrival at the engine to the first token.
    pub ttft: Histogram,
    /// Between the tokens of one request.
    pub itl: Histogram,
    /// From arrival at the engine to the last token.
    pub e2el: Histogram,
    /// How much later steps of stated time, or tokens at stated instants, were ready than they were to be.
    pub lateness: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            n_running: Figure::default(),
            n_queued: Figure::default(),
            n_used_blocks: Figure::default(),
            n_blocks: Figure::default(),
            block_tokens: Figure::default(),
            arrived: Figure::default(),
            requests: Figure::default(),
            aborted: Figure::default(),
            retractions: Figure::default(),
            prompt_tokens: Figure::default(),
            generation_tokens: Figure::default(),
            cached_tokens: Figure::default(),
            host_cached_tokens: Figure::default(),
            recached_tokens: Figure::default(),
            n_evictable_blocks: Figure::default(),
            n_used_host_blocks: Figure::default(),
            n_host_blocks: Figure::default(),
            evicted_blocks: Figure::default(),
            backed_up_blocks: Figure::default(),
            loaded_blocks: Figure::default(),
            host_evicted_blocks: Figure::default(),
            ttft: Histogram::new(TTFT_BOUNDS_S),
            itl: Histogram::new(ITL_BOUNDS_S),
            e2el: Histogram::new(E2E_BOUNDS_S),
            lateness: Histogram::new(LATENESS_BOUNDS_S),
        }
    }
}

impl Metrics {
    /// Cached over all prompt tokens since the start, 0 to 1.
    #[must_use]
    pub fn cache_hit_rate(&self) -> f64 {
        self.cached_tokens.get() as f64 / self.prompt_tokens.get().max(1) as f64
    }

    /// Share of the cache's blocks in use, 0 to 1; prefixes that nobody uses are not.
    #[must_use]
    pub fn cache_usage(&self) -> f64 {
        self.n_used_blocks.get() as f64 / self.n_blocks.get().max(1) as f64
    }

    fn tokens(&self, blocks: &Figure) -> f64 {
        (blocks.get() * self.block_tokens.get()) as f64
    }
}

/// All figures of the models of those names in Prometheus' text format, labelled with their names.
#[must_use]
pub fn render(models: &[(&str, &Metrics)]) -> String {
    let labelled = |&(name, metrics): &(&str, _)| {
        let label = format!("model_name=\"{}\"", escaped(name));
        (label, metrics)
    };
    let models: Vec<(String, &Metrics)> = models.iter().map(labelled).collect();
    let mut out = String::with_capacity(8192);
    for (kind, families) in [("gauge", GAUGES), ("counter", COUNTERS)] {
        for (name, help, value) in families {
            let name = head(&mut out, name, kind, help);
            for (label, metrics) in &models {
                line(&mut out, &format!("{name}{{{label}}}"), value(metrics));
            }
        }
    }
    for (name, help, histogram) in HISTOGRAMS {
        let name = head(&mut out, name, "histogram", help);
        for (label, metrics) in &models {
            histogram(metrics).render(&mut out, &name, label);
        }
    }
    out
}

/// Name, explanation and value.
type Family<T> = (&'static str, &'static str, fn(&Metrics) -> T);

const GAUGES: &[Family<f64>] = &[
    (
        "num_running_reqs",
        "Sequences that hold cache blocks.",
        |m| m.n_running.get() as f64,
    ),
    ("num_queue_reqs", "Sequences that wait.", |m| {
        m.n_queued.get() as f64
    }),
    ("num_used_tokens", "Cache slots in blocks in use.", |m| {
        m.tokens(&m.n_used_blocks)
    }),
    (
        "evictable_tokens",
        "Cache slots of prefixes that nobody uses.",
        |m| m.tokens(&m.n_evictable_blocks),
    ),
    ("max_total_num_tokens", "Cache slots in all.", |m| {
        m.tokens(&m.n_blocks)
    }),
    ("token_usage", "Share of the cache in use.", |m| {
        m.cache_usage()
    }),
    (
        "cache_hit_rate",
        "Cached over all prompt tokens since the start.",
        |m| m.cache_hit_rate(),
    ),
    (
        "hicache_host_used_tokens",
        "Slots of host memory in use.",
        |m| m.tokens(&m.n_used_host_blocks),
    ),
    (
        "hicache_host_total_tokens",
        "Slots of host memory in all.",
        |m| m.tokens(&m.n_host_blocks),
    ),
];

const COUNTERS: &[Family<f64>] = &[
    (
        "num_requests_total",
        "Requests that ended by themselves.",
        |m| m.requests.get() as f64,
    ),
    (
        "num_aborted_requests_total",
        "Requests that were broken off.",
        |m| m.aborted.get() as f64,
    ),
    (
        "num_retractions_total",
        "Running sequences sent back to wait.",
        |m| m.retractions.get() as f64,
    ),
    ("prompt_tokens_total", "Prompt tokens taken in.", |m| {
        m.prompt_tokens.get() as f64
    }),
    ("generation_tokens_total", "Tokens sampled.", |m| {
        m.generation_tokens.get() as f64
    }),
    (
        "cached_tokens_total",
        "Prompt tokens found in the cache.",
        |m| m.cached_tokens.get() as f64,
    ),
    (
        "host_cached_tokens_total",
        "Those of them found in host memory.",
        |m| m.host_cached_tokens.get() as f64,
    ),
    (
        "retracted_cached_tokens_total",
        "Tokens that retracted requests found in the cache, not counted as cached.",
        |m| m.recached_tokens.get() as f64,
    ),
    (
        "evicted_tokens_total",
        "Slots evicted from the cache.",
        |m| m.tokens(&m.evicted_blocks),
    ),
    (
        "backed_up_tokens_total",
        "Slots copied to host memory.",
        |m| m.tokens(&m.backed_up_blocks),
    ),
    (
        "load_back_tokens_total",
        "Slots copied back from host memory.",
        |m| m.tokens(&m.loaded_blocks),
    ),
    (
        "host_evicted_tokens_total",
        "Slots evicted from host memory.",
        |m| m.tokens(&m.host_evicted_blocks),
    ),
];

type HistogramFamily = (&'static str, &'static str, fn(&Metrics) -> &Histogram);

const HISTOGRAMS: &[HistogramFamily] = &[
    (
        "time_to_first_token_seconds",
        "From arrival to the first token.",
        |m| &m.ttft,
    ),
    (
        "inter_token_latency_seconds",
        "Between tokens of one request.",
        |m| &m.itl,
    ),
    (
        "e2e_request_latency_seconds",
        "From arrival to the last token.",
        |m| &m.e2el,
    ),
    (
        "step_lateness_seconds",
        "How late steps of stated time, or tokens at stated instants, were.",
        |m| &m.lateness,
    ),
];

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> String {
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "# HELP sglang:{name} {help}\n# TYPE sglang:{name} {kind}"
    );
    format!("sglang:{name}")
}

fn line(out: &mut String, series: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{series} {value}");
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative() {
        let metrics = Metrics::default();
        for ms in [1, 3, 200_000] {
            metrics.ttft.observe(Duration::from_millis(ms));
        }
        let text = render(&[("tiny \"m\"", &metrics)]);
        let value = |series: &str| {
            let line = text.lines().find(|line| line.starts_with(series)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let name = "sglang:time_to_first_token_seconds";
        let label = r#"model_name="tiny \"m\"""#;
        assert_eq!(
            value(&format!("{name}_bucket{{{label},le=\"0.001\"}}")),
            1.0
        );
        assert_eq!(
            value(&format!("{name}_bucket{{{label},le=\"0.005\"}}")),
            2.0
        );
        assert_eq!(value(&format!("{name}_bucket{{{label},le=\"128\"}}")), 2.0);
        assert_eq!(value(&format!("{name}_bucket{{{label},le=\"+Inf\"}}")), 3.0);
        assert_eq!(value(&format!("{name}_sum{{{label}}}")), 200.004);
    }

    #[test]
    fn cache_usage_is_a_share() {
        let metrics = Metrics::default();
        assert_eq!(metrics.cache_usage(), 0.0);
        metrics.n_blocks.set(8);
        metrics.n_used_blocks.set(2);
        assert_eq!(metrics.cache_usage(), 0.25);
    }
}
