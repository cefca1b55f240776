//! One chunk of a streamed answer, as servers really send them.
//!
//! Lenient about what is absent or null (role chunks carry `"content": null`, usage chunks
//! have no choices), and borrowed from the event where JSON escapes allow it. Only the first
//! choice is read: the load generator asks for one.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

/// A chunk of completions or of chat completions.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) choices: First<Choice<'a>>,
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
    /// `"error"` where a server sends the bare error object.
    #[serde(borrow)]
    pub(super) object: Option<Text<'a>>,
    pub(super) message: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) reasoning_content: Option<Text<'a>>,
    /// The newer name of `reasoning_content`.
    #[serde(borrow)]
    pub(super) reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
}

/// A piece of a call of a tool.
#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) arguments: Option<Text<'a>>,
}

/// An event of SGLang's `/generate`: the text, usually all of it so far, and what it counts.
#[derive(Deserialize)]
pub(super) struct Generated<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    pub(super) meta_info: Option<MetaInfo>,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct MetaInfo {
    pub(super) finish_reason: Option<Value>,
    #[serde(default)]
    pub(super) prompt_tokens: u32,
    #[serde(default)]
    pub(super) completion_tokens: u32,
    pub(super) cached_tokens: Option<u32>,
}

/// An event of Triton's `generate_stream`: a piece of text.
#[derive(Deserialize)]
pub(super) struct Output<'a> {
    #[serde(borrow)]
    pub(super) text_output: Option<Text<'a>>,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    pub(super) prompt_tokens: u32,
    /// Null or absent before the first token with some servers.
    pub(super) completion_tokens: Option<u32>,
    pub(super) prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
pub(super) struct PromptDetails {
    pub(super) cached_tokens: Option<u32>,
}

/// A string that stays borrowed inside an `Option`, where serde would copy a bare `Cow`.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The first element of a list, without a list; nothing for an empty list or null.
pub(super) struct First<T>(pub(super) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or null")
            }

            fn visit_unit<E>(self) -> Result<First<T>, E> {
                Ok(First(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }

        from.deserialize_any(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_borrowed_where_nothing_is_escaped() {
        let json = r#"{"choices":[{"delta":{"content":"plain"}},{"other":1}]}"#;
        let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
        let content = chunk.choices.0.unwrap().delta.unwrap().content.unwrap().0;
        assert!(matches!(content, Cow::Borrowed("plain")));
    }

    #[test]
    fn nulls_and_empty_lists_are_nothing() {
        for json in [
            r#"{"choices":null,"usage":null}"#,
            r#"{"choices":[]}"#,
            "{}",
        ] {
            let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
            assert!(chunk.choices.0.is_none() && chunk.usage.is_none(), "{json}");
        }
        let json =
            r#"{"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}"#;
        let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
        assert!(chunk.choices.0.unwrap().delta.unwrap().content.is_none());
    }
}
