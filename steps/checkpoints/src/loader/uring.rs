//! Reading past the page cache by `io_uring`: several blocks under way at once, by one thread, into memory that the
//! kernel knows beforehand where it allows that.

#![expect(
    unsafe_code,
    reason = "the kernel writes to memory that it was given by address"
)]

use super::slots::{Slot, Slots, Span};
use super::{Brought, Buffers, OpenFile, Reader, short};
use crate::error::{CheckpointError, failed};
use io_uring::{IoUring, opcode, types};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;

/// Has so many blocks under way.
pub(super) struct Uring(pub(super) NonZeroUsize);

/// Entries that the kernel is asked for at most.
const MOST: usize = 4096;
/// The longest buffer that the kernel registers; longer memory is several.
const BUFFER: usize = 1 << 30;

/// Says why the kernel gives no ring, if it does not: it may be too old, or forbid it.
pub(super) fn refusal() -> Option<String> {
    IoUring::new(2)
        .err()
        .map(|error| format!("the kernel gives no `io_uring`: {error}"))
}

impl Reader for Uring {
    fn read(&self, files: &[OpenFile], slots: &dyn Slots<'_>) -> Result<Brought, CheckpointError> {
        let depth = self.0.get().min(MOST);
        let ring = IoUring::new(u32::try_from(depth).unwrap_or(1));
        let ring = ring.map_err(|e| {
            CheckpointError::Unsupported(format!("the kernel gives no `io_uring`: {e}"))
        })?;
        let registered = register(&ring, slots.span());
        let mut work = Work {
            ring,
            files,
            under_way: (0..depth).map(|_| None).collect(),
            registered: registered.as_ref().ok().copied(),
        };
        let done = work.perform(slots);
        if done.is_err() {
            slots.fail();
        }
        // The kernel lets go of pages with the ring, but later: the next load could find its limit used up.
        let _ = work.ring.submitter().unregister_buffers();
        done.map(|()| Brought {
            buffers: Some(match registered {
                Ok(_) => Buffers::Registered,
                Err(why) => Buffers::Plain(why),
            }),
            ..Brought::default()
        })
    }
}

/// Makes the memory of all places known to the kernel, or says why it is not.
fn register(ring: &IoUring, span: Option<Span>) -> Result<Span, String> {
    let Some(span) = span else {
        return Err("the kernel would take all of the memory at once, which is to be taken while it is read into".to_owned());
    };
    let buffers: Vec<libc::iovec> = (0..span.bytes)
        .step_by(BUFFER)
        .map(|at| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(span.address + at),
            iov_len: BUFFER.min(span.bytes - at),
        })
        .collect();
    // SAFETY: the memory is that of the places, which are borrowed until the reader returns; before that the buffers
    // are unregistered, when nothing is under way.
    let registered = unsafe { ring.submitter().register_buffers(&buffers) };
    registered
        .map(|()| span)
        .map_err(|error| format!("the kernel registered no buffers: {error}"))
}

/// A block that the kernel reads.
struct UnderWay<'m> {
    slot: Slot<'m>,
    read: u64,
}

struct Work<'f, 'm> {
    ring: IoUring,
    files: &'f [OpenFile],
    /// By the number that the kernel tells when it is done.
    under_way: Vec<Option<UnderWay<'m>>>,
    /// Memory that the kernel knows.
    registered: Option<Span>,
}

impl<'m> Work<'_, 'm> {
    fn perform(&mut self, slots: &dyn Slots<'m>) -> Result<(), CheckpointError> {
        let mut first: Option<CheckpointError> = None;
        loop {
            if first.is_none() {
                self.fill_up(slots);
            }
            if self.under_way.iter().all(Option::is_none) {
                return first.map_or(Ok(()), Err);
            }
            self.wait();
            for (at, result) in self.completed() {
                if let Err(error) = self.take(at, result, slots) {
                    first.get_or_insert(error);
                }
            }
        }
    }

    /// Has as many blocks under way as may be.
    fn fill_up(&mut self, slots: &dyn Slots<'m>) {
        for at in 0..self.under_way.len() {
            if self.under_way[at].is_some() {
                continue;
            }
            let Some(slot) = slots.next() else { return };
            self.under_way[at] = Some(UnderWay { slot, read: 0 });
            self.submit(at);
        }
    }

    /// Asks for what is left of a block.
    fn submit(&mut self, at: usize) {
        let Some(UnderWay { slot, read }) = &mut self.under_way[at] else {
            return;
        };
        let block = slot.block;
        let file = types::Fd(self.files[block.file].file.as_raw_fd());
        let rest = &mut slot.room()[*read as usize..];
        let offset = block.offset + *read;
        let (begin, length) = (rest.as_mut_ptr(), rest.len().min(BUFFER));
        let entry = match self.registered {
            // A read may not go beyond its buffer; what is left of it is asked for later.
            Some(span) => {
                let within = begin.addr() - span.address;
                let length = length.min(BUFFER - within % BUFFER);
                let buffer = u16::try_from(within / BUFFER).unwrap_or(u16::MAX);
                opcode::ReadFixed::new(file, begin, length as u32, buffer)
                    .offset(offset)
                    .build()
            }
            None => opcode::Read::new(file, begin, length as u32)
                .offset(offset)
                .build(),
        };
        let entry = entry.user_data(at as u64);
        // SAFETY: the memory is borrowed by the slot, which stays in `under_way` until the kernel has told that
        // this read is done: `perform` does not return before that, nor does `wait` without an answer.
        // The file is borrowed for as long. There are as many entries as places, so there is room.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "more reads than entries");
    }

    /// Waits until at least one read is done.
    fn wait(&mut self) {
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        || error.kind() == ErrorKind::ResourceBusy =>
                {
                    std::thread::yield_now();
                }
                // The kernel has addresses of memory that others would get if this returned.
                Err(_) => std::process::abort(),
            }
        }
    }

    /// Reads that are done, with what the kernel says of each.
    fn completed(&mut self) -> Vec<(usize, i32)> {
        let done = self.ring.completion();
        done.map(|entry| (entry.user_data() as usize, entry.result()))
            .collect()
    }

    /// Takes note of a read that is done; asks for the rest if there is one.
    fn take(
        &mut self,
        at: usize,
        result: i32,
        slots: &dyn Slots<'m>,
    ) -> Result<(), CheckpointError> {
        let Some(mut under_way) = self.under_way[at].take() else {
            return Ok(());
        };
        let block = under_way.slot.block;
        let path = &self.files[block.file].path;
        match u64::try_from(result) {
            Ok(0) => return Err(short(path, &block, under_way.read)),
            Ok(n) => under_way.read += n,
            Err(_) => {
                let error = io::Error::from_raw_os_error(-result);
                let again = [ErrorKind::Interrupted, ErrorKind::WouldBlock];
                if !again.contains(&error.kind()) {
                    return Err(failed("read", path)(error));
                }
            }
        }
        if under_way.read >= block.bytes {
            slots.filled(under_way.slot);
            return Ok(());
        }
        self.under_way[at] = Some(under_way);
        self.submit(at);
        Ok(())
    }
}
