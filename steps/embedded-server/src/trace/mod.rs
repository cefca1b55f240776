//! What the server did when, for those who judge a client by it: one JSON line per answer.
//!
//! Instants are nanoseconds of `CLOCK_MONOTONIC`, which every process of the machine reads alike.
//! A token is ready when the step that sampled it has ended, and an event counts as sent when the
//! last byte of what it says is handed to the connection that writes it, in the same poll. Faults
//! that were injected stand beside what they were done to. [`Trace::read`] is the way to read a
//! file; how a line is written is told by `line`.

mod line;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::cache::Matched;
use crate::clock::{Clock, MonotonicClock, Nanos};
use crate::engine::{FinishReason, Origin};
use crate::faults::FaultKind;
use line::Line;

/// What the first line of a file is; another version has another number.
const HEAD: &str = r#"{"trace":2,"clock":"CLOCK_MONOTONIC","unit":"ns"}"#;
/// What a first line begins with.
const HEAD_KEY: &str = r#"{"trace":"#;

/// What became of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerOutcome {
    /// It was handed to the connection to its end.
    Finished,
    /// The request was refused with this status, and nothing was answered.
    Refused(u16),
    /// It was broken off with an error in its stream, which has this code.
    Failed(String),
    /// Its connection was reset by a fault.
    Reset,
    /// Nobody read it any more.
    #[default]
    Left,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub struct AnswerTrace {
    /// What the client called the request, in the header `x-request-id`; empty if it did not.
    pub request: String,
    /// Which request of the server it is, by which faults are decided.
    pub number: u64,
    /// The model that was asked; empty before that is known.
    pub model: String,
    /// When the connection that brought the request was accepted: an earlier request may have
    /// brought it.
    pub accepted_ns: u64,
    /// When the request had been read.
    pub received_ns: u64,
    /// When it had been understood; `None` if it was refused before.
    pub parsed_ns: Option<u64>,
    /// When it was given to the engine; `None` if it was refused before.
    pub enqueued_ns: Option<u64>,
    /// Its prompts.
    pub prompts: Vec<PromptTrace>,
    /// Every token, in the order in which the connection got them.
    pub tokens: Vec<TokenTrace>,
    /// When each event that carried tokens was sent. An answer in one piece has no events.
    pub sent_ns: Vec<u64>,
    /// How many of `tokens` each of these events carried, in their order.
    pub sent_tokens: Vec<u32>,
    /// Which of these events have no text, ascending.
    pub silent: Vec<usize>,
    /// What was done to it on purpose, in that order.
    pub faults: Vec<Injected>,
    /// What became of it.
    pub outcome: AnswerOutcome,
    /// When that was known.
    pub ended_ns: u64,
}

/// One prompt of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptTrace {
    /// When it was first scheduled; `None` if no token came of it.
    pub scheduled_ns: Option<u64>,
    /// Its tokens that lay on the device then.
    pub cached_device: usize,
    /// Those behind them that lay in host memory.
    pub cached_host: usize,
    /// How often it had to give its place back, and was computed again.
    pub retractions: u32,
    /// Why its answer ended, by OpenAI's word; `None` if it was broken off.
    pub finish: Option<String>,
}

/// One token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenTrace {
    /// Which prompt it continues.
    pub prompt: u32,
    /// The step that ended with it, as `/forward_steps` numbers it; `None` where nothing computes.
    pub step: Option<u64>,
    /// When that step had ended.
    pub ready_ns: u64,
}

/// What was done to an answer on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// What.
    pub fault: FaultKind,
    /// Before or in place of which event, counted from 0; `None`: to all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<usize>,
    /// When it began.
    pub at_ns: u64,
    /// When it ended, of what takes time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ns: Option<u64>,
}

/// A file of [`AnswerTrace`]s, written when an answer ends.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Trace {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{HEAD}")?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
        })
    }

    /// Reads a file of traces.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(path: &Path) -> io::Result<Vec<AnswerTrace>> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Reads whole lines of a file of traces, its first among them or not.
    ///
    /// # Errors
    /// When they are something else.
    pub fn parse(lines: &str) -> io::Result<Vec<AnswerTrace>> {
        let mut answers = Vec::new();
        for line in lines.lines() {
            if !line.starts_with(HEAD_KEY) {
                answers.push(serde_json::from_str(line).map_err(io::Error::other)?);
            } else if line != HEAD {
                let message = format!("another version has written it: `{line}`, not `{HEAD}`");
                return Err(io::Error::other(message));
            }
        }
        Ok(answers)
    }

    /// Whole lines from a byte of the file on: about so many bytes, at least one line if there is
    /// one. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written or read.
    pub fn since(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        self.flush()?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = Vec::new();
        let mut reader = BufReader::new(file);
        reader.by_ref().take(most as u64).read_to_end(&mut lines)?;
        if lines.len() == most {
            reader.read_until(b'\n', &mut lines)?;
        }
        // What is being written behind it is for the next who asks.
        let end = lines.iter().rposition(|byte| *byte == b'\n');
        lines.truncate(end.map_or(0, |end| end + 1));
        Ok(lines)
    }

    /// Bytes written so far.
    ///
    /// # Errors
    /// When they cannot be passed on.
    pub fn n_bytes(&self) -> io::Result<u64> {
        let mut file = self.file();
        file.flush()?;
        Ok(file.get_ref().metadata()?.len())
    }

    fn write(&self, answer: &AnswerTrace) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.file().write_all(&line)
    }

    /// Passes on what was written so far.
    ///
    /// # Errors
    /// When the disk is full, or the file gone.
    pub fn flush(&self) -> io::Result<()> {
        self.file().flush()
    }

    fn file(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is being traced; its line is written when it ends, or when this is dropped.
pub(crate) struct Tracing {
    trace: Arc<Trace>,
    answer: AnswerTrace,
    is_written: bool,
}

impl Tracing {
    /// The `number`-th request has been read now, over a connection that was accepted then.
    pub(crate) fn begin(trace: Arc<Trace>, request: &str, number: u64, accepted: Nanos) -> Self {
        Self {
            trace,
            answer: AnswerTrace {
                request: request.to_owned(),
                number,
                accepted_ns: accepted.0,
                received_ns: now(),
                ..AnswerTrace::default()
            },
            is_written: false,
        }
    }

    /// It has been understood.
    pub(crate) fn parsed(&mut self) {
        self.answer.parsed_ns = Some(now());
    }

    /// It goes to the engine of that model now.
    pub(crate) fn enqueued(&mut self, model: &str, n_prompts: usize) {
        model.clone_into(&mut self.answer.model);
        self.answer.prompts = vec![PromptTrace::default(); n_prompts];
        self.answer.enqueued_ns = Some(now());
    }

    /// The connection has got a token of a prompt.
    pub(crate) fn token(&mut self, prompt: usize, origin: Origin, finish: Option<FinishReason>) {
        let Origin {
            step,
            ready,
            scheduled,
            cached: Matched { device, host },
            retractions,
        } = origin;
        self.answer.tokens.push(TokenTrace {
            prompt: u32::try_from(prompt).unwrap_or(u32::MAX),
            step,
            ready_ns: ready.0,
        });
        if let Some(prompt) = self.answer.prompts.get_mut(prompt) {
            *prompt = PromptTrace {
                scheduled_ns: Some(scheduled.0),
                cached_device: device,
                cached_host: host,
                retractions,
                finish: finish.map(|finish| finish.name().to_owned()),
            };
        }
    }

    /// An event with so many tokens is sent now.
    pub(crate) fn sent(&mut self, tokens: u32, is_silent: bool) {
        if is_silent {
            self.answer.silent.push(self.answer.sent_ns.len());
        }
        self.answer.sent_ns.push(now());
        self.answer.sent_tokens.push(tokens);
    }

    /// A fault begins now, before or in place of an event.
    pub(crate) fn fault(&mut self, fault: FaultKind, event: Option<usize>) {
        self.answer.faults.push(Injected {
            fault,
            event,
            at_ns: now(),
            until_ns: None,
        });
    }

    /// The last fault that began is over now.
    pub(crate) fn fault_ends(&mut self) {
        if let Some(last) = self.answer.faults.last_mut() {
            last.until_ns = Some(now());
        }
    }

    /// Nothing more comes. Only the first call counts.
    pub(crate) fn end(&mut self, outcome: AnswerOutcome) {
        if std::mem::replace(&mut self.is_written, true) {
            return;
        }
        self.answer.outcome = outcome;
        self.answer.ended_ns = now();
        // A trace that misses an answer is found out by whoever joins it with records.
        let _ = self.trace.write(&self.answer);
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.end(AnswerOutcome::Left);
    }
}

fn now() -> u64 {
    MonotonicClock.now().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(step: u64, ready: u64) -> Origin {
        Origin {
            step: Some(step),
            ready: Nanos(ready),
            scheduled: Nanos(7),
            cached: Matched { device: 3, host: 2 },
            retractions: 1,
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        (folder, path)
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let (_folder, path) = folder();
        let trace = Arc::new(Trace::create(&path).unwrap());
        let mut answer = Tracing::begin(trace.clone(), "r-1", 4, Nanos(5));
        answer.parsed();
        answer.enqueued("m", 1);
        answer.token(0, origin(8, 9), None);
        answer.sent(1, false);
        answer.fault(FaultKind::Stall, Some(1));
        answer.fault_ends();
        answer.token(0, origin(9, 19), Some(FinishReason::Length));
        answer.sent(1, true);
        answer.end(AnswerOutcome::Finished);
        let written = answer.answer.clone();
        drop(answer);
        drop(Tracing::begin(trace.clone(), "", 5, Nanos(6)));
        trace.flush().unwrap();
        let read = Trace::read(&path).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], written);
        assert_eq!(
            (read[0].silent.as_slice(), read[0].tokens.len()),
            (&[1][..], 2)
        );
        assert_eq!(read[0].prompts[0].finish.as_deref(), Some("length"));
        assert!(read[0].received_ns <= read[0].sent_ns[0]);
        assert_eq!(read[1].outcome, AnswerOutcome::Left);
        assert_eq!((read[1].parsed_ns, read[1].number), (None, 5));
    }

    #[test]
    fn lines_are_told_from_where_the_last_ones_ended() {
        let (_folder, path) = folder();
        let trace = Arc::new(Trace::create(&path).unwrap());
        let begin = trace.n_bytes().unwrap();
        for number in 0..5 {
            drop(Tracing::begin(trace.clone(), "r", number, Nanos(1)));
        }
        let (mut offset, mut numbers) = (begin, Vec::new());
        loop {
            let lines = trace.since(offset, 100).unwrap();
            if lines.is_empty() {
                break;
            }
            offset += lines.len() as u64;
            let answers = Trace::parse(std::str::from_utf8(&lines).unwrap()).unwrap();
            numbers.extend(answers.iter().map(|answer| answer.number));
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert_eq!(offset, trace.n_bytes().unwrap());
        assert_eq!(Trace::read(&path).unwrap().len(), 5);
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let error = Trace::parse("{\"trace\":9}\n").unwrap_err().to_string();
        assert!(error.contains("another version has written it"), "{error}");
        assert!(Trace::parse("{\"request\":1}\n").is_err());
    }
}
