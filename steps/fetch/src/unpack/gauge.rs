//! What is read out of an archive, counted: also what nobody wants and what only describes it can be
//! inflated without end.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};

/// The most that the records before one entry may have, bytes: they are read into memory.
pub(super) const LONGEST_RECORD: u64 = 1 << 20;
/// What the end of an archive is filled up with at most, and what its records may have besides, bytes.
const SLACK: u64 = 64 << 10;

/// Why reading ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// More was inflated than the archive may become.
    TooLarge,
    /// What describes an entry is too long.
    LongRecord,
}

/// Counts what comes out of an archive, and knows when it is enough.
pub(super) struct Gauge<'a> {
    told: RefCell<&'a mut dyn FnMut(u64) -> bool>,
    /// Bytes of files that are out.
    out: Cell<u64>,
    read: Cell<u64>,
    /// Up to where it may be read.
    most: Cell<u64>,
    /// Up to where what describes the next entry may go.
    record: Cell<Option<u64>>,
    end: Cell<Option<End>>,
}

impl<'a> Gauge<'a> {
    pub(super) fn new(most: u64, told: &'a mut dyn FnMut(u64) -> bool) -> Self {
        Self {
            told: RefCell::new(told),
            out: Cell::new(0),
            read: Cell::new(0),
            most: Cell::new(most.saturating_add(SLACK)),
            record: Cell::new(None),
            end: Cell::new(None),
        }
    }

    pub(super) fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// Notes how many bytes of files are out, and says whether to go on.
    pub(super) fn out(&self, bytes: u64) -> bool {
        self.out.set(bytes);
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        let goes_on = (self.told.borrow_mut())(self.out.get());
        if !goes_on {
            self.end.set(Some(End::Stopped));
        }
        goes_on
    }

    /// What is read from here on only describes the next entry.
    pub(super) fn begin_record(&self) {
        let most = self.read.get().saturating_add(LONGEST_RECORD + SLACK);
        self.record.set(Some(most));
    }

    /// What is read from here on is an entry of so many bytes of description besides its own.
    pub(super) fn end_record(&self, description: u64) {
        self.record.set(None);
        self.most.set(self.most.get().saturating_add(description));
    }

    fn note(&self, bytes: usize) -> io::Result<()> {
        let read = self.read.get() + bytes as u64;
        self.read.set(read);
        let beyond = |most: u64, end: End| (read > most).then_some(end);
        let end = beyond(self.most.get(), End::TooLarge).or_else(|| {
            let record = self.record.get();
            record.and_then(|most| beyond(most, End::LongRecord))
        });
        if let Some(end) = end {
            self.end.set(Some(end));
        }
        match end.is_none() && self.goes_on() {
            true => Ok(()),
            // Not `Interrupted`, after which readers try again.
            false => Err(io::Error::other("it is not read on")),
        }
    }
}

/// A reader that is counted.
pub(super) struct Gauged<'a, R> {
    from: R,
    gauge: &'a Gauge<'a>,
}

impl<'a, R> Gauged<'a, R> {
    pub(super) fn new(from: R, gauge: &'a Gauge<'a>) -> Self {
        Self { from, gauge }
    }
}

impl<R: Read> Read for Gauged<'_, R> {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(chunk)?;
        self.gauge.note(n)?;
        Ok(n)
    }
}
