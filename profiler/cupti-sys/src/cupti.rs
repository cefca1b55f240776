//! A CUPTI that answered: its calls, each with its own failure. Which of them to make, and when, is told
//! in `docs/profiler.md`.

#![expect(unsafe_code, reason = "functions of a foreign library are called")]

use crate::code::{Code, CuptiError};
use crate::constants::{Attribute, Domain, Flush, Kind};
use crate::driver::Driver;
use crate::library::{Library, LoadError};
use crate::symbols::{BufferCompleted, BufferRequested, Callback, Symbols};
use crate::version::Version;
use std::ffi::c_void;
use std::path::Path;

/// Thread ids as the system has them, not pthread's.
const SYSTEM_THREAD_IDS: u32 = 1;
/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`.
const FORCED: u32 = 1;

/// A CUPTI of a version that is known well enough.
#[derive(Debug)]
pub struct Cupti {
    library: Library,
    symbols: Symbols,
    version: Version,
}

/// A subscription, until it is given back.
#[derive(Debug)]
pub struct Subscriber(*mut c_void);

// SAFETY: it is a name that only CUPTI looks behind, and CUPTI takes it from any thread.
unsafe impl Send for Subscriber {}

impl Cupti {
    /// Looks the calls up and asks for the version. That a driver is there is shown by the argument: 13.2
    /// kills a process without one, and others answer nothing.
    ///
    /// # Errors
    /// [`LoadError`], if calls are missing, it does not answer, or is too old.
    pub fn open(library: Library, _driver: Driver) -> Result<Self, LoadError> {
        // SAFETY: a driver is loaded.
        unsafe { Self::open_without_driver(library) }
    }

    /// The same in a process that may have no driver.
    ///
    /// # Safety
    /// CUPTI 13.2 kills the process then: the library is known to be of another version, or the process
    /// may be lost.
    ///
    /// # Errors
    /// As [`Cupti::open`].
    pub unsafe fn open_without_driver(library: Library) -> Result<Self, LoadError> {
        let symbols = Symbols::resolve(&library)?;
        let path = library.path().to_owned();
        let mut number = 0;
        // SAFETY: `number` is ours to be written; the caller answers for the driver.
        let code = unsafe { (symbols.get_version)(&raw mut number) };
        if let Err(error) = CuptiError::check("cuptiGetVersion", code) {
            return Err(LoadError::Call { path, error });
        }
        let version = Version(number);
        if version < Version::OLDEST {
            return Err(LoadError::TooOld { path, version });
        }
        Ok(Self {
            library,
            symbols,
            version,
        })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.library.path()
    }

    /// Now, on the clock of its records: nanoseconds, on Linux of the system's real time.
    ///
    /// # Errors
    /// What it answered.
    pub fn timestamp(&self) -> Result<u64, CuptiError> {
        let mut now = 0;
        // SAFETY: `now` is ours to be written.
        let code = unsafe { (self.symbols.get_timestamp)(&raw mut now) };
        CuptiError::check("cuptiGetTimestamp", code).map(|()| now)
    }

    /// Takes the subscription, of which before 13.3 a process has one for all its tools.
    ///
    /// # Safety
    /// `callback` may be called from any thread, with `user`, until the subscription was given back and
    /// every call that was under way then has returned. It must not unwind.
    ///
    /// # Errors
    /// [`Code::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED`] if another tool has it: the activity calls must be left
    /// alone then, since buffers would be taken from that tool.
    pub unsafe fn subscribe(
        &self,
        callback: Callback,
        user: *mut c_void,
    ) -> Result<Subscriber, CuptiError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is ours to be written; the caller answers for `callback`.
        let code = unsafe { (self.symbols.subscribe)(&raw mut handle, callback, user) };
        CuptiError::check("cuptiSubscribe", code).map(|()| Subscriber(handle))
    }

    /// Gives a subscription back.
    ///
    /// # Errors
    /// What it answered; the subscription is gone for us all the same.
    pub fn unsubscribe(&self, subscriber: Subscriber) -> Result<(), CuptiError> {
        // SAFETY: the handle came from this library and is used for the last time.
        let code = unsafe { (self.symbols.unsubscribe)(subscriber.0) };
        CuptiError::check("cuptiUnsubscribe", code)
    }

    /// Has a whole domain told to the subscriber, or no longer.
    ///
    /// # Errors
    /// What it answered.
    pub fn domain(
        &self,
        subscriber: &Subscriber,
        domain: Domain,
        on: bool,
    ) -> Result<(), CuptiError> {
        // SAFETY: the handle came from this library and was not given back.
        let code = unsafe { (self.symbols.enable_domain)(on.into(), subscriber.0, domain.0) };
        CuptiError::check("cuptiEnableDomain", code)
    }

    /// Has records name threads as the system does.
    ///
    /// # Errors
    /// What it answered.
    pub fn use_system_thread_ids(&self) -> Result<(), CuptiError> {
        // SAFETY: a number is passed.
        let code = unsafe { (self.symbols.set_thread_id_type)(SYSTEM_THREAD_IDS) };
        CuptiError::check("cuptiSetThreadIdType", code)
    }

    /// Sets an attribute that is a byte.
    ///
    /// # Errors
    /// What it answered.
    pub fn set_flag(&self, attribute: Attribute, mut value: u8) -> Result<(), CuptiError> {
        self.set(attribute, &mut value)
    }

    /// Sets an attribute that is a `size_t`.
    ///
    /// # Errors
    /// What it answered.
    pub fn set_size(&self, attribute: Attribute, mut value: usize) -> Result<(), CuptiError> {
        self.set(attribute, &mut value)
    }

    fn set<T>(&self, attribute: Attribute, value: &mut T) -> Result<(), CuptiError> {
        let mut size = size_of::<T>();
        let value = std::ptr::from_mut(value).cast();
        // SAFETY: `value` is as large as `size` says.
        let code =
            unsafe { (self.symbols.activity_set_attribute)(attribute.0, &raw mut size, value) };
        CuptiError::check("cuptiActivitySetAttribute", code)
    }

    /// Says who gives buffers and who takes them; replaces whoever did before.
    ///
    /// # Safety
    /// Both may be called from any thread, as long as the process lives, and must not unwind. A buffer that
    /// was given is CUPTI's until it is completed.
    ///
    /// # Errors
    /// What it answered.
    pub unsafe fn register_buffers(
        &self,
        requested: BufferRequested,
        completed: BufferCompleted,
    ) -> Result<(), CuptiError> {
        // SAFETY: the caller answers for both.
        let code = unsafe { (self.symbols.activity_register_callbacks)(requested, completed) };
        CuptiError::check("cuptiActivityRegisterCallbacks", code)
    }

    /// Has records of a kind made.
    ///
    /// # Errors
    /// What it answered.
    pub fn enable(&self, kind: Kind) -> Result<(), CuptiError> {
        // SAFETY: a number is passed; one that is unknown is answered with a code.
        let code = unsafe { (self.symbols.activity_enable)(kind.0) };
        CuptiError::check("cuptiActivityEnable", code)
    }

    /// Has no more records of a kind made.
    ///
    /// # Errors
    /// What it answered.
    pub fn disable(&self, kind: Kind) -> Result<(), CuptiError> {
        // SAFETY: as above.
        let code = unsafe { (self.symbols.activity_disable)(kind.0) };
        CuptiError::check("cuptiActivityDisable", code)
    }

    /// Has records of one call of the runtime or the driver made, or no longer, where the version can:
    /// from 12.5 on. `None` where it cannot, or for another domain.
    pub fn enable_call(
        &self,
        domain: Domain,
        cbid: u32,
        on: bool,
    ) -> Option<Result<(), CuptiError>> {
        let (call, name) = match domain {
            Domain::RUNTIME => (
                self.symbols.activity_enable_runtime_api?,
                "cuptiActivityEnableRuntimeApi",
            ),
            Domain::DRIVER => (
                self.symbols.activity_enable_driver_api?,
                "cuptiActivityEnableDriverApi",
            ),
            _ => return None,
        };
        // SAFETY: numbers are passed.
        let code = unsafe { call(cbid, on.into()) };
        Some(CuptiError::check(name, code))
    }

    /// Has buffers delivered. Not from within a callback of buffers, and not from two threads at once:
    /// both deadlock. The device is not waited for.
    ///
    /// # Errors
    /// What it answered.
    pub fn flush(&self, how: Flush) -> Result<(), CuptiError> {
        let flag = match how {
            Flush::Completed => 0,
            Flush::Forced => FORCED,
        };
        // SAFETY: a number is passed.
        let code = unsafe { (self.symbols.activity_flush_all)(flag) };
        CuptiError::check("cuptiActivityFlushAll", code)
    }

    /// How many records were dropped since it was last asked, over all contexts. With no lock held that
    /// a callback of buffers takes.
    ///
    /// # Errors
    /// What it answered.
    pub fn dropped(&self) -> Result<usize, CuptiError> {
        let mut dropped = 0;
        let everywhere = std::ptr::null_mut();
        // SAFETY: `dropped` is ours to be written; no context stands for all.
        let code = unsafe {
            (self.symbols.activity_get_num_dropped_records)(everywhere, 0, &raw mut dropped)
        };
        CuptiError::check("cuptiActivityGetNumDroppedRecords", code).map(|()| dropped)
    }

    /// Size of a kind's records by the library's own word, where the version gives it: from 13.2 on.
    pub(crate) fn struct_size(&self, kind: Kind) -> Option<Result<usize, CuptiError>> {
        let call = self.symbols.activity_get_struct_size?;
        let mut size = 0;
        // SAFETY: `size` is ours to be written; version 0 is the library's own.
        let code = unsafe { call(kind.0, 0, &raw mut size) };
        Some(CuptiError::check("cuptiActivityGetStructSize", code).map(|()| size))
    }

    /// The offsets at which the library finds the first two records of a buffer.
    pub(crate) fn first_two(&self, buffer: &mut [u64]) -> Result<[usize; 2], CuptiError> {
        let size = size_of_val(buffer);
        let start = buffer.as_mut_ptr().cast::<u8>();
        let mut record = std::ptr::null_mut();
        let mut offsets = [0; 2];
        for offset in &mut offsets {
            // SAFETY: the buffer is `size` bytes large, and `record` is none or what this call gave before.
            let code =
                unsafe { (self.symbols.activity_get_next_record)(start, size, &raw mut record) };
            CuptiError::check("cuptiActivityGetNextRecord", code)?;
            *offset = record.addr().wrapping_sub(start.addr());
        }
        Ok(offsets)
    }
}

impl CuptiError {
    /// Whether another tool holds the only subscription.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.code == Code::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED
    }
}
