//! Writes down every change that a run makes on disk.

use super::crash::Disk;
use engine::disk::{Operation, Watcher};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// A change that happened; paths are relative to the folder that was watched.
#[derive(Clone)]
pub enum Change {
    CreateFolder(PathBuf),
    CreateFile(PathBuf),
    /// A file is seen for the first time that a step wrote by itself.
    Appear(PathBuf, Vec<u8>, u32),
    Append(PathBuf, Vec<u8>),
    SetLength(PathBuf, u64),
    SetAttributes(PathBuf, u32, SystemTime),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Copy(PathBuf, PathBuf),
    Symlink(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (verb, path) = match self {
            Change::CreateFolder(path) => ("make the folder", path),
            Change::CreateFile(path) => ("make the file", path),
            Change::Appear(path, ..) => ("notice", path),
            Change::Append(path, _) => ("append to", path),
            Change::SetLength(path, _) => ("cut", path),
            Change::SetAttributes(path, ..) => ("seal", path),
            Change::SyncFile(path) => ("sync the file", path),
            Change::SyncFolder(path) => ("sync the folder", path),
            Change::Rename(_, path) => ("rename to", path),
            Change::Link(_, path) => ("link to", path),
            Change::Copy(_, path) => ("copy to", path),
            Change::Symlink(_, path) => ("point", path),
            Change::Remove(path) => ("remove", path),
        };
        write!(f, "{verb} {}", path.display())
    }
}

struct Recording {
    changes: Vec<Change>,
    disk: Disk,
}

impl Recording {
    fn push(&mut self, change: Change) {
        self.disk.apply(&change);
        self.changes.push(change);
    }
}

/// Records what happens below `root`.
pub struct Recorder {
    root: PathBuf,
    recording: Mutex<Recording>,
}

impl Recorder {
    /// Begins with what `disk` knows of the folder.
    pub fn new(root: &Path, disk: Disk) -> Arc<Self> {
        let recording = Recording {
            changes: Vec::new(),
            disk,
        };
        Arc::new(Self {
            root: root.to_owned(),
            recording: Mutex::new(recording),
        })
    }

    /// Returns everything that happened, in order.
    pub fn changes(&self) -> Vec<Change> {
        self.recording.lock().expect("a recording").changes.clone()
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root)
            .expect("it is watched")
            .to_owned()
    }

    /// Writes down a file that a step has left at `path`, unless it is known.
    fn notice(&self, recording: &mut Recording, path: &Path) {
        let below = self.below(path);
        let data = fs::metadata(path);
        if let Ok(data) = data.as_ref()
            && data.is_file()
            && !recording.disk.knows(&below)
        {
            let bytes = fs::read(path).expect("what a step left");
            recording.push(Change::Appear(below, bytes, data.permissions().mode()));
        }
    }

    fn change(&self, operation: &Operation<'_>) -> Change {
        let own = |path: &Path| self.below(path);
        match *operation {
            Operation::CreateFolder { path } => Change::CreateFolder(own(path)),
            Operation::CreateFile { path } => Change::CreateFile(own(path)),
            Operation::Append { path, bytes } => Change::Append(own(path), bytes.to_vec()),
            Operation::SetLength { path, size } => Change::SetLength(own(path), size),
            Operation::SetAttributes { path } => {
                let data = fs::metadata(path).expect("a file");
                let modified = data.modified().expect("a time");
                Change::SetAttributes(own(path), data.permissions().mode(), modified)
            }
            Operation::SyncFile { path } => Change::SyncFile(own(path)),
            Operation::SyncFolder { path } => Change::SyncFolder(own(path)),
            Operation::Rename { from, to } => Change::Rename(own(from), own(to)),
            Operation::Link { from, to } => Change::Link(own(from), own(to)),
            Operation::Copy { from, to } => Change::Copy(own(from), own(to)),
            Operation::Symlink { target, path } => Change::Symlink(target.to_owned(), own(path)),
            Operation::Remove { path } => Change::Remove(own(path)),
        }
    }
}

impl Watcher for Recorder {
    fn around(
        &self,
        operation: &Operation<'_>,
        change: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        // Held meanwhile, so that the order written down is the order that was.
        let mut recording = self.recording.lock().expect("a recording");
        match *operation {
            Operation::SyncFile { path } | Operation::SetAttributes { path } => {
                self.notice(&mut recording, path);
            }
            Operation::Rename { from, .. }
            | Operation::Link { from, .. }
            | Operation::Copy { from, .. } => self.notice(&mut recording, from),
            _ => {}
        }
        change()?;
        let change = self.change(operation);
        recording.push(change);
        Ok(())
    }
}
