//! Service level objectives of one request; knows no records.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Upper bounds that an answer must keep to count towards goodput; absent ones ask nothing.
///
/// As JSON: `{"ttft_ms": 500, "tpot_ms": 50, "e2el_ms": 10000}`, each key optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Time to first token, from the scheduled instant: what the user waited.
    #[serde(
        rename = "ttft_ms",
        default,
        with = "millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub ttft: Option<Duration>,
    /// Time per output token after the first event.
    #[serde(
        rename = "tpot_ms",
        default,
        with = "millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub tpot: Option<Duration>,
    /// End-to-end latency, from the scheduled instant.
    #[serde(
        rename = "e2el_ms",
        default,
        with = "millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub e2el: Option<Duration>,
}

/// `Option<Duration>` as milliseconds.
mod millis {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value
            .map(|duration| duration.as_secs_f64() * 1e3)
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(ms) = Option::<f64>::deserialize(from)? else {
            return Ok(None);
        };
        Duration::try_from_secs_f64(ms / 1e3)
            .map(Some)
            .map_err(|_| {
                serde::de::Error::custom(format!("an objective of {ms} ms is not a span of time"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_stands_in_the_key() {
        let slo: Slo = serde_json::from_str(r#"{"ttft_ms": 250, "tpot_ms": 12.5}"#).unwrap();
        assert_eq!(slo.ttft, Some(Duration::from_millis(250)));
        assert_eq!(slo.tpot, Some(Duration::from_micros(12_500)));
        assert_eq!(
            serde_json::to_string(&slo).unwrap(),
            r#"{"ttft_ms":250.0,"tpot_ms":12.5}"#
        );
        assert!(serde_json::from_str::<Slo>(r#"{"ttft_ms": -1}"#).is_err());
        assert!(serde_json::from_str::<Slo>(r#"{"ttft": 1}"#).is_err());
    }
}
