//! Records of a data set as they are published: the objects of one JSON array, or one object on each
//! line, whichever a file begins as.
//!
//! One record is held at a time, however large the file is. A file that is damaged is told with the
//! record and the byte; what is whole of it is taken where that is asked for. What records mean is not
//! known here.

use super::below;
use engine::step::StepError;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// A record this long is none: somewhere before, a bracket or a quote is missing.
const LONGEST: usize = 64 << 20;
/// Bytes read together.
const READ: usize = 1 << 18;

engine::choices! {
    /// What becomes of a data set whose file is damaged.
    pub enum Damaged {
        /// The step fails, and says where.
        Refuse = "refuse",
        /// What is whole is taken, and the step says what was not. Behind a record that does not end
        /// nothing is whole.
        Recover = "recover",
    }
}

/// What was read of a file.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Records that were whole.
    pub(super) n: u64,
    /// Records that were not, and how the first of them was found.
    damaged: Option<(u64, String)>,
}

impl Whole {
    /// Says what was left out, where anything was.
    pub(super) fn text(&self) -> String {
        match &self.damaged {
            None => String::new(),
            Some((1, first)) => format!("; of a damaged file, {} whole records: {first}", self.n),
            Some((n, first)) => format!(
                "; of a damaged file, {} whole records and {n} that are not, the first: {first}",
                self.n
            ),
        }
    }

    fn damage(&mut self, damage: &Damage) {
        self.damaged
            .get_or_insert_with(|| (0, damage.to_string()))
            .0 += 1;
    }
}

/// Reads the records of a file, or of all files of a folder, in order; `take` is given each with its number from 0,
/// and says what is wrong with it.
///
/// # Errors
/// If a file cannot be read, or is damaged where that is not to be recovered; nothing whole in any.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    damaged: Damaged,
    mut take: impl FnMut(u64, T) -> Result<(), String>,
) -> Result<Whole, StepError> {
    let mut whole = Whole::default();
    let mut before = 0;
    for file in below::of_records(path)? {
        let take = |number: u64, record: T| take(before + number, record);
        before += read_file(&file, damaged, &mut whole, take)?;
    }
    match (whole.n, &whole.damaged) {
        (0, Some((_, first))) => Err(StepError::new(format!(
            "`{}` has no whole record: {first}",
            path.display()
        ))),
        (0, None) => Err(StepError::new(format!(
            "`{}` has no records",
            path.display()
        ))),
        _ => Ok(whole),
    }
}

/// Reads the records of one file; how many it has, whole or not.
fn read_file<T: DeserializeOwned>(
    path: &Path,
    damaged: Damaged,
    whole: &mut Whole,
    mut take: impl FnMut(u64, T) -> Result<(), String>,
) -> Result<u64, StepError> {
    let unread = |e| StepError::because(format!("could not read `{}`", path.display()), e);
    let file = File::open(path).map_err(unread)?;
    let mut records = Records::of(BufReader::with_capacity(READ, file)).map_err(unread)?;
    loop {
        let number = records.number;
        let read = match records.next().map_err(unread)? {
            None => return Ok(number),
            Some(Ok(record)) => record.parse().and_then(|parsed| {
                take(number, parsed).map_err(|problem| record.damage(0, problem))
            }),
            Some(Err(damage)) => Err(damage),
        };
        match read {
            Ok(()) => whole.n += 1,
            Err(damage) if damaged == Damaged::Refuse => {
                return Err(refused(path, whole, &damage));
            }
            Err(damage) => whole.damage(&damage),
        }
    }
}

fn refused(path: &Path, whole: &Whole, damage: &Damage) -> StepError {
    let before = match whole.n {
        0 => String::new(),
        n => format!("; {n} records before it are whole"),
    };
    StepError::new(format!("`{}` is damaged: {damage}{before}", path.display()))
        .help("fetch the file again, or write `damaged = \"recover\"` to take what is whole")
}

/// What is wrong with a record, and where.
#[derive(Debug, PartialEq)]
struct Damage {
    /// From 1, as people count.
    record: u64,
    /// Its first byte in the file.
    begins: u64,
    /// The byte of the file at which it was noticed.
    at: u64,
    problem: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "record {}, which begins at byte {}: {} at byte {}",
            self.record, self.begins, self.problem, self.at
        )
    }
}

/// A record as it stands in the file.
struct Record<'a> {
    number: u64,
    begins: u64,
    text: &'a [u8],
}

impl Record<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, Damage> {
        serde_json::from_slice(self.text).map_err(|error| {
            // serde counts lines and columns inside the record.
            let lines = self.text.split_inclusive(|byte| *byte == b'\n');
            let before: usize = lines
                .take(error.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or(&text);
            self.damage(
                before + error.column().saturating_sub(1),
                problem.to_owned(),
            )
        })
    }

    fn damage(&self, offset: usize, problem: String) -> Damage {
        Damage {
            record: self.number + 1,
            begins: self.begins,
            at: self.begins + offset as u64,
            problem,
        }
    }
}

/// How records stand in a file.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// Between brackets, with commas between them.
    Array,
    /// One on each line that is not empty.
    Lines,
}

/// Where a record begins, and what is wrong with it if it has no end.
type Framed = Result<u64, (u64, String)>;

struct Records<R> {
    file: R,
    layout: Layout,
    /// Bytes taken so far.
    at: u64,
    /// The number of the next record, from 0.
    number: u64,
    text: Vec<u8>,
    /// Whether nothing behind this place can be told apart.
    is_over: bool,
}

impl<R: BufRead> Records<R> {
    fn of(file: R) -> io::Result<Self> {
        let mut records = Self {
            file,
            layout: Layout::Lines,
            at: 0,
            number: 0,
            text: Vec::new(),
            is_over: false,
        };
        if records.peek()? == Some(b'[') {
            records.layout = Layout::Array;
            records.skip(1);
        }
        Ok(records)
    }

    /// The next record, or what is wrong with it; `None` behind the last.
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Damage>>> {
        if self.is_over {
            return Ok(None);
        }
        let framed = match self.layout {
            Layout::Array => self.element()?,
            Layout::Lines => self.line()?,
        };
        let number = self.number;
        self.number += 1;
        Ok(match framed {
            None => None,
            Some(Ok(begins)) => Some(Ok(Record {
                number,
                begins,
                text: &self.text,
            })),
            Some(Err((begins, problem))) => {
                self.is_over = true;
                Some(Err(Damage {
                    record: number + 1,
                    begins,
                    at: self.at,
                    problem,
                }))
            }
        })
    }

    /// Puts the next element of the array into `text`: where it begins, and what is wrong where it has
    /// no end.
    fn element(&mut self) -> io::Result<Option<Framed>> {
        let mut next = self.peek()?;
        if self.number > 0 && next == Some(b',') {
            self.skip(1);
            next = self.peek()?;
        } else if self.number > 0 && next.is_some_and(|byte| byte != b']') {
            return Ok(Some(Err((self.at, "no comma before it".to_owned()))));
        }
        match next {
            Some(b'{') => self.object().map(Some),
            Some(b']') => {
                self.is_over = true;
                Ok(None)
            }
            Some(other) => {
                let found = char::from(other).escape_default();
                Ok(Some(Err((
                    self.at,
                    format!("expected an object, found `{found}`"),
                ))))
            }
            None => Ok(Some(Err((self.at, ENDS.to_owned())))),
        }
    }

    /// Puts an object into `text`, by its brackets alone.
    fn object(&mut self) -> io::Result<Framed> {
        let begins = self.at;
        self.text.clear();
        let mut scan = Scan::default();
        loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                return Ok(Err((begins, format!("{ENDS}{}", scan.inside()))));
            }
            let end = scan.end(bytes);
            let taken = end.unwrap_or(bytes.len());
            self.text.extend_from_slice(&bytes[..taken]);
            self.skip(taken);
            if end.is_some() {
                return Ok(Ok(begins));
            }
            if self.text.len() > LONGEST {
                return Ok(Err((begins, "it has no end within 64 MiB".to_owned())));
            }
        }
    }

    /// Puts the next line that is not empty into `text`. A file may end without a line break.
    fn line(&mut self) -> io::Result<Option<Framed>> {
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let begins = self.at;
        self.text.clear();
        let mut bounded = io::Read::take(&mut self.file, LONGEST as u64);
        let taken = bounded.read_until(b'\n', &mut self.text)?;
        self.at += taken as u64;
        Ok(Some(match taken {
            LONGEST => Err((begins, "it has no end within 64 MiB".to_owned())),
            _ => Ok(begins),
        }))
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = self.file.fill_buf()?;
            let n = bytes.len();
            let found = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
            let byte = found.map(|at| bytes[at]);
            self.skip(found.unwrap_or(n));
            if byte.is_some() || n == 0 {
                return Ok(byte);
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.file.consume(bytes);
        self.at += bytes as u64;
    }
}

/// What is wrong with a file that is cut off.
const ENDS: &str = "the file ends";

/// Where an object ends, of which the beginning was seen.
#[derive(Default)]
struct Scan {
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// The position behind the bracket that closes the first one.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_text => self.is_escaped = true,
                b'"' => self.is_text = !self.is_text,
                b'{' | b'[' if !self.is_text => self.depth += 1,
                b'}' | b']' if !self.is_text => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn inside(&self) -> &'static str {
        if self.is_text {
            " inside a text"
        } else {
            " inside it"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::io::Cursor;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Named {
        name: String,
    }

    fn file(text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.json");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn names(text: &str, damaged: Damaged) -> Result<(Vec<(u64, String)>, Whole), StepError> {
        let (_folder, path) = file(text.as_bytes());
        let mut names = Vec::new();
        let whole = read(&path, damaged, |number, Named { name }| {
            names.push((number, name));
            Ok(())
        })?;
        Ok((names, whole))
    }

    const ARRAY: &str = r#" [ {"name": "a}"} ,
        {"name": "b\"]", "more": [{}, {"deep": "\\"}]},{"name":"c"} ] "#;

    #[test]
    fn arrays_and_lines_hold_the_same_records() {
        let lines = "{\"name\":\"a}\"}\n\n{\"name\": \"b\\\"]\", \"more\": []}\r\n{\"name\":\"c\"}";
        for text in [ARRAY, lines] {
            let (names, whole) = names(text, Damaged::Refuse).unwrap();
            let expected = [(0, "a}"), (1, "b\"]"), (2, "c")].map(|(n, s)| (n, s.to_owned()));
            assert_eq!(names, expected, "{text}");
            assert_eq!((whole.n, whole.text().as_str()), (3, ""));
        }
    }

    #[test]
    fn it_does_not_matter_how_bytes_come_in() {
        for size in 1..40 {
            let file = BufReader::with_capacity(size, Cursor::new(ARRAY));
            let mut records = Records::of(file).unwrap();
            let mut found = Vec::new();
            while let Some(record) = records.next().unwrap() {
                found.push(record.unwrap().parse::<Named>().unwrap().name);
            }
            assert_eq!(found, ["a}", "b\"]", "c"]);
        }
    }

    #[test]
    fn a_file_cut_at_any_byte_has_every_record_before_it() {
        let ends: Vec<usize> = ["a}\"}", "\\\"}]}", "\"c\"}"]
            .iter()
            .map(|end| ARRAY.find(end).unwrap() + end.len())
            .collect();
        let closed = ARRAY.rfind(']').unwrap() + 1;
        for cut in 2..closed {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let refused = names(&ARRAY[..cut], Damaged::Refuse).unwrap_err();
            assert!(
                refused.message.contains("the file ends"),
                "{cut}: {refused}"
            );
            assert!(
                refused.message.contains(&format!("at byte {cut}")),
                "{cut}: {refused}"
            );
            assert_eq!(refused.message.contains("before it are whole"), whole > 0);
            match names(&ARRAY[..cut], Damaged::Recover) {
                Ok((names, told)) => {
                    assert_eq!((names.len(), told.n), (whole, whole as u64), "{cut}");
                    assert!(told.text().contains("of a damaged file"), "{}", told.text());
                }
                Err(error) => assert!(whole == 0, "{cut}: {error}"),
            }
        }
    }

    #[test]
    fn damage_is_told_with_its_record_and_its_byte() {
        let text = "[{\"name\":\"a\"},\n {\"name\":\n  7}, {\"name\":\"c\"} {\"name\":\"d\"}]";
        let seven = text.find('7').unwrap();
        let refused = names(text, Damaged::Refuse).unwrap_err();
        let place = format!(
            "record 2, which begins at byte {}",
            text.find(" {\"name\":\n").unwrap() + 1
        );
        assert!(refused.message.contains(&place), "{refused}");
        assert!(
            refused.message.contains("invalid type: integer `7`"),
            "{refused}"
        );
        assert!(
            refused.message.contains(&format!("at byte {seven}")),
            "{refused}"
        );
        assert!(refused.message.contains("1 records before it"), "{refused}");
        assert!(refused.help.unwrap().contains("damaged = \"recover\""));
        // A record that is bad by itself is left out; behind a missing comma nothing is sure.
        let (names, whole) = names(text, Damaged::Recover).unwrap();
        assert_eq!(names, [(0, "a".to_owned()), (2, "c".to_owned())]);
        assert!(
            whole.text().contains("2 whole records and 2 that are not"),
            "{}",
            whole.text()
        );
    }

    #[test]
    fn lines_are_bad_one_by_one() {
        let text = "{\"name\":\"a\"}\n{\"name\n{\"name\":\"c\"}\n";
        let refused = names(text, Damaged::Refuse).unwrap_err();
        assert!(
            refused
                .message
                .contains("record 2, which begins at byte 13"),
            "{refused}"
        );
        let (names, _) = names(text, Damaged::Recover).unwrap();
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn the_files_of_a_folder_are_one_data_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(
            path("train_0.jsonl"),
            "{\"name\":\"a\"}\n{\"name\":\"b\"}\n",
        )
        .unwrap();
        std::fs::write(path("train_1.jsonl"), "{\"name\":\"c\"}\n{\"name\"").unwrap();
        std::fs::write(path("README.md"), "").unwrap();
        let mut found = Vec::new();
        let mut take = |number, Named { name }| {
            found.push((number, name));
            Ok(())
        };
        let refused = read(folder.path(), Damaged::Refuse, &mut take).unwrap_err();
        // The one of them that is damaged, by its own count.
        for part in [
            "train_1.jsonl",
            "record 2,",
            "3 records before it are whole",
        ] {
            assert!(refused.message.contains(part), "{refused}");
        }
        let whole = read(folder.path(), Damaged::Recover, &mut take).unwrap();
        assert_eq!(whole.n, 3);
        let expected = [(0, "a"), (1, "b"), (2, "c")].map(|(n, s)| (n, s.to_owned()));
        assert_eq!(found[3..], expected);
    }

    #[test]
    fn what_holds_nothing_is_told() {
        for text in ["", "[]", " \n"] {
            let error = names(text, Damaged::Recover).unwrap_err();
            assert!(error.message.contains("has no records"), "{text}: {error}");
        }
        let error = names("[1]", Damaged::Recover).unwrap_err();
        assert!(
            error.message.contains("expected an object, found `1`"),
            "{error}"
        );
        let nowhere = read(Path::new("/nowhere/x"), Damaged::Refuse, |_, _: Named| {
            Ok(())
        });
        assert!(nowhere.unwrap_err().message.contains("/nowhere/x"));
    }

    #[test]
    fn what_the_taker_finds_wrong_is_damage_of_the_record() {
        let (_folder, path) = file(ARRAY.as_bytes());
        let error = read(&path, Damaged::Refuse, |number, _: Named| match number {
            1 => Err("no question".to_owned()),
            _ => Ok(()),
        });
        let error = error.unwrap_err();
        assert!(
            error.message.contains("record 2,") && error.message.contains("no question"),
            "{error}"
        );
    }
}
