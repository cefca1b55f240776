//! One JSON object per event and line, for machines.

use crate::terminal;
use engine::event::{Event, Listener};
use serde_json::{Value, json};

/// Writes every event to standard output.
pub(super) struct Json;

impl Listener for Json {
    fn hear(&mut self, at_ms: u64, event: &Event) {
        terminal::line(encode(at_ms, event));
    }
}

fn encode(at_ms: u64, event: &Event) -> Value {
    let mut object = json!({ "at_ms": at_ms });
    if let (Some(object), Ok(Value::Object(fields))) =
        (object.as_object_mut(), serde_json::to_value(event))
    {
        object.extend(fields);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_that_reads_back() {
        let event = Event::Skipped {
            node: "a".into(),
            because: "b\nc".into(),
        };
        let line = encode(7, &event).to_string();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["at_ms"], 7);
        assert_eq!(
            serde_json::from_value::<Event>(value).expect("an event"),
            event
        );
    }
}
