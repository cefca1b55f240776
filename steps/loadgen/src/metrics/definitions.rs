//! What each metric means, in words that reports print beside the number.

use super::Metrics;

/// Which direction is an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Smaller is better.
    Lower,
    /// Larger is better.
    Higher,
    /// Neither: the number describes the load, not the server.
    Neither,
}

/// The definition of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name; flat names of a distribution begin with it.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// How it is computed from the instants and counts of records.
    pub formula: &'static str,
    /// Which direction is an improvement.
    pub better: Better,
}

impl Definition {
    /// The definition behind a flat name of [`Metrics::values`], such as `ttft_p99_ms`.
    #[must_use]
    pub fn of(flat: &str) -> Option<&'static Self> {
        let exact = Metrics::definitions()
            .iter()
            .find(|definition| definition.name == flat);
        exact.or_else(|| {
            let base = flat.strip_suffix("_ms")?;
            let base = base.strip_suffix("_completed").unwrap_or(base);
            let (name, _) = base.rsplit_once('_')?;
            Metrics::definitions()
                .iter()
                .find(|definition| definition.name == name)
        })
    }
}

const fn latency(name: &'static str, formula: &'static str) -> Definition {
    Definition {
        name,
        unit: "ms",
        formula,
        better: Better::Lower,
    }
}

const fn rate(name: &'static str, unit: &'static str, formula: &'static str) -> Definition {
    Definition {
        name,
        unit,
        formula,
        better: Better::Higher,
    }
}

const fn load(name: &'static str, unit: &'static str, formula: &'static str) -> Definition {
    Definition {
        name,
        unit,
        formula,
        better: Better::Neither,
    }
}

pub(super) const ALL: &[Definition] = &[
    latency(
        "ttft",
        "first content (reasoning included) - dispatched; failed = inf",
    ),
    latency("ttft_scheduled", "first content - scheduled; failed = inf"),
    latency(
        "tpot",
        "(last content - first content) / (output tokens - tokens of the first event), per request; failed = inf",
    ),
    latency(
        "itl",
        "gap between content events / tokens of the later one, once per token, all requests pooled; undelivered tokens of failed requests = inf",
    ),
    latency("e2el", "last content - dispatched; failed = inf"),
    latency("e2el_scheduled", "last content - scheduled; failed = inf"),
    latency(
        "client_lag",
        "dispatched - scheduled; includes waiting for a cap on requests in flight",
    ),
    latency(
        "connect",
        "connected - dispatched, over requests that made a connection",
    ),
    rate(
        "request_throughput",
        "requests/s",
        "completed requests with last content in the steady window / its length",
    ),
    rate(
        "output_throughput",
        "tokens/s",
        "output tokens of completed requests received in the steady window / its length",
    ),
    rate(
        "total_throughput",
        "tokens/s",
        "the same, and prompt tokens of completed requests with first content in the window",
    ),
    rate(
        "request_throughput_whole",
        "requests/s",
        "completed requests / (last content - first dispatch)",
    ),
    rate(
        "output_throughput_whole",
        "tokens/s",
        "output tokens of completed requests / (last content - first dispatch)",
    ),
    rate(
        "total_throughput_whole",
        "tokens/s",
        "prompt and output tokens of completed requests / (last content - first dispatch)",
    ),
    rate(
        "goodput",
        "requests/s",
        "requests that met every SLO (ttft and e2el from scheduled), last content in the steady window / its length",
    ),
    rate(
        "attainment",
        "share",
        "requests that met every SLO / requests sent that have one",
    ),
    rate(
        "token_attainment",
        "share",
        "the same, each request weighted by the output tokens it asked for",
    ),
    load(
        "offered_rate",
        "requests/s",
        "(n - 1) / (last scheduled - first scheduled)",
    ),
    load(
        "achieved_rate",
        "requests/s",
        "(n - 1) / (last dispatched - first dispatched)",
    ),
    rate(
        "cache_hit_rate",
        "share",
        "cached prompt tokens / prompt tokens, over completed requests that report both",
    ),
    load(
        "cache_hit_rate_ideal",
        "share",
        "prompt tokens that a prefix cache without limits would hold / prompt tokens, by the workload's counts, over completed requests",
    ),
    load(
        "concurrency_mean",
        "requests",
        "mean over the steady window of requests between dispatched and done",
    ),
    load(
        "concurrency_peak",
        "requests",
        "most requests between dispatched and done at one time",
    ),
    load("requests", "requests", "completed + failed"),
    load(
        "completed",
        "requests",
        "requests whose answer was finished",
    ),
    Definition {
        name: "failed",
        unit: "requests",
        formula: "requests that failed, whatever the reason",
        better: Better::Lower,
    },
    Definition {
        name: "aborted",
        unit: "requests",
        formula: "requests that the server broke off with status 408: they would have missed their objective",
        better: Better::Lower,
    },
    Definition {
        name: "error_rate",
        unit: "share",
        formula: "failed / (completed + failed)",
        better: Better::Lower,
    },
];
