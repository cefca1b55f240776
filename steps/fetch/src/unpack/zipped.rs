//! Zip files, of which wheels are some: by their list at the end.

use super::Out;
use crate::error::FetchError;
use std::io::{Read, Seek};
use zip::ZipArchive;
use zip::result::ZipError;

/// The bits of a mode that say what sort of file it is, and two of the sorts.
const SORT: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

pub(super) fn take(from: impl Read + Seek, out: &mut Out<'_>) -> Result<(), FetchError> {
    let damaged = |out: &Out<'_>, error: ZipError| out.refuse(format!("it is damaged: {error}"));
    let mut archive = ZipArchive::new(from).map_err(|e| damaged(out, e))?;
    if archive.has_duplicate_names() {
        return Err(out.refuse("a name in it occurs twice"));
    }
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| damaged(out, e))?;
        let name = entry.name().map_err(|e| damaged(out, e))?.into_owned();
        let sort = entry.unix_mode().map_or(0, |mode| mode & SORT);
        if entry.is_symlink() || !matches!(sort, 0 | FILE | FOLDER) {
            return Err(out.refuse(format!("`{}` is a link or a device", name.escape_debug())));
        }
        if entry.encrypted() {
            return Err(out.refuse(format!("`{}` is encrypted", name.escape_debug())));
        }
        if entry.is_dir() {
            out.folder(&name)?;
        } else {
            let declared = entry.size();
            out.file(&name, declared, &mut entry)?;
        }
    }
    Ok(())
}
