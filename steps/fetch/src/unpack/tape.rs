//! Tape archives: entry after entry, as they come.

use super::Out;
use crate::error::FetchError;
use std::io::Read;
use tar::{Archive, EntryType};

pub(super) fn take(from: impl Read, out: &mut Out<'_>) -> Result<(), FetchError> {
    let mut archive = Archive::new(from);
    let damaged =
        |out: &Out<'_>, error: std::io::Error| out.refuse(format!("it is damaged: {error}"));
    for entry in archive.entries().map_err(|e| damaged(out, e))? {
        let mut entry = entry.map_err(|e| damaged(out, e))?;
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| out.refuse("a name in it is not UTF-8"))?;
        match entry.header().entry_type() {
            EntryType::Directory => out.folder(&name)?,
            EntryType::Regular | EntryType::Continuous => {
                let declared = entry.size();
                out.file(&name, declared, &mut entry)?;
            }
            // What all that follow have in common: nothing that matters here.
            EntryType::XGlobalHeader => {}
            EntryType::Symlink | EntryType::Link => {
                return Err(out.refuse(format!("`{}` is a link", name.escape_debug())));
            }
            other => {
                let name = name.escape_debug().to_string();
                return Err(out.refuse(format!("`{name}` is no file or folder but {other:?}")));
            }
        }
    }
    Ok(())
}
