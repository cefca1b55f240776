//! Memory of a GPU that another process may write to.
//!
//! Compiled everywhere; the driver is searched when it is needed. Memory is taken by `cuMemAlloc`, because what a
//! stream allocates cannot be shared in this way.

#![expect(unsafe_code, reason = "the CUDA driver is C")]

use cudarc::driver::{CudaContext, DriverError, result, sys};
use std::sync::Arc;

/// Bytes of a handle: `CU_IPC_HANDLE_SIZE`.
const HANDLE: usize = 64;

/// Why there is no such memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The driver's library is not there.
    #[error("this machine has no CUDA driver (`libcuda.so`)")]
    NoDriver,
    /// The driver has no such GPU.
    #[error("no GPU here has the UUID `{uuid}`; there are: {there}")]
    NoGpu {
        /// Which was searched.
        uuid: String,
        /// Which there are.
        there: String,
    },
    /// The driver did not do it.
    #[error("could not {action}: {why}")]
    Driver {
        /// What was tried.
        action: String,
        /// What it said.
        why: String,
    },
}

/// Memory of one GPU, given back when it is dropped.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<CudaContext>,
    at: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceMemory {
    /// Takes memory of the GPU with this UUID, without `GPU-` before it.
    ///
    /// # Errors
    ///
    /// If there is no driver, no such GPU, or not so much memory.
    pub fn allocate(uuid: &str, bytes: u64) -> Result<Self, DeviceError> {
        let ordinal = find(uuid)?;
        let context = CudaContext::new(ordinal);
        let context = context.map_err(failed("make a context on the GPU"))?;
        let action = format!("take {bytes} bytes of the GPU's memory");
        let size = usize::try_from(bytes).map_err(|_| DeviceError::Driver {
            action: action.clone(),
            why: "no memory is so large".to_owned(),
        })?;
        // SAFETY: `new` has made the context that of this thread.
        let at = unsafe { result::malloc_sync(size) }.map_err(failed(&action))?;
        Ok(Self {
            context,
            at,
            bytes: size,
        })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What lets another process write to it, as long as this is not dropped.
    ///
    /// # Errors
    ///
    /// If the driver does not share memory between processes.
    pub fn handle(&self) -> Result<[u8; HANDLE], DeviceError> {
        const ACTION: &str = "share memory of the GPU with the store";
        self.context.bind_to_thread().map_err(failed(ACTION))?;
        let mut handle = sys::CUipcMemHandle_st {
            reserved: [0; HANDLE],
        };
        // SAFETY: the context is that of this thread, the memory is `cuMemAlloc`'s and not freed yet, and the
        // driver writes one handle.
        let told = unsafe { sys::cuIpcGetMemHandle(&raw mut handle, self.at) };
        told.result().map_err(failed(ACTION))?;
        Ok(handle.reserved.map(|byte| byte.to_ne_bytes()[0]))
    }

    /// Copies what lies at `from` into `to`. Blocks.
    ///
    /// # Errors
    ///
    /// If that is not all within this memory, or the driver fails.
    pub fn read(&self, from: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        let action = format!("read {} bytes at {from} of the GPU's memory", to.len());
        let end = from.checked_add(to.len());
        if end.is_none_or(|end| end > self.bytes) {
            return Err(DeviceError::Driver {
                action,
                why: format!("it has {}", self.bytes),
            });
        }
        self.context.bind_to_thread().map_err(failed(&action))?;
        // SAFETY: the context is that of this thread; the range was found to be within what was allocated, and
        // the copy has ended when this returns.
        unsafe { result::memcpy_dtoh_sync(to, self.at + from as u64) }.map_err(failed(&action))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was allocated in this context and is freed once. An error means that the driver has ended,
            // and with it the memory.
            let _ = unsafe { result::free_sync(self.at) };
        }
    }
}

/// The number that this process has for a GPU.
fn find(uuid: &str) -> Result<usize, DeviceError> {
    // SAFETY: loads a library, whose initialisers run; it is the driver's or absent.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver);
    }
    const ACTION: &str = "list the GPUs";
    result::init().map_err(failed("initialise the CUDA driver"))?;
    let n_gpus = result::device::get_count().map_err(failed(ACTION))?;
    let mut there = Vec::new();
    for ordinal in 0..n_gpus {
        let device = result::device::get(ordinal).map_err(failed(ACTION))?;
        let found = result::device::get_uuid(device).map_err(failed(ACTION))?;
        let found = text(found.bytes.map(|byte| byte.to_ne_bytes()[0]));
        if found == uuid {
            return Ok(ordinal.unsigned_abs() as usize);
        }
        there.push(found);
    }
    Err(DeviceError::NoGpu {
        uuid: uuid.to_owned(),
        there: match there.is_empty() {
            true => "none".to_owned(),
            false => there.join(", "),
        },
    })
}

/// A UUID as it is written.
fn text(bytes: [u8; 16]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..4, 4..6, 6..8, 8..10, 10..16];
    parts.map(|part| digits[part].concat()).join("-")
}

fn failed(action: &str) -> impl Fn(DriverError) -> DeviceError {
    let action = action.to_owned();
    move |error| DeviceError::Driver {
        action: action.clone(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_in_five_parts() {
        let bytes = std::array::from_fn(|at| at as u8 * 16);
        assert_eq!(text(bytes), "00102030-4050-6070-8090-a0b0c0d0e0f0");
    }

    #[test]
    fn a_gpu_that_is_not_here_is_an_error_and_no_panic() {
        let error = DeviceMemory::allocate("no such GPU", 1).unwrap_err();
        let text = error.to_string();
        let is_known = ["no CUDA driver", "no GPU here has", "could not"];
        assert!(is_known.iter().any(|known| text.contains(known)), "{text}");
    }
}
