//! Whether something fits before it is brought.

use crate::error::FetchError;
use std::path::Path;

/// Left free, bytes: a file system that is full to the last byte harms others.
const LEFT: u64 = 64 << 20;

/// Makes sure that `needed` more bytes fit into the file system of `folder`.
///
/// # Errors
/// [`FetchError::Space`], [`FetchError::Io`].
pub(crate) fn ensure(folder: &Path, needed: u64) -> Result<(), FetchError> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|e| FetchError::io("ask for the free space of", folder)(e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = match needed {
        0 => return Ok(()),
        needed => needed.saturating_add(LEFT),
    };
    if free >= needed {
        return Ok(());
    }
    Err(FetchError::Space {
        path: folder.to_owned(),
        free,
        needed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_any_disk_does_not_fit() {
        let folder = tempfile::tempdir().expect("a folder");
        ensure(folder.path(), 0).expect("nothing fits");
        let error = ensure(folder.path(), u64::MAX / 2).expect_err("no room");
        assert!(matches!(error, FetchError::Space { .. }), "{error}");
        assert!(error.help().is_some());
    }
}
