//! Buffers that CUPTI fills: handed out from a pool, queued when they are filled, and handed out again
//! once they were read. What CUPTI has is CUPTI's: a pool is never freed, and of a later window the same.

#![expect(
    unsafe_code,
    reason = "memory that CUPTI writes has an owner that changes at run time"
)]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of a page, for which memory is touched before it is needed.
const PAGE: usize = 4096;
/// Words of the buffer that is handed out where there is no other.
const DISCARDED: usize = 64 * 1024;

/// The pool of this process; none before it is armed, and none in a child.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// Where records go that nobody reads: before 12.9 CUPTI may crash if it is given no buffer at all.
static DISCARD: Discard = Discard(UnsafeCell::new([0; DISCARDED]));

struct Discard(UnsafeCell<[u64; DISCARDED]>);

// SAFETY: this side neither reads nor writes it. Threads of CUPTI's may write it at once, and what they
// make of each other's records nobody looks at.
unsafe impl Sync for Discard {}

/// The buffers of a process.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: *mut u8,
    count: usize,
    bytes: usize,
    free: Mutex<Vec<usize>>,
    filled: Mutex<VecDeque<(usize, usize)>>,
    ready: Condvar,
    /// Buffers that were handed out from nowhere and came back; all in them is lost.
    pub(crate) discarded: AtomicU64,
}

// SAFETY: a buffer of the memory is touched only by who has its number, which is in `free`, in `filled`, with
// CUPTI or in one `Filled`, and never in two of them.
unsafe impl Send for Pool {}
// SAFETY: as above; the numbers move under locks.
unsafe impl Sync for Pool {}

/// The pool, if there is one.
pub(crate) fn get() -> Option<&'static Pool> {
    // SAFETY: what is stored there was leaked, and lives as long as the process.
    unsafe { POOL.load(Ordering::Acquire).as_ref() }
}

/// The pool; makes one of so many buffers of so many bytes if there is none. One thread calls this.
pub(crate) fn get_or_make(count: usize, bytes: usize) -> &'static Pool {
    if let Some(pool) = get() {
        return pool;
    }
    let bytes = bytes.next_multiple_of(8);
    let memory: &'static mut [u64] = vec![0; count * bytes / 8].leak();
    let memory: *mut u8 = memory.as_mut_ptr().cast();
    for page in (0..count * bytes).step_by(PAGE) {
        // SAFETY: it is within the memory. Written so that no compiler leaves it out: a page that is not
        // there would have to be found by a thread of the server.
        unsafe { memory.add(page).write_volatile(0) };
    }
    let pool: &'static Pool = Box::leak(Box::new(Pool {
        memory,
        count,
        bytes,
        free: Mutex::new((0..count).collect()),
        filled: Mutex::new(VecDeque::with_capacity(count)),
        ready: Condvar::new(),
        discarded: AtomicU64::new(0),
    }));
    POOL.store(std::ptr::from_ref(pool).cast_mut(), Ordering::Release);
    pool
}

/// Has a child begin without its parent's. May be called between a fork and an exec.
pub(crate) fn forget() {
    POOL.store(std::ptr::null_mut(), Ordering::SeqCst);
}

/// A buffer for CUPTI, with its size in bytes; one that nobody reads where there is no other.
pub(crate) fn give() -> (*mut u8, usize) {
    let given = get().and_then(|pool| {
        let number = lock(&pool.free).pop()?;
        Some((pool.start(number), pool.bytes))
    });
    given.unwrap_or_else(|| (DISCARD.0.get().cast(), DISCARDED * 8))
}

/// Takes a buffer back, of which the first bytes hold records.
pub(crate) fn take(buffer: *mut u8, valid: usize) {
    let Some(pool) = get() else { return };
    let Some(number) = pool.number(buffer) else {
        pool.discarded.fetch_add(1, Ordering::Relaxed);
        return;
    };
    lock(&pool.filled).push_back((number, valid.min(pool.bytes)));
    pool.ready.notify_one();
}

impl Pool {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many CUPTI has.
    pub(crate) fn outstanding(&self) -> usize {
        let here = lock(&self.free).len() + lock(&self.filled).len();
        self.count.saturating_sub(here)
    }

    /// The next that was filled; waits for one no longer than the limit.
    pub(crate) fn next(&self, limit: Duration) -> Option<Filled<'_>> {
        let queue = lock(&self.filled);
        let waited = self
            .ready
            .wait_timeout_while(queue, limit, |queue| queue.is_empty());
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (number, valid) = queue.pop_front()?;
        Some(Filled {
            pool: self,
            number,
            valid,
        })
    }

    fn start(&self, number: usize) -> *mut u8 {
        debug_assert!(number < self.count);
        // SAFETY: numbers are below `count`, so that it is within the memory.
        unsafe { self.memory.add(number * self.bytes) }
    }

    fn number(&self, buffer: *mut u8) -> Option<usize> {
        let offset = buffer.addr().checked_sub(self.memory.addr())?;
        let number = offset / self.bytes;
        (number < self.count && offset.is_multiple_of(self.bytes)).then_some(number)
    }
}

/// A filled buffer, this side's until it is dropped.
#[derive(Debug)]
pub(crate) struct Filled<'a> {
    pool: &'a Pool,
    number: usize,
    valid: usize,
}

impl Filled<'_> {
    /// The records in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer is this side's, `valid` is within it, and all of it was written once.
        unsafe { std::slice::from_raw_parts(self.pool.start(self.number), self.valid) }
    }
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        // CUPTI was told that buffers are zero when it gets them.
        // SAFETY: the buffer is this side's, and nobody else looks at it.
        unsafe { self.pool.start(self.number).write_bytes(0, self.pool.bytes) };
        lock(&self.pool.free).push(self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
