//! Archives, taken apart without leaving their folder.
//!
//! Nobody knows who made an archive. So links, devices, names that are absolute or hold `..`, names that
//! occur twice, and more files or bytes than is allowed are refused before or while they are written, and
//! every file is made anew: nothing that exists is written through.

mod gauge;
mod tape;
mod zipped;

use crate::error::FetchError;
use crate::names::{Selection, safe_path};
use crate::space;
use flate2::read::MultiGzDecoder;
use gauge::{End, Gauge, Gauged, LONGEST_RECORD};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Read at a time, bytes.
const CHUNK: usize = 1 << 18;
/// Always allowed, bytes, however small the archive is.
const ALWAYS: u64 = 16 << 20;

/// How much an archive may become.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and folders together.
    pub entries: u64,
    /// Bytes for each byte of the archive; the first 16 MiB are always allowed.
    pub ratio: u64,
}

impl Default for UnpackLimits {
    /// Larger than any data set of benchmarks: text shrinks to a fifth, repeated text to a hundredth.
    fn default() -> Self {
        Self {
            bytes: 1 << 40,
            entries: 1_000_000,
            ratio: 200,
        }
    }
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The files, relative to the folder, in the archive's order.
    pub files: Vec<PathBuf>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// The sorts of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// Zip files, of which wheels are some.
    Zip,
    /// Tape archives.
    Tar,
    /// Tape archives behind gzip.
    TarGz,
    /// One file behind gzip.
    Gz,
}

/// What sort of archive a file is, by its name.
pub fn archive_kind(name: &str) -> Option<ArchiveKind> {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match () {
        () if ends(&[".zip", ".whl"]) => Some(ArchiveKind::Zip),
        () if ends(&[".tar"]) => Some(ArchiveKind::Tar),
        () if ends(&[".tar.gz", ".tgz"]) => Some(ArchiveKind::TarGz),
        () if ends(&[".gz"]) => Some(ArchiveKind::Gz),
        () => None,
    }
}

/// Takes the chosen files of an archive out into a folder; `name` says what sort of archive the file is, and
/// `told` hears how many bytes are out and says whether to go on. Blocks for the disk.
///
/// # Errors
/// [`FetchError::Archive`] says what is wrong with it; what was taken out before stays in the folder.
/// [`FetchError::NoFile`] if a pattern of the selection matches nothing.
pub fn unpack(
    archive: &Path,
    name: &str,
    into: &Path,
    select: &Selection,
    limits: UnpackLimits,
    told: &mut dyn FnMut(u64) -> bool,
) -> Result<Unpacked, FetchError> {
    let file = File::open(archive).map_err(FetchError::io("read", archive))?;
    let length = file
        .metadata()
        .map_err(FetchError::io("read", archive))?
        .len();
    let most = limits
        .bytes
        .min(length.saturating_mul(limits.ratio).max(ALWAYS));
    let gauge = Gauge::new(most, told);
    let mut out = Out {
        archive: name,
        into,
        select,
        most,
        limits,
        seen: HashSet::new(),
        taken: Unpacked::default(),
        gauge: &gauge,
    };
    let file = BufReader::with_capacity(CHUNK, file);
    match archive_kind(name) {
        Some(ArchiveKind::Zip) => zipped::take(file, &mut out)?,
        Some(ArchiveKind::Tar) => tape::take(Gauged::new(file, &gauge), &mut out)?,
        Some(ArchiveKind::TarGz) => {
            tape::take(Gauged::new(MultiGzDecoder::new(file), &gauge), &mut out)?
        }
        Some(ArchiveKind::Gz) => {
            let inner = name[..name.len() - ".gz".len()].to_owned();
            out.file(&inner, 0, &mut MultiGzDecoder::new(file))?;
        }
        None => return Err(out.refuse("its name is none of an archive")),
    }
    out.done()
}

/// Where files go, and what keeps them in bounds.
struct Out<'a> {
    archive: &'a str,
    into: &'a Path,
    select: &'a Selection,
    limits: UnpackLimits,
    /// Bytes that all files may have together.
    most: u64,
    seen: HashSet<PathBuf>,
    taken: Unpacked,
    gauge: &'a Gauge<'a>,
}

impl Out<'_> {
    fn refuse(&self, why: impl Into<String>) -> FetchError {
        FetchError::Archive {
            path: self.archive.into(),
            why: why.into(),
        }
    }

    /// Says why an archive cannot be read on.
    fn broken(&self, error: &dyn std::fmt::Display) -> FetchError {
        match self.gauge.end() {
            None => self.refuse(format!("it is damaged: {error}")),
            Some(End::Stopped) => {
                let stopped = io::Error::from(io::ErrorKind::Interrupted);
                FetchError::io("read", Path::new(self.archive))(stopped)
            }
            Some(End::TooLarge) => self.too_large(),
            Some(End::LongRecord) => self.refuse(format!(
                "a name or a record in it has more than {LONGEST_RECORD} bytes"
            )),
        }
    }

    fn too_large(&self) -> FetchError {
        self.refuse(format!(
            "it becomes more than {} bytes, which is the limit for one of its size",
            self.most
        ))
    }

    /// Makes a path of an entry's name, if it may have it.
    fn admit(&mut self, name: &str) -> Result<PathBuf, FetchError> {
        let path = safe_path(name).map_err(|why| self.refuse(why))?;
        if !self.seen.insert(path.clone()) {
            return Err(self.refuse(format!("the name `{name}` occurs twice")));
        }
        if self.seen.len() as u64 > self.limits.entries {
            let most = self.limits.entries;
            return Err(self.refuse(format!("it has more than {most} entries")));
        }
        Ok(path)
    }

    /// Notes a folder; it is made when something is put there.
    fn folder(&mut self, name: &str) -> Result<(), FetchError> {
        // Archives of a folder begin with the folder itself.
        match name.trim_end_matches('/') {
            "" | "." => Ok(()),
            name => self.admit(name).map(drop),
        }
    }

    /// Writes a file if it is wanted; `declared` is what the archive says of its size, bytes.
    fn file(&mut self, name: &str, declared: u64, from: &mut dyn Read) -> Result<(), FetchError> {
        let path = self.admit(name)?;
        if !self.select.wants(&path.to_string_lossy()) {
            return Ok(());
        }
        self.fits(declared)?;
        space::ensure(self.into, declared)?;
        let to = self.into.join(&path);
        let folder = to.parent().unwrap_or(self.into);
        fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
        let made = File::options().write(true).create_new(true).open(&to);
        let mut file = made.map_err(FetchError::io("create", &to))?;
        self.copy(from, &mut file, &to)?;
        self.taken.files.push(path);
        Ok(())
    }

    fn fits(&self, more: u64) -> Result<(), FetchError> {
        if self.taken.bytes.saturating_add(more) <= self.most {
            return Ok(());
        }
        Err(self.too_large())
    }

    fn copy(&mut self, from: &mut dyn Read, file: &mut File, to: &Path) -> Result<(), FetchError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => return Err(self.broken(&error)),
            };
            self.fits(n as u64)?;
            file.write_all(&chunk[..n])
                .map_err(FetchError::io("write", to))?;
            self.taken.bytes += n as u64;
            if !self.gauge.out(self.taken.bytes) {
                return Err(self.broken(&"it was stopped"));
            }
        }
    }

    fn done(self) -> Result<Unpacked, FetchError> {
        let names: Vec<String> = self
            .taken
            .files
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if let Some(wanted) = self.select.idle(&names) {
            let mut has: Vec<String> = self
                .seen
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            has.sort();
            has.truncate(8);
            return Err(FetchError::NoFile {
                place: self.archive.to_owned(),
                wanted: wanted.to_owned(),
                has,
            });
        }
        Ok(self.taken)
    }
}

#[cfg(test)]
mod tests;
