//! `workload.loogle`: long documents of LooGLE and questions about them, by the rules of the hierarchical
//! cache's client.

use super::OUTPUT;
use super::contexts::{self, Document};
use super::published::{Making, check_output};
use super::python_literal;
use super::records::{Damaged, Whole, read};
use super::talks::{Exchange, Limits, Sample, Sampling, Talk};
use super::tokens::Counter;
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use engine::value::Table;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// How the data set says that there is nothing.
const NOTHING: &str = "none";
/// A summary is expected to be as long as so many characters of the document.
const SUMMARY: usize = 1024;

engine::choices! {
    /// How the questions about a document are asked.
    pub enum Questions {
        /// The first alone, behind the document.
        First = "first",
        /// As a conversation: the first behind the document, each later one behind the server's real answers.
        MultiTurn = "multi_turn",
        /// Each by itself, behind the whole document: all about one document follow each other.
        SharedPrefix = "shared_prefix",
    }
}

engine::options! {
    /// Options of `workload.loogle`.
    pub struct WorkloadLoogle {
        /// The data set: JSON objects with a `context`, a `question` and its `answer`, as the hub has it; or with
        /// `input`, the document, and `qa_pairs`, a list of `Q` and `A`, also as a text as Python writes it. Where there
        /// are no questions, a summary is asked for. Or one JSON object as `bench_long_context` has it: `contexts`, texts
        /// by name, and `queries`, each with `context`, `question` and `reference_answer`.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// How many documents. Where fewer pass, those are there again, and the step says so.
        documents: NonZeroU32, in "documents";
        /// How questions are asked.
        questions: Questions = Questions::First;
        /// Answer length to ask for, in place of that of the answer in the data set; a summary is to be as long
        /// as the document's first 1,024 characters.
        output_tokens: Option<NonZeroU32>, in "tokens";
        /// Whether documents are taken in a random order, that of Python's `random.shuffle`; otherwise in the
        /// file's.
        shuffle: bool = true;
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadLoogle {
    const NAME: &'static str = "workload.loogle";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Takes long documents of LooGLE and questions about them, alone, as conversations or with a shared prefix.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_output(self.output_tokens, (table, place), parser);
    }
}

/// A record, as far as it matters: a document with all that is asked about it, as the data set was published, or a
/// question with its document, as the hub has it now.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    input: Option<String>,
    qa_pairs: Value,
    context: Option<String>,
    question: Value,
    answer: Value,
}

/// How a question stands behind its document.
#[derive(Clone, Copy)]
enum Behind {
    /// As the client of the data set asks.
    Labelled,
    /// As it is.
    Plain,
}

impl Behind {
    fn put(self, document: &str, question: &str) -> String {
        match self {
            Self::Labelled => format!("Input: {document} Question: {question}"),
            Self::Plain => format!("{document}{question}"),
        }
    }
}

/// Documents and what is asked about each, in the order of their first records.
#[derive(Default)]
struct Documents {
    all: Vec<(String, Vec<(String, String)>)>,
    /// Documents that came with single questions, by their digests.
    known: HashMap<[u8; 32], usize>,
}

impl Documents {
    fn add(&mut self, record: Record) -> Result<(), String> {
        if let Some(input) = record.input {
            let pairs = pairs(record.qa_pairs)?;
            self.all.push((input, pairs));
            return Ok(());
        }
        let context = record
            .context
            .ok_or("it has neither `context` nor `input`")?;
        let pair = asked(record.question, record.answer)?;
        let digest = *blake3::hash(context.as_bytes()).as_bytes();
        let index = *self.known.entry(digest).or_insert_with(|| {
            self.all.push((context, Vec::new()));
            self.all.len() - 1
        });
        self.all[index].1.extend(pair);
        Ok(())
    }
}

/// What is said about a document, in the order in which it is asked.
fn exchanges(
    document: &str,
    pairs: Vec<(String, String)>,
    (questions, behind): (Questions, Behind),
) -> Vec<Exchange> {
    if pairs.is_empty() {
        return vec![Exchange {
            said: behind.put(document, "Please summarize the input"),
            answered: document.chars().take(SUMMARY).collect(),
            images: Arc::default(),
        }];
    }
    let n = match questions {
        Questions::First => 1,
        Questions::MultiTurn | Questions::SharedPrefix => pairs.len(),
    };
    let all = pairs.into_iter().take(n).enumerate();
    all.map(|(i, (question, answered))| Exchange {
        said: match i == 0 || questions == Questions::SharedPrefix {
            true => behind.put(document, &question),
            false => question,
        },
        answered,
        images: Arc::default(),
    })
    .collect()
}

/// A question and its answer, if there is one: a document that is to be summarised has none.
fn asked(question: Value, answer: Value) -> Result<Option<(String, String)>, String> {
    let text = |value: Value, name: &str| match value {
        Value::String(text) => Ok(text),
        Value::Null => Err(format!("it has no `{name}`")),
        other => Ok(other.to_string()),
    };
    match question {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() || text == NOTHING => Ok(None),
        other => Ok(Some((text(other, "question")?, text(answer, "answer")?))),
    }
}

/// Questions and answers; none where the data set says so.
fn pairs(written: Value) -> Result<Vec<(String, String)>, String> {
    let listed = match written {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text == NOTHING || text.is_empty() => return Ok(Vec::new()),
        Value::String(text) => {
            python_literal::parse(&text).map_err(|e| format!("`qa_pairs`: {e}"))?
        }
        other => other,
    };
    let Value::Array(listed) = listed else {
        return Err("`qa_pairs` is no list".to_owned());
    };
    let part = |pair: &Value, name: &str| match &pair[name] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("a pair of `qa_pairs` has no `{name}`")),
        other => Ok(other.to_string()),
    };
    let both = |pair: &Value| Ok((part(pair, "Q")?, part(pair, "A")?));
    listed.iter().map(both).collect()
}

impl WorkloadLoogle {
    fn talks(&self, path: &Path) -> Result<(Vec<Talk>, Whole), StepError> {
        if contexts::is_of_them(path)? {
            let documents = contexts::read(path)?.into_iter();
            let talk = |document: Document| Talk {
                name: format!("context-{}", document.name),
                exchanges: exchanges(
                    &document.text,
                    document.pairs,
                    (self.questions, Behind::Plain),
                ),
            };
            return Ok((documents.map(talk).collect(), Whole::default()));
        }
        let mut documents = Documents::default();
        let whole = read(path, self.damaged, |_, record: Record| {
            documents.add(record)
        })?;
        let talk = |(number, (document, pairs)): (usize, (String, _))| Talk {
            name: format!("loogle-{number}"),
            exchanges: exchanges(&document, pairs, (self.questions, Behind::Labelled)),
        };
        let talks = documents.all.into_iter().enumerate().map(talk);
        Ok((talks.collect(), whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadLoogle {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading documents");
        let (talks, whole) = self.talks(&context.path(&self.source)?)?;
        let making = Making {
            sampling: Sampling {
                counter,
                wanted: self.documents,
                limits: Limits {
                    least_input: 4,
                    ..Limits::default()
                },
                output: self.output_tokens,
                cycles: true,
            },
            shuffled: self.shuffle.then_some(self.seed),
            order: match self.questions {
                Questions::First => |sample| sample.grouped(false),
                Questions::MultiTurn => Sample::by_turn,
                Questions::SharedPrefix => |sample| sample.grouped(true),
            },
        };
        making.run(context, talks, &whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(qa_pairs: Value, questions: Questions) -> Result<Vec<String>, String> {
        let mut documents = Documents::default();
        documents.add(Record {
            input: Some("doc".repeat(400)),
            qa_pairs,
            ..Record::default()
        })?;
        let (document, pairs) = documents.all.remove(0);
        let exchanges = exchanges(&document, pairs, (questions, Behind::Labelled)).into_iter();
        let text =
            |e: Exchange| format!("{}>{}", e.said, e.answered).replace(&"doc".repeat(400), "DOC");
        Ok(exchanges.map(text).collect())
    }

    #[test]
    fn questions_stand_behind_the_document_as_they_are_asked() {
        let literal = json!(r#"[{'Q': "what's A?", 'A': 'a', 'S': ['x']}, {'Q': 'B?', 'A': 7}]"#);
        for pairs in [
            literal,
            json!([{"Q": "what's A?", "A": "a"}, {"Q": "B?", "A": 7}]),
        ] {
            let first = "Input: DOC Question: what's A?>a";
            assert_eq!(said(pairs.clone(), Questions::First).unwrap(), [first]);
            assert_eq!(
                said(pairs.clone(), Questions::MultiTurn).unwrap(),
                [first, "B?>7"]
            );
            assert_eq!(
                said(pairs, Questions::SharedPrefix).unwrap(),
                [first, "Input: DOC Question: B?>7"]
            );
        }
    }

    #[test]
    fn questions_that_come_one_by_one_are_those_of_their_document() {
        let lines = [
            r#"{"id": 0, "doc_id": "0_0", "task": "longdep_qa", "title": "A", "context": "doc a", "question": "A1?", "answer": "a1", "evidence": ["x"]}"#,
            r#"{"id": 1, "doc_id": "1_0", "context": "doc b", "question": "B1?", "answer": 7}"#,
            r#"{"id": 2, "doc_id": "0_0", "context": "doc a", "question": "A2?", "answer": "a2"}"#,
            r#"{"id": 3, "doc_id": "2_0", "context": "doc c", "question": "none", "answer": "a summary"}"#,
        ];
        let mut documents = Documents::default();
        for line in lines {
            documents.add(serde_json::from_str(line).unwrap()).unwrap();
        }
        let pair = |q: &str, a: &str| (q.to_owned(), a.to_owned());
        let expected = [
            (
                "doc a".to_owned(),
                vec![pair("A1?", "a1"), pair("A2?", "a2")],
            ),
            ("doc b".to_owned(), vec![pair("B1?", "7")]),
            ("doc c".to_owned(), vec![]),
        ];
        assert_eq!(documents.all, expected);
        let unanswered = r#"{"context": "doc d", "question": "D?"}"#;
        let error = documents
            .add(serde_json::from_str(unanswered).unwrap())
            .unwrap_err();
        assert_eq!(error, "it has no `answer`");
        let error = documents.add(Record::default()).unwrap_err();
        assert_eq!(error, "it has neither `context` nor `input`");
    }

    #[test]
    fn of_the_other_client_a_question_stands_right_behind_its_text() {
        let pairs = vec![
            ("Q1?".to_owned(), "a".to_owned()),
            ("Q2?".to_owned(), "b".to_owned()),
        ];
        let how = (Questions::SharedPrefix, Behind::Plain);
        let said: Vec<String> = exchanges("Text.", pairs, how)
            .into_iter()
            .map(|e| e.said)
            .collect();
        assert_eq!(said, ["Text.Q1?", "Text.Q2?"]);
    }

    #[test]
    fn without_questions_a_summary_is_asked_for() {
        for pairs in [
            json!(null),
            json!("none"),
            json!(""),
            json!([]),
            json!("[]"),
        ] {
            let said = said(pairs, Questions::MultiTurn).unwrap();
            assert_eq!(said.len(), 1);
            let (said, answered) = said[0].split_once('>').unwrap();
            assert_eq!(said, "Input: DOC Question: Please summarize the input");
            // 1,200 characters were there.
            assert_eq!(answered.len(), 1024);
        }
    }

    #[test]
    fn what_is_no_list_of_pairs_is_told() {
        for (pairs, expected) in [
            (json!("[{'Q': 'a'}]"), "has no `A`"),
            (json!("{'Q': 'a'}"), "no list"),
            (
                json!("[{'Q': open('x')}]"),
                "`qa_pairs`: `open` is no literal",
            ),
            (json!(7), "no list"),
        ] {
            let error = said(pairs, Questions::First).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
