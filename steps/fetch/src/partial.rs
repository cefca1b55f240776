//! A file under way: its bytes, and beside them notes of which are surely on disk.
//!
//! The order is what makes it true after a kill and after a power failure: bytes are written, then synced,
//! then the notes that name them are written aside, synced and renamed. Before a file begins anew its notes
//! go first. So notes never name a byte that is not there, and what they do not name is brought again.

use crate::error::FetchError;
use crate::ranges::Ranges;
use crate::remote::Validator;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Raised when notes mean something else.
const FORM: u32 = 1;

/// What the bytes are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The address that they came from.
    pub(crate) source: String,
    /// Bytes of the whole.
    pub(crate) size: u64,
    /// What told its content from another.
    pub(crate) validator: Option<Validator>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Notes {
    form: u32,
    #[serde(flatten)]
    about: About,
    done: Ranges,
}

/// A file under way. It is this process's alone as long as the value lives.
#[derive(Debug)]
pub(crate) struct Partial {
    data: PathBuf,
    notes: PathBuf,
    lock: PathBuf,
    file: File,
    state: Mutex<State>,
    checkpoint: u64,
    /// Wakes up when so many bytes were written that they should be synced.
    pub(crate) due: Notify,
    _held: File,
}

#[derive(Debug, Default)]
struct State {
    /// `None` if it cannot go on later, since nobody knows how long it is.
    about: Option<About>,
    done: Ranges,
    unsaved: u64,
    /// How often it began anew: notes of an earlier beginning name bytes that are gone.
    beginnings: u64,
}

impl State {
    fn begin_anew(&mut self) {
        *self = Self {
            beginnings: self.beginnings + 1,
            ..Self::default()
        };
    }
}

impl Partial {
    /// Opens the files that begin with `stem`, and takes from the notes what can be believed.
    pub(crate) fn open(stem: &Path, held: File, checkpoint: u64) -> Result<Self, FetchError> {
        let data = stem.with_extension("part");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&data)
            .map_err(FetchError::io("open", &data))?;
        let length = file
            .metadata()
            .map_err(FetchError::io("read", &data))?
            .len();
        let notes = stem.with_extension("json");
        let state = read_notes(&notes)
            .filter(|found| found.about.size == length && found.done.is_sound(length))
            .map(|found| State {
                about: Some(found.about),
                done: found.done,
                ..State::default()
            });
        Ok(Self {
            data,
            notes,
            lock: stem.with_extension("lock"),
            file,
            state: Mutex::new(state.unwrap_or_default()),
            checkpoint,
            due: Notify::new(),
            _held: held,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is made at once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bytes are of, if it can go on.
    pub(crate) fn about(&self) -> Option<About> {
        self.state().about.clone()
    }

    /// How many bytes are there.
    pub(crate) fn done(&self) -> u64 {
        self.state().done.total()
    }

    pub(crate) fn missing(&self, size: u64, piece: u64) -> Vec<Range<u64>> {
        self.state().done.missing(size, piece)
    }

    /// Whether all its bytes are there, and it is known how many that are.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.state();
        let size = state.about.as_ref().map(|about| about.size);
        size == Some(state.done.total())
    }

    /// How many bytes are written between two syncs.
    pub(crate) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Says that the bytes that are there belong to this content too.
    pub(crate) fn adopt(&self, about: About) {
        self.state().about = Some(about);
    }

    /// Begins anew; `None` where nobody knows the size.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub(crate) fn begin(
        &self,
        source: &str,
        size: Option<u64>,
        validator: Option<Validator>,
    ) -> Result<(), FetchError> {
        let mut state = self.state();
        state.begin_anew();
        remove(&self.notes)?;
        sync_folder(&self.notes)?;
        let emptied = self
            .file
            .set_len(0)
            .and_then(|()| self.file.set_len(size.unwrap_or(0)));
        emptied.map_err(FetchError::io("write", &self.data))?;
        state.about = size.map(|size| About {
            source: source.to_owned(),
            size,
            validator,
        });
        Ok(())
    }

    /// Writes bytes at a place. Blocks for the disk, though hardly ever for long: they are not synced.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), FetchError> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(FetchError::io("write", &self.data))?;
        let mut state = self.state();
        state.done.add(at..at + bytes.len() as u64);
        state.unsaved += bytes.len() as u64;
        if state.unsaved >= self.checkpoint {
            self.due.notify_one();
        }
        Ok(())
    }

    /// Syncs what was written and notes it. Blocks for the disk.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub(crate) fn save(&self) -> Result<(), FetchError> {
        match self.unsaved() {
            Some((beginning, notes)) => self.note(beginning, &notes),
            None => Ok(()),
        }
    }

    /// What is to be noted, and since which beginning it is true.
    fn unsaved(&self) -> Option<(u64, Notes)> {
        let mut state = self.state();
        if std::mem::take(&mut state.unsaved) == 0 {
            return None;
        }
        // What is written from here on is not named, and need not be synced by this.
        let notes = Notes {
            form: FORM,
            about: state.about.clone()?,
            done: state.done.clone(),
        };
        Some((state.beginnings, notes))
    }

    /// Syncs the bytes and writes their notes, unless the file began anew since.
    fn note(&self, beginning: u64, notes: &Notes) -> Result<(), FetchError> {
        self.file
            .sync_data()
            .map_err(FetchError::io("sync", &self.data))?;
        let aside = self.notes.with_extension("aside");
        let text = serde_json::to_vec(notes).map_err(io::Error::other);
        let written = text.and_then(|text| {
            let mut file = File::create(&aside)?;
            io::Write::write_all(&mut file, &text)?;
            file.sync_all()
        });
        written.map_err(FetchError::io("write", &aside))?;
        let state = self.state();
        if state.beginnings != beginning {
            return remove(&aside);
        }
        fs::rename(&aside, &self.notes).map_err(FetchError::io("write", &self.notes))?;
        drop(state);
        sync_folder(&self.notes)
    }

    /// Moves the finished file to `to`, which must not exist, and leaves nothing. Blocks for the disk.
    ///
    /// # Errors
    /// If the disk does not let it; nothing is lost then.
    pub(crate) fn finish(&self, to: &Path) -> Result<(), FetchError> {
        self.file
            .sync_all()
            .map_err(FetchError::io("sync", &self.data))?;
        if fs::rename(&self.data, to).is_err() {
            // Another file system.
            copy(&self.data, to)?;
        }
        self.discard()
    }

    /// Puts the finished file to `to` too, which must not exist. Blocks for the disk.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub(crate) fn lend(&self, to: &Path) -> Result<(), FetchError> {
        self.file
            .sync_all()
            .map_err(FetchError::io("sync", &self.data))?;
        if fs::hard_link(&self.data, to).is_err() {
            // Another file system.
            copy(&self.data, to)?;
        }
        Ok(())
    }

    /// Removes it with its notes.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub(crate) fn discard(&self) -> Result<(), FetchError> {
        let mut state = self.state();
        state.begin_anew();
        remove(&self.notes)?;
        drop(state);
        remove(&self.data)?;
        // Last: whoever finds it gone begins with nothing.
        remove(&self.lock)
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), FetchError> {
    fs::copy(from, to).map_err(FetchError::io("write", to))?;
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(FetchError::io("sync", to))
}

fn read_notes(path: &Path) -> Option<Notes> {
    let notes: Notes = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (notes.form == FORM).then_some(notes)
}

fn remove(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_folder(of: &Path) -> Result<(), FetchError> {
    let folder = of.parent().unwrap_or(of);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(FetchError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    fn claim(cache: &Cache) -> Partial {
        cache.claim("it").expect("a folder").expect("nobody has it")
    }

    #[test]
    fn what_was_saved_is_there_and_what_was_not_is_brought_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        let tag = Some(Validator::Etag("\"1\"".into()));
        let partial = claim(&cache);
        assert_eq!(partial.about(), None);
        partial
            .begin("http://h/a", Some(10), tag.clone())
            .expect("room");
        partial.write(2, b"cde").expect("room");
        partial.save().expect("room");
        partial.write(8, b"ij").expect("room");
        drop(partial);

        let partial = claim(&cache);
        assert_eq!(partial.missing(10, 100), [0..2, 5..10]);
        assert_eq!(partial.about().expect("notes").validator, tag);
        for (at, bytes) in [(0, "ab"), (5, "fghij")] {
            partial.write(at, bytes.as_bytes()).expect("room");
        }
        let to = folder.path().join("whole");
        partial.finish(&to).expect("room");
        assert_eq!(fs::read(&to).expect("a file"), b"abcdefghij");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn notes_that_cannot_be_true_are_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1).expect("a cache");
        let partial = claim(&cache);
        partial.begin("u", Some(4), None).expect("room");
        partial.write(0, b"four").expect("room");
        partial.save().expect("room");
        let (data, notes) = (partial.data.clone(), partial.notes.clone());
        drop(partial);
        let good = fs::read_to_string(&notes).expect("notes");
        for wrong in [
            good.replace("[[0,4]]", "[[0,5]]"),
            good.replace("[[0,4]]", "[[2,4],[0,1]]"),
            good.replace("\"form\":1", "\"form\":2"),
            good[..good.len() / 2].to_owned(),
        ] {
            fs::write(&notes, &wrong).expect("notes");
            assert_eq!(claim(&cache).done(), 0, "{wrong}");
        }
        fs::write(&notes, &good).expect("notes");
        assert_eq!(claim(&cache).done(), 4);
        fs::write(&data, "fou").expect("a short file");
        assert_eq!(claim(&cache).done(), 0);
    }

    #[test]
    fn a_file_that_begins_anew_has_no_old_notes() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1).expect("a cache");
        let partial = claim(&cache);
        partial.begin("u", Some(4), None).expect("room");
        partial.write(0, b"four").expect("room");
        partial.save().expect("room");
        partial.begin("u", Some(4), None).expect("room");
        drop(partial);
        let partial = claim(&cache);
        assert_eq!(partial.done(), 0);
        partial.begin("u", Some(4), None).expect("room");
        partial.write(0, b"four").expect("room");
        let (beginning, notes) = partial.unsaved().expect("something to note");
        partial.begin("u", Some(4), None).expect("room");
        partial.note(beginning, &notes).expect("room");
        drop(partial);
        let partial = claim(&cache);
        assert_eq!(partial.done(), 0, "notes of bytes that are gone");
        partial.begin("u", None, None).expect("room");
        partial.write(0, b"five!").expect("room");
        partial.save().expect("nothing to note");
        assert_eq!(partial.about(), None);
    }
}
