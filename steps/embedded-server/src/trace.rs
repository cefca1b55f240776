//! What the server did when, for those who judge a client by it: one JSON line per streamed answer.
//!
//! Instants are nanoseconds of `CLOCK_MONOTONIC`, which every process of the machine reads alike.
//! An event counts as sent when it is handed to the connection that writes it, in the same poll.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, MonotonicClock};

/// One streamed answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerTrace {
    /// What the client called the request, in the header `x-request-id`; empty if it did not.
    pub request: String,
    /// When the request had been read.
    pub received_ns: u64,
    /// When each event that carried a token was sent.
    pub sent_ns: Vec<u64>,
}

/// A file of [`AnswerTrace`]s, written when an answer ends.
#[derive(Debug)]
pub struct Trace(Mutex<BufWriter<File>>);

impl Trace {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(BufWriter::new(File::create(path)?))))
    }

    /// Reads a file of traces.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(path: &Path) -> io::Result<Vec<AnswerTrace>> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().map_err(io::Error::other)
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

    fn file(&self) -> std::sync::MutexGuard<'_, BufWriter<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is being traced; its line is written when this is dropped.
pub(crate) struct Tracing {
    trace: std::sync::Arc<Trace>,
    answer: AnswerTrace,
}

impl Tracing {
    pub(crate) fn begin(trace: std::sync::Arc<Trace>, request: String) -> Self {
        Self {
            trace,
            answer: AnswerTrace {
                request,
                received_ns: MonotonicClock.now().0,
                sent_ns: Vec::new(),
            },
        }
    }

    /// An event with a token is sent now.
    pub(crate) fn sent(&mut self) {
        self.answer.sent_ns.push(MonotonicClock.now().0);
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // A trace that ends early misses answers, which whoever joins it with records finds out.
        let _ = self.trace.write(&self.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn answers_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let trace = Arc::new(Trace::create(&path).unwrap());
        let mut answer = Tracing::begin(trace.clone(), "r-1".into());
        answer.sent();
        answer.sent();
        drop(answer);
        drop(Tracing::begin(trace.clone(), String::new()));
        trace.flush().unwrap();
        let read = Trace::read(&path).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].request.as_str(), read[0].sent_ns.len()),
            ("r-1", 2)
        );
        assert!(read[0].received_ns <= read[0].sent_ns[0]);
    }
}
