//! A spool: frames in a file, written one after the other by one thread of the server, read by the engine.
//!
//! Each frame goes to the kernel in one call and needs nothing afterwards: what a process had written
//! when it was killed is there. What is not is the power's business, and a profile is not worth a sync.

use crate::frame::{self, Damage, Frame, HEADER, Header, LineKind};
use crate::line::Line;
use crate::rows::Row;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Rows of a frame, at most: a frame of the widest rows, all of which differ in everything, still fits.
const ROWS: usize = 32 * 1024;
/// Names of a frame, at most.
const NAMES: usize = 1024;
/// Bytes of a name that are kept.
pub const LONGEST_NAME: usize = 8 * 1024;

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system's reason.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something in it is no frame; what was read before is good.
    #[error("{path} at byte {at}: {damage}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What.
        damage: Damage,
    },
}

/// The side that writes.
#[derive(Debug)]
pub struct Spooler {
    file: File,
    path: PathBuf,
    written: u64,
}

impl Spooler {
    /// Makes a new file, which only its owner may read: it tells what a server does.
    ///
    /// # Errors
    /// It exists, or cannot be made.
    pub fn create(path: &Path) -> Result<Self, SpoolError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(failed("create", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            written: 0,
        })
    }

    /// How many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes that a window was opened.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn opened(&mut self, line: &Line) -> Result<(), SpoolError> {
        self.write(&frame::of_line(LineKind::Opened, line))
    }

    /// Writes what was counted so far.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn status(&mut self, line: &Line) -> Result<(), SpoolError> {
        self.write(&frame::of_line(LineKind::Status, line))
    }

    /// Writes that the window was closed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn closed(&mut self, line: &Line) -> Result<(), SpoolError> {
        self.write(&frame::of_line(LineKind::Closed, line))
    }

    /// Writes names, each of which is not used before.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn names(&mut self, names: &[(u64, String)]) -> Result<(), SpoolError> {
        for some in names.chunks(NAMES) {
            let some = some
                .iter()
                .map(|(number, name)| (*number, within(name, LONGEST_NAME)));
            self.write(&frame::of_names(some))?;
        }
        Ok(())
    }

    /// Writes rows; none is no frame.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn rows<R: Row>(&mut self, rows: &[R]) -> Result<(), SpoolError> {
        for some in rows.chunks(ROWS) {
            self.write(&frame::of_rows(some))?;
        }
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), SpoolError> {
        self.file
            .write_all(frame)
            .map_err(failed("write", &self.path))?;
        self.written += frame.len() as u64;
        Ok(())
    }
}

impl AsRawFd for Spooler {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The longest beginning of a text that has so many bytes at most.
fn within(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// The frames of a spool, in its order, one in memory at a time. Ends after the first error: what is
/// behind a damage is not looked for.
#[derive(Debug)]
pub struct Frames {
    file: BufReader<File>,
    path: PathBuf,
    at: u64,
    has_ended: bool,
}

impl Frames {
    /// Opens a spool.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let file = File::open(path).map_err(failed("open", path))?;
        Ok(Self {
            file: BufReader::with_capacity(1 << 20, file),
            path: path.to_owned(),
            at: 0,
            has_ended: false,
        })
    }

    fn read(&mut self) -> Result<Option<Frame>, SpoolError> {
        let mut header = [0; HEADER];
        let read = self.fill(&mut header)?;
        if read == 0 {
            return Ok(None);
        }
        if read < HEADER {
            return Err(self.damaged(Damage::Cut));
        }
        let header = Header::read(&header).map_err(|damage| self.damaged(damage))?;
        let mut payload = vec![0; header.bytes];
        if self.fill(&mut payload)? < payload.len() {
            return Err(self.damaged(Damage::Cut));
        }
        let frame = header
            .open(&payload)
            .map_err(|damage| self.damaged(damage))?;
        self.at += (HEADER + payload.len()) as u64;
        Ok(Some(frame))
    }

    /// Reads as much as there is.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, SpoolError> {
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read(&mut bytes[read..]) {
                Ok(0) => break,
                Ok(some) => read += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.path)(error)),
            }
        }
        Ok(read)
    }

    fn damaged(&self, damage: Damage) -> SpoolError {
        SpoolError::Damaged {
            path: self.path.clone(),
            at: self.at,
            damage,
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let frame = self.read().transpose();
        self.has_ended = !matches!(frame, Some(Ok(_)));
        frame
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::Io { what, path, source }
}
