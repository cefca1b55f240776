//! NVIDIA's driver in this process: whether it is there, and what it can do. CUPTI is not called before
//! that is known, since a version of it dies of a process without one.

#![expect(unsafe_code, reason = "one call of the driver")]

use crate::library::Library;
use std::ffi::{OsStr, c_int, c_void};
use std::ptr::NonNull;

/// The driver's library, as every program that uses CUDA has it.
const NAME: &str = "libcuda.so.1";

/// That the driver's library is loaded in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it can run, as it says: 13000 is 13.0. Zero if it does not say.
    version: u32,
}

impl Driver {
    /// Finds it among the loaded libraries; loads nothing, so that no driver is brought into a process
    /// that does without.
    #[must_use]
    pub fn loaded() -> Option<Self> {
        let library = Library::loaded(OsStr::new(NAME))?;
        let mut version: c_int = 0;
        if let Some(at) = library.symbol(c"cuDriverGetVersion") {
            // SAFETY: the driver's documents give the call this signature, in every version.
            let ask = unsafe {
                std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*mut c_int) -> c_int>(
                    at,
                )
            };
            // SAFETY: `version` is ours to be written; the call may be made before `cuInit`.
            let code = unsafe { ask(&raw mut version) };
            if code != 0 {
                version = 0;
            }
        }
        Some(Self {
            version: u32::try_from(version).unwrap_or(0),
        })
    }

    /// Major version of the newest CUDA that it can run, if it says.
    #[must_use]
    pub fn cuda_major(self) -> Option<u32> {
        (self.version >= 1000).then_some(self.version / 1000)
    }
}
