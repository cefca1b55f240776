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
    /// What was said.
    pub content: String,
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
        let mut text: String = messages.iter().map(chat_ml).collect();
        text.push_str("<|im_start|>assistant\n");
        return tokenizer.encode_rendered(&text);
    }
    let line = |message: &Message| format!("{}: {}\n", message.role.name(), message.content);
    let text: String = messages.iter().map(line).collect();
    tokenizer.encode(&(text + "assistant:"))
}

fn chat_ml(message: &Message) -> String {
    format!(
        "<|im_start|>{}\n{}<|im_end|>\n",
        message.role.name(),
        message.content
    )
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
        ids.extend(tokenizer.encode(&message.content)?);
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
            content: content.into(),
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
