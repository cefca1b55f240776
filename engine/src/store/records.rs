//! Small JSON values by name: `records/<namespace>/<k>/<key>.json`, where `<k>` is the beginning
//! of the key.
//!
//! Such a value appears whole or not at all, and carries a checksum: what was damaged reads as
//! absent. Knows nothing of what the values mean.

use super::durable::{self, SyncedFolders};
use super::session::Session;
use super::{Digest, StoreError};
use crate::disk;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest name of a file, in bytes, with room for `.json`.
const MAX_NAME: usize = 240;
/// The largest record, in bytes.
const MAX_RECORD: u64 = 64 << 20;
/// How many characters of a key name its folder.
const PREFIX: usize = 2;
const SUFFIX: &str = ".json";

/// The records of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) root: &'a Path,
    pub(super) session: &'a Session,
    pub(super) folders: &'a SyncedFolders,
}

impl Records<'_> {
    /// Writes a record, in place of an earlier one of that name. It is on disk when this returns.
    pub(super) fn put(&self, namespace: &str, key: &str, value: &Value) -> Result<(), StoreError> {
        let path = self.path(namespace, key)?;
        let folder = path.parent().unwrap_or(self.root);
        self.folders.create(self.root, folder)?;
        let aside = self.session.fresh();
        durable::write_synced(&aside, encode(value).as_bytes())?;
        durable::rename(&aside, &path)?;
        durable::sync_folder(folder)
    }

    /// Reads a record; `Err` holds a warning about one that is there but damaged.
    pub(super) fn get(&self, namespace: &str, key: &str) -> Result<Option<Value>, String> {
        let path = self
            .path(namespace, key)
            .map_err(|error| error.to_string())?;
        let ignored = |reason: &str| format!("ignored the record `{}`: {reason}", path.display());
        match read_text(&path) {
            Ok(text) => decode(&text)
                .map(Some)
                .ok_or_else(|| ignored("it is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ignored(&error.to_string())),
        }
    }

    /// Removes a record; returns whether there was one.
    pub(super) fn remove(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        let path = self.path(namespace, key)?;
        match disk::remove_file(&path) {
            Ok(()) => durable::sync_folder(path.parent().unwrap_or(self.root)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::on("remove", &path)(error)),
        }
    }

    /// Lists the keys that begin with `prefix`, sorted. The names of those records are on disk when
    /// this returns: who wrote them may have died before, and what rests on them must not outlive
    /// them.
    pub(super) fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut folder = self.root.to_owned();
        folder.extend(segments(namespace)?);
        let mut keys = Vec::new();
        for shard in names_in(&folder)? {
            // A folder's name may end within an escaped character, so compare what is common.
            let wanted = encode_name(prefix);
            let n_common = shard.len().min(wanted.len());
            if shard.as_bytes()[..n_common] != wanted.as_bytes()[..n_common] {
                continue;
            }
            let shard = folder.join(&shard);
            let names = names_in(&shard)?;
            if !names.is_empty() {
                self.folders.create(self.root, &shard)?;
                durable::sync_folder(&shard)?;
            }
            keys.extend(
                names
                    .iter()
                    .filter_map(|name| decode_name(name.strip_suffix(SUFFIX)?)),
            );
        }
        keys.retain(|key| key.starts_with(prefix));
        keys.sort();
        Ok(keys)
    }

    fn path(&self, namespace: &str, key: &str) -> Result<PathBuf, StoreError> {
        let name = checked_name(key)?;
        let mut path = self.root.to_owned();
        path.extend(segments(namespace)?);
        // Escaped names are ASCII, so any place is between two characters.
        path.push(&name[..name.len().min(PREFIX)]);
        path.push(format!("{name}{SUFFIX}"));
        Ok(path)
    }
}

/// Reads the record in the file at `path`; `None` if it is damaged or not there.
pub(super) fn read(path: &Path) -> Option<Value> {
    decode(&read_text(path).ok()?)
}

/// Returns the key of the record in the file at `path`, if any key has such a file.
pub(super) fn key_of(path: &Path) -> Option<String> {
    decode_name(path.file_name()?.to_str()?.strip_suffix(SUFFIX)?)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_RECORD)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Splits a namespace at `/` into names of folders.
pub(super) fn segments(namespace: &str) -> Result<Vec<String>, StoreError> {
    namespace.split('/').map(checked_name).collect()
}

pub(super) fn checked_name(text: &str) -> Result<String, StoreError> {
    let bad = |reason| StoreError::BadKey {
        key: text.chars().take(80).collect(),
        reason,
    };
    match encode_name(text) {
        name if name.is_empty() => Err(bad("it is empty")),
        name if name.len() > MAX_NAME => Err(bad("it is too long; use its digest")),
        name => Ok(name),
    }
}

/// Writes `text` as the name of a file: letters, digits, `-`, `_` and inner dots as they are, all
/// other bytes as `%` and two digits.
fn encode_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (i, byte) in text.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && i > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

fn decode_name(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            plain => plain,
        });
    }
    // Names that another program left here have no key.
    String::from_utf8(bytes)
        .ok()
        .filter(|text| encode_name(text) == name)
}

fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::on("list", folder)(error)),
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// Puts `value` beside the digest of its text; the whole is JSON too, for people with `jq`.
fn encode(value: &Value) -> String {
    let value = value.to_string();
    format!(
        "{{\"blake3\":\"{}\",\"value\":{value}}}\n",
        Digest::of(value.as_bytes())
    )
}

fn decode(text: &str) -> Option<Value> {
    let (digest, rest) = text
        .strip_prefix("{\"blake3\":\"")?
        .split_once("\",\"value\":")?;
    let value = rest.strip_suffix("}\n")?;
    let intact = digest.parse() == Ok(Digest::of(value.as_bytes()));
    intact.then(|| serde_json::from_str(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_key_becomes_a_safe_name_and_back(key in ".{1,40}") {
            let name = encode_name(&key);
            prop_assert!(!name.starts_with('.') && !name.contains(['/', '\0']) && name.is_ascii());
            prop_assert_eq!(decode_name(&name), Some(key));
        }

        #[test]
        fn a_changed_byte_makes_a_record_absent(place in any::<prop::sample::Index>(), flip in 1..128u8) {
            let text = encode(&serde_json::json!({ "a": [1, 0.1, "ü"], "b": null }));
            let mut bytes = text.clone().into_bytes();
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            let found = String::from_utf8(bytes).ok().and_then(|text| decode(&text));
            prop_assert_eq!(found, None);
        }
    }

    #[test]
    fn a_record_is_plain_json_to_others() {
        let value = serde_json::json!({ "x": 0.30000000000000004 });
        let outer: Value = serde_json::from_str(&encode(&value)).unwrap();
        assert_eq!(outer["value"], value);
        assert_eq!(decode(&encode(&value)), Some(value));
    }
}
