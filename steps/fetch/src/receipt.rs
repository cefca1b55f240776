//! What is told of something that was brought: enough to bring it again, and to know it.

use crate::digest::Sha256;
use serde::Serialize;
use std::path::PathBuf;

/// Whether the same request always brings the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// By a digest, a commit or a version.
    Pinned,
    /// It may bring something else later; what to write in a plan so that it does not.
    Moving(String),
}

/// A file that was brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Its path in the folder.
    pub path: PathBuf,
    /// Where it came from, without what follows a `?`.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest, computed of what is on disk.
    pub sha256: Sha256,
    /// Of its bytes the ones that an earlier try had brought.
    pub resumed_bytes: u64,
}

/// What was brought, and how.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// From where, as it was asked for.
    pub source: String,
    /// The commit of a repository.
    pub revision: Option<String>,
    /// Whether it will be the same again.
    pub pin: Pin,
    /// The licence that the source names.
    pub licence: Option<String>,
    /// The files, in the source's order.
    pub files: Vec<Fetched>,
    /// Bytes of all files.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that came, by that time.
    pub bytes_per_s: f64,
    /// When it was done, seconds since 1970.
    pub fetched_at_s: u64,
}
