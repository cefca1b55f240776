//! What a check of the whole store found and did.

use super::super::Digest;
use serde::Serialize;
use std::path::PathBuf;

/// What is wrong with something in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Its content is not what its name or its checksum says.
    #[error("is damaged")]
    Damaged,
    /// Something names it, and it is not there.
    #[error("is missing")]
    Missing,
    /// It is whole, but its time or its permissions are not those of a sealed file.
    #[error("is whole, but was touched")]
    Touched,
    /// Its name is none that the store gives.
    #[error("does not belong here")]
    Stray,
    /// It names an artifact that is not there.
    #[error("names the artifact {artifact}, which is not there")]
    Dangling {
        /// The artifact.
        artifact: Digest,
    },
    /// A process that died has left it.
    #[error("was left unfinished")]
    Unfinished,
}

/// What was done about it, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// It was made again from what is whole.
    Rebuilt,
    /// It was sealed again.
    Sealed,
    /// It was moved to `quarantine/`.
    Quarantined,
    /// It was removed.
    Removed,
    /// Nothing: what is lost is made again when a run needs it.
    Nothing,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it lies, or should.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
    /// What was done about it, or would be.
    pub remedy: Remedy,
}

/// What a check of the whole store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Blobs that were read.
    pub blobs: u64,
    /// How much was read of them, bytes.
    pub bytes: u64,
    /// Trees that were compared with their lists.
    pub trees: u64,
    /// Records that were read.
    pub records: u64,
    /// Everything that is not as it should be.
    pub findings: Vec<Finding>,
    /// What could not be read or mended, and why.
    pub trouble: Vec<String>,
}

impl FsckReport {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.trouble.is_empty()
    }

    /// Whether something was lost that cannot be made again from what the store has.
    pub fn has_lost(&self) -> bool {
        let lost = |finding: &Finding| matches!(finding.problem, Problem::Dangling { .. });
        self.findings.iter().any(lost)
    }
}
