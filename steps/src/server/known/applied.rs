//! Where servers tell what they applied: most of what is asked of them is decided by them, and none tells
//! all of that in one place.

use crate::http::{self, Peer};
use serde_json::{Map, Value};
use telemetry::exposition::{self, Limits};

/// A place where a server tells something of itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// JSON at this path.
    Json(&'static str),
    /// The labels of this series among its metrics, where it tells them.
    Labels(&'static str),
    /// What `/v1/models` says of the model.
    Models,
}

/// Everything that the sources tell, of those that answer; earlier ones win. Its metrics are at `metrics`.
pub(super) async fn told(server: Peer<'_>, sources: &[Source], metrics: &str) -> Value {
    let mut all = Map::new();
    for source in sources {
        for (name, value) in source.read(server, metrics).await {
            all.entry(name).or_insert(value);
        }
    }
    Value::Object(all)
}

impl Source {
    async fn read(self, server: Peer<'_>, metrics: &str) -> Map<String, Value> {
        let body = match self {
            Self::Labels(series) => {
                let text = http::get_text(server, metrics).await;
                return text.map_or_else(|_| Map::new(), |(_, text)| labels(&text, series));
            }
            Self::Json(path) => json(server, path).await,
            Self::Models => {
                let models = json(server, "/v1/models").await;
                models.and_then(|models| models.pointer("/data/0").cloned())
            }
        };
        match body {
            Some(Value::Object(body)) => body,
            _ => Map::new(),
        }
    }
}

async fn json(server: Peer<'_>, path: &str) -> Option<Value> {
    let answer = http::get(server, path).await.ok()?;
    (answer.status == 200).then_some(answer.body)
}

/// The labels of a series by their names, as text.
fn labels(text: &str, series: &str) -> Map<String, Value> {
    let found = exposition::read(text, &[series].into(), &Limits::default());
    let first = found.ok().and_then(|found| found.series.into_iter().next());
    let labels = first.into_iter().flat_map(|series| series.labels);
    labels.map(|(name, value)| (name, value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_a_configuration() {
        let text = "# HELP vllm:cache_config_info Information\n\
            vllm:cache_config_info{block_size=\"128\",cache_dtype=\"auto\",enable_prefix_caching=\"True\",note=\"a, b\"} 1.0\n";
        let found = labels(text, "vllm:cache_config_info");
        let value = |name: &str| found.get(name).and_then(Value::as_str);
        assert_eq!(value("block_size"), Some("128"));
        assert_eq!(value("enable_prefix_caching"), Some("True"));
        assert_eq!(value("note"), Some("a, b"));
        assert!(labels(text, "vllm:other_info").is_empty());
    }
}
