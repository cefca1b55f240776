//! Tape archives: entry after entry, as they come.

use super::Out;
use crate::error::FetchError;
use std::io::{self, Read};
use tar::{Archive, EntryType};

/// What an entry has besides its bytes: its header, and what fills up its last block.
const BESIDES: u64 = 1024;

pub(super) fn take(from: impl Read, out: &mut Out<'_>) -> Result<(), FetchError> {
    let mut archive = Archive::new(from);
    let mut entries = archive.entries().map_err(|e| out.broken(&e))?;
    loop {
        out.gauge.begin_record();
        let next = entries.next();
        out.gauge.end_record(BESIDES);
        let Some(entry) = next else {
            break;
        };
        let mut entry = entry.map_err(|e| out.broken(&e))?;
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
        // What nobody wants is read here, so that only records are read for the next entry.
        skip(&mut entry, out)?;
    }
    // The checksum of what is behind gzip comes after all of it.
    skip(&mut archive.into_inner(), out)
}

fn skip(from: &mut impl Read, out: &Out<'_>) -> Result<(), FetchError> {
    let skipped = io::copy(from, &mut io::sink());
    skipped.map(drop).map_err(|e| out.broken(&e))
}
