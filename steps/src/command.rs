//! What a command is besides its words: the program that they name, and files among them.
//!
//! Words alone do not tell one version of a program from another, so what is read here becomes
//! part of every key.

use engine::process::find_program;
use engine::types::{Text, TextPart};
use std::ffi::OsString;
use std::path::Path;

/// Passed on without being part of any key: where things lie, not what is done.
const NEUTRAL: &[&str] = &["PATH", "HOME", "LANG"];

/// Returns digests of the program and of every word that is an existing file, and the values of
/// inherited variables that may change what the command does.
pub(crate) fn identity(argv: &[Text], inherit: &[String], cwd: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (i, word) in argv.iter().filter_map(plain).enumerate() {
        let path = match i {
            0 => find_program(word, cwd, &search_path()).ok(),
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

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    match read {
        Ok(()) => hasher.finalize().to_hex().to_string(),
        Err(error) => format!("unreadable: {error}"),
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
