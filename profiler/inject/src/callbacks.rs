//! What CUPTI calls, from whatever thread of the server: as little as can be.

#![expect(unsafe_code, reason = "CUPTI passes places to write to")]

use crate::entry::guarded;
use crate::pool;
use cupti_sys::Domain;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often CUPTI said that its state is one of an error.
static STATE_ERRORS: AtomicU64 = AtomicU64::new(0);
/// The last of its states that is only a warning.
const WARNING: u32 = 3;

/// How often CUPTI said so, in this process.
pub(crate) fn state_errors() -> u64 {
    STATE_ERRORS.load(Ordering::Relaxed)
}

pub(crate) unsafe extern "C" fn requested(
    buffer: *mut *mut u8,
    size: *mut usize,
    most_records: *mut usize,
) {
    guarded((), || {
        let (given, bytes) = pool::give();
        // SAFETY: CUPTI passes places of these types.
        unsafe {
            *buffer = given;
            *size = bytes;
            *most_records = 0;
        }
    });
}

pub(crate) unsafe extern "C" fn completed(
    _context: *mut c_void,
    _stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    guarded((), || pool::take(buffer, valid));
}

pub(crate) unsafe extern "C" fn told(
    _user: *mut c_void,
    domain: u32,
    what: u32,
    _data: *const c_void,
) {
    if domain == Domain::STATE.0 && what != WARNING {
        STATE_ERRORS.fetch_add(1, Ordering::Relaxed);
    }
}
