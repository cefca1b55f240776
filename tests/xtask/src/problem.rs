//! What went wrong in a chore and how to mend it. Knows nothing of any chore.

use std::fmt;
use std::io;
use std::path::Path;

/// A failure, told as a lowercase phrase, with its mend where one is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    what: String,
    help: Option<String>,
    usage: bool,
}

impl Problem {
    /// A failure whose mend is not known.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: None,
            usage: false,
        }
    }

    /// A command line that is not understood.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::new(what).help("cargo xtask --help")
        }
    }

    /// An IO error at `path`.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    /// Adds the mend.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the command line itself is at fault.
    pub(crate) fn is_usage(&self) -> bool {
        self.usage
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}
