//! What is kept of every process: its command, its environment, how it ended. Written to the
//! folder of its logs, so that a person can see what ran and run it again.
//!
//! Secrets are written as `***`. Does not start anything; knows nothing of steps and services.

use super::secrets::{MASK, Secrets};
use super::{Exit, ProcessSpec};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The file for standard output in the folder of a process.
pub const STDOUT_LOG: &str = "stdout.log";
/// The file for standard error in the folder of a process.
pub const STDERR_LOG: &str = "stderr.log";

const COMMAND: &str = "command.json";
const SCRIPT: &str = "command.sh";
const ENVIRONMENT: &str = "environment.json";
const EXIT: &str = "exit.json";

/// The logs of a process that has `folder`.
pub fn logs_in(folder: &Path) -> [PathBuf; 2] {
    [folder.join(STDERR_LOG), folder.join(STDOUT_LOG)]
}

/// The log in `folder` that most likely tells why a process failed: its standard error if it said
/// anything there, else its standard output; `None` if it said nothing.
pub fn telling_log(folder: &Path) -> Option<PathBuf> {
    let said = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.len() > 0);
    logs_in(folder).into_iter().find(said)
}

/// Writes what is started, before it is.
///
/// # Errors
/// The file that could not be written.
pub(super) fn record_start(spec: &ProcessSpec, program: &Path) -> Result<(), (PathBuf, io::Error)> {
    let Some(folder) = &spec.folder else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(|error| (folder.clone(), error))?;
    let secrets = Secrets::of(spec);
    // An older process of this folder has nothing to say of this one.
    let _ = fs::remove_file(folder.join(EXIT));
    let argv = secrets.argv(&spec.argv);
    let command = json!({
        "program": program,
        "argv": argv,
        "cwd": spec.cwd,
        "label": spec.label,
    });
    let environment: Map<String, Value> = spec
        .env
        .iter()
        .map(|(name, value)| (name.clone(), secrets.variable(name, value).into()))
        .collect();
    write(folder, COMMAND, &pretty(&command), 0o644)?;
    write(folder, ENVIRONMENT, &pretty(&environment.into()), 0o644)?;
    let script = script(spec, program, &argv, &secrets);
    write(folder, SCRIPT, &script, 0o755)
}

/// Remembers when a process was started, to write how it ended.
#[derive(Debug)]
pub(super) struct Ending {
    folder: Option<PathBuf>,
    began: Instant,
    began_ms: u64,
}

impl Ending {
    pub(super) fn of(spec: &ProcessSpec) -> Self {
        Self {
            folder: spec.folder.clone(),
            began: Instant::now(),
            began_ms: now_ms(),
        }
    }

    /// Writes how it ended. What cannot be written is missed by nobody but the reader.
    pub(super) fn record(&self, exit: Exit) {
        let Some(folder) = &self.folder else { return };
        let (code, signal) = match exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::GuardianLost => (None, None),
        };
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let exit = json!({
            "what": exit.to_string(),
            "status": code,
            "signal": signal,
            "began_ms": self.began_ms,
            "ended_ms": self.began_ms.saturating_add(took_ms),
            "took_ms": took_ms,
        });
        let _ = write(folder, EXIT, &pretty(&exit), 0o644);
    }
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> Result<(), (PathBuf, io::Error)> {
    let path = folder.join(name);
    let written = fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
    written.map_err(|error| (path, error))
}

fn pretty(value: &Value) -> String {
    // Text and numbers always can be written.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A script that does the same again; secrets it takes from the environment of who runs it.
fn script(spec: &ProcessSpec, program: &Path, argv: &[String], secrets: &Secrets<'_>) -> String {
    let mut script = String::from("#!/bin/sh\n");
    if argv.iter().any(|word| word.contains(MASK)) {
        script.push_str("# `***` stands for a secret: put it in before you run this.\n");
    }
    script.push_str(&format!(
        "cd {} || exit 1\n",
        quote(&spec.cwd.display().to_string())
    ));
    script.push_str("exec env -i \\\n");
    for (name, value) in &spec.env {
        let value = match secrets.variable(name, value) {
            masked if masked.contains(MASK) && is_plain(name) => {
                format!("\"${{{name}:?is a secret, set it first}}\"")
            }
            value => quote(&value),
        };
        script.push_str(&format!("  {}={value} \\\n", quote_name(name)));
    }
    let words = argv.iter().skip(1).map(|word| quote(word));
    let command: Vec<String> = std::iter::once(quote(&program.display().to_string()))
        .chain(words)
        .collect();
    script + "  " + &command.join(" ") + "\n"
}

fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn quote_name(name: &str) -> String {
    if is_plain(name) {
        name.to_owned()
    } else {
        quote(name)
    }
}

/// Writes a word so that a shell takes it as it is.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    fn spec(folder: &Path) -> ProcessSpec {
        let argv = [
            "sh",
            "-c",
            "printf '[%s]' \"$@\" \"$QUOTE\"",
            "sh",
            "it's",
            "",
            "a b$c",
        ];
        let env = BTreeMap::from([
            ("QUOTE".to_owned(), "a'b\n\"c".to_owned()),
            ("HF_TOKEN".to_owned(), "hush-hush".to_owned()),
        ]);
        let argv = argv.map(str::to_owned).to_vec();
        let mut spec = ProcessSpec::new("t", argv, env, folder, folder);
        spec.argv
            .extend(["--api-key".to_owned(), "sesame-open".to_owned()]);
        spec.secrets = vec!["it-is-me".to_owned()];
        spec.argv.push("--url=http://it-is-me@host".to_owned());
        spec
    }

    #[test]
    fn no_secret_is_written_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        record_start(&spec(folder.path()), Path::new("/bin/sh")).unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for secret in ["hush-hush", "sesame-open", "it-is-me"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }

    #[test]
    fn the_script_does_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        record_start(&spec(folder.path()), Path::new("/bin/sh")).unwrap();
        let script = folder.path().join(SCRIPT);
        let again = Command::new(&script)
            .env("HF_TOKEN", "mine")
            .output()
            .unwrap();
        let said = String::from_utf8(again.stdout).unwrap();
        assert!(
            said.starts_with("[it's][][a b$c][--api-key][***]"),
            "{said}"
        );
        assert!(said.ends_with("[a'b\n\"c]"), "{said}");
        let without = Command::new(&script)
            .env_remove("HF_TOKEN")
            .output()
            .unwrap();
        assert!(!without.status.success(), "a secret is missing");
    }

    #[test]
    fn the_end_is_written_with_its_status_or_signal() {
        let folder = tempfile::tempdir().unwrap();
        let ending = Ending::of(&spec(folder.path()));
        let read = || -> Value {
            serde_json::from_str(&fs::read_to_string(folder.path().join(EXIT)).unwrap()).unwrap()
        };
        ending.record(Exit::Code(3));
        assert_eq!(
            (&read()["status"], &read()["signal"]),
            (&json!(3), &Value::Null)
        );
        ending.record(Exit::Signal(9));
        assert_eq!(
            (&read()["status"], &read()["signal"]),
            (&Value::Null, &json!(9))
        );
        assert_eq!(read()["what"], "was killed by signal 9");
    }
}
