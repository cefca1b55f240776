//! GPUs of NVIDIA through their driver, which is looked for when a program runs and not when it is built.
//!
//! All copies go through one stream of their own, with two events around each block: the second says that
//! the block may be used again, both together how long it took.

#![expect(unsafe_code, reason = "calls of the driver, which are given addresses")]

use super::{Allocation, Device, Pin, Transfer};
use crate::blocks::Piece;
use crate::error::CheckpointError;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, sys};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// `CU_MEMHOSTREGISTER_PORTABLE`: memory is pinned for every context of the process.
const PORTABLE: u32 = 1;

/// A GPU.
pub struct Cuda {
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    under_way: HashMap<u64, Around>,
    /// Events of copies that are done.
    spare: Vec<Around>,
    begun: u64,
}

/// Events before and after a copy.
struct Around {
    before: CudaEvent,
    after: CudaEvent,
}

/// Why no GPU can be used here, if that is so before one is asked for.
#[must_use]
pub fn refusal() -> Option<String> {
    // SAFETY: it opens the library and closes it again; that runs the driver's own initialisers, as every use of it
    // does.
    let is_there = unsafe { sys::is_culib_present() };
    (!is_there).then(|| "no CUDA driver here: `libcuda.so` cannot be opened".to_owned())
}

/// How many GPUs there are; none without a driver.
#[must_use]
pub fn count() -> usize {
    if refusal().is_some() {
        return 0;
    }
    let told = CudaContext::device_count().unwrap_or(0);
    usize::try_from(told).unwrap_or(0)
}

impl Cuda {
    /// Opens a GPU by its number, from 0, among those that the process may see. Blocks.
    ///
    /// # Errors
    /// If there is no driver, or no such GPU.
    pub fn open(number: usize) -> Result<Self, CheckpointError> {
        // Without the library the next call would panic.
        if let Some(why) = refusal() {
            return Err(CheckpointError::Unsupported(why));
        }
        let name = format!("cuda:{number}");
        let context = CudaContext::new(number).map_err(failed("open", &name))?;
        let stream = context.new_stream().map_err(failed("open", &name))?;
        let model = context.name().map_err(failed("ask the name of", &name))?;
        Ok(Self {
            name: format!("{name} ({model})"),
            context,
            stream,
            under_way: HashMap::new(),
            spare: Vec::new(),
            begun: 0,
        })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(DriverError) -> CheckpointError + use<> {
        failed(action, &self.name)
    }

    /// Puts the copies of pieces into the stream, between two events.
    ///
    /// # Safety
    /// As [`Device::begin`].
    unsafe fn record(
        &mut self,
        to: &Allocation,
        from: &[u8],
        pieces: &[Piece],
    ) -> Result<Around, DriverError> {
        bind(&self.context)?;
        let around = self.around()?;
        around.before.record(&self.stream)?;
        for piece in pieces {
            assert!(to.holds(piece.to, piece.bytes), "{piece:?} beyond {to:?}");
            let source = &from[piece.from as usize..][..piece.bytes as usize];
            let address = to.address + piece.to;
            // SAFETY: the destination lies in the allocation, as was just looked at; the source is left alone until
            // this copy is done, as the caller promises.
            unsafe { result::memcpy_htod_async(address, source, self.stream.cu_stream())? };
        }
        around.after.record(&self.stream)?;
        Ok(around)
    }

    /// Events with their time, which are made once and used again.
    fn around(&mut self) -> Result<Around, DriverError> {
        if let Some(around) = self.spare.pop() {
            return Ok(around);
        }
        let event = || {
            let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
            self.context.new_event(Some(flags))
        };
        Ok(Around {
            before: event()?,
            after: event()?,
        })
    }
}

/// Makes a context that of this thread. An error that something left when it was dropped is forgotten: it would keep this
/// from being done.
fn bind(context: &CudaContext) -> Result<(), DriverError> {
    let _ = context.check_err();
    context.bind_to_thread()
}

/// What the driver said of `name`.
fn failed(action: &'static str, name: &str) -> impl FnOnce(DriverError) -> CheckpointError + use<> {
    let device = name.to_owned();
    move |error| CheckpointError::Device {
        action,
        device,
        why: error.to_string(),
    }
}

impl Device for Cuda {
    fn name(&self) -> &str {
        &self.name
    }

    fn allocate(&self, bytes: u64) -> Result<Allocation, CheckpointError> {
        let failed = || self.failed("take memory of");
        bind(&self.context).map_err(failed())?;
        // The driver gives no address for nothing.
        let room = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: what the memory holds is never looked at before it was copied to.
        let address = unsafe { result::malloc_sync(room) }.map_err(failed())?;
        Ok(Allocation { address, bytes })
    }

    fn free(&self, allocation: Allocation) {
        // A driver that refuses has lost the memory with its context.
        let _ = bind(&self.context);
        // SAFETY: an allocation is made by `allocate` alone and cannot be copied, so it is given back once; no copy is
        // under way, as the trait asks.
        let _ = unsafe { result::free_sync(allocation.address) };
    }

    unsafe fn pin(&self, memory: &mut [u8]) -> Result<Pin, CheckpointError> {
        let failed = || self.failed("pin memory for");
        bind(&self.context).map_err(failed())?;
        let begin = memory.as_mut_ptr();
        // SAFETY: the memory is mapped for its whole length, and stays so until the pin is dropped, as the trait asks.
        let code = unsafe { sys::cuMemHostRegister_v2(begin.cast(), memory.len(), PORTABLE) };
        code.result().map_err(failed())?;
        Ok(Box::new(Registered {
            context: Arc::clone(&self.context),
            begin: begin.expose_provenance(),
        }))
    }

    unsafe fn begin(
        &mut self,
        to: &Allocation,
        from: &[u8],
        pieces: &[Piece],
    ) -> Result<Transfer, CheckpointError> {
        let failed = self.failed("copy to");
        // SAFETY: as the trait asks.
        let around = unsafe { self.record(to, from, pieces) }.map_err(failed)?;
        self.begun += 1;
        self.under_way.insert(self.begun, around);
        Ok(Transfer(self.begun))
    }

    fn poll(&mut self, transfer: Transfer) -> Result<Option<Duration>, CheckpointError> {
        let failed = || self.failed("copy to");
        let Some(around) = self.under_way.get(&transfer.0) else {
            return Ok(Some(Duration::ZERO));
        };
        bind(&self.context).map_err(failed())?;
        // SAFETY: the event lives as long as `around`.
        match unsafe { result::event::query(around.after.cu_event()) } {
            Ok(()) => {}
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => return Ok(None),
            Err(error) => return Err(failed()(error)),
        }
        let took = around.before.elapsed_ms(&around.after).map_err(failed())?;
        if let Some(around) = self.under_way.remove(&transfer.0) {
            self.spare.push(around);
        }
        Ok(Some(Duration::from_secs_f64(
            f64::from(took.max(0.0)) / 1e3,
        )))
    }

    fn settle(&mut self) -> Result<(), CheckpointError> {
        let bound = bind(&self.context);
        // SAFETY: the stream lives as long as this does. Asked for whether the thread could be bound or not, and without
        // the wrapper, which does nothing where it finds an older error.
        let mut settled = unsafe { result::stream::synchronize(self.stream.cu_stream()) };
        if settled.is_err() {
            // An error of the context itself, in which nothing goes on any more, comes again; another does not stay.
            settled = settled.and(result::ctx::synchronize());
        }
        let around = self.under_way.drain().map(|(_, around)| around);
        self.spare.extend(around);
        settled.and(bound).map_err(self.failed("copy to"))
    }

    fn read(&self, from: &Allocation, offset: u64, into: &mut [u8]) -> Result<(), CheckpointError> {
        let failed = || self.failed("copy from");
        bind(&self.context).map_err(failed())?;
        let bytes = into.len() as u64;
        assert!(from.holds(offset, bytes), "{bytes} at {offset} of {from:?}");
        // SAFETY: the source lies in the allocation, as was just looked at, and the call returns when the copy is done.
        unsafe { result::memcpy_dtoh_sync(into, from.address + offset) }.map_err(failed())
    }
}

/// Memory that the driver keeps where it is.
struct Registered {
    context: Arc<CudaContext>,
    begin: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = bind(&self.context);
        let begin = std::ptr::with_exposed_provenance_mut(self.begin);
        // SAFETY: it was registered from this address on, once, and is still mapped. What the driver says of it does
        // not matter: it lets go of everything with the process.
        let _ = unsafe { sys::cuMemHostUnregister(begin) }.result();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_or_such_a_gpu_an_error_says_so() {
        // Whatever this machine has, it has no GPU of this number.
        let error = Cuda::open(4095).err().map(|e| e.to_string());
        let error = error.unwrap_or_default();
        match refusal() {
            Some(_) => assert!(error.starts_with("no CUDA driver here"), "{error}"),
            None => assert!(error.starts_with("could not open `cuda:4095`"), "{error}"),
        }
        assert_eq!(count() == 0, Cuda::open(0).is_err());
    }
}
