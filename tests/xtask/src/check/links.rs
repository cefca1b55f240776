//! What the documents point at: links between them, their headings, and the paths that they
//! and their examples name. Addresses on the web are not followed.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::found;
use crate::problem::Problem;
use crate::workspace::Workspace;

/// Top folders whose files come into being only by building and running.
const MADE: &[&str] = &["outputs", "target"];

/// Paths that documents name although no checkout holds them: document, path, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

pub(super) fn check(workspace: &Workspace) -> Result<(), Problem> {
    let texts = workspace.texts(&["md"])?;
    let mut all = Vec::new();
    for (path, text) in &texts {
        for (line, target) in links(text) {
            if !leads_somewhere(workspace, path, &target) {
                all.push(format!("{path}:{line}: no `{target}` to link to"));
            }
        }
        for (line, named) in named_paths(text) {
            let excepted = EXCEPTIONS
                .iter()
                .any(|(document, path_named, _)| document == path && *path_named == named);
            if !excepted && is_lost(workspace, &named) {
                all.push(format!("{path}:{line}: no file `{named}`"));
            }
        }
    }
    found(
        &all,
        "mend the path, or list it in EXCEPTIONS with its reason",
    )
}

/// Whether a link of the document at `path` leads to a file, or to a heading that there is.
fn leads_somewhere(workspace: &Workspace, path: &str, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let document = workspace.root().join(path);
    let folder = document.parent().unwrap_or(workspace.root());
    let linked = match file {
        "" => document.clone(),
        file => plain(&folder.join(file)),
    };
    if heading.is_empty() || linked.extension().is_none_or(|kind| kind != "md") {
        return linked.exists();
    }
    std::fs::read_to_string(linked).is_ok_and(|text| headings(&text).contains(heading))
}

/// A path without `..` and `.`, as far as its text allows.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Whether `named` begins as a path of this checkout does and yet is none.
fn is_lost(workspace: &Workspace, named: &str) -> bool {
    let (first, _) = named.split_once('/').unwrap_or((named, ""));
    let is_ours = !MADE.contains(&first) && workspace.root().join(first).is_dir();
    is_ours && !workspace.root().join(named).exists()
}

/// The targets of inline links outside code, each with its line from 1.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (number, line, fenced) in lines(text) {
        if fenced {
            continue;
        }
        // Odd pieces between backticks are code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for piece in prose.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or_default();
            let target = target.split_whitespace().next().unwrap_or_default();
            all.push((number, target.to_owned()));
        }
    }
    all
}

/// Whatever looks like a relative path in code, inline or fenced, with its line from 1.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (number, line, fenced) in lines(text) {
        let code: Vec<&str> = match fenced {
            true => vec![line],
            false => line.split('`').skip(1).step_by(2).collect(),
        };
        for word in code.iter().flat_map(|code| code.split_whitespace()) {
            let word = word.trim_matches(['"', '\'', ',', ';', ':', '(', ')']);
            if is_path(word) {
                all.push((number, word.to_owned()));
            }
        }
    }
    all
}

/// Whether a word is written as a relative path, without holes to be filled in.
fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    word.contains('/') && !word.starts_with(['/', '.']) && word.chars().all(plain)
}

/// Lines with their numbers, and whether they stand in a fenced block; fences are left out.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        Some((index + 1, line, fenced))
    })
}

/// The anchors of a document's headings, made as GitHub makes them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line, fenced) in lines(text) {
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        // A second heading of the same words is told apart by a number.
        let mut unique = anchor.clone();
        let mut number = 1;
        while !anchors.insert(unique) {
            unique = format!("{anchor}-{number}");
            number += 1;
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A title: `code` & more
See [this](docs/a.md#part \"title\") and [that](#again), not `[code](x)`.
The `plans/quickstart.toml`, `a/b c`, `plans/<NAME>.toml` and `/etc/passwd`.
```console
$ benchwright run plans/lost.toml --out \"outputs/x\"
# Not a heading
```
## Again
## Again
";

    #[test]
    fn links_and_paths_are_told_from_code() {
        let expected = [(2, "docs/a.md#part"), (2, "#again")];
        assert_eq!(links(TEXT), expected.map(|(n, s)| (n, s.to_owned())));
        let expected = [
            (3, "plans/quickstart.toml"),
            (3, "a/b"),
            (5, "plans/lost.toml"),
            (5, "outputs/x"),
        ];
        assert_eq!(named_paths(TEXT), expected.map(|(n, s)| (n, s.to_owned())));
    }

    #[test]
    fn headings_become_anchors() {
        let anchors: Vec<String> = headings(TEXT).into_iter().collect();
        assert_eq!(anchors, ["a-title-code--more", "again", "again-1"]);
    }

    #[test]
    fn only_what_begins_in_the_checkout_can_be_lost() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = Workspace::at(root);
        assert!(!is_lost(&workspace, "src/main.rs"));
        assert!(is_lost(&workspace, "src/nowhere.rs"));
        assert!(!is_lost(&workspace, "text/event-stream"));
        assert!(leads_somewhere(&workspace, "src/main.rs", "../Cargo.toml"));
        assert!(!leads_somewhere(&workspace, "src/main.rs", "Cargo.toml"));
        assert!(leads_somewhere(
            &workspace,
            "src/main.rs",
            "https://nowhere.invalid/x"
        ));
    }
}
