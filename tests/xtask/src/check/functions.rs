//! Functions that are too long to be read at once.
//!
//! Reads lines as rustfmt lays them out, where a function's last line is the first closing
//! brace at its own indentation. Knows no Rust beyond that.

use super::found;
use crate::problem::Problem;
use crate::workspace::Workspace;

/// The most lines from `fn` to the closing brace, both included.
const LIMIT: usize = 60;

/// What may stand before `fn`.
const QUALIFIERS: &[&str] = &["default", "const", "async", "unsafe", "safe", "extern"];

pub(super) fn check(workspace: &Workspace) -> Result<(), Problem> {
    let mut all = Vec::new();
    for (path, text) in workspace.texts(&["rs"])? {
        if is_test(&path) {
            continue;
        }
        for Function { name, line, lines } in functions(&text) {
            if lines > LIMIT {
                all.push(format!("{path}:{line}: `{name}` has {lines} lines"));
            }
        }
    }
    found(
        &all,
        &format!("split each into parts of at most {LIMIT} lines"),
    )
}

/// A function's name, its first line (from 1) and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// Whether all of a file is tests.
fn is_test(path: &str) -> bool {
    let in_tests = path.starts_with("tests/") || path.contains("/tests/");
    (in_tests && !path.starts_with("tests/xtask/src/")) || path.ends_with("/tests.rs")
}

/// The functions of `text` outside its test modules.
fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if line.trim() == "#[cfg(test)]" {
            at += 1 + length(&lines[at + 1..]);
            continue;
        }
        if let Some(name) = name(line) {
            all.push(Function {
                name,
                line: at + 1,
                lines: length(&lines[at..]),
            });
        }
        at += 1;
    }
    all
}

/// How many lines the item that begins with the first of `lines` has: up to its closing brace,
/// or up to the semicolon of one without a body.
fn length(lines: &[&str]) -> usize {
    let Some(first) = lines.first() else {
        return 0;
    };
    let mut has_body = false;
    for (index, line) in lines.iter().enumerate() {
        let is_outer = indentation(line) == indentation(first);
        let code = line.trim();
        if !has_body && (code.ends_with(';') || (is_outer && code.ends_with('}'))) {
            return index + 1;
        }
        if has_body && is_outer && code.starts_with('}') {
            return index + 1;
        }
        has_body |= is_outer && code.ends_with('{');
    }
    lines.len()
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function that begins on `line`.
fn name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub") {
        rest = match after.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1,
            None => after,
        };
        rest = rest.strip_prefix(' ')?;
    }
    while let Some((word, after)) = rest.split_once(' ') {
        if word == "fn" {
            return after.split(['(', '<']).next();
        }
        // An ABI, as in `extern "C"`.
        if !QUALIFIERS.contains(&word) && !word.starts_with('"') {
            return None;
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_behind_every_qualifier() {
        for line in [
            "fn run() {",
            "    pub fn run<T>(",
            "pub(crate) async fn run() -> u8 {",
            "pub(in crate::a) const unsafe fn run() {",
            "pub unsafe extern \"C\" fn run() {",
        ] {
            assert_eq!(name(line), Some("run"), "{line}");
        }
        for line in [
            "// a fn run() {",
            "let f: fn (u8) = g;",
            "type F = fn();",
            "pubfn x()",
        ] {
            assert_eq!(name(line), None, "{line}");
        }
    }

    #[test]
    fn lengths_go_from_the_signature_to_the_brace() {
        let text = "\
//! Text.
trait Step {
    fn id(&self) -> Id;
    fn run<T>(
        &self,
    ) -> T
    where
        T: Send;
}

impl Step for Wait {
    fn id(&self) -> Id { Id(1) }

    fn run<T>(
        &self,
    ) -> T
    where
        T: Send,
    {
        if self.ready() {
            fn inner() {
            }
        }
    }
}

#[cfg(test)]
mod tests {
    fn hidden() {
    }
}

#[cfg(test)]
use hidden::Item;

fn last() {
}
";
        let measured: Vec<_> = functions(text)
            .into_iter()
            .map(|function| (function.name, function.line, function.lines))
            .collect();
        assert_eq!(
            measured,
            [
                ("id", 3, 1),
                ("run", 4, 5),
                ("id", 12, 1),
                ("run", 14, 11),
                ("inner", 21, 2),
                ("last", 36, 2),
            ]
        );
    }

    #[test]
    fn xtask_is_no_test() {
        assert!(is_test("tests/layering.rs"));
        assert!(is_test("engine/tests/run.rs"));
        assert!(is_test("engine/src/plan/tests.rs"));
        assert!(!is_test("tests/xtask/src/main.rs"));
        assert!(!is_test("engine/src/tests_of_time.rs"));
    }
}
