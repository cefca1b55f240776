//! Random prompts of exact lengths in tokens, as text or as token ids.

use embedded_server::tokenizer::Tokenizer;
use engine::step::StepError;
use loadgen::Prompt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::num::NonZeroU32;
use std::path::Path;

/// How often a text is cut and filled up until it has its length in tokens.
const ATTEMPTS: usize = 20;

engine::choices! {
    /// What a prompt is sent as.
    pub enum PromptForm {
        /// Text, which the server tokenises.
        Text = "text",
        /// Token ids, which leave the server nothing to tokenise.
        Tokens = "tokens",
    }
}

/// Draws prompts by a seed.
pub(crate) struct Prompts {
    tokenizer: Tokenizer,
    /// Ids besides special ones.
    allowed: Vec<u32>,
    /// How many tokens the tokenizer puts around a text, such as one that begins it.
    around: usize,
    form: PromptForm,
    random: ChaCha12Rng,
}

/// A prompt, and the ids that a server makes of it.
pub(crate) struct Drawn {
    pub(crate) prompt: Prompt,
    pub(crate) ids: Vec<u32>,
}

impl Prompts {
    pub(crate) fn new(model: &Path, form: PromptForm, seed: u64) -> Result<Self, StepError> {
        Self::of(load_tokenizer(model)?, form, seed)
    }

    fn of(tokenizer: Tokenizer, form: PromptForm, seed: u64) -> Result<Self, StepError> {
        let allowed = allowed_ids(&tokenizer);
        if allowed.is_empty() {
            return Err(StepError::new(
                "the tokenizer has no ids besides special ones",
            ));
        }
        let around = tokenizer.encode("");
        let around = around.map_err(|e| StepError::new(e.to_string()))?.len();
        Ok(Self {
            tokenizer,
            allowed,
            around,
            form,
            random: ChaCha12Rng::seed_from_u64(seed),
        })
    }

    /// Draws a length from a share of `most` up to `most` itself.
    pub(crate) fn length(&mut self, most: NonZeroU32, range_ratio: f64) -> NonZeroU32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32, rounded up, is one"
        )]
        let least = (f64::from(most.get()) * range_ratio).ceil() as u32;
        let drawn = self
            .random
            .random_range(least.clamp(1, most.get())..=most.get());
        NonZeroU32::new(drawn).unwrap_or(NonZeroU32::MIN)
    }

    /// Draws a length within a share of `mean`, on both sides of it.
    pub(crate) fn about(&mut self, mean: u32, spread: f64) -> NonZeroU32 {
        // Whole numbers within a share of a u32; the largest means may end a little early.
        let away = (f64::from(mean) * spread) as u32;
        let drawn = self
            .random
            .random_range(mean.saturating_sub(away)..=mean.saturating_add(away));
        NonZeroU32::new(drawn).unwrap_or(NonZeroU32::MIN)
    }

    /// Draws a number from 0 up to and without 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.random.random::<f64>()
    }

    /// Draws a prompt of so many tokens.
    pub(crate) fn draw(&mut self, tokens: NonZeroU32) -> Result<Drawn, StepError> {
        let ids = self.ids(tokens);
        match self.form {
            PromptForm::Tokens => Ok(of_ids(ids)),
            PromptForm::Text => self.exact_text(ids),
        }
    }

    /// Draws a prompt that is `before` and so many tokens more, parted by `separator` where it is text;
    /// what that adds counts among the tokens.
    pub(crate) fn draw_behind(
        &mut self,
        before: &Drawn,
        separator: &str,
        tokens: NonZeroU32,
    ) -> Result<Drawn, StepError> {
        let ids = self.ids(tokens);
        match &before.prompt {
            Prompt::Text(text) => {
                let wanted = before.ids.len() + ids.len();
                self.exact_text_behind(&format!("{text}{separator}"), ids, wanted)
            }
            _ => Ok(of_ids([before.ids.clone(), ids].concat())),
        }
    }

    /// Draws what is said next in a conversation, of so many tokens: text that is parted from what
    /// comes before it. What the tokenizer puts around a text stands around the whole conversation, and
    /// is counted with its first turn.
    pub(crate) fn draw_next(&mut self, tokens: NonZeroU32) -> Result<Drawn, StepError> {
        let ids = self.ids(tokens);
        match self.form {
            PromptForm::Tokens => Ok(of_ids(ids)),
            PromptForm::Text => {
                let wanted = ids.len() + self.around;
                self.exact_text_behind(" ", ids, wanted)
            }
        }
    }

    /// Puts the elements of a list in a random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.random.random_range(0..=last));
        }
    }

    fn ids(&mut self, tokens: NonZeroU32) -> Vec<u32> {
        (0..tokens.get()).map(|_| self.id()).collect()
    }

    fn id(&mut self) -> u32 {
        self.allowed[self.random.random_range(0..self.allowed.len())]
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, StepError> {
        let encoded = self.tokenizer.encode(text);
        encoded.map_err(|e| StepError::new(e.to_string()))
    }

    /// Turns ids into a text that has exactly as many tokens when it is tokenised again, what the
    /// tokenizer puts around it included.
    ///
    /// Decoding and encoding merge or split tokens of most tokenizers, so the text is cut or filled
    /// up until its length stands.
    fn exact_text(&mut self, mut ids: Vec<u32>) -> Result<Drawn, StepError> {
        let wanted = ids.len();
        let within = wanted.saturating_sub(self.around);
        ids.truncate(within);
        for _ in 0..ATTEMPTS {
            let text = self.tokenizer.decode(&ids);
            let again = self.encode(&text)?;
            if again.len() == wanted {
                return Ok(of_text(text, again));
            }
            let again = self.tokenizer.encode_rendered(&text);
            ids = again.map_err(|e| StepError::new(e.to_string()))?;
            ids.truncate(within);
            while ids.len() < within {
                ids.push(self.id());
            }
        }
        Err(no_such_text(wanted))
    }

    /// Turns ids into a text behind another, `wanted` tokens long together with it.
    fn exact_text_behind(
        &mut self,
        before: &str,
        mut ids: Vec<u32>,
        wanted: usize,
    ) -> Result<Drawn, StepError> {
        for _ in 0..ATTEMPTS {
            let text = format!("{before}{}", self.tokenizer.decode(&ids));
            let again = self.encode(&text)?;
            if again.len() == wanted {
                return Ok(of_text(text, again));
            }
            let excess = again.len().saturating_sub(wanted);
            ids.truncate(ids.len().saturating_sub(excess));
            for _ in again.len()..wanted {
                ids.push(self.id());
            }
        }
        Err(no_such_text(wanted))
    }
}

fn of_text(text: String, ids: Vec<u32>) -> Drawn {
    let prompt = Prompt::Text(text);
    Drawn { prompt, ids }
}

fn of_ids(ids: Vec<u32>) -> Drawn {
    let prompt = Prompt::Tokens(ids.clone());
    Drawn { prompt, ids }
}

fn no_such_text(wanted: usize) -> StepError {
    StepError::new(format!(
        "no text of exactly {wanted} tokens was found in {ATTEMPTS} attempts"
    ))
    .help("write `prompt = \"tokens\"`: token ids have their length by themselves")
}

/// Ids besides special ones, ascending.
pub(super) fn allowed_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let special = tokenizer.special_ids();
    let size = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    (0..size).filter(|id| !special.contains(id)).collect()
}

pub(crate) fn load_tokenizer(model: &Path) -> Result<Tokenizer, StepError> {
    Tokenizer::load(model).map_err(|e| {
        StepError::new(e.to_string())
            .help(
                "name a folder with a `tokenizer.json`; `model.derive` with `tokenizer = \"generated\"` \
                 makes one",
            )
    })
}

/// Prompts of a vocabulary that is generated, as the embedded server's own models have it.
#[cfg(test)]
pub(super) fn of_words(vocabulary: usize, form: PromptForm, seed: u64) -> Prompts {
    Prompts::of(Tokenizer::of_words(vocabulary).unwrap(), form, seed).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn texts_have_their_length_alone_and_behind_another() {
        let mut prompts = of_words(500, PromptForm::Text, 1);
        let first = prompts.draw(tokens(40)).unwrap();
        let Prompt::Text(text) = &first.prompt else {
            panic!("text")
        };
        assert_eq!(prompts.encode(text).unwrap(), first.ids);
        let both = prompts.draw_behind(&first, "\n\n", tokens(9)).unwrap();
        assert_eq!((both.ids.len(), &both.ids[..40]), (49, &first.ids[..]));
        let Prompt::Text(said) = prompts.draw_next(tokens(5)).unwrap().prompt else {
            panic!("text")
        };
        // Said behind something else it is still five words of its own.
        let whole = prompts.encode(&format!("{text}{said}")).unwrap();
        assert_eq!((whole.len(), &whole[..40]), (45, &first.ids[..]));
    }

    #[test]
    fn lengths_lie_between_the_share_and_the_whole() {
        let mut prompts = of_words(500, PromptForm::Tokens, 2);
        let drawn: Vec<u32> = (0..500)
            .map(|_| prompts.length(tokens(10), 0.45).get())
            .collect();
        assert_eq!(drawn.iter().min(), Some(&5));
        assert_eq!(drawn.iter().max(), Some(&10));
        assert_eq!(prompts.length(tokens(10), 1.0).get(), 10);
    }

    /// Letters, of which two make a third token, behind a token that begins every text.
    fn letters_behind_a_beginning() -> Prompts {
        let tokenizer = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 0, "content": "<s>", "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false}],
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, " ": 4},
                "merges": [["a", "b"]]},
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Prompts::new(folder.path(), PromptForm::Text, 4).unwrap()
    }

    #[test]
    fn what_a_tokenizer_puts_around_a_text_is_part_of_its_length() {
        let mut prompts = letters_behind_a_beginning();
        let first = prompts.draw(tokens(60)).unwrap();
        let Prompt::Text(text) = &first.prompt else {
            panic!("text")
        };
        assert!(!text.contains("<s>"), "{text}");
        assert_eq!(prompts.encode(text).unwrap(), first.ids);
        assert_eq!((first.ids.len(), first.ids[0]), (60, 0));
        let both = prompts.draw_behind(&first, " ", tokens(9)).unwrap();
        assert_eq!(both.ids.len(), 69);
        let Prompt::Text(said) = prompts.draw_next(tokens(7)).unwrap().prompt else {
            panic!("text")
        };
        // Behind something else it is seven tokens more, and begins nothing.
        assert_eq!(prompts.encode(&format!("{text}{said}")).unwrap().len(), 67);
    }

    #[test]
    fn no_special_id_is_drawn() {
        let mut prompts = of_words(12, PromptForm::Tokens, 3);
        let special = prompts.tokenizer.special_ids().to_vec();
        let drawn = prompts.draw(tokens(1000)).unwrap();
        assert!(drawn.ids.iter().all(|id| !special.contains(id)));
    }
}
