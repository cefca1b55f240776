//! What a server said, as far as the next turn of a conversation stands behind it.
//!
//! In the form of the prompts: text, or the token ids that some servers tell beside it (vLLM in each
//! choice, where asked; SGLang in each event of its own protocol). What a model thought or which
//! tools it called is not said again.

use serde::Deserialize;

use super::chunk::First;
use super::decoder::{Fault, read};

/// What is kept of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: no turn follows that needs it.
    Unkept,
    /// The text so far.
    Text(String),
    /// The token ids so far.
    Tokens(Vec<u32>),
}

/// A chunk of completions, as far as it tells token ids.
#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    choices: First<ChosenTokens>,
}

#[derive(Deserialize)]
struct ChosenTokens {
    token_ids: Option<Vec<u32>>,
}

/// An event of SGLang's own protocol, likewise.
#[derive(Deserialize)]
struct GeneratedTokens {
    output_ids: Option<Vec<u32>>,
}

impl Answer {
    /// Takes a piece of text.
    pub(super) fn says(&mut self, piece: &str) {
        if let Self::Text(text) = self {
            text.push_str(piece);
        }
    }

    /// Takes the ids of a chunk of completions.
    pub(super) fn chooses(&mut self, data: &[u8]) -> Result<(), Fault> {
        if let Self::Tokens(ids) = self {
            let chosen: Chosen = read(data)?;
            ids.extend(
                chosen
                    .choices
                    .0
                    .and_then(|c| c.token_ids)
                    .unwrap_or_default(),
            );
        }
        Ok(())
    }

    /// Takes the ids of an event of SGLang's own protocol, after `so_far` tokens in all: usually it
    /// repeats every id.
    pub(super) fn generates(&mut self, data: &[u8], so_far: u32) -> Result<(), Fault> {
        if let Self::Tokens(ids) = self {
            let generated: GeneratedTokens = read(data)?;
            let told = generated.output_ids.unwrap_or_default();
            if told.len() == so_far as usize {
                ids.clear();
            }
            ids.extend(told);
        }
        Ok(())
    }

    /// Whether a piece of text is all that has to be known of the event that brought it; `is_said`
    /// tells text of the answer from what was merely thought.
    pub(super) fn lies_in_text(&self, is_said: bool) -> bool {
        match self {
            Self::Unkept => true,
            Self::Text(_) => is_said,
            Self::Tokens(_) => false,
        }
    }
}
