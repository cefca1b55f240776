//! What must not be written of a command and its environment: values that are known to be secret,
//! and those whose names say so.

use super::ProcessSpec;
use std::borrow::Cow;

/// What is written in place of a secret.
pub(super) const MASK: &str = "***";

/// Shorter secrets are masked only where they are a whole value: replaced everywhere, `1` would
/// leave nothing readable.
const SHORTEST: usize = 4;

/// Last words of names whose values are secret.
const TELLING: &[&str] = &[
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTHORIZATION",
    "COOKIE",
    "APIKEY",
];
/// Words before `KEY` or `KEYS` that make it one that opens something.
const OPENING: &[&str] = &["API", "ACCESS", "PRIVATE", "SECRET", "AUTH", "ENCRYPTION"];

/// The secrets of one process.
pub(super) struct Secrets<'a> {
    known: Vec<&'a str>,
}

impl<'a> Secrets<'a> {
    /// Collects what is secret in `spec`: what it says itself, and values of variables and
    /// arguments with telling names.
    pub(super) fn of(spec: &'a ProcessSpec) -> Self {
        let mut known: Vec<&str> = spec.secrets.iter().map(String::as_str).collect();
        let variables = spec.env.iter().filter(|(name, _)| tells_secret(name));
        known.extend(variables.map(|(_, value)| value.as_str()));
        known.retain(|secret| !secret.is_empty());
        // A secret that holds another one is masked whole.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { known }
    }

    /// Returns the words of a command as they may be written.
    pub(super) fn argv(&self, argv: &[String]) -> Vec<String> {
        let mut masked = Vec::with_capacity(argv.len());
        let mut is_secret = false;
        for word in argv {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let is_flag = name.starts_with('-') && tells_secret(name);
            masked.push(match value {
                _ if is_secret && !word.starts_with("--") => MASK.to_owned(),
                Some(value) if is_flag && !value.is_empty() => format!("{name}={MASK}"),
                _ => self.text(word),
            });
            is_secret = is_flag && value.is_none();
        }
        masked
    }

    /// Returns the value of a variable as it may be written.
    pub(super) fn variable(&self, name: &str, value: &str) -> String {
        if tells_secret(name) && !value.is_empty() {
            MASK.to_owned()
        } else {
            self.text(value)
        }
    }

    fn text(&self, text: &str) -> String {
        let mut masked = Cow::Borrowed(text);
        for secret in &self.known {
            if secret.len() >= SHORTEST && masked.contains(secret) {
                masked = Cow::Owned(masked.replace(secret, MASK));
            } else if text == *secret {
                return MASK.to_owned();
            }
        }
        without_password(&masked)
    }
}

/// Returns the words of a command of which nothing is known as they may be shown.
pub(super) fn masked_words(argv: &[String]) -> Vec<String> {
    let secrets = Secrets { known: Vec::new() };
    secrets.argv(argv)
}

/// Whether what is called `name` is secret: `HF_TOKEN` and `--api-key` are, `--max-total-tokens`
/// and `TOKENIZER` are not.
fn tells_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper
        .split(['_', '-', '.'])
        .filter(|w| !w.is_empty())
        .collect();
    match words.as_slice() {
        [.., last] if TELLING.contains(last) => true,
        [.., before, "KEY" | "KEYS"] => OPENING.contains(before),
        _ => false,
    }
}

/// Masks the password of an address such as `http://user:password@proxy:3128`.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split(['/', ' ']).next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:{MASK}{}", &rest[user.len()..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets_from_mere_tokens() {
        for name in [
            "HF_TOKEN",
            "--api-key",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASSWORD",
            "hf-token",
        ] {
            assert!(tells_secret(name), "{name}");
        }
        for name in [
            "--max-total-tokens",
            "TOKENIZERS_PARALLELISM",
            "--tokenizer",
            "PWD",
            "KEY",
            "--ssl-keyfile",
            "SORT_KEY",
            "",
        ] {
            assert!(!tells_secret(name), "{name}");
        }
    }

    #[test]
    fn arguments_are_masked_in_either_spelling() {
        let words = [
            "serve",
            "--api-key",
            "abc",
            "--hf-token=x",
            "--model",
            "m",
            "--api-key",
            "--port",
        ];
        let words = words.map(str::to_owned);
        let masked = Secrets { known: vec!["m"] }.argv(&words);
        let wanted = [
            "serve",
            "--api-key",
            "***",
            "--hf-token=***",
            "--model",
            "***",
            "--api-key",
            "--port",
        ];
        assert_eq!(masked, wanted);
    }

    #[test]
    fn short_secrets_are_masked_only_where_they_are_all() {
        let secrets = Secrets {
            known: vec!["long-one", "1"],
        };
        assert_eq!(secrets.variable("A", "x=long-one;1"), "x=***;1");
        assert_eq!(secrets.variable("A", "1"), "***");
        assert_eq!(
            secrets.variable("http_proxy", "http://me:pw@proxy:3128/x@y"),
            "http://me:***@proxy:3128/x@y"
        );
    }
}
