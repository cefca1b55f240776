//! A guardian's end of the two pipes to the engine. Knows what is said, not what it leads to.

use super::protocol::{Command, Launch, MAX_COMMAND, MAX_LAUNCH, Report};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// Standard input, read without a buffer of the library's so that `poll` tells the truth.
pub(super) struct Input {
    pub(super) file: File,
    /// Whether more may come.
    pub(super) open: bool,
    /// What came after the last complete line.
    rest: Vec<u8>,
}

impl Input {
    pub(super) fn standard() -> io::Result<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self {
            file,
            open: true,
            rest: Vec::new(),
        })
    }

    /// Waits for the first line; `None` if it does not come or does not make sense.
    pub(super) fn launch(&mut self) -> Option<Launch> {
        loop {
            if let Some(line) = self.take_line() {
                return serde_json::from_slice(&line).ok();
            }
            if !self.open || self.rest.len() > MAX_LAUNCH {
                return None;
            }
            self.read();
        }
    }

    /// Reads what is there; the end of input is a command too.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        self.read();
        let mut commands = Vec::new();
        while let Some(line) = self.take_line() {
            commands.extend(Command::parse(&String::from_utf8_lossy(&line)));
        }
        if !self.open || self.rest.len() > MAX_COMMAND {
            self.open = false;
            commands.push(Command::Kill);
        }
        commands
    }

    fn read(&mut self) {
        let mut chunk = [0; 64 << 10];
        match self.file.read(&mut chunk) {
            Ok(0) => self.open = false,
            Ok(n_read) => self.rest.extend_from_slice(&chunk[..n_read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.open = false,
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.rest.drain(..=end).collect();
        Some(line)
    }
}

/// Tells the engine, which may be gone: errors are nobody's business then.
pub(super) fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut stdout = io::stdout();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
}
