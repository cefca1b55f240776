//! The tables of NVTX, and what programs call through them.

#![expect(unsafe_code, reason = "tables of functions and texts of C")]

use super::{end, keep, pop, push, start, text};
use crate::names::text_at;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// What the headers pass to find their tables.
pub(crate) type GetExportTable = unsafe extern "C" fn(u32) -> *const c_void;
/// A place of a function.
type Slot = *mut *const c_void;

/// `NVTX_ETID_CALLBACKS`.
const CALLBACKS: u32 = 1;
/// Modules: that without domains, and that with.
const CORE: c_uint = 1;
const CORE2: c_uint = 5;

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Exports {
    _size: usize,
    table_of: Option<unsafe extern "C" fn(c_uint, *mut *mut Slot, *mut c_uint) -> c_int>,
}

/// The part of `nvtxEventAttributes_t` that is read.
#[repr(C)]
struct Attributes {
    _version: u16,
    size: u16,
    _between: [u32; 7],
    message_type: i32,
    message: *const c_void,
}

/// Patches the tables of one shared object. False if there are none.
///
/// # Safety
/// `get` is what the headers of NVTX pass.
pub(crate) unsafe fn install(get: GetExportTable) -> bool {
    // SAFETY: the caller answers for the function; what it returns is a table that stays, or nothing.
    let exports = unsafe { get(CALLBACKS).cast::<Exports>().as_ref() };
    let Some(table_of) = exports.and_then(|exports| exports.table_of) else {
        return false;
    };
    let core: [(usize, *const c_void); 8] = [
        (4, range_start_ex as *const c_void),
        (5, range_start_a as *const c_void),
        (6, range_start_w as *const c_void),
        (7, range_end as *const c_void),
        (8, range_push_ex as *const c_void),
        (9, range_push_a as *const c_void),
        (10, range_push_w as *const c_void),
        (11, range_pop as *const c_void),
    ];
    let core2: [(usize, *const c_void); 8] = [
        (2, domain_range_start_ex as *const c_void),
        (3, domain_range_end as *const c_void),
        (4, domain_range_push_ex as *const c_void),
        (5, domain_range_pop as *const c_void),
        (10, keep_a as *const c_void),
        (11, keep_w as *const c_void),
        (12, create_a as *const c_void),
        (13, create_w as *const c_void),
    ];
    let mut is_there = false;
    for (module, functions) in [(CORE, core), (CORE2, core2)] {
        let (mut table, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: both are ours to be written.
        let found = unsafe { table_of(module, &raw mut table, &raw mut size) };
        if found == 0 || table.is_null() {
            continue;
        }
        for (at, function) in functions {
            if at < size as usize {
                // SAFETY: the table has so many places, each of which is one of a function or nothing.
                unsafe {
                    let slot = *table.add(at);
                    if !slot.is_null() {
                        *slot = function;
                    }
                }
                is_there = true;
            }
        }
    }
    is_there
}

/// The message of attributes, of whichever type it is.
///
/// # Safety
/// `attributes` is what a program passes to NVTX.
unsafe fn message(attributes: *const Attributes) -> Vec<u8> {
    // SAFETY: the caller answers for it.
    let Some(attributes) = (unsafe { attributes.as_ref() }) else {
        return Vec::new();
    };
    if usize::from(attributes.size) < size_of::<Attributes>() {
        return Vec::new();
    }
    match attributes.message_type {
        // SAFETY: the type says that it is a text.
        1 => unsafe { text_at(attributes.message.cast()) }.to_vec(),
        // SAFETY: the type says that it is a wide text.
        2 => unsafe { wide(attributes.message.cast()) },
        3 => text(attributes.message.addr()),
        _ => Vec::new(),
    }
}

/// A text of wide characters, which on Linux are code points.
///
/// # Safety
/// Nothing is there, or such a text that ends with a zero.
unsafe fn wide(at: *const u32) -> Vec<u8> {
    let mut text = String::new();
    if at.is_null() {
        return Vec::new();
    }
    for index in 0..profiler_wire::LONGEST_NAME / 4 {
        // SAFETY: no zero came before.
        match unsafe { *at.add(index) } {
            0 => break,
            code => text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
    text.into_bytes()
}

// What programs call. For each: the pointers are what NVTX's documents say that they are, for as long as
// the call takes.

unsafe extern "C" fn range_start_ex(attributes: *const Attributes) -> u64 {
    // SAFETY: see above.
    start(0, || unsafe { message(attributes) })
}

unsafe extern "C" fn range_start_a(text: *const c_char) -> u64 {
    // SAFETY: see above.
    start(0, || unsafe { text_at(text) }.to_vec())
}

unsafe extern "C" fn range_start_w(text: *const u32) -> u64 {
    // SAFETY: see above.
    start(0, || unsafe { wide(text) })
}

unsafe extern "C" fn range_end(number: u64) {
    end(number);
}

unsafe extern "C" fn range_push_ex(attributes: *const Attributes) -> c_int {
    // SAFETY: see above.
    push(0, || unsafe { message(attributes) })
}

unsafe extern "C" fn range_push_a(text: *const c_char) -> c_int {
    // SAFETY: see above.
    push(0, || unsafe { text_at(text) }.to_vec())
}

unsafe extern "C" fn range_push_w(text: *const u32) -> c_int {
    // SAFETY: see above.
    push(0, || unsafe { wide(text) })
}

unsafe extern "C" fn range_pop() -> c_int {
    pop(0)
}

unsafe extern "C" fn domain_range_start_ex(domain: usize, attributes: *const Attributes) -> u64 {
    // SAFETY: see above.
    start(domain, || unsafe { message(attributes) })
}

unsafe extern "C" fn domain_range_end(_domain: usize, number: u64) {
    end(number);
}

unsafe extern "C" fn domain_range_push_ex(domain: usize, attributes: *const Attributes) -> c_int {
    // SAFETY: see above.
    push(domain, || unsafe { message(attributes) })
}

unsafe extern "C" fn domain_range_pop(domain: usize) -> c_int {
    pop(domain)
}

unsafe extern "C" fn keep_a(_domain: usize, text: *const c_char) -> usize {
    // SAFETY: see above.
    keep(unsafe { text_at(text) }.to_vec())
}

unsafe extern "C" fn keep_w(_domain: usize, text: *const u32) -> usize {
    // SAFETY: see above.
    keep(unsafe { wide(text) })
}

unsafe extern "C" fn create_a(name: *const c_char) -> usize {
    // SAFETY: see above.
    keep(unsafe { text_at(name) }.to_vec())
}

unsafe extern "C" fn create_w(name: *const u32) -> usize {
    // SAFETY: see above.
    keep(unsafe { wide(name) })
}
