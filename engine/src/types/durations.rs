//! Durations as plans write them: a number and a unit.

use crate::options::{OptionType, Parser, Walk};
use crate::schema::{Schema, or_reference};
use crate::value::{Kind, Value};
use serde_json::json;
use std::time::Duration;

impl OptionType for Duration {
    fn type_name() -> String {
        "duration".to_owned()
    }

    fn schema() -> Schema {
        or_reference(json!({
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)? *(ms|s|m|h|d)$",
        }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "a duration such as \"10s\"");
        };
        match parse_duration(text) {
            Some(d) => Some(d),
            None => parser.wrong(
                &value.place,
                format!("`{text}` is not a duration"),
                "not understood",
                "write a number and a unit: `500ms`, `10s`, `20m`, `2h`, `7d`",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &duration_text(*self));
    }
}

/// Reads `500ms`, `10s`, `1.5m`, `2h`, `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].trim().parse().ok()?;
    let seconds = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Writes a duration as plans do.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if !ms.is_multiple_of(1000) => format!("{ms}ms"),
        _ if ms.is_multiple_of(86_400_000) && ms > 0 => format!("{}d", ms / 86_400_000),
        _ if ms.is_multiple_of(3_600_000) && ms > 0 => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) && ms > 0 => format!("{}m", ms / 60_000),
        _ => format!("{}s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for text in ["500ms", "10s", "20m", "2h", "7d", "90s"] {
            let read = parse_duration(text).expect(text);
            assert_eq!(parse_duration(&duration_text(read)), Some(read));
        }
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("ten s"), None);
        assert_eq!(parse_duration("-1s"), None);
    }
}
