//! What a server of several models tells of a load: how each model fared meanwhile, and which came
//! onto the device and left it.
//!
//! The server samples itself, on the machine's monotonic clock; it is asked once, when the load has
//! ended. A server that tells nothing has an empty time line.

use crate::http::{self, Peer};
use crate::result::{Definition, MeasuredFile};
use embedded_server::engine::MOST_MOVES;
use engine::service::Endpoint;
use engine::step::StepError;
use loadgen::RunInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fact of an endpoint that says that it tells a time line.
pub(crate) const FACT: &str = "timeline";

/// No server is silent for so long, in seconds, of a time line that it has kept.
const LONG_S: f64 = 10.0;

/// How a model fared at an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelSample {
    /// `active`, `in_transit` or `off`.
    pub(crate) state: String,
    /// Requests that run.
    pub(crate) running: u64,
    /// Requests that wait.
    pub(crate) waiting: u64,
    /// Slots of its cache in use, where its server tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_tokens: Option<u64>,
    /// Requests since the server's start.
    pub(crate) arrived: u64,
    /// Bytes of its weights on the device, where they are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_weights_memory: Option<u64>,
    /// Bytes of its cache on the device, where its server tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_to_kv_pool_memory: Option<u64>,
}

/// How all models fared at an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds after the load began.
    pub(crate) t_s: f64,
    /// In the order of [`Timeline::models`].
    pub(crate) models: Vec<ModelSample>,
}

/// A model that came or left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// Which.
    pub(crate) model: String,
    /// `in` or `out`.
    pub(crate) direction: String,
    /// Why.
    pub(crate) reason: String,
    /// When it was asked for, seconds after the load began.
    pub(crate) begin_s: f64,
    /// When it was over.
    pub(crate) end_s: f64,
    /// Until none of its requests ran.
    pub(crate) drain_s: f64,
    /// To copy its weights; absent, as the following, where the server does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) copy_s: Option<f64>,
    /// To make or give back its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool_s: Option<f64>,
    /// Bytes of weights that were copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Bytes of the cache that was made or given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool_bytes: Option<u64>,
}

/// The time line of a load.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// The models' names; none if the server tells nothing.
    pub(crate) models: Vec<String>,
    /// Bytes of the device that they share.
    pub(crate) device_memory: Option<u64>,
    /// In order.
    pub(crate) samples: Vec<Sample>,
    /// In the order in which they ended.
    pub(crate) swaps: Vec<Swap>,
    /// What the server no longer knew when it was asked, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<String>,
}

impl Timeline {
    /// Asks the server what it was like during the run.
    ///
    /// # Errors
    /// [`StepError`] when a server that tells a time line does not, or tells something else.
    pub(super) async fn read(endpoint: &Endpoint, info: &RunInfo) -> Result<Self, StepError> {
        if !endpoint.facts.contains_key(FACT) {
            return Ok(Self::default());
        }
        let began = info.started_monotonic_ns;
        let asked = async |path: &str| {
            let path = format!("{path}?since_ns={began}");
            let answer = http::get(Peer::of(endpoint), &path).await?;
            match answer.status {
                200 => Ok(answer.body),
                status => Err(StepError::new(format!(
                    "the server answers `{path}` with {status}"
                ))),
            }
        };
        let (timeline, swaps) = (asked("/timeline").await?, asked("/swaps").await?);
        let window = Window {
            began,
            ended: began.saturating_add(info.wall_ns),
        };
        Self::of(&timeline, &swaps, window)
            .map_err(|e| StepError::because("could not read the server's time line", e))
    }

    pub(super) fn of(
        timeline: &Value,
        swaps: &Value,
        window: Window,
    ) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Told {
            at_ns: u64,
            models: Vec<ModelSample>,
        }
        let told: Vec<Told> = Deserialize::deserialize(&timeline["samples"])?;
        let within = told.into_iter().filter(|told| told.at_ns <= window.ended);
        let samples = within.map(|told| Sample {
            t_s: window.seconds(told.at_ns),
            models: told.models,
        });
        let samples: Vec<Sample> = samples.collect();
        let moves: Vec<Moved> = Deserialize::deserialize(&swaps["swaps"])?;
        let missing = [missing_samples(&samples), missing_moves(moves.len())];
        let within = moves.into_iter().filter(|m| m.began_ns <= window.ended);
        Ok(Self {
            models: Deserialize::deserialize(&timeline["models"])?,
            device_memory: Deserialize::deserialize(&timeline["device_memory"])?,
            samples,
            swaps: within.map(|moved| moved.swap(window)).collect(),
            missing: missing.into_iter().flatten().collect(),
        })
    }

    /// Adds what moved during the load to its result, where models could, and what was forgotten of it.
    pub(super) fn measure(&self, result: &mut MeasuredFile) {
        result.notes.extend(self.missing.iter().cloned());
        if self.models.len() < 2 {
            return;
        }
        // None where a server does not tell: what others told is not the sum.
        let sum = |of: fn(&Swap) -> Option<f64>| self.swaps.iter().map(of).sum::<Option<f64>>();
        #[expect(
            clippy::cast_precision_loss,
            reason = "no load swaps 2^53 bytes or times"
        )]
        let values = [
            (
                "swaps",
                "swaps",
                "models that came onto the device",
                Some(self.swaps.iter().filter(|s| s.direction == "in").count() as f64),
            ),
            (
                "swap_drain_s",
                "s",
                "sum over models that left, of the time until none of their requests ran",
                sum(|s| Some(s.drain_s)),
            ),
            (
                "swap_copy_s",
                "s",
                "sum over models that came or left, of the time to copy their weights",
                sum(|s| s.copy_s),
            ),
            (
                "swap_pool_s",
                "s",
                "sum over models that came or left, of the time to make or give back their caches",
                sum(|s| s.pool_s),
            ),
            (
                "swap_bytes",
                "bytes",
                "sum over models that came or left, of their weights",
                sum(|s| s.bytes.map(|bytes| bytes as f64)),
            ),
        ];
        for (name, unit, formula, value) in values {
            let Some(value) = value else { continue };
            if let Some(row) = result.rows.first_mut() {
                row.set(name, value);
            }
            result.definitions.push(Definition {
                name: name.to_owned(),
                unit: unit.to_owned(),
                formula: formula.to_owned(),
            });
        }
    }
}

/// What is missing of samples that begin long after the load.
fn missing_samples(samples: &[Sample]) -> Option<String> {
    let first = samples.first()?.t_s;
    (first > LONG_S).then(|| {
        format!("the server had forgotten the first {first:.0} s of the time line when the load was over")
    })
}

/// What may be missing of so many moves.
fn missing_moves(told: usize) -> Option<String> {
    (told >= MOST_MOVES).then(|| {
        format!("the server remembers {MOST_MOVES} moves: there may have been others before these, which no sum has")
    })
}

/// A load on the machine's monotonic clock, nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) began: u64,
    pub(super) ended: u64,
}

impl Window {
    fn seconds(self, ns: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no load lasts 2^53 ns")]
        let after = ns.saturating_sub(self.began) as f64;
        after / 1e9
    }
}

/// A move as the server tells it.
#[derive(Deserialize)]
struct Moved {
    model: String,
    direction: String,
    reason: String,
    began_ns: u64,
    ended_ns: u64,
    drain_s: f64,
    copy_s: Option<f64>,
    pool_s: Option<f64>,
    bytes: Option<u64>,
    pool_bytes: Option<u64>,
}

impl Moved {
    fn swap(self, window: Window) -> Swap {
        Swap {
            begin_s: window.seconds(self.began_ns),
            end_s: window.seconds(self.ended_ns),
            model: self.model,
            direction: self.direction,
            reason: self.reason,
            drain_s: self.drain_s,
            copy_s: self.copy_s,
            pool_s: self.pool_s,
            bytes: self.bytes,
            pool_bytes: self.pool_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Row;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn told() -> Timeline {
        timeline(&[1_500_000_000, 9_000_000_000], |moved| moved)
    }

    /// A load of four seconds from 1 s on, with samples at these instants and three moves.
    fn timeline(at: &[u64], told: impl Fn(Value) -> Value) -> Timeline {
        let model = json!({ "state": "active", "running": 3, "waiting": 1, "used_tokens": 64,
            "arrived": 9, "model_weights_memory": 100, "token_to_kv_pool_memory": 50 });
        let sample = |at: &u64| json!({ "at_ns": at, "models": [model, model] });
        let samples: Vec<Value> = at.iter().map(sample).collect();
        let timeline = json!({ "models": ["a", "b"], "device_memory": 1000, "samples": samples });
        let moved = |direction: &str, began: u64| {
            told(
                json!({ "model": "a", "direction": direction, "reason": "victim", "began_ns": began,
                "ended_ns": began + 500_000_000, "drain_s": 0.25, "copy_s": 0.2, "pool_s": 0.05,
                "bytes": 100, "pool_bytes": 50 }),
            )
        };
        let swaps = json!({ "swaps": [
            moved("out", 2_000_000_000), moved("in", 3_000_000_000), moved("in", 8_000_000_000),
        ] });
        let window = Window {
            began: 1_000_000_000,
            ended: 5_000_000_000,
        };
        Timeline::of(&timeline, &swaps, window).unwrap()
    }

    #[test]
    fn instants_count_from_the_load_and_end_with_it() {
        let timeline = told();
        let at: Vec<f64> = timeline.samples.iter().map(|s| s.t_s).collect();
        assert_eq!(at, [0.5]);
        let spans: Vec<_> = timeline
            .swaps
            .iter()
            .map(|s| (s.begin_s, s.end_s))
            .collect();
        assert_eq!(spans, [(1.0, 1.5), (2.0, 2.5)]);
    }

    fn empty() -> MeasuredFile {
        MeasuredFile {
            rows: vec![Row::default()],
            definitions: Vec::new(),
            notes: Vec::new(),
            target: BTreeMap::new(),
            details: Value::Null,
        }
    }

    #[test]
    fn what_a_server_does_not_tell_is_in_no_sum() {
        let timeline = timeline(&[1_500_000_000], |mut moved| {
            // One of the moves is another server's, which tells no bytes.
            if moved["began_ns"] == 3_000_000_000_u64 {
                let told = moved.as_object_mut().unwrap();
                for name in ["pool_s", "bytes", "pool_bytes"] {
                    told.remove(name);
                }
            }
            moved
        });
        let mut result = empty();
        timeline.measure(&mut result);
        let names: Vec<&str> = result.rows[0].values.keys().map(String::as_str).collect();
        assert_eq!(names, ["swap_copy_s", "swap_drain_s", "swaps"]);
        assert_eq!(result.definitions.len(), 3);
        let written = serde_json::to_value(&timeline).unwrap();
        assert!(written["swaps"][1].get("bytes").is_none(), "{written}");
        let read: Timeline = serde_json::from_value(written).unwrap();
        assert_eq!(read, timeline);
    }

    #[test]
    fn what_a_server_has_forgotten_is_noted() {
        let sample = |t_s| Sample {
            t_s,
            models: Vec::new(),
        };
        assert_eq!(missing_samples(&[]), None);
        assert_eq!(missing_samples(&[sample(0.3), sample(60.0)]), None);
        let missing: Vec<String> = missing_samples(&[sample(75.2)]).into_iter().collect();
        assert!(missing[0].contains("the first 75 s"), "{missing:?}");
        assert_eq!(missing_moves(MOST_MOVES - 1), None);
        assert!(missing_moves(MOST_MOVES).is_some());
        let timeline = Timeline {
            missing,
            ..Timeline::default()
        };
        let mut result = empty();
        timeline.measure(&mut result);
        assert_eq!(result.notes, timeline.missing);
    }

    #[test]
    fn what_moved_is_summed_where_models_could_move() {
        let mut result = empty();
        Timeline::default().measure(&mut result);
        assert!(result.rows[0].values.is_empty());
        told().measure(&mut result);
        let value = |name: &str| result.rows[0].values[name];
        assert_eq!(
            (value("swaps"), value("swap_bytes")),
            (Some(1.0), Some(200.0))
        );
        assert_eq!(value("swap_drain_s"), Some(0.5));
        assert_eq!(result.definitions.len(), 5);
    }

    #[test]
    fn what_servers_do_not_tell_is_no_value() {
        let timeline = json!({ "models": ["a", "b"], "device_memory": null, "samples": [
            { "at_ns": 1, "models": [{ "state": "active", "running": 3, "waiting": 1, "arrived": 9 }] },
        ] });
        let swaps = json!({ "swaps": [{ "model": "a", "direction": "in", "reason": "queue",
            "began_ns": 2, "ended_ns": 3, "drain_s": 0.5 }] });
        let window = Window { began: 0, ended: 9 };
        let timeline = Timeline::of(&timeline, &swaps, window).unwrap();
        let kept = serde_json::to_value(&timeline).unwrap();
        assert_eq!(serde_json::from_value::<Timeline>(kept).unwrap(), timeline);
        let mut result = empty();
        timeline.measure(&mut result);
        let told: Vec<_> = result.definitions.iter().map(|d| &*d.name).collect();
        assert_eq!(told, ["swaps", "swap_drain_s"]);
    }
}
