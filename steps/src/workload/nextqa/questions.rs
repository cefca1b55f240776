//! The questions of NExT-QA: tables with a video, a question and perhaps choices in each row, as the hub has
//! them in Parquet, the authors in CSV, and others in JSON.

use super::super::below::{MOST_ENTRIES, walk};
use super::super::records::{self, Damaged, Whole};
use crate::files;
use engine::step::StepError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// How files of questions end.
const ENDINGS: [&str; 4] = ["csv", "json", "jsonl", "parquet"];
/// Of several splits, the one that the suite takes.
const SPLIT: &str = "test";
/// What a question has besides its text, where there are choices, as the suite sends them.
const CHOICES: [&str; 4] = ["a0", "a1", "a2", "a3"];

engine::choices! {
    /// Which questions.
    pub enum Task {
        /// Open ended ones.
        OpenEnded = "open_ended",
        /// Those with choices, of which the first four follow the question: `a0: …, a1: …`.
        MultipleChoice = "multiple_choice",
    }
}

impl Task {
    /// How the data set calls it.
    fn folder(self) -> &'static str {
        match self {
            Self::OpenEnded => "oe",
            Self::MultipleChoice => "mc",
        }
    }
}

/// A question about a video.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    /// Its row, from 0.
    pub(super) number: u64,
    /// The id of the video.
    pub(super) video: String,
    /// As it is asked.
    pub(super) text: String,
}

impl Question {
    fn of(number: u64, task: Task, cell: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let needed = |name: &str| {
            let cell = cell(name).filter(|text| !text.is_empty());
            cell.ok_or_else(|| format!("no `{name}`"))
        };
        let mut text = needed("question")? + "?";
        if task == Task::MultipleChoice {
            let choice = |name: &&str| needed(name).map(|text| format!("{name}: {text}"));
            let choices: Vec<String> = CHOICES.iter().map(choice).collect::<Result<_, _>>()?;
            text += &format!(" {}", choices.join(", "));
        }
        let video = needed("video")?;
        Ok(Self {
            number,
            // A table that knows only numbers with a point has one here, too.
            video: video
                .strip_suffix(".0")
                .map_or_else(|| video.clone(), str::to_owned),
            text,
        })
    }
}

/// Reads the questions of a task, in the order of their tables.
pub(super) fn read(
    source: &Path,
    task: Task,
    damaged: Damaged,
) -> Result<(Vec<Question>, Whole), StepError> {
    let tables = tables(source, task)?;
    let is_parquet = |path: &PathBuf| ending(path).as_deref() == Some("parquet");
    match tables.as_slice() {
        all if all.iter().all(is_parquet) => Ok((of_parquet(all, task)?, Whole::default())),
        [one] if ending(one).as_deref() == Some("csv") => {
            let named = |e| StepError::new(format!("`{}`: {e}", one.display()));
            let questions = of_csv(&files::read_text(one)?, task).map_err(named)?;
            Ok((questions, Whole::default()))
        }
        [one] => of_json(one, task, damaged),
        several => Err(StepError::new(format!(
            "the questions are in several files: {}",
            names(several)
        ))
        .help("name one of them as `source`")),
    }
}

/// The files of a task's questions: those whose names have its name, of one split, where some have.
fn tables(source: &Path, task: Task) -> Result<Vec<PathBuf>, StepError> {
    if source.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    let mut found = walk(source, MOST_ENTRIES)?;
    found.retain(|path| ending(path).is_some_and(|e| ENDINGS.contains(&e.as_str())));
    for word in [task.folder(), SPLIT] {
        if found.iter().any(|path| has_word(path, source, word)) {
            found.retain(|path| has_word(path, source, word));
        }
    }
    match found.is_empty() {
        true => Err(
            StepError::new(format!("`{}` has no questions", source.display()))
                .help("expected files that end with `.parquet`, `.csv`, `.json` or `.jsonl`"),
        ),
        false => Ok(found),
    }
}

fn names(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| format!("`{}`", path.display());
    paths
        .iter()
        .take(5)
        .map(name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn ending(path: &Path) -> Option<String> {
    path.extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
}

/// Whether a part of a path below `root` has this word.
fn has_word(path: &Path, root: &Path, word: &str) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    let text = below.to_string_lossy().to_ascii_lowercase();
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|one| one == word)
}

fn of_parquet(paths: &[PathBuf], task: Task) -> Result<Vec<Question>, StepError> {
    let table = tables::read_parquet(paths).map_err(|e| StepError::new(e.to_string()))?;
    let column = |name: &str| table.column(name).ok();
    (0..table.n_rows())
        .map(|row| {
            let cell = |name: &str| match column(name)?.get(row) {
                tables::Value::U64(n) => Some(n.to_string()),
                tables::Value::I64(n) => Some(n.to_string()),
                tables::Value::F64(n) => Some(n.to_string()),
                tables::Value::Text(text) => Some(text.to_owned()),
                _ => None,
            };
            Question::of(row as u64, task, cell)
                .map_err(|e| StepError::new(format!("row {} of {}: {e}", row + 1, names(paths))))
        })
        .collect()
}

fn of_json(path: &Path, task: Task, damaged: Damaged) -> Result<(Vec<Question>, Whole), StepError> {
    let mut all = Vec::new();
    let whole = records::read(path, damaged, |number, record: Map<String, Value>| {
        let cell = |name: &str| match record.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        all.push(Question::of(number, task, cell)?);
        Ok(())
    })?;
    Ok((all, whole))
}

fn of_csv(text: &str, task: Task) -> Result<Vec<Question>, String> {
    let mut rows = rows(text)?.into_iter();
    let (_, header) = rows.next().ok_or("it is empty")?;
    let column = |name: &str| header.iter().position(|cell| cell == name);
    (0..)
        .zip(rows)
        .map(|(number, (line, row))| {
            let cell = |name: &str| row.get(column(name)?).cloned();
            Question::of(number, task, cell).map_err(|e| format!("line {line}: {e}"))
        })
        .collect()
}

/// The rows of a CSV table and the lines in which they begin; cells in quotes may hold anything, and a
/// quote twice.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begins) = (1, 1);
    let mut quoted = None;
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match (c, quoted) {
            ('"', Some(_)) if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            ('"', Some(_)) => quoted = None,
            (_, Some(_)) => cell.push(c),
            ('"', None) if cell.is_empty() => quoted = Some(line),
            (',', None) => row.push(std::mem::take(&mut cell)),
            ('\r', None) if chars.peek() == Some(&'\n') => {}
            ('\n', None) => {
                row.push(std::mem::take(&mut cell));
                let whole = std::mem::take(&mut row);
                if whole.iter().any(|cell| !cell.is_empty()) {
                    rows.push((begins, whole));
                }
                begins = line;
            }
            (_, None) => cell.push(c),
        }
    }
    if let Some(line) = quoted {
        return Err(format!("line {line}: a quote that does not end"));
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push((begins, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::{Column, Table};

    const CSV: &str = "video,frame_count,question,answer,a0,a1,a2,a3\r\n\
        42,10,why,x,\"a, b\",b,c,d\r\n\
        7,20,\"who \"\"is\"\" it\",y,e,f,g,h\n";

    fn told(questions: &[Question]) -> Vec<(&str, &str)> {
        questions
            .iter()
            .map(|q| (q.video.as_str(), q.text.as_str()))
            .collect()
    }

    fn source(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn tables_of_every_form_hold_the_same_questions() {
        let json =
            r#"[{"video": 42, "question": "why"}, {"video": "7", "question": "who \"is\" it"}]"#;
        let folder = source(&[("OE/test.csv", CSV), ("b/OE.json", json)]);
        let parquet = folder.path().join("p/OE/test-0.parquet");
        std::fs::create_dir_all(parquet.parent().unwrap()).unwrap();
        let table = Table::new([
            ("video", Column::i64([42, 7])),
            ("question", Column::text(["why", "who \"is\" it"])),
        ]);
        tables::write_parquet(&table.unwrap(), &parquet).unwrap();
        for part in ["OE", "b", "p"] {
            let source = folder.path().join(part);
            let (all, _) = read(&source, Task::OpenEnded, Damaged::Refuse).unwrap();
            assert_eq!(
                told(&all),
                [("42", "why?"), ("7", "who \"is\" it?")],
                "{part}"
            );
        }
    }

    #[test]
    fn choices_stand_behind_the_question() {
        let all = of_csv(CSV, Task::MultipleChoice).unwrap();
        assert_eq!(all[0].text, "why? a0: a, b, a1: b, a2: c, a3: d");
    }

    #[test]
    fn of_several_files_the_task_s_and_the_test_s_are_taken() {
        let csv = |video: u32| format!("video,question\n{video},why\n");
        let files = [
            ("OE/train.csv", csv(1)),
            ("OE/test.csv", csv(2)),
            ("MC/test.csv", csv(3)),
            ("notes.csv", csv(4)),
        ];
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        let folder = source(&files);
        let (all, _) = read(folder.path(), Task::OpenEnded, Damaged::Refuse).unwrap();
        assert_eq!(told(&all), [("2", "why?")]);
        let folder = source(&[("a.csv", CSV), ("b.csv", CSV)]);
        let error = read(folder.path(), Task::OpenEnded, Damaged::Refuse).unwrap_err();
        assert!(error.message.contains("several files"), "{error}");
        let folder = source(&[("a.txt", "")]);
        let error = read(folder.path(), Task::OpenEnded, Damaged::Refuse).unwrap_err();
        assert!(error.message.contains("has no questions"), "{error}");
    }

    #[test]
    fn what_is_no_question_is_told_with_its_place() {
        for (csv, said) in [
            ("", "it is empty"),
            (
                "video,question\n1,\"why\n",
                "line 2: a quote that does not end",
            ),
            (
                "video,question\n\n1,\"a\nb\"\n2,\n",
                "line 5: no `question`",
            ),
            ("video,asked\n1,why\n", "line 2: no `question`"),
            ("question\nwhy\n", "line 2: no `video`"),
        ] {
            let error = of_csv(csv, Task::OpenEnded).unwrap_err();
            assert_eq!(error, said, "{csv}");
        }
        let error = of_csv("video,question\n1,why\n", Task::MultipleChoice).unwrap_err();
        assert_eq!(error, "line 2: no `a0`");
        let folder = source(&[(
            "OE.json",
            r#"[{"video": 1, "question": "a"}, {"video": 2}]"#,
        )]);
        let error = read(folder.path(), Task::OpenEnded, Damaged::Refuse).unwrap_err();
        assert!(
            error.message.contains("record 2") && error.message.contains("no `question`"),
            "{error}"
        );
        let (all, whole) = read(folder.path(), Task::OpenEnded, Damaged::Recover).unwrap();
        assert_eq!(all.len(), 1);
        assert!(
            whole.text().contains("1 whole records: record 2"),
            "{}",
            whole.text()
        );
    }
}
