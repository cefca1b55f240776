//! What there is once in a process: its thread, and what becomes of it when the process forks.

#![expect(
    unsafe_code,
    reason = "a handler of forks, signals of a thread, and closing what a child inherits"
)]

use crate::control;
use crate::nvtx;
use crate::pool;
use profiler_wire::{FOLDER, SOCKET};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::{env, fs, process, thread};

/// The process that begun; a child has another id, and begins anew when CUDA asks it to.
static BEGUN: AtomicU32 = AtomicU32::new(0);
/// Whether forks are handled; children inherit that.
static HANDLES_FORKS: AtomicBool = AtomicBool::new(false);

/// Descriptors that a child has to close, else a controller would not see its parent's end.
static INHERITED: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Descriptor {
    Listener = 0,
    Connection = 1,
    Spool = 2,
}

/// A descriptor that children close, for as long as this lives.
#[derive(Debug)]
pub(crate) struct ClosedByChildren(Descriptor);

impl ClosedByChildren {
    pub(crate) fn new(which: Descriptor, fd: RawFd) -> Self {
        INHERITED[which as usize].store(fd, Ordering::SeqCst);
        Self(which)
    }
}

impl Drop for ClosedByChildren {
    fn drop(&mut self) {
        INHERITED[self.0 as usize].store(-1, Ordering::SeqCst);
    }
}

/// The folder of sockets and spools, if this process is to be profiled.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = env::var_os(FOLDER).filter(|folder| !folder.is_empty())?;
    Some(PathBuf::from(folder))
}

/// Begins to listen, once per process. Where that cannot be done the process is not profiled: the engine
/// finds no socket and says so.
pub(crate) fn begin() {
    let Some(folder) = folder() else { return };
    let pid = process::id();
    if BEGUN.swap(pid, Ordering::SeqCst) == pid {
        return;
    }
    if !HANDLES_FORKS.swap(true, Ordering::SeqCst) {
        // SAFETY: the handler does only what is allowed between a fork and an exec.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
    let path = folder.join(format!("{pid}.{SOCKET}"));
    // Of a process that had this id before, if any.
    let _ = fs::remove_file(&path);
    let Ok(listener) = UnixListener::bind(&path) else {
        return;
    };
    let inherited = ClosedByChildren::new(Descriptor::Listener, listener.as_raw_fd());
    let serve = move || {
        let _inherited = inherited;
        control::serve(&listener, &folder);
        let _ = fs::remove_file(&path);
    };
    let blocked = BlockedSignals::new();
    let _ = thread::Builder::new()
        .name("bw-profiler".into())
        .spawn(serve);
    drop(blocked);
}

/// What a child does right after a fork: only this thread lives on, whatever locks others held are held
/// for ever, and what was open is its parent's.
extern "C" fn in_child() {
    pool::forget();
    nvtx::record(false);
    for descriptor in &INHERITED {
        let fd: c_int = descriptor.swap(-1, Ordering::SeqCst);
        if fd >= 0 {
            // SAFETY: who owned it was a thread of the parent, which is not there in the child.
            unsafe { libc::close(fd) };
        }
    }
}

/// All signals blocked in this thread, and so in those that it starts: a server's signals are for its own.
pub(crate) struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are written before they are read, the second by the call that is made first
        // with it; `SIG_SETMASK` with a full set cannot fail.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by `new`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}
