//! What one tokenizer made of texts, in a folder: files that are written once, whole or not at all.
//!
//! A file is entries and the digest of all before it. An entry is the digest of a text, how many tokens
//! it has, how many ids follow, and the ids; all numbers little-endian. A file whose digest is another is
//! removed. Any number of processes read and write: names are those of contents.

use super::{Text, Tokens};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes of the digest of a text: no two of a cache's texts share one by chance.
const KEY: usize = 16;
/// Bytes of the digest of a file.
const SEAL: usize = blake3::OUT_LEN;
/// Bytes that are held before a file is written.
const FILE: usize = 64 << 20;
/// Bytes of all files of one tokenizer, which are read at once: the newest stay.
const MOST: u64 = 1 << 30;
/// How long files of a tokenizer stay that nobody uses.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

type Key = [u8; KEY];

/// What is known of texts.
#[derive(Debug)]
pub(super) struct Remembered {
    folder: PathBuf,
    known: HashMap<Key, Tokens>,
    /// Entries of a file that is not written yet.
    fresh: Vec<u8>,
}

impl Remembered {
    /// Reads what is known by one tokenizer, of all that are in the folder `all`; one that cannot be
    /// read has nothing. What nobody has used for long goes, whosesoever it is.
    pub(super) fn open(all: &Path, tokenizer: &str) -> Self {
        sweep(all);
        let folder = all.join(tokenizer);
        let mut remembered = Self {
            folder: folder.clone(),
            known: HashMap::new(),
            fresh: Vec::new(),
        };
        let mut left = MOST;
        for (_, bytes, path) in files(&folder) {
            left = left.saturating_sub(bytes);
            // What cannot be removed stays, and is read by nobody.
            let is_whole = path.extension().is_none();
            if is_whole && (left == 0 || remembered.read(&path).is_none()) {
                let _ = fs::remove_file(&path);
            }
        }
        remembered
    }

    /// What a text is, as far as that is known.
    pub(super) fn find(&self, text: Text<'_>) -> Option<Tokens> {
        let found = self.known.get(&key(text))?;
        match text {
            Text::Ids(_) => (found.ids.len() == found.number as usize).then(|| found.clone()),
            Text::Number(_) => Some(Tokens {
                number: found.number,
                ids: Vec::new(),
            }),
        }
    }

    /// Notes what a text is, to be kept.
    pub(super) fn add(&mut self, text: Text<'_>, tokens: &Tokens) {
        self.fresh.extend(key(text));
        self.fresh.extend(tokens.number.to_le_bytes());
        self.fresh.extend(count(&tokens.ids).to_le_bytes());
        for id in &tokens.ids {
            self.fresh.extend(id.to_le_bytes());
        }
        if self.fresh.len() >= FILE {
            self.keep();
        }
    }

    /// Writes down what is new. Where that fails it is only counted again.
    pub(super) fn keep(&mut self) {
        if !self.fresh.is_empty() {
            let _ = self.write();
            self.fresh.clear();
        }
    }

    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let seal = blake3::hash(&self.fresh);
        let path = self.folder.join(&seal.to_hex()[..32]);
        let aside = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::File::create(&aside).and_then(|mut file| {
            file.write_all(&self.fresh)?;
            file.write_all(seal.as_bytes())?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&aside, &path));
        if renamed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        renamed
    }

    /// Reads a file, and notes that it is used; nothing if it is not whole.
    fn read(&mut self, path: &Path) -> Option<()> {
        let bytes = fs::read(path).ok()?;
        let (entries, seal) = bytes.split_last_chunk::<SEAL>()?;
        if blake3::hash(entries) != blake3::Hash::from_bytes(*seal) {
            return None;
        }
        let mut rest = entries;
        while !rest.is_empty() {
            let key = *taken::<KEY>(&mut rest)?;
            let number = u32::from_le_bytes(*taken(&mut rest)?);
            let n_ids = u32::from_le_bytes(*taken(&mut rest)?);
            let (ids, behind) = rest.split_at_checked(4 * n_ids as usize)?;
            rest = behind;
            let (ids, _) = ids.as_chunks::<4>();
            let ids: Vec<u32> = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
            let is_more = |known: &Tokens| known.ids.len() >= ids.len();
            if !self.known.get(&key).is_some_and(is_more) {
                self.known.insert(key, Tokens { number, ids });
            }
        }
        let file = fs::File::options().append(true).open(path).ok()?;
        // What is not noted is only forgotten sooner.
        let _ = file.set_modified(SystemTime::now());
        Some(())
    }
}

/// Removes what nobody has used for long, also what was left half written, and then empty folders.
fn sweep(all: &Path) {
    for folder in fs::read_dir(all).into_iter().flatten().flatten() {
        for (modified, _, path) in files(&folder.path()) {
            if modified.elapsed().is_ok_and(|age| age > KEPT) {
                let _ = fs::remove_file(path);
            }
        }
        // One that has something is not removed.
        let _ = fs::remove_dir(folder.path());
    }
}

/// The files of a folder, the newest first.
fn files(folder: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let about = entries.filter_map(|entry| {
        let about = entry.metadata().ok()?;
        Some((about.modified().ok()?, about.len(), entry.path()))
    });
    let mut files: Vec<_> = about.collect();
    files.sort_by(|one, other| other.cmp(one));
    files
}

fn key(text: Text<'_>) -> Key {
    let (Text::Ids(said) | Text::Number(said)) = text;
    let mut key = [0; KEY];
    key.copy_from_slice(&blake3::hash(said.as_bytes()).as_bytes()[..KEY]);
    key
}

fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

fn taken<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(first)
}
