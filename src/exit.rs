//! Exit codes: what a script can rely on. `--help` and the documentation tell the same.

/// Everything that was asked for is done.
pub(crate) const DONE: u8 = 0;
/// A step failed, or the command could not do its work.
pub(crate) const FAILED: u8 = 1;
/// The plan or the command line is not sound; nothing ran.
pub(crate) const UNSOUND: u8 = 2;

/// The same for people, at the end of `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    a step failed, or the command could not do its work
  2    the plan or the command line is not sound; nothing ran
  3    everything ran, and a measurement is invalid
  130  interrupted; `benchwright resume` goes on";

/// What keeps a command from its work, with the mend.
#[derive(Debug)]
pub(crate) struct Failure {
    /// A lowercase phrase.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// Builds a failure without a mend.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// Adds the mend.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::event::Outcome;

    #[test]
    fn the_table_names_every_code_that_a_run_can_end_with() {
        let outcomes = [
            Outcome::Done,
            Outcome::Failed,
            Outcome::Invalid,
            Outcome::Interrupted,
        ];
        for code in outcomes
            .map(Outcome::exit_code)
            .into_iter()
            .chain([DONE, FAILED, UNSOUND])
        {
            let named = TABLE
                .lines()
                .any(|line| line.trim_start().starts_with(&format!("{code} ")));
            assert!(named, "{code}");
        }
        assert_eq!(Outcome::Done.exit_code(), DONE);
        assert_eq!(Outcome::Failed.exit_code(), FAILED);
    }
}
