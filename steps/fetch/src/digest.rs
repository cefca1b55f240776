//! SHA-256: what hubs, indexes and Git LFS name files by.

use crate::error::FetchError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// Read at a time, bytes: large enough that the disk and not the call is waited for.
const CHUNK: usize = 1 << 20;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the 64 hexadecimal digits of a SHA-256, found {0} characters")]
pub struct NoDigest(usize);

impl FromStr for Sha256 {
    type Err = NoDigest;

    /// Reads hexadecimal digits of either case, with or without `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let wrong = || NoDigest(hex.chars().count());
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            // `from_str_radix` would take a sign.
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes a file; `told` hears how many bytes are done and says whether to go on. Blocks for the disk.
///
/// # Errors
/// If it cannot be read, or if it was told to stop.
pub fn digest_file(path: &Path, told: &mut dyn FnMut(u64) -> bool) -> Result<Sha256, FetchError> {
    let mut file = std::fs::File::open(path).map_err(FetchError::io("read", path))?;
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let n = file
            .read(&mut chunk)
            .map_err(FetchError::io("read", path))?;
        if n == 0 {
            return Ok(Sha256(hasher.finalize().into()));
        }
        hasher.update(&chunk[..n]);
        done += n as u64;
        if !told(done) {
            let stopped = std::io::Error::from(std::io::ErrorKind::Interrupted);
            return Err(FetchError::io("read", path)(stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_read_as_they_are_written() {
        assert_eq!(Sha256::of(b"").to_string(), EMPTY);
        let upper = format!("sha256:{}", EMPTY.to_uppercase());
        assert_eq!(upper.parse::<Sha256>().expect("a digest"), Sha256::of(b""));
        for wrong in [
            "",
            "e3b0",
            &EMPTY.replace('e', "g"),
            &EMPTY.replace("e3", "+3"),
        ] {
            let error = wrong.parse::<Sha256>().expect_err(wrong).to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }
}
