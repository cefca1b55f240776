//! Several copies of one checkpoint, on the storage that is to be measured.
//!
//! Works only in a folder that it made itself, and marked; writes nothing over anything, and deletes
//! nothing but a folder that it has just made and that is empty, and the file by which it tried reflinks.

use crate::contents::Contents;
use crate::convert::{require_space, write_new};
use crate::error::{CheckpointError, failed};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The file that marks a folder as made here.
pub const MARK: &str = ".benchwright-replicas.json";

/// How a replica was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The file system shares the blocks of both until one is written to; the page cache does not.
    Reflink,
    /// The same file by another name: what is cached of one is cached of all.
    HardLink,
    /// Bytes of its own.
    Copy,
}

/// What a folder of replicas holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// The folder of all.
    pub folder: PathBuf,
    /// The checkpoint that they are of.
    pub from: PathBuf,
    /// Folders of the replicas.
    pub folders: Vec<PathBuf>,
    /// How they were made.
    pub how: How,
    /// Names and bytes of the files of each.
    pub files: Vec<(String, u64)>,
}

/// Makes `count` replicas of a checkpoint in `folder`, the way that is asked for, or else the first of reflinks
/// and copies that the file system does. Replicas of the same files that are there are left as they are.
/// Blocks until everything is on disk.
///
/// # Errors
/// If the folder exists and was not made here or holds something else, the disk has too little room, or the file
/// system does not do what was asked for.
pub fn replicate(
    from: &Contents,
    count: usize,
    how: Option<How>,
    folder: &Path,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Replicas, CheckpointError> {
    let files: Vec<(String, u64)> = files_of(from)?;
    if let Some(there) = found(folder)? {
        let is_same = there.files == files
            && there.folders.len() >= count
            && how.is_none_or(|how| how == there.how);
        if is_same && there.are_whole() {
            return Ok(Replicas {
                folders: there.folders[..count].to_vec(),
                ..there
            });
        }
        return Err(CheckpointError::Folder {
            folder: folder.to_owned(),
            problem: "holds other replicas; remove it or name another folder",
        });
    }
    let folder = made(from, folder)?;
    let prepared = prepare(from, &files, count, how, &folder);
    // So that another try is not refused because of what this one left: the folder was made here and is empty, or stays.
    let how = prepared.inspect_err(|_| drop(std::fs::remove_dir(&folder)))?;
    let mut maker = Maker {
        how,
        done: 0,
        go_on,
    };
    let folders = named(&folder, count);
    for own in &folders {
        maker.make_all(&files, &from.folder, own)?;
    }
    let replicas = Replicas {
        folder: folder.clone(),
        from: from.folder.clone(),
        folders,
        how,
        files,
    };
    // The mark comes last: a folder without it was not finished, and is not taken for whole.
    let path = folder.join(MARK);
    let text =
        serde_json::to_string_pretty(&replicas).map_err(|e| failed("write", &path)(e.into()))?;
    write_new(&path, &text)?;
    Ok(replicas)
}

/// Makes the folder of all replicas, which must not exist, nor lie in that of the checkpoint.
fn made(from: &Contents, folder: &Path) -> Result<PathBuf, CheckpointError> {
    // A plain name has an empty parent, which is the current folder and there.
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        let parent = parent.canonicalize().map_err(failed("find", parent))?;
        let source = from.folder.canonicalize();
        let source = source.map_err(failed("find", &from.folder))?;
        if parent.starts_with(source) {
            return Err(CheckpointError::Folder {
                folder: folder.to_owned(),
                problem: "lies in the checkpoint's own folder, to which nothing is written; name a folder beside it",
            });
        }
    }
    // Not `create_dir_all`: what has come into being since it was looked for is not ours.
    std::fs::create_dir(folder).map_err(failed("create", folder))?;
    folder.canonicalize().map_err(failed("find", folder))
}

/// Decides how replicas are made, and makes sure that they have room.
fn prepare(
    from: &Contents,
    files: &[(String, u64)],
    count: usize,
    how: Option<How>,
    folder: &Path,
) -> Result<How, CheckpointError> {
    let how = match how {
        Some(how) => how,
        None => possible(from, folder)?,
    };
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if how == How::Copy {
        require_space(folder, bytes.saturating_mul(count as u64))?;
    }
    Ok(how)
}

/// The folders of replicas.
fn named(folder: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|number| folder.join(format!("replica-{number}")))
        .collect()
}

impl Replicas {
    /// Makes sure that they are there: makes them again where their folder is gone. Blocks.
    ///
    /// # Errors
    /// As [`replicate`], and if some of their files are gone or have another length.
    pub fn ready(&self, go_on: &dyn Fn(u64) -> bool) -> Result<(), CheckpointError> {
        if self.are_whole() {
            return Ok(());
        }
        if self.folder.exists() {
            return Err(CheckpointError::Folder {
                folder: self.folder.clone(),
                problem: "lacks files of the replicas that were made there; remove it, and they are made again",
            });
        }
        let from = Contents::read(&self.from)?;
        replicate(
            &from,
            self.folders.len(),
            Some(self.how),
            &self.folder,
            go_on,
        )
        .map(drop)
    }

    /// Whether every file is there with its length.
    #[must_use]
    pub fn are_whole(&self) -> bool {
        let is_whole = |folder: &PathBuf, (name, bytes): &(String, u64)| {
            std::fs::metadata(folder.join(name)).is_ok_and(|data| data.len() == *bytes)
        };
        let mut folders = self.folders.iter();
        folders.all(|folder| self.files.iter().all(|file| is_whole(folder, file)))
    }
}

/// All plain files of a checkpoint's folder: what lies beside its data belongs to it.
fn files_of(from: &Contents) -> Result<Vec<(String, u64)>, CheckpointError> {
    let folder = &from.folder;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        // Links are followed, as loaders do.
        let data = std::fs::metadata(&path).map_err(failed("look at", &path))?;
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| data.is_file()) {
            files.push((name.to_owned(), data.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The replicas of a folder, which may not hold anything else.
fn found(folder: &Path) -> Result<Option<Replicas>, CheckpointError> {
    let refuse = |problem| CheckpointError::Folder {
        folder: folder.to_owned(),
        problem,
    };
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("list", folder)(error)),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(folder.join(MARK));
    let text = text.map_err(|_| refuse("exists and was not finished here, so nothing is written to it; name a folder that does not exist"))?;
    let replicas: Replicas = serde_json::from_str(&text)
        .map_err(|_| refuse("has a mark that cannot be understood; name another folder"))?;
    // A mark may have come from anywhere, too: it names nothing outside of its folder.
    let own = folder.canonicalize().map_err(failed("find", folder))?;
    if replicas.folder != own || replicas.folders != named(&own, replicas.folders.len()) {
        return Err(refuse(
            "has a mark that was made for another folder; name one that does not exist",
        ));
    }
    Ok(Some(replicas))
}

/// Whether the file system makes reflinks here; if not, copies are made.
fn possible(from: &Contents, folder: &Path) -> Result<How, CheckpointError> {
    let Some(file) = from.paths().into_iter().next() else {
        return Ok(How::Copy);
    };
    let probe = folder.join(".probe");
    let is_possible = reflink(&file, &probe).is_ok();
    std::fs::remove_file(&probe).map_err(failed("remove", &probe))?;
    Ok(if is_possible { How::Reflink } else { How::Copy })
}

struct Maker<'a> {
    how: How,
    done: u64,
    go_on: &'a dyn Fn(u64) -> bool,
}

impl Maker<'_> {
    fn make_all(
        &mut self,
        files: &[(String, u64)],
        from: &Path,
        to: &Path,
    ) -> Result<(), CheckpointError> {
        std::fs::create_dir(to).map_err(failed("create", to))?;
        let mut files = files.iter();
        files.try_for_each(|(name, _)| self.make(&from.join(name), &to.join(name)))
    }

    fn make(&mut self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        match self.how {
            How::Reflink => reflink(from, to).map_err(failed("reflink", to))?,
            How::HardLink => {
                let from = from.canonicalize().map_err(failed("find", from))?;
                std::fs::hard_link(&from, to).map_err(failed("link", to))?;
            }
            How::Copy => self.copy(from, to)?,
        }
        match (self.go_on)(self.done) {
            true => Ok(()),
            false => Err(CheckpointError::Stopped),
        }
    }

    /// Copies by reading and writing: `copy_file_range`, which the standard library uses, may share blocks.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        use std::io::{Read, Write};
        let mut source = File::open(from).map_err(failed("open", from))?;
        let mut target = File::create_new(to).map_err(failed("create", to))?;
        let mut buffer = vec![0; 4 << 20];
        loop {
            let n = source.read(&mut buffer).map_err(failed("read", from))?;
            if n == 0 {
                return target.sync_all().map_err(failed("sync", to));
            }
            target
                .write_all(&buffer[..n])
                .map_err(failed("write", to))?;
            self.done += n as u64;
            if !(self.go_on)(self.done) {
                return Err(CheckpointError::Stopped);
            }
        }
    }
}

fn reflink(from: &Path, to: &Path) -> std::io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    rustix::fs::ioctl_ficlone(&target, &source)?;
    target.sync_all()
}
