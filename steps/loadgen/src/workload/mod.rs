//! What is asked: requests, one JSON object per line, one line per turn.
//!
//! Images lie beside the file, in a folder with it, see [`Workload::write`].
//!
//! Knows the file format and its rules; when a request is sent is decided elsewhere, and so is
//! how its prompt is put on the wire. A turn of a conversation is a line that carries its whole
//! history, or, with `continues`, what is said next alone: then the answers that were given before
//! are part of what is sent.

mod conversations;
mod images;
mod prefixes;
mod request;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

pub(crate) use images::shown_in;
pub use images::{ImageError, Images, image_name};
pub use prefixes::Prefixes;
pub use request::{Prompt, Request};

/// A longer line is a mistake in the file: 64 MiB is about ten million token ids.
const LONGEST_LINE: u64 = 64 << 20;

/// What is wrong with a workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file cannot be read or written.
    #[error("cannot access workload `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line breaks the format.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// A request put together in memory breaks the rules of the format.
    #[error("request {index} of the workload: {problem}")]
    Request {
        /// Position of the request, from 0.
        index: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// An image that requests show cannot be used.
    #[error("request `{id}`: {source}")]
    Image {
        /// The first request that shows it.
        id: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// There is nothing to send.
    #[error("the workload has no requests; help: write one JSON object per line")]
    Empty,
}

/// An ordered, non-empty list of requests with distinct ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    requests: Vec<Request>,
    /// The folder in which images lie, where some are files.
    folder: Option<PathBuf>,
}

/// The file with the requests in the folder of a workload that has images.
const LINES: &str = "workload.jsonl";

impl Workload {
    /// Takes requests in sending order.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Request`] for a duplicate or missing id, a prompt that contradicts its
    /// length, or a turn that cannot continue its conversation; [`WorkloadError::Empty`].
    pub fn new(requests: Vec<Request>) -> Result<Self, WorkloadError> {
        for (index, request) in requests.iter().enumerate() {
            request
                .check()
                .map_err(|problem| WorkloadError::Request { index, problem })?;
        }
        if let Some((index, first)) = duplicate(&requests) {
            let problem = format!("id `{}` already names request {first}", requests[index].id);
            return Err(WorkloadError::Request { index, problem });
        }
        if let Some((index, problem)) = conversations::broken(&requests) {
            return Err(WorkloadError::Request { index, problem });
        }
        if requests.is_empty() {
            return Err(WorkloadError::Empty);
        }
        Ok(Self {
            requests,
            folder: None,
        })
    }

    /// The same images' files, and other requests that show some of them.
    ///
    /// # Errors
    ///
    /// As [`Workload::new`].
    pub fn with_requests(&self, requests: Vec<Request>) -> Result<Self, WorkloadError> {
        Ok(Self::new(requests)?.beside(self.folder.clone().unwrap_or_default()))
    }

    /// Says in which folder images lie that are files.
    #[must_use]
    pub fn beside(mut self, folder: PathBuf) -> Self {
        self.folder = images::has_files(&self.requests).then_some(folder);
        self
    }

    /// Reads a JSONL file, or a folder with one as [`Workload::write`] leaves it; blank lines are skipped.
    /// Images are only named: [`Workload::images`] reads them.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Io`] names the file, [`WorkloadError::Line`] the file and the line.
    pub fn read(path: &Path) -> Result<Self, WorkloadError> {
        let folder = path.is_dir().then_some(path);
        let inside = path.join(LINES);
        let path = folder.map_or(path, |_| inside.as_path());
        let io = |source| WorkloadError::Io {
            path: path.into(),
            source,
        };
        let bad = |line, problem| WorkloadError::Line {
            path: path.into(),
            line,
            problem,
        };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let (mut requests, mut lines, mut text) = (Vec::new(), Vec::new(), Vec::new());
        for line in 1.. {
            text.clear();
            let mut bounded = (&mut file).take(LONGEST_LINE);
            let length = bounded.read_until(b'\n', &mut text).map_err(io)?;
            if length == 0 {
                break;
            }
            if length as u64 == LONGEST_LINE {
                return Err(bad(line, "the line is longer than 64 MiB".into()));
            }
            if !text.trim_ascii().is_empty() {
                requests.push(parse(&text).map_err(|problem| bad(line, problem))?);
                lines.push(line);
            }
        }
        if let Some((index, first)) = duplicate(&requests) {
            let id = &requests[index].id;
            return Err(bad(
                lines[index],
                format!("id `{id}` already stands on line {}", lines[first]),
            ));
        }
        if let Some((index, problem)) = conversations::broken(&requests) {
            return Err(bad(lines[index], problem));
        }
        let shows_file = |request: &Request| images::has_files(std::slice::from_ref(request));
        match (folder, requests.iter().position(shows_file)) {
            (None, Some(index)) => Err(bad(lines[index], images::NEED_A_FOLDER.to_owned())),
            (folder, _) => Ok(Self::new(requests)?.beside(folder.unwrap_or(path).to_owned())),
        }
    }

    /// Writes the workload as JSONL, replacing `path`. Where images are files `path` becomes a folder: the
    /// requests in `workload.jsonl`, and each image once, in `images`, named by its digest.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Io`] names the file, [`WorkloadError::Image`] the request and the image.
    pub fn write(&self, path: &Path) -> Result<(), WorkloadError> {
        match &self.folder {
            None => self.write_lines(path),
            Some(folder) => {
                let requests = images::copied(&self.requests, folder, path)?;
                Self::new(requests)?.write_lines(&path.join(LINES))
            }
        }
    }

    /// Reads and encodes all images as they are sent; each is held once. `limit` bounds their bytes.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Image`].
    pub fn images(&self, limit: u64) -> Result<Images, WorkloadError> {
        Images::read(&self.requests, self.folder.as_deref(), limit)
    }

    fn write_lines(&self, path: &Path) -> Result<(), WorkloadError> {
        let io = |source| WorkloadError::Io {
            path: path.into(),
            source,
        };
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        self.serialize(&mut file)
            .and_then(|()| file.flush())
            .map_err(io)
    }

    /// The BLAKE3 digest, in hex, of the workload as [`Workload::write`] puts it: two files
    /// that differ only in white space or in the order of keys have the same one.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        // A hasher accepts every write, and a request always has a JSON form.
        let written = self.serialize(&mut hasher);
        debug_assert!(written.is_ok());
        hasher.finalize().to_hex().to_string()
    }

    /// The requests, in sending order; never empty.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    fn serialize(&self, to: &mut impl Write) -> std::io::Result<()> {
        for request in &self.requests {
            serde_json::to_writer(&mut *to, request)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| {
        // serde counts lines inside the one line that it was given; only the column helps.
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text);
        match error.column() {
            0 => message.to_owned(),
            column => format!("{message} (column {column})"),
        }
    })
}

/// The first request whose id was seen before, and where.
fn duplicate(requests: &[Request]) -> Option<(usize, usize)> {
    let mut seen = HashMap::with_capacity(requests.len());
    requests.iter().enumerate().find_map(|(index, request)| {
        seen.insert(request.id.as_str(), index)
            .map(|first| (index, first))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Workload, WorkloadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.jsonl");
        std::fs::write(&path, text).unwrap();
        Workload::read(&path)
    }

    #[test]
    fn every_kind_of_prompt_survives_a_round_trip() {
        let text = concat!(
            r#"{"id":"a","text":"hi","input_tokens":2,"output_tokens":8,"arrival":0.25}"#,
            "\n\n",
            r#"{"id":"b","input_ids":[1,2],"input_tokens":2,"output_tokens":1,"slo":{"ttft_ms":9}}"#,
            "\n",
            r#"{"id":"c","messages":[{"role":"user","content":"x"}],"input_tokens":1,"#,
            r#""output_tokens":4,"conversation":"k","turn":3,"group":"g","model":"m"}"#,
        );
        let workload = read(text).unwrap();
        let [a, b, c] = workload.requests() else {
            panic!("three requests")
        };
        assert_eq!(a.arrival, Some(Duration::from_millis(250)));
        assert_eq!(b.prompt, Prompt::Tokens(vec![1, 2]));
        assert_eq!((c.turn, c.conversation.as_deref()), (3, Some("k")));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.jsonl");
        workload.write(&path).unwrap();
        let copy = Workload::read(&path).unwrap();
        assert_eq!(copy, workload);
        assert_eq!(copy.digest(), workload.digest());
    }

    #[test]
    fn the_digest_sees_order_and_content_but_no_layout() {
        let a = r#"{"id":"a","text":"x","input_tokens":1,"output_tokens":1}"#;
        let a_spaced = r#"{ "output_tokens": 1, "id": "a", "text": "x", "input_tokens": 1 }"#;
        let b = r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1}"#;
        let digest = |lines: &[&str]| read(&lines.join("\n")).unwrap().digest();
        assert_eq!(digest(&[a, b]), digest(&[a_spaced, b]));
        assert_ne!(digest(&[a, b]), digest(&[b, a]));
    }

    #[test]
    fn errors_name_the_line_and_the_rule() {
        let good = r#"{"id":"a","text":"x","input_tokens":1,"output_tokens":1}"#;
        for (bad, rule) in [
            (
                r#"{"id":"b","input_tokens":1,"output_tokens":1}"#,
                "exactly one of",
            ),
            (
                r#"{"id":"b","text":"x","messages":[],"input_tokens":1,"output_tokens":1}"#,
                "exactly one of",
            ),
            (
                r#"{"id":"b","text":"x","output_tokens":1}"#,
                "missing `input_tokens`",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1}"#,
                "missing `output_tokens`",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":0}"#,
                "nonzero",
            ),
            (
                r#"{"text":"x","input_tokens":1,"output_tokens":1}"#,
                "missing `id`",
            ),
            (
                r#"{"id":"b","input_ids":[1],"input_tokens":2,"output_tokens":1}"#,
                "has 1 entries",
            ),
            (
                r#"{"id":"b","messages":[],"input_tokens":1,"output_tokens":1}"#,
                "is empty",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1,"arrival":-1}"#,
                "-1 s",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1,"max":1}"#,
                "unknown field `max`",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1,"cacheable_tokens":2}"#,
                "the prompt has 1",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1,"continues":true}"#,
                "without a `conversation`",
            ),
            (
                r#"{"id":"b","text":"x","input_tokens":1,"output_tokens":1,"continues":true,"conversation":"c"}"#,
                "nothing to continue",
            ),
            (good, "already stands on line 1"),
            ("{", "EOF"),
        ] {
            let error = read(&format!("{good}\n{bad}\n")).unwrap_err().to_string();
            assert!(
                error.contains("w.jsonl:2: ") && error.contains(rule),
                "{error}"
            );
        }
        assert!(matches!(read("\n"), Err(WorkloadError::Empty)));
        let missing = Workload::read(Path::new("/nowhere/w.jsonl")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/w.jsonl"));
    }
}
