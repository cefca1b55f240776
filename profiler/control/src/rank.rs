//! One process of a server.

use crate::error::ControlError;
use profiler_wire::{LONGEST_LINE, Line, PROTOCOL};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: to load CUPTI and to close a window with its grace both take less.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process in which the library listens. Its window is closed when this is dropped.
#[derive(Debug)]
pub struct Rank {
    pid: u32,
    program: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Rank {
    /// Reaches a process by its socket.
    ///
    /// # Errors
    /// [`ControlError`], if it does not listen, or speaks another version.
    pub fn connect(pid: u32, socket: &Path) -> Result<Self, ControlError> {
        let gone = |source| ControlError::Gone { pid, source };
        let stream = UnixStream::connect(socket).map_err(gone)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(gone)?;
        let mut rank = Self {
            pid,
            program: PathBuf::new(),
            stream: BufReader::new(stream),
        };
        let hello = rank.hear()?;
        let theirs = rank.number(&hello, "protocol")?;
        if theirs != PROTOCOL {
            let ours = PROTOCOL;
            return Err(ControlError::Protocol { pid, theirs, ours });
        }
        rank.program = hello.get("program").unwrap_or_default().into();
        Ok(rank)
    }

    /// Its id, as its own namespace has it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The program that it runs.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Asks, and takes a refusal for an error.
    pub(crate) fn ask(&mut self, line: &Line) -> Result<Line, ControlError> {
        let pid = self.pid;
        let said = self
            .stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes());
        said.map_err(|source| ControlError::Gone { pid, source })?;
        let answer = self.hear()?;
        match answer.word() {
            "refused" => Err(ControlError::Refused {
                pid,
                why: answer
                    .get("why")
                    .unwrap_or("it does not say why")
                    .to_owned(),
            }),
            _ => Ok(answer),
        }
    }

    pub(crate) fn number(&self, line: &Line, key: &'static str) -> Result<u64, ControlError> {
        let pid = self.pid;
        line.number(key)
            .map_err(|source| ControlError::Line { pid, source })
    }

    fn hear(&mut self) -> Result<Line, ControlError> {
        let pid = self.pid;
        let gone = |source| ControlError::Gone { pid, source };
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST_LINE as u64);
        limited.read_until(b'\n', &mut line).map_err(gone)?;
        if line.pop() != Some(b'\n') {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        let text = String::from_utf8_lossy(&line);
        text.parse()
            .map_err(|source| ControlError::Line { pid, source })
    }
}
