//! The two symbols that are exported, and the border that no panic crosses.

#![expect(unsafe_code, reason = "symbols that C looks up by their names")]

use crate::nvtx::{self, GetExportTable};
use crate::process;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs something at the border to C; `otherwise` if it panics. The panic's message is not shown: the
/// server's output is not ours.
pub(crate) fn guarded<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(otherwise)
}

/// What CUDA calls at `cuInit` of a process whose `CUDA_INJECTION64_PATH` names this library. Starts a
/// thread and returns; 1 in any case, as a server is not to fail for its profiler.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> c_int {
    guarded((), process::begin);
    1
}

/// What the headers of NVTX call at the first use in each shared object of a process whose
/// `NVTX_INJECTION64_PATH` names this library; 0 leaves NVTX as it is without one.
///
/// # Safety
/// `get` is the function that these headers pass.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtx2(get: Option<GetExportTable>) -> c_int {
    guarded(0, || {
        let Some(get) = get.filter(|_| process::folder().is_some()) else {
            return 0;
        };
        // SAFETY: the caller answers for the function.
        c_int::from(unsafe { nvtx::install(get) })
    })
}
