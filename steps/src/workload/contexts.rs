//! Documents and questions as `bench_long_context` of SGLang's hierarchical cache has them: one JSON object with all texts
//! by name in `contexts` and with `queries`, each of a `context`, a `question` and a `reference_answer`.

use engine::step::StepError;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Such a file is held as a whole; one that is longer is none.
const LONGEST: u64 = 4 << 30;
/// What such a file begins with, one or the other.
const BEGINS: [&str; 2] = ["\"contexts\"", "\"queries\""];

/// The whole file.
#[derive(Deserialize)]
struct Whole {
    contexts: HashMap<String, String>,
    queries: Vec<Query>,
}

/// A question about one of the texts.
#[derive(Deserialize)]
struct Query {
    context: String,
    question: String,
    reference_answer: String,
}

/// A text and what is asked about it.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) text: String,
    /// Questions and answers, in the file's order.
    pub(super) pairs: Vec<(String, String)>,
}

/// Whether a file is of this form, by how it begins.
pub(super) fn is_of_them(path: &Path) -> Result<bool, StepError> {
    if path.is_dir() {
        return Ok(false);
    }
    let unread = |e| StepError::because(format!("could not read `{}`", path.display()), e);
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    let begins = String::from_utf8_lossy(file.fill_buf().map_err(unread)?).into_owned();
    let inside = begins.trim_start().strip_prefix('{').map(str::trim_start);
    Ok(inside.is_some_and(|inside| BEGINS.iter().any(|name| inside.starts_with(name))))
}

/// Reads such a file: the texts that are asked about, in the order in which they first are.
///
/// # Errors
/// If it cannot be read, is not of this form, or asks about a text that it does not have.
pub(super) fn read(path: &Path) -> Result<Vec<Document>, StepError> {
    let named = |e: String| StepError::new(format!("`{}`: {e}", path.display()));
    let unread = |e| StepError::because(format!("could not read `{}`", path.display()), e);
    let file = File::open(path).map_err(unread)?;
    if file.metadata().map_err(unread)?.len() > LONGEST {
        return Err(named("it is longer than 4 GiB".to_owned()).help("split its queries"));
    }
    let whole: Whole = serde_json::from_reader(BufReader::new(file)).map_err(|e| {
        named(e.to_string())
            .help("expected `contexts`, texts by their names, and `queries`, each with `context`, `question` and `reference_answer`; fetch it again if it is cut off")
    })?;
    documents(whole).map_err(named)
}

fn documents(whole: Whole) -> Result<Vec<Document>, String> {
    let mut texts = whole.contexts;
    let mut at: HashMap<String, usize> = HashMap::new();
    let mut all: Vec<Document> = Vec::new();
    for (number, query) in whole.queries.into_iter().enumerate() {
        let Query {
            context,
            question,
            reference_answer,
        } = query;
        let known = at.get(&context).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let text = texts.remove(&context).ok_or_else(|| {
                    format!(
                        "query {} asks about `{context}`, which is not among `contexts`",
                        number + 1
                    )
                })?;
                at.insert(context.clone(), all.len());
                all.push(Document {
                    name: context,
                    text,
                    pairs: Vec::new(),
                });
                all.len() - 1
            }
        };
        all[index].pairs.push((question, reference_answer));
    }
    match all.is_empty() {
        true => Err("it has no queries".to_owned()),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.json");
        std::fs::write(&path, text).expect("a file");
        (folder, path)
    }

    const TWO: &str = r#"{ "contexts": { "a": "Text A.", "b": "Text B.", "c": "asked about by nobody" },
        "queries": [
            { "context": "b", "question": "B1?", "reference_answer": "one" },
            { "context": "a", "question": "A1?", "reference_answer": "two", "score": 1 },
            { "context": "b", "question": "B2?", "reference_answer": "three" }
        ] }"#;

    #[test]
    fn texts_come_in_the_order_in_which_they_are_asked_about() {
        let (_folder, path) = file(TWO);
        assert!(is_of_them(&path).expect("read"));
        let all = read(&path).expect("documents");
        let shown: Vec<String> = all
            .iter()
            .map(|d| format!("{} {} {:?}", d.name, d.text, d.pairs))
            .collect();
        assert_eq!(
            shown,
            [
                r#"b Text B. [("B1?", "one"), ("B2?", "three")]"#,
                r#"a Text A. [("A1?", "two")]"#,
            ]
        );
    }

    #[test]
    fn records_are_not_taken_for_it() {
        for text in [r#"{"input": "contexts"}"#, "[]", "", r#"[{"contexts": 1}]"#] {
            let (_folder, path) = file(text);
            assert!(!is_of_them(&path).expect("read"), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (text, expected) in [
            (
                TWO.replace("\"context\": \"a\"", "\"context\": \"x\""),
                "query 2 asks about `x`",
            ),
            (
                r#"{"contexts": {}, "queries": []}"#.to_owned(),
                "it has no queries",
            ),
            (TWO[..200].to_owned(), "EOF"),
            (
                r#"{"queries": [{"context": "a"}], "contexts": {}}"#.to_owned(),
                "missing field `question`",
            ),
        ] {
            let (_folder, path) = file(&text);
            let error = read(&path).expect_err("wrong");
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
