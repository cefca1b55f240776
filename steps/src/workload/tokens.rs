//! Texts in tokens: counted on all processors, and remembered beyond a run.
//!
//! What a tokenizer makes of a text follows from the two alone, so it is kept by the content of both, in
//! the user's cache: other rules, seeds or options over the same data set count nothing again. What is
//! remembered is worth nothing else: where it cannot be read or written, texts are counted.
//!
//! Tokenizers of words are not remembered: looking their words up takes no longer than finding a text.

use super::prompts::load_tokenizer;
use embedded_server::tokenizer::Tokenizer;
use engine::step::StepError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

mod remembered;

use remembered::Remembered;

/// Which tokenizer library counts: another may count otherwise.
const LIBRARY: &str = "tokenizers 0.23.2";

/// A text that is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text<'a> {
    /// Its ids are wanted.
    Ids(&'a str),
    /// Only how many there are.
    Number(&'a str),
}

/// What a text is in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) number: u32,
    /// None where only the number was wanted.
    pub(crate) ids: Vec<u32>,
}

/// Counts texts with the tokenizer of a model.
#[derive(Debug)]
pub(crate) struct Counter {
    tokenizer: Tokenizer,
    remembered: Option<Remembered>,
    asked: usize,
    known: usize,
}

impl Counter {
    /// Loads the tokenizer of the folder `model`, and what is remembered of it.
    pub(crate) fn load(model: &Path) -> Result<Self, StepError> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let folder = fetch::Cache::of_user(variable).join("tokens");
        Self::load_with(model, &folder)
    }

    fn load_with(model: &Path, folder: &Path) -> Result<Self, StepError> {
        let mut counter = Self::of(load_tokenizer(model)?);
        if !counter.tokenizer.is_word_table()
            && let Ok(content) = std::fs::read(model.join("tokenizer.json"))
        {
            let key = blake3::Hasher::new()
                .update(LIBRARY.as_bytes())
                .update(&content)
                .finalize();
            let remembered = Remembered::open(folder, &key.to_hex()[..32]);
            counter.remembered = Some(remembered);
        }
        Ok(counter)
    }

    /// Counts with `tokenizer`, and remembers nothing.
    pub(crate) fn of(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            remembered: None,
            asked: 0,
            known: 0,
        }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What the texts are in tokens, in their order.
    pub(crate) fn count(&mut self, texts: &[Text<'_>]) -> Result<Vec<Tokens>, StepError> {
        let find = |text: &Text<'_>| self.remembered.as_ref()?.find(*text);
        let found: Vec<Option<Tokens>> = texts.iter().map(find).collect();
        let open = texts
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none());
        let open: Vec<Text<'_>> = open.map(|(text, _)| *text).collect();
        self.asked += texts.len();
        self.known += texts.len() - open.len();
        let counted = on_all_processors(&open, |text| encode(&self.tokenizer, *text))?;
        if let Some(remembered) = &mut self.remembered {
            for (text, tokens) in open.iter().zip(&counted) {
                remembered.add(*text, tokens);
            }
        }
        let mut counted = counted.into_iter();
        Ok(found
            .into_iter()
            .filter_map(|found| found.or_else(|| counted.next()))
            .collect())
    }

    /// Writes down what was counted for the first time, and says how much was known.
    pub(crate) fn finish(&mut self) -> String {
        let Some(remembered) = &mut self.remembered else {
            return String::new();
        };
        remembered.keep();
        match self.known {
            0 => String::new(),
            known => format!("; the tokens of {known} of {} texts were known", self.asked),
        }
    }
}

fn encode(tokenizer: &Tokenizer, text: Text<'_>) -> Result<Tokens, StepError> {
    let (Text::Ids(said) | Text::Number(said)) = text;
    let encoded = tokenizer.encode(said);
    let ids = encoded.map_err(|e| StepError::new(e.to_string()))?;
    let number = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let ids = match text {
        Text::Ids(_) => ids,
        Text::Number(_) => Vec::new(),
    };
    Ok(Tokens { number, ids })
}

/// Does the same to each of `all`, on as many threads as there are processors; what it makes of them is
/// in their order.
fn on_all_processors<T: Sync, U: Send>(
    all: &[T],
    each: impl Fn(&T) -> Result<U, StepError> + Sync,
) -> Result<Vec<U>, StepError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(at) else { return done };
            done.push((at, each(one)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(all.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut done = Vec::with_capacity(all.len());
        for thread in threads {
            let part = thread.join();
            done.extend(part.map_err(|_| StepError::new("a thread that tokenises has failed"))?);
        }
        Ok::<_, StepError>(done)
    })?;
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A tokenizer of pairs of letters, which is no table of words; `merged` is the pair that it knows.
    fn write_tokenizer(folder: &Path, merged: &str) {
        let letters = ["a", "b", "c", " "];
        let mut vocabulary = serde_json::Map::new();
        for token in letters.iter().chain([&merged]) {
            let id = vocabulary.len();
            vocabulary.insert((*token).to_owned(), json!(id));
        }
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": [[&merged[..1], &merged[1..]]]},
        });
        std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }

    fn tokens(ids: &[u32]) -> Tokens {
        Tokens {
            number: u32::try_from(ids.len()).unwrap(),
            ids: ids.to_vec(),
        }
    }

    const TEXTS: [Text<'static>; 3] = [Text::Ids("abc"), Text::Number("cab"), Text::Ids("")];

    #[test]
    fn what_was_counted_is_known_again_by_the_content_of_tokenizer_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let (model, cache) = (folder.path(), folder.path().join("cache"));
        write_tokenizer(model, "ab");
        let number = |number| Tokens {
            number,
            ids: Vec::new(),
        };
        let expected = [tokens(&[4, 2]), number(2), tokens(&[])];
        for (round, said) in ["", "; the tokens of 3 of 3 texts were known"]
            .iter()
            .enumerate()
        {
            let mut counter = Counter::load_with(model, &cache).unwrap();
            assert_eq!(counter.count(&TEXTS).unwrap(), expected, "round {round}");
            assert_eq!(counter.finish(), *said);
        }
        // Of what was only numbered no ids are known.
        let mut counter = Counter::load_with(model, &cache).unwrap();
        let more = [Text::Ids("cab"), Text::Number("abc"), Text::Ids("b")];
        let expected = [tokens(&[2, 4]), number(2), tokens(&[1])];
        assert_eq!(counter.count(&more).unwrap(), expected);
        assert_eq!(counter.finish(), "; the tokens of 1 of 3 texts were known");
        // Another tokenizer knows nothing of it.
        write_tokenizer(model, "bc");
        let mut counter = Counter::load_with(model, &cache).unwrap();
        assert_eq!(counter.count(&TEXTS[..1]).unwrap(), [tokens(&[0, 4])]);
        assert_eq!(counter.finish(), "");
    }

    #[test]
    fn what_is_remembered_and_damaged_is_counted_again() {
        let folder = tempfile::tempdir().unwrap();
        let (model, cache) = (folder.path(), folder.path().join("cache"));
        write_tokenizer(model, "ab");
        let counted = || {
            let mut counter = Counter::load_with(model, &cache).unwrap();
            (counter.count(&TEXTS).unwrap(), counter.finish())
        };
        let (expected, _) = counted();
        let inner = std::fs::read_dir(&cache)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let file = || {
            let mut entries = std::fs::read_dir(&inner).unwrap();
            entries.next().unwrap().unwrap().path()
        };
        let whole = std::fs::read(file()).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(file(), &damaged).unwrap();
            assert_eq!(counted(), (expected.clone(), String::new()), "byte {at}");
            std::fs::write(file(), &whole[..at]).unwrap();
            assert_eq!(counted(), (expected.clone(), String::new()), "cut at {at}");
        }
        assert_eq!(counted().1, "; the tokens of 3 of 3 texts were known");
        // What nobody has used for long goes, and the folder with it.
        let inode = std::fs::File::options().append(true).open(file()).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 86_400);
        inode.set_modified(long_ago).unwrap();
        write_tokenizer(model, "bc");
        Counter::load_with(model, &cache).unwrap();
        assert!(!inner.exists());
        write_tokenizer(model, "ab");
        // Nowhere to write is no failure.
        let mut counter = Counter::load_with(model, Path::new("/proc/nowhere")).unwrap();
        assert_eq!(counter.count(&TEXTS).unwrap(), expected);
        assert_eq!(counter.finish(), "");
    }

    #[test]
    fn tables_of_words_are_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let words = embedded_server::tokenizer::generate(64).to_string();
        std::fs::write(folder.path().join("tokenizer.json"), words).unwrap();
        let cache = folder.path().join("cache");
        let mut counter = Counter::load_with(folder.path(), &cache).unwrap();
        assert_eq!(
            counter.count(&[Text::Number("baba babe")]).unwrap()[0].number,
            2
        );
        assert_eq!(counter.finish(), "");
        assert!(!cache.exists());
    }

    #[test]
    fn the_library_that_counts_is_the_one_that_is_named() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap();
        let (_, behind) = lock
            .split_once("name = \"tokenizers\"\nversion = \"")
            .unwrap();
        let version = behind.split('"').next().unwrap();
        assert_eq!(LIBRARY, format!("tokenizers {version}"));
    }
}
