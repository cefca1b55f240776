//! Secrets: where they come from, and how they are kept out of everything that is written down.
//!
//! A plan only ever holds a secret's name, which is part of keys. Its value is read when a step or
//! service is started, and is part of none.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The largest file that is read as a secret, bytes.
const LARGEST: u64 = 1 << 20;
/// Shorter lines of a secret, bytes, tell nothing of it and stand in many other texts.
const SHORTEST_LINE: usize = 8;
/// What stands in a secret's place.
pub const REDACTED: &str = "***";

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The environment variable of its name, or the file that the variable `NAME_FILE` names.
    Name,
    /// Another environment variable.
    Variable(String),
    /// A file, without the line break at its end.
    File(PathBuf),
}

/// A secret that a plan names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: SecretSource,
}

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or is not text.
    #[error("the secret `{0}` is not set")]
    NotSet(String),
    /// There is nothing in it.
    #[error("the secret `{0}` is empty")]
    Empty(String),
    /// Its file cannot be read.
    #[error("could not read the secret `{name}` from `{}`: {source}", path.display())]
    Unreadable {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SecretError {
    /// Says how to mend it for the secret called `name`.
    pub fn help(&self, name: &str) -> String {
        match self {
            SecretError::NotSet(variable) | SecretError::Empty(variable) if variable == name => {
                format!(
                    "set it in the environment: `export {name}=…`, or name its file: `export {name}_FILE=…`"
                )
            }
            SecretError::NotSet(variable) | SecretError::Empty(variable) => {
                format!("set it in the environment: `export {variable}=…`")
            }
            SecretError::Unreadable { .. } => "write its value into that file".to_owned(),
        }
    }
}

/// Reads the value of a secret.
///
/// # Errors
/// If it is not set, empty, or its file cannot be read.
pub fn read(name: &str, source: &SecretSource) -> Result<String, SecretError> {
    let variable = |variable: &str| std::env::var(variable).ok();
    let value = match source {
        SecretSource::File(path) => read_file(name, path)?,
        SecretSource::Variable(other) => {
            variable(other).ok_or_else(|| SecretError::NotSet(other.clone()))?
        }
        SecretSource::Name => match (variable(name), std::env::var_os(format!("{name}_FILE"))) {
            (Some(value), _) => value,
            (None, Some(path)) => read_file(name, Path::new(&path))?,
            (None, None) => return Err(SecretError::NotSet(name.to_owned())),
        },
    };
    if value.is_empty() {
        return Err(SecretError::Empty(name.to_owned()));
    }
    Ok(value)
}

fn read_file(name: &str, path: &Path) -> Result<String, SecretError> {
    let mut text = String::new();
    let read = std::fs::File::open(path);
    let read = read.and_then(|file| file.take(LARGEST).read_to_string(&mut text));
    read.map_err(|source| SecretError::Unreadable {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Replaces the values of secrets by `***` in whatever is written down.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret within another leaves nothing of it.
    values: Vec<String>,
}

impl Redactor {
    /// Reads the values of `secrets`; one that has none cannot leak. The lines of one that has
    /// several are redacted also where they stand alone.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let values = secrets.into_iter().map(|s| read(&s.name, &s.source));
        Self::of_values(values.flatten())
    }

    fn of_values(values: impl Iterator<Item = String>) -> Self {
        let mut values: Vec<String> = values.filter(|v| !v.is_empty()).collect();
        let lines = values
            .iter()
            .filter(|v| v.contains('\n'))
            .flat_map(|v| v.lines());
        let lines = lines.filter(|line| line.len() >= SHORTEST_LINE);
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        values.extend(lines);
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values }
    }

    /// Whether there is nothing to redact.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Redacts a text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for value in &self.values {
            if redacted.contains(value.as_str()) {
                redacted = Cow::Owned(redacted.replace(value.as_str(), REDACTED));
            }
        }
        redacted
    }

    /// Redacts everything that `from` holds on its way to `to`, however it is cut, and returns
    /// how many bytes were written. Blocks as they do.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn copy(&self, from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
        let longest = self.values.first().map_or(0, String::len);
        let mut pending: Vec<u8> = Vec::new();
        let mut chunk = [0; 8192];
        let mut written = 0;
        loop {
            let n = from.read(&mut chunk)?;
            pending.extend_from_slice(&chunk[..n]);
            // The last bytes may be the beginning of a secret that goes on in the next chunk.
            let open = if n == 0 { 0 } else { longest.saturating_sub(1) };
            let (done, used) = self.redact(&pending, open);
            to.write_all(&done)?;
            written += done.len() as u64;
            pending.drain(..used);
            if n == 0 {
                return Ok(written);
            }
        }
    }

    /// Redacts `bytes`, of which the last `open` may go on; returns what is done and how many
    /// bytes it took.
    fn redact(&self, bytes: &[u8], open: usize) -> (Vec<u8>, usize) {
        let mut done = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at + open < bytes.len() {
            let found = self
                .values
                .iter()
                .find(|v| bytes[at..].starts_with(v.as_bytes()));
            match found {
                Some(value) => {
                    done.extend_from_slice(REDACTED.as_bytes());
                    at += value.len();
                }
                None => {
                    done.push(bytes[at]);
                    at += 1;
                }
            }
        }
        (done, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(values: &[&str]) -> Redactor {
        Redactor::of_values(values.iter().map(|v| (*v).to_owned()))
    }

    /// Gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn a_secret_within_another_leaves_nothing_of_it() {
        let redactor = redactor(&["abc", "abcdef", ""]);
        assert_eq!(redactor.text("x abcdef abc"), "x *** ***");
        assert_eq!(redactor.text("nothing"), "nothing");
    }

    #[test]
    fn a_line_of_a_long_secret_is_one_too() {
        let redactor = redactor(&["-----BEGIN-----\nabcdefgh\n}\n"]);
        assert_eq!(redactor.text("> abcdefgh }"), "> *** }");
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_changes_nothing(text in "[abc]{0,40}", n in 1usize..7) {
            let redactor = redactor(&["abca", "bb", "ca"]);
            let mut cut = Vec::new();
            redactor.copy(&mut Trickle(text.as_bytes(), n), &mut cut).expect("memory");
            let mut whole = Vec::new();
            redactor.copy(&mut text.as_bytes(), &mut whole).expect("memory");
            prop_assert_eq!(cut, whole);
        }
    }

    #[test]
    fn files_lose_the_line_break_at_their_end_and_empty_ones_are_no_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        let unreadable = read("T", &source).expect_err("no file");
        assert!(
            unreadable
                .to_string()
                .starts_with("could not read the secret `T` from")
        );
        std::fs::write(&path, "hf_x\n").expect("a file");
        assert_eq!(read("T", &source).expect("a secret"), "hf_x");
        std::fs::write(&path, "\n").expect("a file");
        assert_eq!(
            read("T", &source).expect_err("empty").to_string(),
            "the secret `T` is empty"
        );
    }

    #[test]
    fn without_a_name_of_its_own_a_secret_comes_from_the_environment() {
        let home = SecretSource::Variable("PATH".to_owned());
        assert!(read("T", &home).is_ok());
        let missing = read("BENCHWRIGHT_TEST_NOT_SET", &SecretSource::Name).expect_err("not set");
        assert_eq!(
            missing.to_string(),
            "the secret `BENCHWRIGHT_TEST_NOT_SET` is not set"
        );
    }
}
