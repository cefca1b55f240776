//! How records lie in a journal, and how they are found again in a damaged one.
//!
//! ```text
//! magic, 4 bytes | length of the record, u32 | CRC-32, u32 | the record        (little-endian)
//! ```
//!
//! The checksum covers the frame's own offset in the file, the length and the record. After a
//! frame that does not check out, reading goes on at the next place where one does: the magic says
//! where to look, and the offset keeps bytes *inside* a record that look like a frame, say of a
//! journal that was quoted in another, from being taken for one. The magic holds a byte that
//! occurs in no UTF-8 text, so within JSON there is not even a place to look.

/// The largest record, in bytes.
pub const MAX_RECORD: usize = 16 << 20;

/// Begins each frame; its last byte is the version of the format.
const MAGIC: [u8; 4] = [0xFE, b'B', b'J', 1];
const HEADER: usize = 12;

/// What could be read from a journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Every whole record, in the order of their writing.
    pub records: Vec<Vec<u8>>,
    /// What lies between and after them; empty for a journal that was closed in peace.
    pub damage: Vec<Damage>,
    /// Where the last whole record ends, in bytes.
    pub end: u64,
    /// The size of the file, in bytes.
    pub size: u64,
}

/// A part of a journal that holds no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Bytes before a whole record: at least one record is lost here.
    #[error("{size} bytes at offset {offset} are damaged; the records in them are lost")]
    Middle {
        /// Where it begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        size: u64,
    },
    /// Bytes after the last whole record: most likely a write that a crash cut off.
    #[error("the last {size} bytes, from offset {offset}, are no whole record")]
    TornEnd {
        /// Where it begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        size: u64,
    },
}

/// Returns how many bytes the frame of `record` takes.
pub(super) fn size(record: &[u8]) -> u64 {
    (HEADER + record.len()) as u64
}

/// Appends the frame of `record`, for the place `offset` of the file, to `frame`.
pub(super) fn encode(offset: u64, record: &[u8], frame: &mut Vec<u8>) {
    // Nothing larger than `MAX_RECORD` comes here.
    let length = record.len() as u32;
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&checksum(offset, length, record).to_le_bytes());
    frame.extend_from_slice(record);
}

fn checksum(offset: u64, length: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// Finds the whole records in the bytes of a journal, and what lies between them.
pub fn recover(bytes: &[u8]) -> Recovered {
    let mut recovered = Recovered {
        size: bytes.len() as u64,
        ..Recovered::default()
    };
    let mut at = 0;
    while let Some((start, record)) = next_frame(bytes, at) {
        if start > at {
            recovered.damage.push(Damage::Middle {
                offset: at as u64,
                size: (start - at) as u64,
            });
        }
        at = start + HEADER + record.len();
        recovered.records.push(record.to_vec());
    }
    recovered.end = at as u64;
    if at < bytes.len() {
        recovered.damage.push(Damage::TornEnd {
            offset: at as u64,
            size: (bytes.len() - at) as u64,
        });
    }
    recovered
}

/// Finds the first frame at or after `from` that checks out.
fn next_frame(bytes: &[u8], from: usize) -> Option<(usize, &[u8])> {
    let mut at = from;
    while let Some(record) = bytes.get(at..) {
        if let Some(record) = frame_at(bytes, at) {
            return Some((at, record));
        }
        at += 1 + record.get(1..)?.iter().position(|byte| *byte == MAGIC[0])?;
    }
    None
}

/// Returns the record of the frame at `at`, if there is one and it checks out.
fn frame_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let frame = &bytes[at..];
    let header: &[u8; HEADER] = frame.first_chunk()?;
    let word =
        |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let length = word(4);
    if header[..4] != MAGIC || length as usize > MAX_RECORD {
        return None;
    }
    let record = frame.get(HEADER..HEADER + length as usize)?;
    (checksum(at as u64, length, record) == word(8)).then_some(record)
}

/// Whether `bytes` may be what a crash left of a first record: its beginning, nothing, or zeros.
pub(super) fn may_begin_one(bytes: &[u8]) -> bool {
    let n_known = bytes.len().min(MAGIC.len());
    bytes[..n_known] == MAGIC[..n_known] || bytes.iter().all(|byte| *byte == 0)
}
