//! A file mapped into memory for reading.

#![expect(
    unsafe_code,
    reason = "memory maps are unsafe: the file may change underneath"
)]

use std::fs::File;
use std::path::Path;

/// Maps a whole file.
///
/// # Errors
/// When the file cannot be opened or mapped; an empty file cannot be.
pub(super) fn map(path: &Path) -> std::io::Result<memmap2::Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is private to loading, read once and dropped. Whoever rewrites a checkpoint
    // in place meanwhile gets arbitrary weights: the bytes are only ever read as numbers, and
    // their length was fixed when the map was made.
    unsafe { memmap2::Mmap::map(&file) }
}
