//! What logs tell of a failure: which parts of them are looked at, and what a finding is.
//!
//! Knows no program: what a line means is known to whoever brings the kind of service or step.

use crate::process::{Exit, logs_in};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of a log's begin is looked at, bytes: a usage error comes first.
const HEAD: u64 = 64 << 10;
/// How much of its end, bytes: whatever ended the program comes last.
const TAIL: u64 = 256 << 10;
/// Where a quoted line is cut, characters.
const LONGEST_LINE: usize = 240;
/// The signal with which the kernel ends what took too much memory.
const KILL: i32 = 9;
/// What shells and containers return when a signal 9 ended what they ran.
const KILLED_INSIDE: i32 = 128 + KILL;

/// What was found out about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What kind of failure it is: a lowercase phrase, such as `out of GPU memory`.
    pub class: &'static str,
    /// The line that says so; empty if no line does.
    pub line: String,
    /// How to mend it.
    pub hint: &'static str,
}

impl Diagnosis {
    /// Builds a diagnosis that quotes `line`, shortened where it is very long.
    pub fn new(class: &'static str, line: &str, hint: &'static str) -> Self {
        let line = line.trim();
        let line = match line.char_indices().nth(LONGEST_LINE) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        };
        Self { class, line, hint }
    }

    /// Says what killed a program that nobody here has killed, if the kernel is suspect.
    pub fn of_exit(exit: Exit) -> Option<Self> {
        matches!(exit, Exit::Signal(KILL) | Exit::Code(KILLED_INSIDE)).then(|| {
            let hint = "`dmesg` names what the kernel killed; it most likely ran out of memory: \
                        give the server less, or the machine or container more";
            Self::new("killed by the kernel", "", hint)
        })
    }
}

/// The kind of failure and the line that says so.
impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.class)?;
        match self.line.as_str() {
            "" => Ok(()),
            line => write!(f, ": `{line}`"),
        }
    }
}

/// Looks for a reason in the logs of the process that has `folder`; `diagnose` knows what its
/// lines mean. Returns the finding and the log that it stands in.
pub fn reason_in(
    folder: &Path,
    diagnose: impl Fn(&str) -> Option<Diagnosis>,
) -> Option<(Diagnosis, PathBuf)> {
    logs_in(folder).into_iter().find_map(|log| {
        let diagnosis = diagnose(&excerpt(&log).ok()?)?;
        Some((diagnosis, log))
    })
}

/// Reads the begin and the end of a log; bytes that are not UTF-8 become `�`.
fn excerpt(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= HEAD + TAIL {
        file.take(HEAD + TAIL).read_to_end(&mut bytes)?;
    } else {
        (&mut file).take(HEAD).read_to_end(&mut bytes)?;
        bytes.push(b'\n');
        file.seek(SeekFrom::Start(size - TAIL))?;
        file.take(TAIL).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_begin_and_the_end_of_a_large_log_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let middle = "middle\n".repeat(100_000);
        std::fs::write(&log, format!("first\n{middle}last\n")).unwrap();
        let text = excerpt(&log).unwrap();
        assert!(text.starts_with("first\n") && text.ends_with("last\n"));
        assert_eq!(text.len() as u64, HEAD + 1 + TAIL);
    }

    #[test]
    fn a_finding_quotes_one_line_of_bounded_length() {
        let long = "x".repeat(1000);
        let shown = Diagnosis::new("out of memory", &long, "less").to_string();
        assert_eq!(
            shown.chars().count(),
            LONGEST_LINE + "out of memory: ``…".chars().count()
        );
        let killed = Diagnosis::of_exit(Exit::Signal(9)).unwrap();
        assert_eq!(killed.to_string(), "killed by the kernel");
        assert!(Diagnosis::of_exit(Exit::Code(137)).is_some());
        assert_eq!(Diagnosis::of_exit(Exit::Signal(15)), None);
    }
}
