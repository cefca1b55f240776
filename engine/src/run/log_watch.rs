//! Looks for a line in logs that grow, without reading anything twice.
//!
//! Knows nothing of services: files in, found or not out.

use crate::types::Pattern;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// How much one look reads of each log at most, bytes; the rest is read by the next looks.
const MOST_PER_LOOK: u64 = 4 << 20;
/// How much of an unfinished line is kept for the next look, bytes.
const MOST_CARRIED: usize = 64 << 10;

/// Logs and how far they were read.
pub(super) struct LogWatch {
    logs: Vec<Log>,
}

struct Log {
    path: PathBuf,
    offset: u64,
    /// The begin of a line whose end was not written yet.
    carried: Vec<u8>,
}

impl LogWatch {
    pub(super) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let log = |path| Log {
            path,
            offset: 0,
            carried: Vec::new(),
        };
        Self {
            logs: paths.into_iter().map(log).collect(),
        }
    }

    /// Reads what is new; `Some` once a line of it holds `pattern`. A log that cannot be read says
    /// nothing.
    pub(super) fn look(&mut self, pattern: &Pattern) -> Option<()> {
        let found = self.logs.iter_mut().any(|log| log.look(pattern));
        found.then_some(())
    }
}

impl Log {
    fn look(&mut self, pattern: &Pattern) -> bool {
        let mut text = std::mem::take(&mut self.carried);
        // What was read before an error counts.
        let _ = self.read_new(&mut text);
        // A line without an end may be all that a program says for a long time.
        let found = text.split(|b| *b == b'\n').any(|line| pattern.is_in(line));
        let begin = text
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let begin = begin.max(text.len().saturating_sub(MOST_CARRIED));
        self.carried = text.split_off(begin);
        found
    }

    fn read_new(&mut self, text: &mut Vec<u8>) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(MOST_PER_LOOK).read_to_end(text)?;
        self.offset += read as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_found_however_it_was_written() {
        let line = b"INFO: Uvicorn running on http://127.0.0.1:8000\n";
        let pattern = Pattern::new("Uvicorn running").unwrap();
        for cut in 0..line.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let mut watch = LogWatch::of([path.clone()]);
            assert!(watch.look(&pattern).is_none(), "there is no log yet");
            let mut log = File::create(&path).unwrap();
            log.write_all(b"loading\n").unwrap();
            log.write_all(&line[..cut]).unwrap();
            let early = watch.look(&pattern);
            log.write_all(&line[cut..]).unwrap();
            assert!(
                early.or_else(|| watch.look(&pattern)).is_some(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn lines_are_not_glued_together_and_nothing_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "server\nready\n").unwrap();
        let mut watch = LogWatch::of([path.clone()]);
        assert!(
            watch
                .look(&Pattern::new("/server.*ready/").unwrap())
                .is_none()
        );
        let ready = Pattern::new("ready").unwrap();
        assert!(watch.look(&ready).is_none(), "it was read before");
        let endless = vec![b'x'; MOST_CARRIED * 2];
        std::fs::write(&path, [b"server\nready\n".as_slice(), &endless].concat()).unwrap();
        watch.look(&ready);
        assert_eq!(watch.logs[0].carried.len(), MOST_CARRIED);
    }
}
