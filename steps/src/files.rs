//! Files of steps, with errors that name their path.

use engine::step::StepError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;

fn failed(what: &str, path: &Path, why: impl std::fmt::Display) -> StepError {
    StepError::new(format!("could not {what} `{}`: {why}", path.display()))
}

/// Creates a folder with those above it.
pub(crate) fn create_dir(path: &Path) -> Result<(), StepError> {
    fs::create_dir_all(path).map_err(|e| failed("create the folder", path, e))
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), StepError> {
    fs::write(path, bytes).map_err(|e| failed("write", path, e))
}

/// Writes a value as JSON for people.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StepError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| failed("write", path, e))?;
    bytes.push(b'\n');
    write(path, bytes)
}

/// Reads a file of text.
pub(crate) fn read_text(path: &Path) -> Result<String, StepError> {
    fs::read_to_string(path).map_err(|e| failed("read", path, e))
}

/// Reads a value from JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StepError> {
    serde_json::from_str(&read_text(path)?).map_err(|e| failed("understand", path, e))
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), StepError> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|e| failed("copy", from, e))
}
