//! Frames: what a spool is made of. Each has a header with its kind, how much is in it and a checksum, so
//! that what a kill cut off, or a disk damaged, is found and never read as something else.
//!
//! ```text
//! "BWSP" | kind u16 | zero u16 | rows u32 | bytes u32 | CRC-32 u32 of the header before and the payload | payload
//! ```

use crate::columns::{self, Malformed};
use crate::line::Line;
use crate::rows::{Call, Graph, Kernel, MemoryOp, Overhead, Range, Row};
use crc32fast::Hasher;

/// How a frame begins.
pub(crate) const MAGIC: [u8; 4] = *b"BWSP";
/// Bytes of a header.
pub(crate) const HEADER: usize = 20;
/// Bytes of the largest payload that is written, and so of the largest that is believed.
pub(crate) const LARGEST: usize = 16 << 20;

const OPENED: u16 = 1;
const CLOSED: u16 = 2;
const NAMES: u16 = 3;
const STATUS: u16 = 4;

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A window was opened: when, by which CUPTI, in which process, and how clocks stood.
    Opened(Line),
    /// What has been counted so far: how much of a window's work is there if it is never closed.
    Status(Line),
    /// The window was closed, and everything of it is there.
    Closed(Line),
    /// Names by their numbers; each comes before it is used.
    Names(Vec<(u64, String)>),
    /// Kernels.
    Kernels(Vec<Kernel>),
    /// Copies and memory that was set.
    MemoryOps(Vec<MemoryOp>),
    /// Graphs as a whole.
    Graphs(Vec<Graph>),
    /// Calls of the runtime and the driver.
    Calls(Vec<Call>),
    /// Overheads.
    Overheads(Vec<Overhead>),
    /// Ranges of NVTX.
    Ranges(Vec<Range>),
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// They end within it, as those of a process that was killed while it wrote.
    #[error("it ends within a frame")]
    Cut,
    /// They do not begin as one.
    #[error("no frame begins there")]
    NoFrame,
    /// Its checksum is another.
    #[error("a frame's checksum is wrong")]
    Checksum,
    /// Its checksum is right, but not what is in it.
    #[error("a frame of kind {0} does not hold what it says")]
    Content(u16),
}

/// A header that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    kind: u16,
    rows: u32,
    /// Bytes of the payload.
    pub(crate) bytes: usize,
    crc: u32,
    summed: [u8; HEADER - 4],
}

impl Header {
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Result<Self, Damage> {
        let word = |at: usize| {
            let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_le_bytes(four)
        };
        let mut summed = [0; HEADER - 4];
        summed.copy_from_slice(&bytes[..HEADER - 4]);
        let header = Self {
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            rows: word(8),
            bytes: usize::try_from(word(12)).unwrap_or(usize::MAX),
            crc: word(16),
            summed,
        };
        let is_one = bytes[..4] == MAGIC && bytes[6..8] == [0, 0] && header.bytes <= LARGEST;
        if is_one {
            Ok(header)
        } else {
            Err(Damage::NoFrame)
        }
    }

    pub(crate) fn open(&self, payload: &[u8]) -> Result<Frame, Damage> {
        if crc(&self.summed, payload) != self.crc {
            return Err(Damage::Checksum);
        }
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let frame = match self.kind {
            OPENED => line(payload).map(Frame::Opened),
            CLOSED => line(payload).map(Frame::Closed),
            STATUS => line(payload).map(Frame::Status),
            NAMES => names(payload, rows).map(Frame::Names),
            Kernel::KIND => table(payload, rows).map(Frame::Kernels),
            MemoryOp::KIND => table(payload, rows).map(Frame::MemoryOps),
            Graph::KIND => table(payload, rows).map(Frame::Graphs),
            Call::KIND => table(payload, rows).map(Frame::Calls),
            Overhead::KIND => table(payload, rows).map(Frame::Overheads),
            Range::KIND => table(payload, rows).map(Frame::Ranges),
            _ => Err(Malformed),
        };
        frame.map_err(|Malformed| Damage::Content(self.kind))
    }
}

/// A frame of a line.
pub(crate) fn of_line(kind: LineKind, line: &Line) -> Vec<u8> {
    let kind = match kind {
        LineKind::Opened => OPENED,
        LineKind::Status => STATUS,
        LineKind::Closed => CLOSED,
    };
    sealed(kind, 1, line.to_string().as_bytes())
}

/// Which of the frames that are lines.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LineKind {
    Opened,
    Status,
    Closed,
}

/// A frame of names.
pub(crate) fn of_names<'a>(names: impl Iterator<Item = (u64, &'a str)>) -> Vec<u8> {
    let (mut payload, mut count) = (Vec::new(), 0);
    for (number, name) in names {
        columns::put(number, &mut payload);
        columns::put(name.len() as u64, &mut payload);
        payload.extend_from_slice(name.as_bytes());
        count += 1;
    }
    sealed(NAMES, count, &payload)
}

/// A frame of rows.
pub(crate) fn of_rows<R: Row>(rows: &[R]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(rows.len() * R::COLUMNS);
    rows.iter().for_each(|row| row.put(&mut numbers));
    let mut payload = Vec::new();
    columns::encode(&numbers, R::COLUMNS, &mut payload);
    // The caller gives a frame's worth.
    sealed(
        R::KIND,
        u32::try_from(rows.len()).unwrap_or(u32::MAX),
        &payload,
    )
}

fn sealed(kind: u16, rows: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&rows.to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = crc(&bytes, payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn crc(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

fn line(payload: &[u8]) -> Result<Line, Malformed> {
    let text = std::str::from_utf8(payload).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

fn names(mut payload: &[u8], count: usize) -> Result<Vec<(u64, String)>, Malformed> {
    let mut names = Vec::new();
    for _ in 0..count {
        let number = columns::take(&mut payload)?;
        let length = usize::try_from(columns::take(&mut payload)?).map_err(|_| Malformed)?;
        let (name, rest) = payload.split_at_checked(length).ok_or(Malformed)?;
        payload = rest;
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
        names.push((number, name.to_owned()));
    }
    if payload.is_empty() {
        Ok(names)
    } else {
        Err(Malformed)
    }
}

fn table<R: Row>(payload: &[u8], rows: usize) -> Result<Vec<R>, Malformed> {
    let numbers = columns::decode(payload, R::COLUMNS, rows)?;
    Ok(numbers.chunks_exact(R::COLUMNS).map(R::take).collect())
}
