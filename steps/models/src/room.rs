//! Whether something fits on a disk before it is written there.

use crate::WriteError;
use std::path::Path;

/// What is left free beside what is written, bytes: a full disk harms whoever else writes to it.
pub(crate) const SPARE: u64 = 64 << 20;

/// Makes sure that `bytes` more fit where the folder `folder` lies, and a little beside them.
///
/// # Errors
/// [`WriteError::NoSpace`] if they do not; [`WriteError::Io`] if the system does not say.
pub fn ensure_room(folder: &Path, bytes: u64) -> Result<(), WriteError> {
    let told = rustix::fs::statvfs(folder);
    let told = told.map_err(|e| WriteError::Io {
        action: "ask for the free space of",
        path: folder.to_owned(),
        source: e.into(),
    })?;
    // What an ordinary user may write.
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    let needed = bytes.saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    Err(WriteError::NoSpace {
        folder: folder.to_owned(),
        needed,
        free,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_any_disk_has_no_room() {
        let folder = tempfile::tempdir().unwrap();
        ensure_room(folder.path(), 0).unwrap();
        let error = ensure_room(folder.path(), u64::MAX / 2).unwrap_err();
        let WriteError::NoSpace { needed, free, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(needed, u64::MAX / 2 + SPARE);
        assert!(free < needed);
    }
}
