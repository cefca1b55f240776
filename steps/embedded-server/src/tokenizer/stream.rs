//! Text that grows token by token, as a stream sends it.
//!
//! Two things make this more than decoding one id at a time: a character may be spread over
//! several tokens, and a stop string may begin in one token and end in a later one. Text that
//! might still change is held back. Both the engine and the connection run the same
//! [`TextStream`] over the same ids, so they agree on where a stop string ended the text.

use std::sync::Arc;

use super::Tokenizer;

/// How many tokens of the prompt are context for the first token's text: enough for one
/// character spread over byte tokens.
const CONTEXT_TOKENS: usize = 4;

/// Turns ids into text one by one; the pieces joined are the text of the whole.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    /// Recent ids: context, then those whose text is still pending.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    n_context: usize,
    /// The text of the context.
    context: String,
}

impl Detokenizer {
    /// A detokenizer for text that continues `prompt`: words then start with their space.
    #[must_use]
    pub fn after(tokenizer: Arc<Tokenizer>, prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
        let context = tokenizer.decode(&ids);
        Detokenizer {
            tokenizer,
            n_context: ids.len(),
            ids,
            context,
        }
    }

    /// A detokenizer for text of its own, such as a chat reply.
    #[must_use]
    pub fn fresh(tokenizer: Arc<Tokenizer>) -> Self {
        Self::after(tokenizer, &[])
    }

    /// The text that `id` completes: empty while a character is unfinished.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(words) = &self.tokenizer.words {
            let is_first = self.ids.is_empty();
            self.ids.clear();
            let Some(word) = words.word(id) else {
                return String::new();
            };
            self.ids.push(id);
            return if is_first {
                word.to_owned()
            } else {
                format!(" {word}")
            };
        }
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids);
        if text.len() <= self.context.len() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        let piece = text
            .get(self.context.len()..)
            .unwrap_or_default()
            .to_owned();
        self.ids.drain(..self.n_context);
        self.n_context = self.ids.len();
        self.context = self.tokenizer.decode(&self.ids);
        piece
    }

    /// What was held back, with replacement characters for what never became a character.
    pub fn finish(&mut self) -> String {
        if self.tokenizer.words.is_some() || self.ids.len() == self.n_context {
            return String::new();
        }
        let text = self.tokenizer.decode(&self.ids);
        self.n_context = self.ids.len();
        text.get(self.context.len()..)
            .unwrap_or_default()
            .to_owned()
    }
}

/// The strings that end a text, and from which token on they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings {
    /// Any of these ends the text; it is not part of the text. None of them is empty.
    pub strings: Vec<String>,
    /// Text of the first so many tokens is never searched.
    pub min_tokens: usize,
}

/// What one token added to the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is certain now.
    pub text: String,
    /// Whether a stop string was completed: the text is over.
    pub is_stopped: bool,
}

/// Text of one reply: detokenized, and cut at the first stop string.
#[derive(Debug, Clone)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stop: StopStrings,
    n_tokens: usize,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl TextStream {
    /// A stream of text that ends at `stop`.
    #[must_use]
    pub fn new(detokenizer: Detokenizer, stop: StopStrings) -> Self {
        TextStream {
            detokenizer,
            stop,
            n_tokens: 0,
            held: String::new(),
        }
    }

    /// Adds one token.
    pub fn push(&mut self, id: u32) -> Piece {
        self.n_tokens += 1;
        let text = self.detokenizer.push(id);
        if self.stop.strings.is_empty() || self.n_tokens <= self.stop.min_tokens {
            return Piece {
                text,
                is_stopped: false,
            };
        }
        self.held.push_str(&text);
        let found = self
            .stop
            .strings
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        match found {
            Some(at) => {
                self.held.truncate(at);
                Piece {
                    text: std::mem::take(&mut self.held),
                    is_stopped: true,
                }
            }
            None => {
                let certain = self.held.len() - self.n_uncertain();
                let rest = self.held.split_off(certain);
                Piece {
                    text: std::mem::replace(&mut self.held, rest),
                    is_stopped: false,
                }
            }
        }
    }

    /// The text that was still held back when the tokens ended.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&self.detokenizer.finish());
        text
    }

    /// Bytes at the end of the held text that begin some stop string.
    fn n_uncertain(&self) -> usize {
        let beginning = |stop: &String| {
            let prefixes = stop.char_indices().map(|(at, _)| at).rev();
            prefixes
                .into_iter()
                .find(|at| self.held.ends_with(&stop[..*at]))
                .unwrap_or(0)
        };
        self.stop.strings.iter().map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::word_tokenizer;
    use super::*;
    use proptest::prelude::*;
    use std::str::FromStr;

    /// One token per byte, as byte-level vocabularies fall back to.
    fn byte_tokenizer() -> Arc<Tokenizer> {
        let vocabulary: serde_json::Map<_, _> = (0..256u32)
            .map(|byte| (format!("<0x{byte:02X}>"), byte.into()))
            .collect();
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "ByteFallback" },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": true },
        });
        Arc::new(Tokenizer::new(
            tokenizers::Tokenizer::from_str(&file.to_string()).unwrap(),
        ))
    }

    fn stops(strings: &[&str], min_tokens: usize) -> StopStrings {
        StopStrings {
            strings: strings.iter().map(ToString::to_string).collect(),
            min_tokens,
        }
    }

    fn run(stream: &mut TextStream, ids: &[u32]) -> (Vec<String>, bool) {
        let mut pieces = Vec::new();
        for id in ids {
            let piece = stream.push(*id);
            pieces.push(piece.text);
            if piece.is_stopped {
                return (pieces, true);
            }
        }
        pieces.push(stream.finish());
        (pieces, false)
    }

    #[test]
    fn half_a_character_is_never_sent() {
        let mut detokenizer = Detokenizer::fresh(byte_tokenizer());
        let text = "aé漢😀b";
        let pieces: Vec<String> = text
            .bytes()
            .map(|byte| detokenizer.push(u32::from(byte)))
            .collect();
        assert!(
            pieces.iter().all(|piece| !piece.contains('\u{FFFD}')),
            "{pieces:?}"
        );
        assert_eq!(pieces.concat() + &detokenizer.finish(), text);
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let mut detokenizer = Detokenizer::fresh(byte_tokenizer());
        assert_eq!(detokenizer.push(0xE6), "");
        assert_eq!(detokenizer.finish(), "\u{FFFD}");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn a_stop_string_across_tokens_is_cut_out() {
        let detokenizer = Detokenizer::fresh(byte_tokenizer());
        let mut stream = TextStream::new(detokenizer, stops(&["END", "zz"], 0));
        let ids: Vec<u32> = "abENxENDmore".bytes().map(u32::from).collect();
        let (pieces, is_stopped) = run(&mut stream, &ids);
        assert!(is_stopped);
        assert_eq!(pieces, ["a", "b", "", "", "ENx", "", "", ""]);
    }

    #[test]
    fn a_stop_string_before_the_minimum_does_not_count() {
        let detokenizer = Detokenizer::fresh(byte_tokenizer());
        let mut stream = TextStream::new(detokenizer, stops(&["a"], 2));
        let ids: Vec<u32> = "aaba".bytes().map(u32::from).collect();
        assert_eq!(
            run(&mut stream, &ids),
            (vec!["a".into(), "a".into(), "b".into(), "".into()], true)
        );
    }

    #[test]
    fn a_held_beginning_is_sent_when_nothing_follows() {
        let detokenizer = Detokenizer::fresh(byte_tokenizer());
        let mut stream = TextStream::new(detokenizer, stops(&["END"], 0));
        let (pieces, is_stopped) = run(&mut stream, &[u32::from(b'E'), u32::from(b'N')]);
        assert!(!is_stopped);
        assert_eq!(pieces.concat(), "EN");
    }

    #[test]
    fn words_after_a_prompt_start_with_their_space() {
        let tokenizer = Arc::new(word_tokenizer(300));
        let prompt = tokenizer.encode("baba bebe").unwrap();
        let mut detokenizer = Detokenizer::after(tokenizer.clone(), &prompt);
        let more = detokenizer.push(100) + &detokenizer.push(101);
        let whole = tokenizer.encode(&format!("baba bebe{more}")).unwrap();
        assert_eq!(whole, [prompt, vec![100, 101]].concat());
        assert!(!Detokenizer::fresh(tokenizer).push(100).starts_with(' '));
    }

    proptest! {
        #[test]
        fn streamed_words_encode_to_the_same_ids(ids in proptest::collection::vec(0u32..300, 1..40)) {
            let tokenizer = Arc::new(word_tokenizer(300));
            let mut detokenizer = Detokenizer::fresh(tokenizer.clone());
            let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
            prop_assert_eq!(tokenizer.encode(&text).unwrap(), ids);
        }

        #[test]
        fn the_pieces_are_the_text_before_the_first_stop(text in "[abé漢]{0,30}", stop in "[abé]{1,3}") {
            let detokenizer = Detokenizer::fresh(byte_tokenizer());
            let mut stream = TextStream::new(detokenizer, stops(&[&stop], 0));
            let ids: Vec<u32> = text.bytes().map(u32::from).collect();
            let (pieces, is_stopped) = run(&mut stream, &ids);
            prop_assert_eq!(is_stopped, text.contains(&stop));
            prop_assert_eq!(pieces.concat(), text.split(&stop).next().unwrap());
        }
    }
}
