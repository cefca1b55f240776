//! Conversations to token ids.
//!
//! Three layouts, chosen by what the vocabulary holds; there is no template language here.
//!
//! | vocabulary | layout of one message | then the reply starts after |
//! |---|---|---|
//! | generated words | `<role> content <eos>` | `<assistant>` |
//! | with `<\|im_start\|>` | `<\|im_start\|>role\ncontent<\|im_end\|>\n` | `<\|im_start\|>assistant\n` |
//! | any other | `role: content\n` | `assistant:` |
//!
//! Images stand in a message as token ids, between its texts, see `--image-tokens`.
//!
//! In the first layout a reply that is sent back as a message repeats exactly the tokens that
//! were computed, so each turn of a conversation is a prefix of the next.

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; `developer` is another name for it.
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    #[serde(alias = "function")]
    Tool,
}

impl Role {
    /// The name that templates use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What was said and shown; texts that follow each other are one.
    pub content: Vec<Part>,
}

/// A part of a message or of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// The token ids that stand for an image.
    Image(Vec<u32>),
}

/// Token ids of a conversation, up to and including what starts the reply.
///
/// # Errors
/// [`TokenizerError::Encode`] when the tokenizer refuses the text.
pub fn render(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, TokenizerError> {
    if let Some(end) = tokenizer.token_id("<eos>")
        && let Some(reply) = tokenizer.token_id("<assistant>")
    {
        return render_words(tokenizer, messages, end, reply);
    }
    if tokenizer.token_id("<|im_start|>").is_some() {
        let around = |role: Role| (format!("<|im_start|>{}\n", role.name()), "<|im_end|>\n");
        let parts = framed(messages, around, "<|im_start|>assistant\n");
        return encode_pieces(&parts, |_, text| tokenizer.encode_rendered(text));
    }
    let around = |role: Role| (format!("{}: ", role.name()), "\n");
    encode(tokenizer, &framed(messages, around, "assistant:"))
}

/// Token ids of a prompt of texts and images, with whatever the tokenizer puts around a prompt.
///
/// # Errors
/// [`TokenizerError::Encode`] when the tokenizer refuses a text.
pub fn encode(tokenizer: &Tokenizer, parts: &[Part]) -> Result<Vec<u32>, TokenizerError> {
    encode_pieces(parts, |is_first, text| match is_first {
        true => tokenizer.encode(text),
        false => tokenizer.encode_rendered(text),
    })
}

/// Encodes texts that follow each other as one, and leaves images as they are; `text` is told whether
/// anything stands before it.
fn encode_pieces(
    parts: &[Part],
    text: impl Fn(bool, &str) -> Result<Vec<u32>, TokenizerError>,
) -> Result<Vec<u32>, TokenizerError> {
    let (mut ids, mut said) = (Vec::new(), String::new());
    let say = |ids: &mut Vec<u32>, said: &mut String| {
        if !said.is_empty() {
            ids.extend(text(ids.is_empty(), said)?);
            said.clear();
        }
        Ok::<_, TokenizerError>(())
    };
    for part in parts {
        match part {
            Part::Text(text) => said.push_str(text),
            Part::Image(image) => {
                say(&mut ids, &mut said)?;
                ids.extend(image);
            }
        }
    }
    say(&mut ids, &mut said)?;
    Ok(ids)
}

/// All messages in one row, each between what a layout puts around it.
fn framed(
    messages: &[Message],
    around: impl Fn(Role) -> (String, &'static str),
    reply: &str,
) -> Vec<Part> {
    let mut parts = Vec::new();
    for message in messages {
        let (before, after) = around(message.role);
        parts.push(Part::Text(before));
        parts.extend(message.content.iter().cloned());
        parts.push(Part::Text(after.to_owned()));
    }
    parts.push(Part::Text(reply.to_owned()));
    parts
}

fn render_words(
    tokenizer: &Tokenizer,
    messages: &[Message],
    end: u32,
    reply: u32,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    for message in messages {
        let role = tokenizer.token_id(&format!("<{}>", message.role.name()));
        ids.push(role.unwrap_or(end));
        ids.extend(encode_pieces(&message.content, |_, text| {
            tokenizer.encode(text)
        })?);
        ids.push(end);
    }
    ids.push(reply);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{generate, tests::word_tokenizer};

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: vec![Part::Text(content.into())],
        }
    }

    #[test]
    fn a_turn_is_a_prefix_of_the_next() {
        let tokenizer = word_tokenizer(300);
        let question = message(Role::User, "baba babe");
        let first = render(&tokenizer, std::slice::from_ref(&question)).unwrap();
        assert_eq!(first, [4, 7, 8, 1, 5]);
        let reply = [50, 60, 70];
        let answer = message(Role::Assistant, &tokenizer.decode(&reply));
        let second = render(&tokenizer, &[question, answer, message(Role::User, "bibi")]).unwrap();
        assert_eq!(second[..8], [&first[..], &reply[..]].concat());
    }

    #[test]
    fn the_words_layout_is_what_the_shipped_template_says() {
        let tokenizer = word_tokenizer(300);
        let messages = [
            message(Role::System, "baba"),
            message(Role::Tool, "bebe bebe"),
        ];
        let text = "<system> baba <eos> <tool> bebe bebe <eos> <assistant>";
        assert_eq!(
            render(&tokenizer, &messages).unwrap(),
            tokenizer.encode(text).unwrap()
        );
    }

    #[test]
    fn images_stand_between_the_texts_of_a_message() {
        let tokenizer = word_tokenizer(300);
        let text = |text: &str| Part::Text(text.into());
        let shown = Message {
            role: Role::User,
            content: vec![Part::Image(vec![900, 901]), text("baba "), text("babe")],
        };
        let ids = render(&tokenizer, &[shown]).unwrap();
        assert_eq!(ids, [4, 900, 901, 7, 8, 1, 5]);
        let parts = [text("baba"), Part::Image(vec![900]), text("babe")];
        assert_eq!(encode(&tokenizer, &parts).unwrap(), [7, 900, 8]);
    }

    #[test]
    fn other_vocabularies_get_plain_lines() {
        let folder = tempfile::tempdir().unwrap();
        // The first five control tokens only: no `<assistant>`.
        std::fs::write(
            folder.path().join("tokenizer.json"),
            generate(5).to_string(),
        )
        .unwrap();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let ids = render(&tokenizer, &[message(Role::User, "x y")]).unwrap();
        assert_eq!(ids, tokenizer.encode("user: x y\nassistant:").unwrap());
    }
}
