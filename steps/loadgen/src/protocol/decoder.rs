//! What the events of one answer add up to: content, counts, the end, or an error.
//!
//! A pure state machine over the data of events. Tokens of an event are the step of the
//! running usage where the server sends one, else 1: a chunk is not a token, and only the
//! server knows better.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::{Class, Protocol, SseEvent, Usage};

use super::answer::Answer;
use super::chunk::{Choice, Chunk, Generated, Output, Text, WireUsage};
use super::template::Template;

/// What went wrong, and which class of failure that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) message: String,
}

/// Follows one answer.
#[derive(Debug)]
pub(crate) struct Decoder {
    protocol: Protocol,
    /// The text so far, of a server that repeats it.
    said: String,
    /// Tokens of the running usage that events have accounted for.
    counted: u32,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<String>,
    /// Whether `[DONE]` was seen.
    pub(crate) ended: bool,
    /// What is kept of the answer for the turns that follow.
    pub(crate) answer: Answer,
    template: Template,
}

impl Decoder {
    pub(crate) fn new(protocol: Protocol, answer: Answer) -> Self {
        Self {
            protocol,
            said: String::new(),
            counted: 0,
            usage: None,
            finish: None,
            ended: false,
            answer,
            template: Template::default(),
        }
    }

    /// Takes an event. `Some(tokens)` if it carried content, which `on_text` is given.
    pub(crate) fn event(
        &mut self,
        event: SseEvent<'_>,
        mut on_text: impl FnMut(&str),
    ) -> Result<Option<u32>, Fault> {
        if event.name.is_empty()
            && let Some(text) = self.template.text(event.data)
        {
            self.answer.says(text);
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
        match self.protocol {
            Protocol::Completions | Protocol::Chat => self.chunk(event.data, on_text),
            Protocol::Sglang => self.generated(event.data, on_text),
            Protocol::Triton => self.output(event.data, on_text),
        }
    }

    fn generated(
        &mut self,
        data: &[u8],
        mut on_text: impl FnMut(&str),
    ) -> Result<Option<u32>, Fault> {
        let event: Generated<'_> = read(data)?;
        if let Some(error) = &event.error {
            return Err(in_band(&words(error)));
        }
        let mut running = None;
        if let Some(meta) = event.meta_info {
            self.answer.generates(data, meta.completion_tokens)?;
            running = Some(meta.completion_tokens);
            self.usage = Some(Usage {
                prompt_tokens: meta.prompt_tokens,
                completion_tokens: meta.completion_tokens,
                cached_tokens: meta.cached_tokens,
            });
            self.finish_with(meta.finish_reason)?;
        }
        let text = event.text.map_or(Cow::Borrowed(""), |Text(text)| text);
        // Most servers repeat what they said; one with `--stream-output` does not.
        let piece = match text.strip_prefix(self.said.as_str()) {
            Some(rest) => rest,
            None => &text,
        };
        self.answer.says(piece);
        on_text(piece);
        let is_news = !piece.is_empty();
        if is_news {
            self.said.truncate(text.len() - piece.len());
            self.said.push_str(piece);
        }
        let tokens = self.tokens_if(is_news, running);
        Ok(tokens)
    }

    /// Tokens of an event that may carry some without text: a character that is not whole yet, or
    /// an answer of token ids.
    fn tokens_if(&mut self, has_text: bool, running: Option<u32>) -> Option<u32> {
        let grew = running.is_some_and(|total| total > self.counted);
        (has_text || grew).then(|| self.tokens(running))
    }

    /// Takes SGLang's reason for an end: an object with its `type`.
    fn finish_with(&mut self, reason: Option<Value>) -> Result<(), Fault> {
        let Some(reason) = reason.filter(|reason| !reason.is_null()) else {
            return Ok(());
        };
        let kind = reason.get("type").unwrap_or(&reason);
        let kind = kind.as_str().unwrap_or("unknown");
        self.finish = Some(excerpt(kind.as_bytes()));
        match (kind, reason.get("message").and_then(Value::as_str)) {
            ("abort", Some(message)) => Err(in_band(message)),
            _ => self.check_finish(),
        }
    }

    fn output(&mut self, data: &[u8], mut on_text: impl FnMut(&str)) -> Result<Option<u32>, Fault> {
        let event: Output<'_> = read(data)?;
        if let Some(error) = &event.error {
            return Err(in_band(&words(error)));
        }
        let Some(Text(text)) = event.text_output.filter(|Text(text)| !text.is_empty()) else {
            return Ok(None);
        };
        self.answer.says(&text);
        on_text(&text);
        Ok(Some(self.tokens(None)))
    }

    fn chunk(&mut self, data: &[u8], on_text: impl FnMut(&str)) -> Result<Option<u32>, Fault> {
        let chunk = parse(data)?;
        let running = chunk
            .usage
            .as_ref()
            .and_then(|usage| usage.completion_tokens);
        let is_more_than_text = chunk.usage.is_some();
        self.take_usage(chunk.usage);
        self.answer.chooses(data)?;
        if let Some(choice) = chunk.choices.0.as_ref().filter(|_| !is_more_than_text)
            && let Some((text, is_said)) = only_text(choice)
            && self.answer.lies_in_text(is_said)
        {
            self.template.learn(data, text);
        }
        let content = chunk
            .choices
            .0
            .is_some_and(|choice| self.choice(choice, on_text));
        self.check_finish()?;
        Ok(content.then(|| self.tokens(running)))
    }

    fn choice(&mut self, choice: Choice<'_>, mut on_text: impl FnMut(&str)) -> bool {
        let mut pieces = Vec::new();
        if let Some(Text(text)) = &choice.text {
            self.answer.says(text);
        }
        if let Some(delta) = choice.delta {
            pieces.extend(delta.reasoning_content.or(delta.reasoning));
            if let Some(Text(text)) = &delta.content {
                self.answer.says(text);
            }
            pieces.extend(delta.content);
            let calls = delta.tool_calls.into_iter().flatten();
            for function in calls.filter_map(|call| call.function) {
                pieces.extend(function.name);
                pieces.extend(function.arguments);
            }
        }
        let mut content = false;
        for Text(text) in pieces.into_iter().chain(choice.text) {
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

/// The text of a choice that says nothing else, and whether it is said, not merely thought.
fn only_text<'a>(choice: &'a Choice<'_>) -> Option<(&'a str, bool)> {
    let delta = choice.delta.as_ref();
    if choice.finish_reason.is_some() || delta.is_some_and(|d| d.tool_calls.is_some()) {
        return None;
    }
    let pieces = [
        choice.text.as_ref(),
        delta.and_then(|d| d.content.as_ref()),
        delta.and_then(|d| d.reasoning_content.as_ref()),
        delta.and_then(|d| d.reasoning.as_ref()),
    ];
    let mut all = pieces.into_iter().flatten().map(|Text(text)| &**text);
    let only = all.next().filter(|text| !text.is_empty())?;
    let is_thought = delta.is_some_and(|d| d.content.is_none());
    all.next().is_none().then_some((only, !is_thought))
}

/// A chunk that is no error.
fn parse(data: &[u8]) -> Result<Chunk<'_>, Fault> {
    let chunk: Chunk<'_> = read(data)?;
    if let Some(error) = &chunk.error {
        return Err(in_band(&words(error)));
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

pub(super) fn read<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(data).map_err(|error| Fault {
        class: Class::BadOutput,
        message: format!("an event is no chunk ({error}): {}", excerpt(data)),
    })
}

/// What an error says of itself.
fn words(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message
        .as_str()
        .map_or_else(|| error.to_string(), str::to_owned)
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

    fn chat() -> Decoder {
        Decoder::new(Protocol::Chat, Answer::Unkept)
    }

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
        let mut d = chat();
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
        let mut d = chat();
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
    fn tools_are_content() {
        let mut d = chat();
        let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}}]}"#;
        assert_eq!(feed(&mut d, call), Ok((Some(1), "f".into())));
        let rest = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}"#;
        assert_eq!(feed(&mut d, rest), Ok((Some(1), "{\"a\":1}".into())));
        let end = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
        assert_eq!(feed(&mut d, end), Ok((None, String::new())));
        assert_eq!(d.finish.as_deref(), Some("tool_calls"));
    }

    #[test]
    fn sglang_repeats_its_text_and_counts_its_tokens() {
        let event = |text: &str, tokens: u32, finish: &str| {
            format!(
                r#"{{"text":"{text}","meta_info":{{"finish_reason":{finish},"prompt_tokens":7,"completion_tokens":{tokens},"cached_tokens":4}}}}"#
            )
        };
        let mut d = Decoder::new(Protocol::Sglang, Answer::Unkept);
        assert_eq!(
            feed(&mut d, &event("He", 1, "null")),
            Ok((Some(1), "He".into()))
        );
        assert_eq!(
            feed(&mut d, &event("Hello", 3, "null")),
            Ok((Some(2), "llo".into()))
        );
        // Half a character: a token without text.
        assert_eq!(
            feed(&mut d, &event("Hello", 4, "null")),
            Ok((Some(1), String::new()))
        );
        let last = event("Hello!", 5, r#"{"type":"length","length":5}"#);
        assert_eq!(feed(&mut d, &last), Ok((Some(1), "!".into())));
        feed(&mut d, "[DONE]").unwrap();
        assert_eq!((d.finish.as_deref(), d.ended), (Some("length"), true));
        assert_eq!(d.usage.unwrap().cached_tokens, Some(4));

        let mut pieces = Decoder::new(Protocol::Sglang, Answer::Unkept);
        feed(&mut pieces, &event("He", 1, "null")).unwrap();
        assert_eq!(
            feed(&mut pieces, &event("llo", 2, "null")),
            Ok((Some(1), "llo".into()))
        );
        let abort = event("", 2, r#"{"type":"abort","message":"out of memory"}"#);
        assert_eq!(
            feed(&mut pieces, &abort).unwrap_err().message,
            "out of memory"
        );
        let error = r#"{"error":{"message":"too long"}}"#;
        assert_eq!(feed(&mut pieces, error).unwrap_err().class, Class::InBand);
    }

    #[test]
    fn what_is_said_is_kept_and_what_is_thought_is_not() {
        let mut d = Decoder::new(Protocol::Chat, Answer::Text(String::new()));
        let event = |field: &str, text: &str| {
            format!(r#"{{"choices":[{{"delta":{{"{field}":"{text}"}}}}]}}"#)
        };
        for (field, text) in [
            ("reasoning_content", "hm"),
            ("reasoning_content", "so"),
            ("content", "y\\u00e9"),
            ("content", "s"),
            ("content", "!"),
        ] {
            feed(&mut d, &event(field, text)).unwrap();
        }
        assert_eq!(d.answer, Answer::Text("yés!".into()));
    }

    #[test]
    fn token_ids_are_kept_as_vllm_and_sglang_tell_them() {
        let kept = || Answer::Tokens(Vec::new());
        let mut d = Decoder::new(Protocol::Completions, kept());
        for (text, ids) in [("a", "[5]"), ("b", "[5]"), ("cd", "[6,7]"), ("", "[1]")] {
            let event = format!(r#"{{"choices":[{{"text":"{text}","token_ids":{ids}}}]}}"#);
            feed(&mut d, &event).unwrap();
        }
        assert_eq!(d.answer, Answer::Tokens(vec![5, 5, 6, 7, 1]));
        let event = |ids: &str, n: u32| {
            format!(
                r#"{{"text":"","output_ids":{ids},"meta_info":{{"finish_reason":null,"completion_tokens":{n}}}}}"#
            )
        };
        for events in [
            [("[3]", 1), ("[3,4]", 2), ("[3,4,5,6]", 4)],
            [("[3]", 1), ("[4]", 2), ("[5,6]", 4)],
        ] {
            let mut d = Decoder::new(Protocol::Sglang, kept());
            for (ids, n) in events {
                feed(&mut d, &event(ids, n)).unwrap();
            }
            assert_eq!(d.answer, Answer::Tokens(vec![3, 4, 5, 6]));
        }
    }

    #[test]
    fn triton_tells_text_alone() {
        let mut d = Decoder::new(Protocol::Triton, Answer::Unkept);
        let event =
            r#"{"model_name":"ensemble","model_version":"1","sequence_id":0,"text_output":" a"}"#;
        assert_eq!(feed(&mut d, event), Ok((Some(1), " a".into())));
        assert_eq!(
            feed(&mut d, r#"{"text_output":""}"#),
            Ok((None, String::new()))
        );
        let error = r#"{"error":"in ensemble 'ensemble', no room"}"#;
        assert_eq!(feed(&mut d, error).unwrap_err().class, Class::InBand);
        assert_eq!((d.usage, d.finish), (None, None));
    }

    #[test]
    fn errors_come_in_several_shapes() {
        for data in [
            r#"{"error":{"message":"out of memory","code":500}}"#,
            r#"{"error":"out of memory"}"#,
            r#"{"object":"error","message":"out of memory"}"#,
        ] {
            let fault = feed(&mut chat(), data).unwrap_err();
            assert_eq!(fault.class, Class::InBand);
            assert!(fault.message.contains("out of memory"), "{data}");
        }
        let named = SseEvent {
            name: b"error",
            data: b"gone",
        };
        assert_eq!(
            chat().event(named, |_| {}).unwrap_err().class,
            Class::InBand
        );
        let abort = r#"{"choices":[{"text":"","finish_reason":"abort"}]}"#;
        assert_eq!(feed(&mut chat(), abort).unwrap_err().class, Class::InBand);
        let fault = feed(&mut chat(), "<html>").unwrap_err();
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
