//! All records of a store with the artifacts that they name, for those who look after it.
//!
//! An artifact is named wherever an [`ArtifactRef`] stands in a record's value; what the rest of
//! the value means is not known here.

use super::artifact::{ArtifactRef, Content};
use super::{Digest, Store, parallel, records, walk};
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// A record as it lies on disk.
#[derive(Debug)]
pub(super) struct RecordFile {
    pub(super) path: PathBuf,
    /// The first part of its namespace.
    pub(super) space: String,
    /// `None` for a file whose name no key has.
    pub(super) key: Option<String>,
    pub(super) modified: SystemTime,
    pub(super) size: u64,
    /// `None` for one that is damaged.
    pub(super) artifacts: Option<Vec<ArtifactRef>>,
}

/// What of an artifact is in the store.
#[derive(Debug)]
pub(super) enum Extent {
    /// Its list, and with it the files that it consists of.
    Listed(BTreeSet<(Digest, u64)>),
    /// Not even its list.
    Unknown,
}

impl Store {
    /// Reads every record.
    pub(super) fn record_files(&self) -> Vec<RecordFile> {
        let paths = walk::files(&self.inner.records);
        let read = |path: &PathBuf| Ok::<_, Infallible>(self.record_file(path));
        let found = parallel::try_map(&paths, read).unwrap_or_default();
        found.into_iter().flatten().collect()
    }

    fn record_file(&self, path: &PathBuf) -> Option<RecordFile> {
        let data = fs::symlink_metadata(path).ok()?;
        let below = path.strip_prefix(&self.inner.records).ok()?;
        let value = records::read(path);
        Some(RecordFile {
            path: path.clone(),
            space: below.iter().next()?.to_string_lossy().into_owned(),
            key: records::key_of(path),
            modified: data.modified().ok()?,
            size: data.len(),
            artifacts: value.map(|value| named_in(&value)),
        })
    }

    /// Returns the files of an artifact.
    pub(super) fn extent(&self, artifact: &ArtifactRef) -> Extent {
        let Some(manifest) = self.manifest(artifact) else {
            return Extent::Unknown;
        };
        let files = manifest.entries().iter().filter_map(|e| match e.content {
            Content::File { size, digest, .. } => Some((digest, size)),
            Content::Link { .. } | Content::EmptyFolder => None,
        });
        Extent::Listed(files.collect())
    }
}

/// Finds the artifacts that a value names.
fn named_in(value: &Value) -> Vec<ArtifactRef> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => match serde_json::from_value::<ArtifactRef>(value.clone()) {
                Ok(artifact) => found.push(artifact),
                Err(_) => open.extend(fields.values()),
            },
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::ArtifactKind;
    use super::*;

    #[test]
    fn artifacts_are_found_wherever_they_stand() {
        let one = ArtifactRef {
            digest: Digest::of(b"1"),
            kind: ArtifactKind::Folder,
        };
        let value = serde_json::json!({
            "outputs": { "a": one, "b": [{ "deep": one }] },
            "digest": one.digest, "kind": "pure",
        });
        assert_eq!(named_in(&value), [one.clone(), one]);
    }
}
