//! The words after `cargo xtask COMMAND`: which flags each command takes and what they say.
//! Parsed by hand, because a parser crate would cost more build time than all of xtask.

use std::time::{Duration, Instant};

use crate::problem::Problem;

/// Each command with the flags it takes. A flag in capitals after `=` takes a value.
const COMMANDS: &[(&str, &[&str])] = &[
    ("test", &["--soak", "--no-install", "--minutes=N", "FILTER"]),
    ("check", &["--minutes=N", "NAME"]),
    ("ci", &["--no-install", "--minutes=N"]),
    ("soak", &["--rounds=N", "--seed=S", "--minutes=N", "NAME"]),
    ("generate", &[]),
    ("measure", &["--cold", "--minutes=N"]),
];

/// What a command was asked to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Build from nothing and time it.
    pub(crate) cold: bool,
    /// The whole command's limit in minutes, if the default is not wanted.
    pub(crate) minutes: Option<u64>,
    /// Install nothing on this machine.
    pub(crate) no_install: bool,
    /// Rounds of each soak test.
    pub(crate) rounds: Option<u64>,
    /// Seed of the soak tests.
    pub(crate) seed: Option<u64>,
    /// Run the soak tests too, shortly.
    pub(crate) soak: bool,
    /// Test filters or names of checks.
    pub(crate) words: Vec<String>,
}

impl Arguments {
    /// Reads the words that follow `command`.
    ///
    /// # Errors
    ///
    /// An unknown command, a flag that it does not take, or a value that is no number.
    pub(crate) fn parse(
        command: &str,
        words: impl IntoIterator<Item = String>,
    ) -> Result<Self, Problem> {
        let Some((_, takes)) = COMMANDS.iter().find(|(name, _)| *name == command) else {
            return Err(Problem::usage(format!("no command is called `{command}`")));
        };
        let mut given = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                given.take_word(command, takes, word)?;
                continue;
            }
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let known = takes
                .iter()
                .find(|known| known.split('=').next() == Some(flag))
                .ok_or_else(|| Problem::usage(format!("`{command}` takes no flag `{flag}`")))?;
            if known.contains('=') {
                let value = inline.or_else(|| words.next()).unwrap_or_default();
                given.set_number(flag, &value)?;
            } else if inline.is_some() {
                return Err(Problem::usage(format!("`{flag}` takes no value")));
            } else {
                given.set_switch(flag);
            }
        }
        Ok(given)
    }

    /// The moment at which the whole command gives up, by default after `minutes`.
    pub(crate) fn deadline(&self, minutes: u64) -> Instant {
        Instant::now() + Duration::from_secs(60 * self.minutes.unwrap_or(minutes))
    }

    fn take_word(&mut self, command: &str, takes: &[&str], word: String) -> Result<(), Problem> {
        if takes.iter().all(|known| known.starts_with('-')) {
            return Err(Problem::usage(format!(
                "`{command}` does not understand `{word}`"
            )));
        }
        self.words.push(word);
        Ok(())
    }

    fn set_switch(&mut self, flag: &str) {
        match flag {
            "--cold" => self.cold = true,
            "--no-install" => self.no_install = true,
            _ => self.soak = true,
        }
    }

    fn set_number(&mut self, flag: &str, value: &str) -> Result<(), Problem> {
        let number: u64 = value.parse().map_err(|_| {
            Problem::usage(format!("`{flag}` needs a whole number, found `{value}`"))
        })?;
        match flag {
            // A thousand days: keeps the arithmetic of deadlines from overflowing.
            "--minutes" if number > 1_440_000 => {
                return Err(Problem::usage("`--minutes` goes up to 1440000"));
            }
            "--minutes" => self.minutes = Some(number),
            "--rounds" => self.rounds = Some(number),
            _ => self.seed = Some(number),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let command = words.next().unwrap();
        Arguments::parse(&command, words).map_err(|problem| problem.to_string())
    }

    #[test]
    fn flags_and_words_mix() {
        let given = parse("test journal --soak --minutes 7 store --no-install").unwrap();
        let expected = Arguments {
            minutes: Some(7),
            no_install: true,
            soak: true,
            words: vec!["journal".into(), "store".into()],
            ..Arguments::default()
        };
        assert_eq!(given, expected);
        assert_eq!(parse("soak --seed=9").unwrap().seed, Some(9));
        assert_eq!(parse("soak --rounds 3").unwrap().rounds, Some(3));
        assert!(parse("measure --cold").unwrap().cold);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, found) in [
            ("tets", "no command is called `tets`"),
            ("test --cold", "`test` takes no flag `--cold`"),
            ("test --minutes soon", "needs a whole number, found `soon`"),
            ("test --minutes", "needs a whole number, found ``"),
            ("test --soak=1", "`--soak` takes no value"),
            ("measure plans", "`measure` does not understand `plans`"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(found), "{line}: {problem}");
        }
    }
}
