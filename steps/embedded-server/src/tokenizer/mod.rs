//! Text to token ids and back, for any `tokenizer.json`.
//!
//! Knows no request and no model. Generated word vocabularies take a table look-up instead of
//! the general path; both give the same answers.

mod generate;
mod stream;
mod words;

use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

pub use generate::{SPECIAL_TOKENS, generate, generate_config};
pub use stream::{Detokenizer, Piece, StopStrings, TextStream};
use words::WordTable;

/// A loaded vocabulary: cheap to share, answers from any thread.
pub struct Tokenizer {
    general: tokenizers::Tokenizer,
    words: Option<WordTable>,
    special_ids: Vec<u32>,
    eos_ids: Vec<u32>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model folder, and its end-of-sequence ids from
    /// `generation_config.json`, `config.json` or `tokenizer_config.json`, whichever names them
    /// first.
    ///
    /// # Errors
    /// [`TokenizerError`] when the file is missing or is not a tokenizer.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| TokenizerError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let general =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|source| TokenizerError::Broken {
                path,
                reason: source.to_string(),
            })?;
        let mut tokenizer = Self::new(general);
        tokenizer.eos_ids = tokenizer.find_eos_ids(folder);
        Ok(tokenizer)
    }

    /// Makes a vocabulary of words, as [`generate`] does; nothing of it ends a text.
    ///
    /// # Errors
    /// Never, unless the generator writes no tokenizer.
    pub fn of_words(vocab_size: usize) -> Result<Self, TokenizerError> {
        let text = generate(vocab_size).to_string();
        let general = tokenizers::Tokenizer::from_bytes(text.as_bytes());
        let general = general.map_err(|source| TokenizerError::Broken {
            path: PathBuf::from("the generated tokenizer"),
            reason: source.to_string(),
        })?;
        Ok(Self::new(general))
    }

    fn new(general: tokenizers::Tokenizer) -> Self {
        let mut special_ids: Vec<u32> = general
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token): (u32, AddedToken)| token.special.then_some(id))
            .collect();
        special_ids.sort_unstable();
        let largest = general.get_vocab(true).into_values().max();
        Tokenizer {
            words: WordTable::of(&general),
            special_ids,
            eos_ids: Vec::new(),
            vocab_size: largest.map_or(0, |id| id as usize + 1),
            general,
        }
    }

    fn find_eos_ids(&self, folder: &Path) -> Vec<u32> {
        for name in ["generation_config.json", "config.json"] {
            let ids = match json_file(&folder.join(name)).get("eos_token_id") {
                Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(as_id).collect(),
                Some(id) => as_id(id).into_iter().collect(),
                None => Vec::new(),
            };
            if !ids.is_empty() {
                return ids;
            }
        }
        let config = json_file(&folder.join("tokenizer_config.json"));
        let eos = &config["eos_token"];
        let content = eos
            .as_str()
            .or_else(|| eos["content"].as_str())
            .unwrap_or("<eos>");
        self.general.token_to_id(content).into_iter().collect()
    }

    /// One more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether texts are looked up word by word, which takes about as long as reading them.
    #[must_use]
    pub fn is_word_table(&self) -> bool {
        self.words.is_some()
    }

    /// Ids of control tokens, ascending.
    #[must_use]
    pub fn special_ids(&self) -> &[u32] {
        &self.special_ids
    }

    /// Ids that end a sequence; possibly none.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The id of exactly this token, where there is one.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.general.token_to_id(token)
    }

    /// Token ids of a prompt, with whatever the tokenizer puts around one.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if let Some(ids) = self.words.as_ref().and_then(|words| words.encode(text)) {
            return Ok(ids);
        }
        self.encode_generally(text, true)
    }

    /// Token ids of text that already holds its control tokens, such as a rendered chat.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_generally(text, false)
    }

    fn encode_generally(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .general
            .encode_fast(text, add_special)
            .map_err(|source| TokenizerError::Encode {
                reason: source.to_string(),
            })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, control tokens included. Ids without a token have no text.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.words {
            Some(words) => words.decode(ids),
            // Only a tokenizer file whose decoder contradicts itself fails here, for every text.
            None => self.general.decode(ids, false).unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("is_word_table", &self.words.is_some())
            .field("eos_ids", &self.eos_ids)
            .finish_non_exhaustive()
    }
}

fn as_id(value: &serde_json::Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The content of an optional JSON file: null where it is absent or broken, because each of
/// these files only supplies a default.
fn json_file(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// A tokenizer that cannot be loaded, or text that it refuses.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read tokenizer `{}`: {source}; generate one or copy the model's own there", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it could not be read.
        source: std::io::Error,
    },
    /// The file is not a tokenizer.
    #[error("`{}` is not a Hugging Face tokenizer file: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer refuses a text.
    #[error("the tokenizer refuses this text: {reason}")]
    Encode {
        /// Its words.
        reason: String,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A generated tokenizer whose `<eos>` ends sequences.
    pub(crate) fn word_tokenizer(vocab_size: usize) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let file = serde_json::to_vec(&generate(vocab_size)).unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), file).unwrap();
        let config = serde_json::to_vec(&generate_config(1024)).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::load(folder.path()).unwrap()
    }

    #[test]
    fn every_id_survives_decode_and_encode() {
        let tokenizer = word_tokenizer(7000);
        let ids: Vec<u32> = (0..7000).collect();
        assert_eq!(tokenizer.encode(&tokenizer.decode(&ids)).unwrap(), ids);
        for id in ids {
            assert_eq!(tokenizer.encode(&tokenizer.decode(&[id])).unwrap(), [id]);
        }
    }

    #[test]
    fn a_generated_tokenizer_knows_its_ends() {
        let tokenizer = word_tokenizer(100);
        assert_eq!(tokenizer.vocab_size(), 100);
        assert_eq!(tokenizer.eos_ids(), [1]);
        assert_eq!(tokenizer.special_ids(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(tokenizer.token_id("<assistant>"), Some(5));
    }

    #[test]
    fn the_configuration_files_name_the_ends_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("tokenizer.json", &generate(100).to_string()).unwrap();
        write("config.json", r#"{"eos_token_id": 9}"#).unwrap();
        assert_eq!(Tokenizer::load(folder.path()).unwrap().eos_ids(), [9]);
        write("generation_config.json", r#"{"eos_token_id": [3, 4]}"#).unwrap();
        assert_eq!(Tokenizer::load(folder.path()).unwrap().eos_ids(), [3, 4]);
    }

    #[test]
    fn a_missing_and_a_broken_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Tokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(missing.contains("tokenizer.json"), "{missing}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let broken = Tokenizer::load(folder.path()).unwrap_err();
        assert!(matches!(broken, TokenizerError::Broken { .. }), "{broken}");
    }

    proptest! {
        #[test]
        fn the_word_table_agrees_with_the_general_path(
            words in proptest::collection::vec("[a-z]{1,6}|<eos>|baba|bebe|x<user>y", 0..12),
            gap in "[ \t\n\u{3000}]{1,3}",
        ) {
            let tokenizer = word_tokenizer(300);
            let text = words.join(&gap);
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&ids, &tokenizer.encode_generally(&text, true).unwrap());
            prop_assert_eq!(tokenizer.decode(&ids), tokenizer.general.decode(&ids, false).unwrap());
        }

        #[test]
        fn n_words_are_n_tokens(ids in proptest::collection::vec(7u32..300, 0..50)) {
            let tokenizer = word_tokenizer(300);
            let text = tokenizer.decode(&ids);
            prop_assert_eq!(text.split_whitespace().count(), ids.len());
            prop_assert_eq!(tokenizer.encode(&text).unwrap(), ids);
        }
    }
}
