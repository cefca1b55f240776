//! What a command is besides its words: the program that they name, files among them, and inputs
//! that they stand for.
//!
//! Words alone do not tell one version of a program from another, so what is read here becomes
//! part of every key.

use engine::options::Parser;
use engine::problem::did_you_mean;
use engine::process::find_program;
use engine::types::{Text, TextPart};
use engine::value::{Kind, Piece, Table, Value};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Passed on without being part of any key: where things lie, not what is done.
const NEUTRAL: &[&str] = &["PATH", "HOME", "LANG"];

/// How long it is taken for granted where a program lies.
const FOUND_FOR: Duration = Duration::from_secs(1);
/// How many programs and files are remembered.
const MOST_KNOWN: usize = 4096;
/// How old a change must be for the next one to have another time, seconds.
const SETTLED_AFTER_S: i64 = 2;

/// Returns digests of the program and of every word that is an existing file, and the values of
/// inherited variables that may change what the command does.
pub(crate) fn identity(argv: &[Text], inherit: &[String], cwd: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (i, word) in argv.iter().filter_map(plain).enumerate() {
        let path = match i {
            0 => find(word, cwd),
            _ => Some(cwd.join(word)).filter(|p| p.is_file()),
        };
        if let Some(path) = path {
            found.push((format!("file.{word}"), digest(&path)));
        }
    }
    let inherited = inherit
        .iter()
        .filter(|name| !NEUTRAL.contains(&name.as_str()));
    for name in inherited {
        let value = std::env::var(name).unwrap_or_else(|_| "not set".to_owned());
        let digest = blake3::hash(value.as_bytes()).to_hex();
        found.push((format!("environment.{name}"), digest.to_string()));
    }
    found
}

fn plain(text: &Text) -> Option<&str> {
    match text.parts.as_slice() {
        [TextPart::Plain(word)] => Some(word),
        _ => None,
    }
}

/// Finds a program; a plan of ten thousand steps asks for the same one ten thousand times.
fn find(word: &str, cwd: &Path) -> Option<PathBuf> {
    // Not by paths: those are compared part by part.
    static FOUND: Mutex<BTreeMap<(String, OsString), (Instant, PathBuf)>> =
        Mutex::new(BTreeMap::new());
    let mut known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (word.to_owned(), cwd.as_os_str().to_owned());
    if let Some((at, path)) = known.get(&key)
        && at.elapsed() < FOUND_FOR
    {
        return Some(path.clone());
    }
    let path = find_program(word, cwd, &search_path()).ok()?;
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    known.insert(key, (Instant::now(), path.clone()));
    Some(path)
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Digests a file, reading it only if it is not the one that was read before.
fn digest(path: &Path) -> String {
    static READ: Mutex<BTreeMap<OsString, (Stamp, String)>> = Mutex::new(BTreeMap::new());
    let Some(stamp) = Stamp::of(path) else {
        return read_digest(path);
    };
    let mut known = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((then, digest)) = known.get(path.as_os_str())
        && *then == stamp
    {
        return digest.clone();
    }
    let digest = read_digest(path);
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    if stamp.is_settled() && Stamp::of(path) == Some(stamp) {
        known.insert(path.as_os_str().to_owned(), (stamp, digest.clone()));
    }
    digest
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    /// Whether a later change would show: clocks of file systems are coarse.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        self.changed.0.max(self.modified.0) + SETTLED_AFTER_S < now
    }
}

fn read_digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    match read {
        Ok(()) => hasher.finalize().to_hex().to_string(),
        Err(error) => format!("unreadable: {error}"),
    }
}

/// Reports every `{inputs.NAME}` in the options `argv` and `env` that names none of `inputs`.
pub(crate) fn check_inputs(table: &Table, inputs: &[&str], parser: &mut Parser<'_>) {
    let words = ["argv", "env"]
        .into_iter()
        .filter_map(|name| table.get(name));
    for value in words.flat_map(texts) {
        for name in named_inputs(value).filter(|name| !inputs.contains(name)) {
            let help = match inputs {
                [] => {
                    "it has no inputs: refer to what it reads by `${steps.NAME.OUTPUT}`".to_owned()
                }
                inputs => did_you_mean(name, inputs.iter().copied()),
            };
            let message = format!("there is no input `{name}`");
            parser.wrong::<()>(&value.place, message, "unknown input", &help);
        }
    }
}

/// Goes through the texts of a list or table.
fn texts(value: &Value) -> Vec<&Value> {
    match &value.kind {
        Kind::List(list) => list.iter().collect(),
        Kind::Table(table) => table.entries.iter().map(|(_, v)| v).collect(),
        _ => Vec::new(),
    }
}

fn named_inputs(value: &Value) -> impl Iterator<Item = &str> {
    let pieces: Vec<&str> = match &value.kind {
        Kind::Text(text) => vec![text],
        Kind::Template(pieces) => pieces.iter().filter_map(plain_piece).collect(),
        _ => Vec::new(),
    };
    let after_brace = pieces.into_iter().flat_map(|p| p.split("{inputs.").skip(1));
    after_brace.filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn plain_piece(piece: &Piece) -> Option<&str> {
    match piece {
        Piece::Text(text) => Some(text),
        Piece::Late(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<Text> {
        let text = |w: &&str| Text {
            parts: vec![TextPart::Plain((*w).to_owned())],
        };
        words.iter().map(text).collect()
    }

    #[test]
    fn another_version_of_a_script_is_another_command() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("serve.py");
        let argv = words(&["sh", "serve.py", "--fast"]);
        std::fs::write(&script, "one").expect("a file");
        let one = identity(&argv, &[], folder.path());
        std::fs::write(&script, "two").expect("a file");
        let two = identity(&argv, &[], folder.path());
        assert_eq!(one.len(), 2, "the program and the script: {one:?}");
        assert_eq!(one[0], two[0]);
        assert_ne!(one[1], two[1]);
    }

    #[test]
    fn inherited_values_are_told_apart_but_not_shown() {
        let found = identity(
            &[],
            &["PATH".to_owned(), "CARGO_MANIFEST_DIR".to_owned()],
            Path::new("/"),
        );
        assert_eq!(found.len(), 1);
        assert!(!found[0].1.contains('/'));
    }
}
