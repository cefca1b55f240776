//! A distribution of latencies, failures counted and failures left out.

use serde::{Deserialize, Serialize};
use statistics::{Sorted, Weighted};

use super::add;

/// The summary of all values and of those of completed requests alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Failed requests counted as `+inf`.
    pub all: Summary,
    /// Completed requests only.
    pub completed: Summary,
}

/// Location of a distribution, in milliseconds; numbers are absent if nothing was observed.
/// As JSON, infinity is the string `"inf"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values there are; for a token-weighted distribution, their weight.
    pub count: f64,
    /// The mean.
    #[serde(with = "number")]
    pub mean: Option<f64>,
    /// The median.
    #[serde(with = "number")]
    pub p50: Option<f64>,
    /// The 90th percentile.
    #[serde(with = "number")]
    pub p90: Option<f64>,
    /// The 95th percentile.
    #[serde(with = "number")]
    pub p95: Option<f64>,
    /// The 99th percentile.
    #[serde(with = "number")]
    pub p99: Option<f64>,
}

impl Distribution {
    /// Over one value per request, percentiles interpolated linearly; `failures` requests
    /// never had one.
    pub(super) fn per_request(completed: Vec<f64>, failures: usize) -> Self {
        let mut all = completed.clone();
        all.extend(std::iter::repeat_n(f64::INFINITY, failures));
        Self {
            all: Summary::linear(all),
            completed: Summary::linear(completed),
        }
    }

    /// Over values known of all requests, whether they failed or not.
    pub(super) fn known(all: Vec<f64>, completed: Vec<f64>) -> Self {
        Self {
            all: Summary::linear(all),
            completed: Summary::linear(completed),
        }
    }

    /// Over `(value, weight)` pairs, percentiles by nearest rank.
    pub(super) fn weighted(all: Vec<(f64, f64)>, completed: Vec<(f64, f64)>) -> Self {
        Self {
            all: Summary::weighted(all),
            completed: Summary::weighted(completed),
        }
    }

    /// Appends `NAME_STATISTIC_ms` and `NAME_STATISTIC_completed_ms`.
    pub(super) fn values(&self, name: &str, to: &mut Vec<(String, f64)>) {
        for (view, summary) in [("", &self.all), ("_completed", &self.completed)] {
            for (statistic, value) in summary.statistics() {
                add(to, format!("{name}_{statistic}{view}_ms"), value);
            }
        }
    }
}

impl Summary {
    /// The statistics by name, in the order of reports.
    #[must_use]
    pub fn statistics(&self) -> [(&'static str, Option<f64>); 5] {
        [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
        ]
    }

    pub(crate) fn linear(values: Vec<f64>) -> Self {
        let (count, mean) = (values.len() as f64, statistics::mean(&values));
        let Some(sorted) = Sorted::new(values) else {
            return Self::default();
        };
        Self::from_quantiles(count, mean, |q| sorted.linear(q))
    }

    fn weighted(pairs: Vec<(f64, f64)>) -> Self {
        let Some(weighted) = Weighted::new(pairs) else {
            return Self::default();
        };
        Self::from_quantiles(weighted.weight(), weighted.mean(), |q| {
            weighted.nearest_rank(q)
        })
    }

    fn from_quantiles(
        count: f64,
        mean: Option<f64>,
        quantile: impl Fn(f64) -> Option<f64>,
    ) -> Self {
        let [p50, p90, p95, p99] = [0.5, 0.9, 0.95, 0.99].map(quantile);
        Self {
            count,
            mean,
            p50,
            p90,
            p95,
            p99,
        }
    }
}

/// JSON has no infinity: `null`, a number, or `"inf"`.
mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Named(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        let number = |value: f64| match value {
            f64::INFINITY => Number::Named("inf".into()),
            _ => Number::Finite(value),
        };
        value.map(number).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Option::<Number>::deserialize(from)? {
            None => Ok(None),
            Some(Number::Finite(value)) => Ok(Some(value)),
            Some(Number::Named(name)) if name == "inf" => Ok(Some(f64::INFINITY)),
            Some(Number::Named(name)) => Err(D::Error::custom(format!("`{name}` is no number"))),
        }
    }
}
