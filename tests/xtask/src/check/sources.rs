//! What sources must and must not say: a header that tells their idea, no work left undone,
//! no paths of the machine they were written on.

use super::found;
use crate::problem::Problem;
use crate::workspace::Workspace;

/// Marks of work left undone, put together here so that this file does not hold them.
const UNDONE: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

/// Where some machine's paths begin, put together likewise.
const MACHINE: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/work", "space/"),
];

/// Texts that may name a machine's path: file, path, reason.
const MACHINE_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Names of texts that people write.
const WRITTEN: &[&str] = &["rs", "md", "toml", "json", "sh", "yml", "yaml", "run"];

pub(super) fn words(workspace: &Workspace) -> Result<(), Problem> {
    let mut all = Vec::new();
    for (path, text) in workspace.texts(&["rs"])? {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = UNDONE.iter().find(|word| has_word(line, word)) {
                all.push(format!("{path}:{}: `{word}`", number + 1));
            }
        }
    }
    found(&all, "do it, or return an error that names what is absent")
}

pub(super) fn headers(workspace: &Workspace) -> Result<(), Problem> {
    let all: Vec<String> = workspace
        .texts(&["rs"])?
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    found(
        &all,
        "begin each with `//!`: what idea it holds, what it does not know",
    )
}

pub(super) fn machine_paths(workspace: &Workspace) -> Result<(), Problem> {
    let mut all = Vec::new();
    let mut texts = workspace.texts(WRITTEN)?;
    let ci = workspace.root().join(".ci/run");
    texts.extend(std::fs::read_to_string(ci).map(|text| (".ci/run".to_owned(), text)));
    for (path, text) in texts {
        for (number, line) in text.lines().enumerate() {
            let start = MACHINE.iter().find(|start| begins_path(line, start));
            if let Some(start) = start.filter(|start| !is_excepted(&path, start)) {
                all.push(format!("{path}:{}: `{start}`", number + 1));
            }
        }
    }
    found(
        &all,
        "write a path relative to the checkout, or `~` and variables",
    )
}

fn is_excepted(path: &str, start: &str) -> bool {
    MACHINE_EXCEPTIONS
        .iter()
        .any(|(file, text, _)| *file == path && *text == start)
}

/// Whether `line` holds `word` with no letter before it or after it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && !part(after)
    })
}

/// Whether a path in `line` begins with `start`, rather than having it in its middle, as in
/// `a/b/` or in an address.
fn begins_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~}>/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_alone() {
        let word = UNDONE[0];
        assert!(has_word(&format!("// {word}: more"), word));
        assert!(has_word(word, word));
        assert!(!has_word(&format!("MAS{word}N"), word));
        assert!(!has_word(&format!("{word}_LIST"), word));
        let call = UNDONE[2];
        assert!(has_word(&format!("    {call}()"), call));
        assert!(!has_word(&format!("my_{call}()"), call));
    }

    #[test]
    fn only_beginnings_of_paths_count() {
        let start = MACHINE[0];
        for line in ["`{}me/x`", "cd {}me", "path = \"{}me\"", "-v {}me:/x"] {
            assert!(begins_path(&line.replace("{}", start), start), "{line}");
        }
        for line in ["https://example.org{}x", "a{}x", "${ROOT}{}x", "../..{}x"] {
            assert!(!begins_path(&line.replace("{}", start), start), "{line}");
        }
    }
}
