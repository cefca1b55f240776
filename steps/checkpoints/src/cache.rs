//! What of files the kernel's page cache holds, and how it is made to hold nothing or everything.
//!
//! Without privileges: a file is synced, then the kernel is asked to drop its pages. Pages that are
//! dirty or mapped stay, which is why what is left is looked at.

#![expect(
    unsafe_code,
    reason = "two calls of the kernel that no crate wraps, `cachestat` and `mincore`"
)]

use crate::error::{CheckpointError, failed};
use memmap2::Mmap;
use rustix::fs::Advice;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Number of `cachestat`, the same on every architecture; Linux 6.5 and later have it.
const CACHESTAT: libc::c_long = 451;

/// How much of some files lies in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residency {
    /// Pages that are there.
    pub pages: u64,
    /// Pages of all files.
    pub of: u64,
    /// Which call of the kernel said so.
    pub by: &'static str,
}

impl Residency {
    /// The share that is there, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self.of {
            0 => 0.0,
            of => self.pages as f64 / of as f64,
        }
    }
}

/// Makes the page cache hold nothing of these files, as far as the kernel does it. Blocks until they are on disk.
///
/// # Errors
/// If a file cannot be opened or synced.
pub fn evict(paths: &[PathBuf]) -> Result<(), CheckpointError> {
    for path in paths {
        let file = File::open(path).map_err(failed("open", path))?;
        // Dirty pages would stay.
        file.sync_all().map_err(failed("sync", path))?;
        let advised = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        advised.map_err(|e| failed("evict", path)(e.into()))?;
    }
    Ok(())
}

/// Makes the page cache hold these files, by reading them. Blocks.
///
/// # Errors
/// If a file cannot be read.
pub fn warm(paths: &[PathBuf]) -> Result<(), CheckpointError> {
    let mut buffer = vec![0; 4 << 20];
    for path in paths {
        let mut file = File::open(path).map_err(failed("open", path))?;
        while file.read(&mut buffer).map_err(failed("read", path))? > 0 {}
    }
    Ok(())
}

/// Says how much of these files lies in the page cache: by `cachestat`, or by `mincore` where the kernel does
/// not have it.
///
/// # Errors
/// If a file cannot be opened or mapped.
pub fn residency(paths: &[PathBuf]) -> Result<Residency, CheckpointError> {
    let page = rustix::param::page_size() as u64;
    let mut all = Residency {
        pages: 0,
        of: 0,
        by: "cachestat",
    };
    for path in paths {
        let file = File::open(path).map_err(failed("open", path))?;
        let bytes = file.metadata().map_err(failed("look at", path))?.len();
        all.of += bytes.div_ceil(page);
        all.pages += match cachestat(&file) {
            Ok(pages) => pages,
            // Old, or forbidden by a container.
            Err(_) => {
                all.by = "mincore";
                mincore(&file, bytes).map_err(failed("look for the pages of", path))?
            }
        };
    }
    Ok(all)
}

/// `struct cachestat_range`: all of the file if the length is 0.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of a file that are in the page cache.
fn cachestat(file: &File) -> io::Result<u64> {
    let range = CachestatRange {
        offset: 0,
        length: 0,
    };
    let mut told = Cachestat::default();
    // SAFETY: both structs are laid out as the kernel's are and live through the call; it writes to
    // `told` alone, and takes no flags.
    let code = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut told,
            0_u32,
        )
    };
    match code {
        0 => Ok(told.cached),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same by a map, none of whose pages is touched.
fn mincore(file: &File, bytes: u64) -> io::Result<u64> {
    if bytes == 0 {
        return Ok(0);
    }
    // SAFETY: nothing is read through the map; what the file holds does not matter.
    let map = unsafe { Mmap::map(file)? };
    let mut pages = vec![0_u8; map.len().div_ceil(rustix::param::page_size())];
    // SAFETY: the map is of `map.len()` bytes and begins at a page, and there is a byte in `pages` for each of its
    // pages, which is what the kernel writes.
    let code = unsafe {
        libc::mincore(
            map.as_ptr().cast_mut().cast(),
            map.len(),
            pages.as_mut_ptr(),
        )
    };
    match code {
        0 => Ok(pages.iter().filter(|page| **page & 1 == 1).count() as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_and_what_was_evicted_is_not() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![7; 1_000_001]).unwrap();
        let paths = [path.clone()];
        warm(&paths).unwrap();
        let told = residency(&paths).unwrap();
        assert_eq!((told.of, told.pages), (245, 245), "{told:?}");
        let file = File::open(&path).unwrap();
        assert_eq!(mincore(&file, 1_000_001).unwrap(), 245);
        evict(&paths).unwrap();
        // A file system in memory has nowhere to evict to; the kernel may also keep a page that it is using.
        let told = residency(&paths).unwrap();
        assert_eq!(mincore(&file, 1_000_001).unwrap(), told.pages);
    }

    #[test]
    fn an_empty_file_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        File::create(&path).unwrap();
        let told = residency(&[path]).unwrap();
        assert_eq!((told.pages, told.of), (0, 0));
        assert!(told.share().abs() < f64::EPSILON);
    }
}
