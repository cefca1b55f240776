//! The calls of CUPTI that are used, as the library that was found has them: those that nothing goes
//! without, and those that only some versions have.
//!
//! Names and signatures are those of NVIDIA's headers. Enumerations are `u32`, as C passes them, and
//! handles are pointers that only CUPTI looks behind.

#![expect(unsafe_code, reason = "addresses of functions become functions")]

use crate::library::{Library, LoadError};
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// `CUpti_CallbackFunc`: what was passed at the subscription, domain, call, and what the domain tells.
pub type Callback = unsafe extern "C" fn(*mut c_void, u32, u32, *const c_void);
/// `CUpti_BuffersCallbackRequestFunc`: where to write a buffer, its size in bytes, and how many records it
/// may take, 0 for as many as fit.
pub type BufferRequested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
/// `CUpti_BuffersCallbackCompleteFunc`: context, stream, buffer, its size and how much of it holds records.
pub type BufferCompleted = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

macro_rules! symbols {
    (
        required { $($name:ident = $symbol:literal ($($argument:ty),*);)* }
        optional { $($may:ident = $maybe:literal ($($given:ty),*);)* }
    ) => {
        /// Functions of one library; each returns a `CUptiResult`.
        #[derive(Debug)]
        pub(crate) struct Symbols {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> u32,)*
            $(pub(crate) $may: Option<unsafe extern "C" fn($($given),*) -> u32>,)*
        }

        impl Symbols {
            /// Looks every call up.
            ///
            /// # Errors
            /// [`LoadError::Incomplete`] with all that are missing of those that are required.
            pub(crate) fn resolve(library: &Library) -> Result<Self, LoadError> {
                let required: &[&CStr] = &[$($symbol),*];
                let missing: Vec<String> = required
                    .iter()
                    .filter(|name| library.symbol(name).is_none())
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect();
                let incomplete = || LoadError::Incomplete {
                    path: library.path().to_owned(),
                    missing: missing.clone(),
                };
                Ok(Self {
                    $($name: {
                        let at = library.symbol($symbol).ok_or_else(incomplete)?;
                        // SAFETY: the headers of every version give the call this signature.
                        unsafe {
                            std::mem::transmute::<
                                NonNull<c_void>,
                                unsafe extern "C" fn($($argument),*) -> u32,
                            >(at)
                        }
                    },)*
                    $($may: library.symbol($maybe).map(|at| {
                        // SAFETY: the headers of every version that has it give the call this signature.
                        unsafe {
                            std::mem::transmute::<
                                NonNull<c_void>,
                                unsafe extern "C" fn($($given),*) -> u32,
                            >(at)
                        }
                    }),)*
                })
            }
        }
    };
}

symbols! {
    required {
        get_version = c"cuptiGetVersion" (*mut u32);
        get_timestamp = c"cuptiGetTimestamp" (*mut u64);
        subscribe = c"cuptiSubscribe" (*mut *mut c_void, Callback, *mut c_void);
        unsubscribe = c"cuptiUnsubscribe" (*mut c_void);
        activity_enable = c"cuptiActivityEnable" (u32);
        activity_disable = c"cuptiActivityDisable" (u32);
        activity_register_callbacks = c"cuptiActivityRegisterCallbacks" (BufferRequested, BufferCompleted);
        activity_flush_all = c"cuptiActivityFlushAll" (u32);
        activity_get_next_record = c"cuptiActivityGetNextRecord" (*mut u8, usize, *mut *mut u8);
        activity_get_num_dropped_records = c"cuptiActivityGetNumDroppedRecords" (*mut c_void, u32, *mut usize);
        activity_set_attribute = c"cuptiActivitySetAttribute" (u32, *mut usize, *mut c_void);
        enable_domain = c"cuptiEnableDomain" (u32, *mut c_void, u32);
        set_thread_id_type = c"cuptiSetThreadIdType" (u32);
    }
    optional {
        // From 12.5 on.
        activity_enable_runtime_api = c"cuptiActivityEnableRuntimeApi" (u32, u8);
        activity_enable_driver_api = c"cuptiActivityEnableDriverApi" (u32, u8);
        // From 13.2 on.
        activity_get_struct_size = c"cuptiActivityGetStructSize" (u32, u32, *mut usize);
    }
}
