//! A shared library as the dynamic linker has it: opened, or found among those of the process, and never
//! closed again.

#![expect(unsafe_code, reason = "the dynamic linker's calls")]

use crate::code::CuptiError;
use crate::version::Version;
use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// Why there is no CUPTI to use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is in none of the places where it is looked for.
    #[error(
        "no CUPTI found, looked for {}; install `nvidia-cuda-cupti` beside the server, or name the \
         library in `{}`", .looked.join(", "), crate::find::NAMED
    )]
    NotFound {
        /// The places.
        looked: Vec<String>,
    },
    /// The dynamic linker does not open it.
    #[error("cannot load {path}: {why}")]
    Open {
        /// The library.
        path: PathBuf,
        /// What the linker says.
        why: String,
    },
    /// It lacks calls that nothing goes without.
    #[error("{path} lacks {}, which every CUPTI from 11.8 on has", .missing.join(", "))]
    Incomplete {
        /// The library.
        path: PathBuf,
        /// The calls.
        missing: Vec<String>,
    },
    /// It does not say what it is.
    #[error("{path}: {error}")]
    Call {
        /// The library.
        path: PathBuf,
        /// What it answers instead.
        error: CuptiError,
    },
    /// It is older than any whose records are known.
    #[error("{path} is version {version}, expected {} or newer", Version::OLDEST)]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
}

/// A library that stays in the process: CUPTI has threads, and calls back into whoever subscribed.
#[derive(Debug)]
pub struct Library {
    handle: NonNull<c_void>,
    path: PathBuf,
}

// SAFETY: a handle of the dynamic linker is good in every thread, and it is never closed.
unsafe impl Send for Library {}
// SAFETY: as above; looking a symbol up changes nothing that another thread sees.
unsafe impl Sync for Library {}

impl Library {
    /// Loads a library by its path, or by its name where the linker looks. None of its functions is called
    /// but what it runs by itself when it is loaded.
    ///
    /// # Errors
    /// [`LoadError::Open`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        open(path.as_os_str(), libc::RTLD_NOW | libc::RTLD_LOCAL)
    }

    /// Finds a library among those that the process has loaded, by its path or its `SONAME`; loads nothing.
    #[must_use]
    pub fn loaded(name: &OsStr) -> Option<Self> {
        open(name, libc::RTLD_NOW | libc::RTLD_NOLOAD).ok()
    }

    /// Where it lies, or what it was asked for by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address of something that it exports.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open, and the name ends with a zero.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }

    /// Takes for its path that of the file which an address of it is in.
    pub(crate) fn located_by(mut self, symbol: &CStr) -> Self {
        if let Some(at) = self.symbol(symbol)
            && let Some(path) = file_of(at)
        {
            self.path = path;
        }
        self
    }
}

fn open(name: &OsStr, flags: c_int) -> Result<Library, LoadError> {
    let path = PathBuf::from(name);
    let Ok(name) = CString::new(name.as_bytes()) else {
        let why = "its name has a zero byte".to_owned();
        return Err(LoadError::Open { path, why });
    };
    // SAFETY: the name ends with a zero; what the library runs when it is loaded is its own affair.
    let handle = NonNull::new(unsafe { libc::dlopen(name.as_ptr(), flags) });
    match handle {
        Some(handle) => Ok(Library { handle, path }),
        None => Err(LoadError::Open {
            path,
            why: linker_error(),
        }),
    }
}

/// What the linker says of this thread's last failure.
fn linker_error() -> String {
    // SAFETY: it returns a string of the linker's that lasts until this thread's next call of it, or none.
    let said = unsafe { libc::dlerror() };
    if said.is_null() {
        return "the linker does not say why".to_owned();
    }
    // SAFETY: as above.
    let said = unsafe { CStr::from_ptr(said) };
    said.to_string_lossy().into_owned()
}

fn file_of(at: NonNull<c_void>) -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked about, and `info` is ours to be written.
    let is_known = unsafe { libc::dladdr(at.as_ptr(), &raw mut info) } != 0;
    if !is_known || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a name of the linker's, which lasts as long as the library, that is, always.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let name = std::ffi::OsString::from_vec(name.to_bytes().to_vec());
    Some(PathBuf::from(name))
}
