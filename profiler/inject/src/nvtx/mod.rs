//! NVTX, as the one that its headers call: ranges that the server marks, such as the steps of an engine,
//! go beside its kernels.
//!
//! Each shared object has tables of its own, which are patched when it first uses NVTX. Outside of a
//! window a range costs a push onto a list of its thread; within one a reading of the clock at either end
//! and a copy of its text. Instants without a length are not recorded.

mod calls;

pub(crate) use calls::{GetExportTable, install};

use crate::clock::realtime;
use crate::entry::guarded;
use crate::names::Names;
use profiler_wire::rows::Range;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;

/// Ranges that are open in one thread, at most; deeper ones are not recorded.
const DEEPEST: usize = 1024;
/// Ranges that wait to be written, texts that are registered, and ranges that are open between threads.
const MOST: usize = 1 << 16;
/// Attempts at a lock, between which other threads have their turn. In a child of a fork a lock may be held by
/// nobody for ever.
const ATTEMPTS: u32 = 10_000;

/// A range that is open.
#[derive(Debug)]
struct Open {
    start: u64,
    name: Vec<u8>,
}

/// A range that has ended.
#[derive(Debug)]
struct Ended {
    open: Open,
    end: u64,
    domain: usize,
    thread: u64,
}

static IS_RECORDING: AtomicBool = AtomicBool::new(false);
static LOST: AtomicU64 = AtomicU64::new(0);
static NEXT_RANGE: AtomicU64 = AtomicU64::new(1);
static ENDED: Mutex<Vec<Ended>> = Mutex::new(Vec::new());
/// Names of domains and registered texts; handles are places in it, from 1 on.
static TEXTS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static BETWEEN_THREADS: Mutex<Option<HashMap<u64, (usize, Open)>>> = Mutex::new(None);

thread_local! {
    /// Ranges that this thread has open, of all domains; those that began outside of a window are `None`.
    static STACK: RefCell<Vec<(usize, Option<Open>)>> = const { RefCell::new(Vec::new()) };
}

/// Ranges that have ended, for the spool.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) rows: Vec<Range>,
    /// How many found no place since the last time.
    pub(crate) lost: u64,
}

/// Whether ranges are recorded from now on.
pub(crate) fn record(on: bool) {
    IS_RECORDING.store(on, Ordering::Release);
}

/// Takes the ranges that have ended so far.
pub(crate) fn take(names: &mut Names) -> Taken {
    let lost = LOST.swap(0, Ordering::Relaxed);
    let ended = lock(&ENDED).map(|mut ended| std::mem::take(&mut *ended));
    let row = |ended: Ended| Range {
        start_ns: ended.open.start,
        end_ns: ended.end,
        name: names.number(&ended.open.name),
        domain: names.number(&text(ended.domain)),
        thread: ended.thread,
    };
    let rows = ended.unwrap_or_default().into_iter().map(row).collect();
    Taken { rows, lost }
}

fn push(domain: usize, name: impl FnOnce() -> Vec<u8>) -> c_int {
    guarded(-1, || {
        let open = IS_RECORDING.load(Ordering::Acquire).then(|| open(name));
        let pushed = STACK.try_with(|stack| {
            let mut stack = stack.borrow_mut();
            let level = stack.iter().filter(|(of, _)| *of == domain).count();
            if stack.len() < DEEPEST {
                stack.push((domain, open));
            } else {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
            c_int::try_from(level).unwrap_or(c_int::MAX)
        });
        pushed.unwrap_or(-1)
    })
}

fn pop(domain: usize) -> c_int {
    guarded(-1, || {
        let popped = STACK.try_with(|stack| {
            let mut stack = stack.borrow_mut();
            let at = stack.iter().rposition(|(of, _)| *of == domain)?;
            let (_, open) = stack.remove(at);
            let level = stack.iter().filter(|(of, _)| *of == domain).count();
            Some((open, level))
        });
        let Ok(Some((open, level))) = popped else {
            return -1;
        };
        if let Some(open) = open {
            ended(domain, open);
        }
        c_int::try_from(level).unwrap_or(c_int::MAX)
    })
}

fn start(domain: usize, name: impl FnOnce() -> Vec<u8>) -> u64 {
    guarded(0, || {
        let number = NEXT_RANGE.fetch_add(1, Ordering::Relaxed);
        if !IS_RECORDING.load(Ordering::Acquire) {
            return number;
        }
        let open = open(name);
        let ranges = lock(&BETWEEN_THREADS);
        if let Some(mut ranges) =
            ranges.filter(|ranges| ranges.as_ref().is_none_or(|all| all.len() < MOST))
        {
            ranges
                .get_or_insert_default()
                .insert(number, (domain, open));
        } else {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        number
    })
}

fn end(number: u64) {
    guarded((), || {
        let found = lock(&BETWEEN_THREADS).and_then(|mut ranges| ranges.as_mut()?.remove(&number));
        if let Some((domain, open)) = found {
            ended(domain, open);
        }
    });
}

fn open(name: impl FnOnce() -> Vec<u8>) -> Open {
    Open {
        name: name(),
        start: realtime(),
    }
}

fn ended(domain: usize, open: Open) {
    // One that ends after the window did is not known to have an end in it.
    if !IS_RECORDING.load(Ordering::Acquire) {
        return;
    }
    let end = realtime();
    #[expect(
        unsafe_code,
        reason = "the standard library does not tell the system's number of a thread"
    )]
    // SAFETY: it asks for a number.
    let thread = unsafe { libc::gettid() };
    let thread = u64::try_from(thread).unwrap_or(0);
    match lock(&ENDED).filter(|all| all.len() < MOST) {
        Some(mut all) => all.push(Ended {
            open,
            end,
            domain,
            thread,
        }),
        None => {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Keeps a text; its handle, or 0 if there are too many.
fn keep(text: Vec<u8>) -> usize {
    guarded(0, || {
        match lock(&TEXTS).filter(|texts| texts.len() < MOST) {
            Some(mut texts) => {
                texts.push(text);
                texts.len()
            }
            None => 0,
        }
    })
}

/// The text of a handle; nothing for one that is none of ours.
fn text(handle: usize) -> Vec<u8> {
    let texts = lock(&TEXTS);
    let text = texts
        .as_ref()
        .and_then(|texts| texts.get(handle.checked_sub(1)?));
    text.cloned().unwrap_or_default()
}

/// A lock that is had soon, or not at all.
fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}
