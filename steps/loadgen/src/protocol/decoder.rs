//! What the events of one answer add up to: content, counts, the end, or an error.
//!
//! A pure state machine over the data of events. Tokens of an event are the step of the
//! running usage where the server sends one, else 1: a chunk is not a token, and only the
//! server knows better.

use crate::{Class, SseEvent, Usage};

use super::chunk::{Choice, Chunk, Text, WireUsage};
use super::template::Template;

/// What went wrong, and which class of failure that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) message: String,
}

/// Follows one answer.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Tokens of the running usage that events have accounted for.
    counted: u32,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<String>,
    /// Whether `[DONE]` was seen.
    pub(crate) ended: bool,
    template: Template,
}

impl Decoder {
    /// Takes an event. `Some(tokens)` if it carried content, which `on_text` is given.
    pub(crate) fn event(
        &mut self,
        event: SseEvent<'_>,
        mut on_text: impl FnMut(&str),
    ) -> Result<Option<u32>, Fault> {
        if event.name.is_empty()
            && let Some(text) = self.template.text(event.data)
        {
            on_text(text);
            return Ok(Some(self.tokens(None)));
        }
        if event.data.trim_ascii() == b"[DONE]" {
            self.ended = true;
            return Ok(None);
        }
        if event.name == b"error" {
            return Err(in_band(&excerpt(event.data)));
        }
        let chunk = parse(event.data)?;
        let running = chunk
            .usage
            .as_ref()
            .and_then(|usage| usage.completion_tokens);
        let is_more_than_text = chunk.usage.is_some();
        self.take_usage(chunk.usage);
        if let Some(choice) = chunk.choices.0.as_ref().filter(|_| !is_more_than_text)
            && let Some(text) = only_text(choice)
        {
            self.template.learn(event.data, text);
        }
        let content = chunk
            .choices
            .0
            .is_some_and(|choice| self.choice(choice, on_text));
        self.check_finish()?;
        Ok(content.then(|| self.tokens(running)))
    }

    fn choice(&mut self, choice: Choice<'_>, mut on_text: impl FnMut(&str)) -> bool {
        let delta = choice
            .delta
            .map(|delta| [delta.reasoning_content.or(delta.reasoning), delta.content]);
        let mut content = false;
        for Text(text) in delta.into_iter().flatten().flatten().chain(choice.text) {
            if !text.is_empty() {
                content = true;
                on_text(&text);
            }
        }
        if let Some(Text(reason)) = choice.finish_reason {
            self.finish = Some(excerpt(reason.as_bytes()));
        }
        content
    }

    /// Servers that give a request up report it as a way of finishing.
    fn check_finish(&self) -> Result<(), Fault> {
        match self.finish.as_deref() {
            Some(reason @ ("abort" | "error")) => Err(in_band(&format!(
                "the server finished with reason `{reason}`"
            ))),
            _ => Ok(()),
        }
    }

    fn take_usage(&mut self, usage: Option<WireUsage>) {
        let Some(wire) = usage else { return };
        self.usage = Some(Usage {
            prompt_tokens: wire.prompt_tokens,
            completion_tokens: wire.completion_tokens.unwrap_or(0),
            cached_tokens: wire
                .prompt_tokens_details
                .and_then(|details| details.cached_tokens),
        });
    }

    fn tokens(&mut self, running: Option<u32>) -> u32 {
        let Some(total) = running.filter(|total| *total > 0) else {
            self.counted += 1;
            return 1;
        };
        let step = total.saturating_sub(self.counted);
        self.counted = self.counted.max(total);
        step
    }
}

/// The text of a choice that says nothing else.
fn only_text<'a>(choice: &'a Choice<'_>) -> Option<&'a str> {
    if choice.finish_reason.is_some() {
        return None;
    }
    let delta = choice.delta.as_ref();
    let pieces = [
        choice.text.as_ref(),
        delta.and_then(|d| d.content.as_ref()),
        delta.and_then(|d| d.reasoning_content.as_ref()),
        delta.and_then(|d| d.reasoning.as_ref()),
    ];
    let mut said = pieces.into_iter().flatten().map(|Text(text)| &**text);
    let only = said.next().filter(|text| !text.is_empty())?;
    said.next().is_none().then_some(only)
}

/// A chunk that is no error.
fn parse(data: &[u8]) -> Result<Chunk<'_>, Fault> {
    let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(|error| Fault {
        class: Class::BadOutput,
        message: format!("an event is no chunk ({error}): {}", excerpt(data)),
    })?;
    if let Some(error) = &chunk.error {
        let message = error.get("message").and_then(|message| message.as_str());
        return Err(in_band(
            &message.map_or_else(|| error.to_string(), str::to_owned),
        ));
    }
    if chunk
        .object
        .as_ref()
        .is_some_and(|object| object.0 == "error")
    {
        return Err(in_band(
            &chunk
                .message
                .map_or_else(String::new, |text| text.to_string()),
        ));
    }
    Ok(chunk)
}

fn in_band(message: &str) -> Fault {
    Fault {
        class: Class::InBand,
        message: excerpt(message.as_bytes()),
    }
}

/// The beginning of what a server said, fit for an error message: at most 300 characters.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 300;
    // Four bytes a character at most: nothing behind that can be shown.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MOST)]);
    let text = text.trim();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(decoder: &mut Decoder, data: &str) -> Result<(Option<u32>, String), Fault> {
        let mut text = String::new();
        let event = SseEvent {
            name: b"",
            data: data.as_bytes(),
        };
        let tokens = decoder.event(event, |piece| text.push_str(piece))?;
        Ok((tokens, text))
    }

    #[test]
    fn a_chat_answer_from_role_to_usage() {
        let mut d = Decoder::default();
        let role = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
        assert_eq!(feed(&mut d, role), Ok((None, String::new())));
        let think = r#"{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}"#;
        assert_eq!(feed(&mut d, think), Ok((Some(1), "hm".into())));
        let say = r#"{"choices":[{"delta":{"content":"y\u00e9"},"finish_reason":"stop"}]}"#;
        assert_eq!(feed(&mut d, say), Ok((Some(1), "yé".into())));
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":8}}}"#;
        assert_eq!(feed(&mut d, usage), Ok((None, String::new())));
        assert!(!d.ended);
        feed(&mut d, " [DONE] ").unwrap();
        let expected = Usage {
            prompt_tokens: 9,
            completion_tokens: 3,
            cached_tokens: Some(8),
        };
        assert_eq!(
            (d.usage, d.finish.as_deref(), d.ended),
            (Some(expected), Some("stop"), true)
        );
    }

    #[test]
    fn running_usage_counts_tokens_even_of_silent_chunks() {
        let mut d = Decoder::default();
        let chunk = |text: &str, total: u32| {
            format!(
                r#"{{"choices":[{{"text":"{text}"}}],"usage":{{"prompt_tokens":1,"completion_tokens":{total}}}}}"#
            )
        };
        assert_eq!(feed(&mut d, &chunk("a", 1)).unwrap().0, Some(1));
        assert_eq!(feed(&mut d, &chunk("", 2)).unwrap().0, None);
        assert_eq!(feed(&mut d, &chunk("bcd", 5)).unwrap().0, Some(4));
        // A token in two pieces: the second piece brings no new token.
        assert_eq!(feed(&mut d, &chunk("e", 5)).unwrap().0, Some(0));
    }

    #[test]
    fn errors_come_in_several_shapes() {
        for data in [
            r#"{"error":{"message":"out of memory","code":500}}"#,
            r#"{"error":"out of memory"}"#,
            r#"{"object":"error","message":"out of memory"}"#,
        ] {
            let fault = feed(&mut Decoder::default(), data).unwrap_err();
            assert_eq!(fault.class, Class::InBand);
            assert!(fault.message.contains("out of memory"), "{data}");
        }
        let named = SseEvent {
            name: b"error",
            data: b"gone",
        };
        assert_eq!(
            Decoder::default().event(named, |_| {}).unwrap_err().class,
            Class::InBand
        );
        let abort = r#"{"choices":[{"text":"","finish_reason":"abort"}]}"#;
        assert_eq!(
            feed(&mut Decoder::default(), abort).unwrap_err().class,
            Class::InBand
        );
        let fault = feed(&mut Decoder::default(), "<html>").unwrap_err();
        assert_eq!(fault.class, Class::BadOutput);
    }

    #[test]
    fn excerpts_end_between_characters() {
        assert_eq!(excerpt("é".repeat(300).as_bytes()), "é".repeat(300));
        assert_eq!(
            excerpt("é".repeat(400).as_bytes()),
            format!("{}...", "é".repeat(300))
        );
    }
}
