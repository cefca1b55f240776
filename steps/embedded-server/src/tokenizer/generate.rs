//! A vocabulary made from nothing: one distinct, pronounceable word per token id.
//!
//! Such a tokenizer needs no download, and text and token ids are the same thing in two
//! spellings: `n` words are `n` tokens, and decoding then encoding returns every id unchanged. So
//! a client and the server always count alike, and a conversation that is sent back as text
//! still starts with exactly the tokens the server computed. Knows no model and no file.

use serde_json::{Value, json};

/// Control tokens of a generated vocabulary, in id order from 0.
pub const SPECIAL_TOKENS: [&str; 7] = [
    "<unk>",
    "<eos>",
    "<pad>",
    "<system>",
    "<user>",
    "<assistant>",
    "<tool>",
];

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 5] = b"aeiou";
const N_SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// A chat template for servers that read one: the same layout that this server renders itself.
const CHAT_TEMPLATE: &str = "{% for message in messages %}\
    {{ '<' + message['role'] + '> ' + message['content'] + ' <eos> ' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

/// The content of a `tokenizer.json` with `vocab_size` ids: [`SPECIAL_TOKENS`], then words.
///
/// The tokenizer splits at white space, looks whole words up, adds nothing around the text and
/// joins with single spaces. A vocabulary smaller than the control tokens keeps the first of them.
#[must_use]
pub fn generate(vocab_size: usize) -> Value {
    let vocabulary: serde_json::Map<String, Value> = (0..vocab_size)
        .map(|id| (token(id), Value::from(id)))
        .collect();
    let added_tokens: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .take(vocab_size)
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": SPECIAL_TOKENS[0] },
    })
}

/// The content of the `tokenizer_config.json` that belongs beside [`generate`]'s file.
///
/// `max_length` is the longest input in tokens that the model takes.
#[must_use]
pub fn generate_config(max_length: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "unk_token": "<unk>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": false,
        "add_bos_token": false,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// The text of token `id`.
fn token(id: usize) -> String {
    match SPECIAL_TOKENS.get(id) {
        Some(special) => (*special).to_owned(),
        None => word(id - SPECIAL_TOKENS.len()),
    }
}

/// The `index`-th word: two syllables while those last, then three, and so on.
///
/// Every syllable is a consonant and a vowel, so a word splits into syllables in one way only
/// and distinct numbers give distinct words.
fn word(mut index: usize) -> String {
    let mut n_syllables = 2;
    let mut n_words = N_SYLLABLES.pow(2);
    while index >= n_words {
        index -= n_words;
        n_words *= N_SYLLABLES;
        n_syllables += 1;
    }
    let mut word = String::with_capacity(2 * n_syllables);
    // The largest syllable first: ids in order are words in order, which maps sort at no cost.
    for _ in 0..n_syllables {
        n_words /= N_SYLLABLES;
        let syllable = index / n_words;
        index %= n_words;
        word.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        word.push(char::from(VOWELS[syllable % VOWELS.len()]));
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_id_has_its_own_lower_case_word() {
        let words: HashSet<String> = (0..200_000).map(token).collect();
        assert_eq!(words.len(), 200_000);
        assert!(words.iter().all(|word| !word.contains(char::is_whitespace)));
        assert_eq!(token(1), "<eos>");
        assert_eq!(token(7), "baba");
        assert_eq!(token(7 + 6400), "bababa");
    }

    #[test]
    fn the_file_lists_exactly_the_asked_number_of_ids() {
        let file = generate(1000);
        let vocabulary = file["model"]["vocab"].as_object().unwrap();
        let ids: HashSet<u64> = vocabulary.values().filter_map(Value::as_u64).collect();
        assert_eq!(ids, (0..1000).collect());
        assert_eq!(
            file["added_tokens"].as_array().unwrap().len(),
            SPECIAL_TOKENS.len()
        );
        assert_eq!(generate(3)["added_tokens"].as_array().unwrap().len(), 3);
    }
}
