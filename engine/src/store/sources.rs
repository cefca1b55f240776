//! Digests of files and folders outside of the store: the inputs that a plan names.

use super::artifact::{Content, Entry, Manifest};
use super::scan::{self, Found, FoundKind, Links};
use super::stat_cache::Stamp;
use super::{Digest, Store, StoreError, durable, lock, parallel};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;
/// The most files of a folder that are named one by one.
const MAX_NAMED: usize = 200;
/// After reading this much the digests are saved at once: some tenths of a second of work.
const SAVE_AFTER: u64 = 512 << 20;

impl Store {
    /// Computes the digest of the file or folder at `path`, reading only files that changed since
    /// they were last seen.
    ///
    /// That of a file is the BLAKE3 of its content, as `b3sum` prints it; that of a folder is the
    /// one that [`import`](Store::import) would give it. Links are followed, wherever they lead: a
    /// model's files are often links into a shared cache.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Unfit`], [`StoreError::Changing`],
    /// [`StoreError::Io`].
    pub fn digest_path(&self, path: &Path) -> Result<Digest, StoreError> {
        let data = scan::look(path, Links::Follow)?;
        let digest = if data.is_file() {
            self.file_digest(path)?.0
        } else {
            let found = scan::walk(path, Links::Follow)?;
            Manifest::new(parallel::try_map(&found, |found| self.source_entry(found))?).digest()
        };
        if lock(&self.inner.stat_cache).unsaved() >= SAVE_AFTER {
            // Losing it costs time and nothing else.
            if let Err(error) = self.save_stat_cache() {
                self.warn(error.to_string());
            }
        }
        Ok(digest)
    }

    /// Saves the digests learned by [`digest_path`](Self::digest_path); happens by itself after
    /// much reading and when the last clone of the store is dropped.
    ///
    /// # Errors
    /// [`StoreError::OutOfSpace`], [`StoreError::Io`].
    pub fn save_stat_cache(&self) -> Result<(), StoreError> {
        let aside = self.inner.session.fresh();
        lock(&self.inner.stat_cache).save(&aside)
    }

    /// Computes the digests of the files at `path`: one without a name for a file, and for a folder
    /// one for each entry, called `/path/below`, or a single one if there are very many.
    ///
    /// # Errors
    /// Like [`digest_path`](Self::digest_path).
    pub fn digest_files(&self, path: &Path) -> Result<Vec<(String, Digest)>, StoreError> {
        let data = scan::look(path, Links::Follow)?;
        let found = if data.is_file() {
            Vec::new()
        } else {
            scan::walk(path, Links::Follow)?
        };
        if found.is_empty() || found.len() > MAX_NAMED {
            return Ok(vec![(String::new(), self.digest_path(path)?)]);
        }
        let entries = parallel::try_map(&found, |found| self.source_entry(found))?;
        let digest_of = |entry: Entry| {
            let name = format!("/{}", entry.path);
            (name, Manifest::new(vec![entry]).digest())
        };
        Ok(entries.into_iter().map(digest_of).collect())
    }

    fn source_entry(&self, found: &Found) -> Result<Entry, StoreError> {
        let content = match &found.kind {
            FoundKind::EmptyFolder => Content::EmptyFolder,
            FoundKind::Link { target } => Content::Link {
                target: target.clone(),
            },
            FoundKind::File(data) => {
                let (digest, size) = self.file_digest(&found.path)?;
                Content::File {
                    executable: data.permissions().mode() & 0o111 != 0,
                    size,
                    digest,
                }
            }
        };
        Ok(Entry {
            path: found.relative.clone(),
            content,
        })
    }

    /// Returns the digest and the size of one file.
    fn file_digest(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        for _ in 0..ATTEMPTS {
            let file = File::open(path).map_err(StoreError::on("open", path))?;
            let stamp = || {
                file.metadata()
                    .map(|data| Stamp::of(&data))
                    .map_err(StoreError::on("look at", path))
            };
            let before = stamp()?;
            if let Some(digest) = lock(&self.inner.stat_cache).get(&before) {
                return Ok((digest, before.size()));
            }
            let read_at = SystemTime::now();
            let (hash, size) =
                durable::pour(&file, io::sink()).map_err(StoreError::on("read", path))?;
            if stamp()? == before && size == before.size() {
                lock(&self.inner.stat_cache).learn(before, hash.into(), read_at);
                return Ok((hash.into(), size));
            }
        }
        Err(StoreError::Changing {
            path: path.to_owned(),
        })
    }
}
