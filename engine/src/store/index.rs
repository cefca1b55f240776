//! What is known of many keys at once, so that a plan of which everything is done is decided in
//! one reading of one file and one look at each output.
//!
//! An index is derived from records, is never needed, and may be deleted at any time. Each line
//! has a checksum: what is damaged is forgotten. What it says is believed only after a look at the
//! outputs: every file of an artifact of few files must be there, sealed and of the size noted; larger
//! folders are checked by [`Store::present`].

use super::artifact::{escape, unescape};
use super::{
    ArtifactKind, ArtifactRef, Content, Digest, Store, StoreError, blobs, durable, records,
};
use rustix::fs::{AtFlags, Mode, OFlags, statat};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many keys are kept; those that were not used are forgotten first.
const MAX_ENTRIES: usize = 1_000_000;
/// The largest file that is read, bytes: ample for a million lines.
const MAX_FILE: u64 = 1 << 30;
/// Begins the file; the number is the version of the format.
const HEADER: &str = "benchwright index 2\n";
/// The most files of a folder that are looked at one by one.
const MAX_FILES: usize = 8;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its artifacts by name.
    pub outputs: BTreeMap<String, ArtifactRef>,
    /// What the owner of the index wants to remember besides.
    pub note: String,
}

/// The files of an output with their sizes, below its tree; `None` for a folder of many.
type Files = Option<Vec<(String, u64)>>;

/// Where a line lies in the text of the index.
#[derive(Debug)]
struct Line {
    place: Range<usize>,
    used: AtomicBool,
}

impl Line {
    fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

/// What is known of many keys.
#[derive(Debug)]
pub struct Index {
    store: Store,
    path: PathBuf,
    /// The folder of trees, from where looking at a file is quickest.
    trees: Option<OwnedFd>,
    /// Lines as they are on disk, each read when its key is asked for.
    text: String,
    lines: HashMap<Digest, Line>,
    changed: bool,
}

impl Store {
    /// Reads the index called `name`; an empty one if there is none that can be read.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] for the name.
    pub fn load_index(&self, name: &str) -> Result<Index, StoreError> {
        let path = self.indexes().join(records::checked_name(name)?);
        let fits = fs::metadata(&path).is_ok_and(|data| data.len() <= MAX_FILE);
        let bytes = match fits {
            true => fs::read(&path).unwrap_or_default(),
            false => Vec::new(),
        };
        let text = String::from_utf8(bytes).unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Index {
            store: self.clone(),
            path,
            trees: rustix::fs::open(&self.inner.trees, flags, Mode::empty()).ok(),
            lines: places(&text),
            text,
            changed: false,
        })
    }

    pub(super) fn indexes(&self) -> PathBuf {
        self.root().join("index")
    }
}

impl Index {
    /// Returns what is known of `key` if all its outputs are there.
    pub fn get(&self, key: &Digest) -> Option<Known> {
        let line = self.lines.get(key)?;
        let (known, files) = decode(self.text.get(line.place.clone())?, key)?;
        let (store, trees) = (&self.store, self.trees.as_ref());
        let mut outputs = known.outputs.values().zip(&files);
        if !outputs.all(|(output, files)| is_there(store, trees, output, files.as_deref())) {
            return None;
        }
        line.used.store(true, Ordering::Relaxed);
        Some(known)
    }

    /// Remembers what is known of `key`, whose outputs are in the store.
    pub fn learn(&mut self, key: Digest, known: &Known) {
        let outputs = known.outputs.values();
        let files: Vec<Files> = outputs
            .map(|output| files_of(&self.store, output))
            .collect();
        let start = self.text.len();
        self.text.push_str(&encode(&key, known, &files));
        let place = start..self.text.len();
        let used = AtomicBool::new(true);
        self.lines.insert(key, Line { place, used });
        self.changed = true;
    }

    /// Writes the index if something was learned.
    ///
    /// # Errors
    /// [`StoreError::OutOfSpace`], [`StoreError::Io`]; what is lost thereby is time.
    pub fn save(&mut self) -> Result<(), StoreError> {
        if !self.changed {
            return Ok(());
        }
        let mut lines: Vec<(&Digest, &Line)> = self.lines.iter().collect();
        lines.sort_by_key(|(key, line)| (!line.is_used(), **key));
        lines.truncate(MAX_ENTRIES);
        let mut text = HEADER.to_owned();
        for (_, line) in lines {
            text.push_str(self.text.get(line.place.clone()).unwrap_or_default());
        }
        durable::create_folders(&self.store.indexes())?;
        let aside = self.store.inner.session.fresh();
        durable::write_synced(&aside, text.as_bytes())?;
        durable::rename(&aside, &self.path)?;
        self.changed = false;
        Ok(())
    }
}

/// Finds the line of each key.
fn places(text: &str) -> HashMap<Digest, Line> {
    let mut places = HashMap::new();
    if !text.starts_with(HEADER) {
        return places;
    }
    let mut start = HEADER.len();
    for line in text[start..].split_inclusive('\n') {
        let place = start..start + line.len();
        start = place.end;
        if let Some(key) = line.split('\t').nth(1).and_then(|key| key.parse().ok()) {
            let used = AtomicBool::new(false);
            places.insert(key, Line { place, used });
        }
    }
    places
}

/// Lists the files of an output, if they are few and nothing else is in it.
fn files_of(store: &Store, output: &ArtifactRef) -> Files {
    let manifest = store.manifest(output)?;
    let entries = manifest.entries();
    let file = |entry: &super::Entry| match &entry.content {
        Content::File { size, .. } => Some((entry.path.clone(), *size)),
        Content::EmptyFolder | Content::Link { .. } => None,
    };
    let is_small = (1..=MAX_FILES).contains(&entries.len());
    is_small.then(|| entries.iter().map(file).collect())?
}

fn is_there(
    store: &Store,
    trees: Option<&OwnedFd>,
    output: &ArtifactRef,
    files: Option<&[(String, u64)]>,
) -> bool {
    let (Some(files), Some(trees)) = (files, trees) else {
        return store.present(output);
    };
    let hex = blake3::Hash::from_bytes(*output.digest.as_bytes()).to_hex();
    let is_whole = files.iter().all(|(name, size)| {
        let path = [&*hex, "/", name].concat();
        statat(trees, path, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| blobs::is_sealed_stat(&stat, *size))
    });
    // A tree that is missing or damaged is made again from whole blobs.
    is_whole || store.present(output)
}

/// Writes a line: a checksum, the key, the note, and for each output its name, digest, kind, number
/// of files that are listed, and their sizes and names, with tabs between.
fn encode(key: &Digest, known: &Known, files: &[Files]) -> String {
    let mut fields = format!("{key}\t{}", escape(&known.note));
    for ((name, output), files) in known.outputs.iter().zip(files) {
        let kind = match &output.kind {
            ArtifactKind::File { name } => escape(name),
            // No file is called so.
            ArtifactKind::Folder => "/".to_owned(),
        };
        let (digest, listed) = (output.digest, files.as_deref().unwrap_or_default());
        fields.push_str(&format!(
            "\t{}\t{digest}\t{kind}\t{}",
            escape(name),
            listed.len()
        ));
        for (name, size) in listed {
            fields.push_str(&format!("\t{size}\t{}", escape(name)));
        }
    }
    let checksum = crc32fast::hash(fields.as_bytes());
    format!("{checksum:08x}\t{fields}\n")
}

/// Reads the line of `key`: what is known of it, and the files of its outputs in their order.
fn decode(line: &str, key: &Digest) -> Option<(Known, Vec<Files>)> {
    let (checksum, fields) = line.strip_suffix('\n')?.split_once('\t')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(fields.as_bytes()) {
        return None;
    }
    let mut fields = fields.split('\t');
    if fields.next()?.parse() != Ok(*key) {
        return None;
    }
    let note = unescape(fields.next()?)?;
    let (mut outputs, mut files) = (BTreeMap::new(), Vec::new());
    while let Some(name) = fields.next() {
        let digest = fields.next()?.parse().ok()?;
        let kind = match fields.next()? {
            "/" => ArtifactKind::Folder,
            file => ArtifactKind::File {
                name: unescape(file)?,
            },
        };
        let count: usize = fields.next()?.parse().ok()?;
        let mut listed = Vec::new();
        for _ in 0..count {
            let size = fields.next()?.parse().ok()?;
            listed.push((unescape(fields.next()?)?, size));
        }
        files.push((count > 0).then_some(listed));
        outputs.insert(unescape(name)?, ArtifactRef { digest, kind });
    }
    Some((Known { outputs, note }, files))
}
