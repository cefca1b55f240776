//! Look-up tables for tokenizers that map whole words: a fast path, not another behaviour.
//!
//! The general path spends microseconds per word on alignment records that a server never reads.

use std::collections::HashMap;

use tokenizers::{ModelWrapper, PreTokenizerWrapper};

/// Both directions of a word vocabulary.
pub(super) struct WordTable {
    ids: HashMap<String, u32>,
    words: Vec<Option<String>>,
    unknown: u32,
    /// First characters of the control tokens, which may stand inside a word: text that holds
    /// one takes the general path.
    markers: Vec<char>,
}

impl WordTable {
    /// The tables of `tokenizer`, if it does nothing but split at white space and look words up.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let splits_at_spaces = matches!(
            tokenizer.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::WhitespaceSplit(_))
        );
        let is_plain = tokenizer.get_normalizer().is_none()
            && tokenizer.get_post_processor().is_none()
            && tokenizer.get_decoder().is_none();
        let ModelWrapper::WordLevel(model) = tokenizer.get_model() else {
            return None;
        };
        if !splits_at_spaces || !is_plain {
            return None;
        }
        let ids = tokenizer.get_vocab(true);
        let unknown = *ids.get(&model.unk_token)?;
        let mut words = vec![None; ids.values().max().map_or(0, |id| *id as usize + 1)];
        for (word, id) in &ids {
            words[*id as usize] = Some(word.clone());
        }
        let added = tokenizer.get_added_tokens_decoder();
        let mut markers: Vec<char> = added
            .values()
            .filter_map(|token| token.content.chars().next())
            .collect();
        markers.sort_unstable();
        markers.dedup();
        Some(WordTable {
            ids,
            words,
            unknown,
            markers,
        })
    }

    /// Token ids of `text`; `None` when it might hold a control token.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        if text.contains(self.markers.as_slice()) {
            return None;
        }
        let id = |word| self.ids.get(word).copied().unwrap_or(self.unknown);
        Some(text.split_whitespace().map(id).collect())
    }

    /// The words of `ids`, joined with single spaces.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let words: Vec<&str> = ids.iter().filter_map(|id| self.word(*id)).collect();
        words.join(" ")
    }

    /// The word of one id.
    pub(super) fn word(&self, id: u32) -> Option<&str> {
        self.words.get(id as usize)?.as_deref()
    }
}
