//! What is wrong with a configuration, by key. Knows no plan and no file.

use crate::derive::Part;

/// One thing that is wrong with a configuration, or with a change to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The keys that it concerns, dotted where objects lie within each other; the first is the one
    /// that most likely has to change.
    pub keys: Vec<String>,
    /// The change that it is about, if it is about one rather than about the outcome.
    pub part: Option<Part>,
    /// What was found and what was expected: a lowercase phrase.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Problem {
    pub(crate) fn new(
        keys: impl IntoIterator<Item = impl Into<String>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            part: None,
            message: message.into(),
            help: help.into(),
        }
    }

    pub(crate) fn of(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    pub(crate) fn missing(key: String) -> Self {
        let message = format!("the configuration has no `{key}`");
        let help = format!("give it one with `set = {{ \"+{key}\" = … }}`");
        Self::new([key], message, help)
    }
}
