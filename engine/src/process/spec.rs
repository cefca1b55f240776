//! What to run, and how it ended. Knows nothing of how it is run.

use super::attempt::{STDERR_LOG, STDOUT_LOG};
use super::secrets::Secrets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One program to run, complete: nothing is inherited from the engine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// The program and its arguments. A program without a `/` is searched in `PATH`, see
    /// [`find_program`](super::find_program).
    pub argv: Vec<String>,
    /// The whole environment of the program.
    pub env: BTreeMap<String, String>,
    /// The folder in which it starts.
    pub cwd: PathBuf,
    /// The file to which its standard output is appended; created with its folders if missing.
    pub stdout: PathBuf,
    /// The same for its standard error; may be the same file.
    pub stderr: PathBuf,
    /// What to call it in errors, such as the name of the step or service.
    pub label: String,
    /// Where its command, its environment and its end are recorded, if anywhere.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    /// Values that must not be written to any file.
    #[serde(skip)]
    pub secrets: Vec<String>,
}

impl ProcessSpec {
    /// Describes a program that is recorded in `folder`, with its logs.
    pub fn new(
        label: impl Into<String>,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: &Path,
        folder: &Path,
    ) -> Self {
        Self {
            argv,
            env,
            cwd: cwd.to_owned(),
            stdout: folder.join(STDOUT_LOG),
            stderr: folder.join(STDERR_LOG),
            label: label.into(),
            folder: Some(folder.to_owned()),
            secrets: Vec::new(),
        }
    }
}

/// Shows everything but secrets and the values of environment variables, which may be some.
impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec")
            .field("label", &self.label)
            .field("argv", &Secrets::of(self).argv(&self.argv))
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish()
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// Nobody knows: the guardian was killed, and the program with it.
    GuardianLost,
}

impl Exit {
    /// Whether the program returned status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A phrase that continues a name: `server exited with status 3`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::GuardianLost => write!(f, "was killed together with its guardian"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_read_as_phrases_and_survive_json() {
        assert_eq!(Exit::Code(3).to_string(), "exited with status 3");
        assert_eq!(Exit::Signal(9).to_string(), "was killed by signal 9");
        for exit in [Exit::Code(0), Exit::Signal(15), Exit::GuardianLost] {
            let text = serde_json::to_string(&exit).unwrap();
            assert_eq!(serde_json::from_str::<Exit>(&text).unwrap(), exit);
        }
        assert!(Exit::Code(0).success() && !Exit::Code(1).success());
    }

    #[test]
    fn debug_output_hides_the_values_of_the_environment() {
        let argv = vec!["true".to_owned(), "--api-key".to_owned(), "hush".to_owned()];
        let env = BTreeMap::from([("HF_TOKEN".to_owned(), "hush".to_owned())]);
        let spec = ProcessSpec::new("t", argv, env, Path::new("/"), Path::new("/nowhere"));
        let shown = format!("{spec:?}");
        assert!(
            shown.contains("HF_TOKEN") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
