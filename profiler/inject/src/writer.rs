//! The thread that reads filled buffers and writes the spool, for as long as a window is open.

use crate::convert::Batch;
use crate::names::Names;
use crate::nvtx;
use crate::pool::{Filled, Pool};
use crate::process::{ClosedByChildren, Descriptor};
use cupti_sys::Strides;
use profiler_wire::rows::Range;
use profiler_wire::{Line, SpoolError, Spooler};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often it looks at something else than buffers.
const TURN: Duration = Duration::from_millis(100);

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was counted of a window so far.
        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $($(#[$doc])* $name: AtomicU64,)*
        }

        impl Counts {
            /// The line with all of them.
            pub(crate) fn put(&self, line: Line) -> Line {
                line$(.with(stringify!($name), self.$name.load(Ordering::Relaxed)))*
            }
        }
    };
}

counts! {
    /// Rows that were written.
    records,
    /// Records of kinds that are passed over.
    other,
    /// Bytes of buffers that could not be read.
    lost_bytes,
    /// Rows without instants.
    zero_times,
    /// Rows that end before they begin.
    backwards,
    /// Rows that had not ended.
    unfinished,
    /// Ranges of NVTX that found no place.
    lost_ranges,
    /// Rows that could not be written.
    unwritten,
    /// Bytes of the spool.
    spooled_bytes,
}

impl Counts {
    /// Rows so far, written or not.
    pub(crate) fn rows(&self) -> u64 {
        self.records.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<Work>,
    closing: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts it.
    pub(crate) fn start(
        pool: &'static Pool,
        strides: &'static Strides,
        spooler: Spooler,
    ) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let closing = Arc::new(AtomicBool::new(false));
        let inherited = ClosedByChildren::new(Descriptor::Spool, spooler.as_raw_fd());
        let mut work = Work {
            strides,
            spooler,
            names: Names::default(),
            counts: Arc::clone(&counts),
            failure: None,
            _inherited: inherited,
        };
        let is_closing = Arc::clone(&closing);
        let run = move || {
            work.run(pool, &is_closing);
            work
        };
        // It inherits that all signals are blocked.
        let thread = thread::Builder::new().name("bw-spool".into()).spawn(run)?;
        Ok(Self {
            thread,
            closing,
            counts,
        })
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until everything that was filled is written.
    pub(crate) fn join(self) -> Written {
        self.closing.store(true, Ordering::Release);
        Written {
            work: self.thread.join().ok(),
            counts: self.counts,
        }
    }
}

/// A spool in which everything is that will be.
pub(crate) struct Written {
    /// Nothing if the thread panicked.
    work: Option<Work>,
    counts: Arc<Counts>,
}

impl Written {
    /// Writes last that the window is closed; the line with what was counted.
    pub(crate) fn close(self, line: Line) -> Line {
        match self.work {
            Some(work) => work.close(line),
            None => self
                .counts
                .put(line)
                .with("failure", "the spool's thread panicked"),
        }
    }
}

/// What the thread works with.
struct Work {
    strides: &'static Strides,
    spooler: Spooler,
    names: Names,
    counts: Arc<Counts>,
    /// Why nothing is written any more.
    failure: Option<SpoolError>,
    _inherited: ClosedByChildren,
}

impl Work {
    fn run(&mut self, pool: &Pool, closing: &AtomicBool) {
        loop {
            // Looked at first: what was filled before it is set is in the queue.
            let is_last = closing.load(Ordering::Acquire);
            let wait = if is_last { Duration::ZERO } else { TURN };
            let filled = pool.next(wait);
            let ranges = nvtx::take(&mut self.names);
            self.write_ranges(&ranges);
            match filled {
                Some(filled) => self.write_buffer(filled),
                None if is_last => return,
                None => {}
            }
        }
    }

    fn write_buffer(&mut self, filled: Filled<'_>) {
        let batch = Batch::read(filled.bytes(), self.strides, &mut self.names);
        // CUPTI may need it before the disk is done.
        drop(filled);
        for (count, more) in [
            (&self.counts.other, batch.other),
            (&self.counts.lost_bytes, batch.lost_bytes),
            (&self.counts.zero_times, batch.zero_times),
            (&self.counts.backwards, batch.backwards),
            (&self.counts.unfinished, batch.unfinished),
        ] {
            count.fetch_add(more, Ordering::Relaxed);
        }
        self.write(batch.rows(), |names, spooler| batch.write(names, spooler));
    }

    fn write_ranges(&mut self, ranges: &nvtx::Taken) {
        self.counts
            .lost_ranges
            .fetch_add(ranges.lost, Ordering::Relaxed);
        if !ranges.rows.is_empty() {
            let rows: &[Range] = &ranges.rows;
            self.write(rows.len() as u64, |names, spooler| {
                spooler.names(&names.take_new())?;
                spooler.rows(rows)
            });
        }
    }

    /// Writes rows and what was counted with them; after a failure nothing more, so that a spool has no hole.
    fn write(
        &mut self,
        rows: u64,
        write: impl FnOnce(&mut Names, &mut Spooler) -> Result<(), SpoolError>,
    ) {
        if self.failure.is_none() {
            self.failure = write(&mut self.names, &mut self.spooler).err();
        }
        let count = match self.failure {
            None => &self.counts.records,
            Some(_) => &self.counts.unwritten,
        };
        count.fetch_add(rows, Ordering::Relaxed);
        if self.failure.is_none() {
            let status = self.counts.put(Line::new("status"));
            self.failure = self.spooler.status(&status).err();
        }
        self.counts
            .spooled_bytes
            .store(self.spooler.written(), Ordering::Relaxed);
    }

    fn close(mut self, line: Line) -> Line {
        let line = self.counts.put(line);
        let failure = self
            .failure
            .take()
            .or_else(|| self.spooler.closed(&line).err());
        match failure {
            Some(error) => line.with("failure", error),
            None => line,
        }
    }
}
