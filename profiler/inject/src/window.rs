//! One recording: CUPTI is subscribed, told what to record, and let go of again, in the order that its
//! documents and those who used it before ask for.

use crate::callbacks;
use crate::clock::Clocks;
use crate::nvtx;
use crate::pool::Pool;
use crate::session::Ready;
use crate::writer::Writer;
use cupti_sys::{Attribute, Code, Cupti, CuptiError, Domain, Flush, Kind, Subscriber, cbid};
use profiler_wire::{Line, Spooler};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

/// Between flushes while work in flight is waited for.
const FLUSHED: Duration = Duration::from_millis(20);

/// What ends a window that nobody ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: u64,
    pub(crate) millis: u64,
    /// How long work that is in flight at the end is waited for.
    pub(crate) grace_millis: u64,
}

/// How a window is to be opened.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) kinds: Vec<Kind>,
    /// Whether calls that launch are recorded, too.
    pub(crate) calls: bool,
    /// How many buffers CUPTI may hold on a GPU, if the controller says.
    pub(crate) device_buffers: Option<usize>,
    pub(crate) limits: Limits,
    /// Its number in this process.
    pub(crate) number: u32,
    pub(crate) folder: &'a Path,
}

/// A window that is open.
#[derive(Debug)]
pub(crate) struct Window {
    ready: &'static Ready,
    pool: &'static Pool,
    subscriber: Subscriber,
    enabled: Enabled,
    writer: Writer,
    opened: Line,
    limits: Limits,
    began: Instant,
    /// What was discarded, and went wrong, in this process before.
    discarded_before: u64,
    state_errors_before: u64,
}

impl Window {
    /// Opens one. If anything fails nothing of it is left.
    pub(crate) fn open(
        ready: &'static Ready,
        pool: &'static Pool,
        opening: &Opening<'_>,
    ) -> Result<Self, String> {
        let cupti = &ready.cupti;
        let name = format!("{}.{}.spool", process::id(), opening.number);
        let path = opening.folder.join(name);
        // Of a process that had this id before, if any.
        let _ = fs::remove_file(&path);
        let mut spooler = Spooler::create(&path).map_err(|error| error.to_string())?;
        let discarded_before = pool.discarded.load(Ordering::Relaxed);
        let state_errors_before = callbacks::state_errors();
        let clocks = Clocks::read(cupti);
        let subscribed = clocks.and_then(|clocks| Ok((clocks, Enabled::new(cupti, opening)?)));
        let (clocks, (enabled, subscriber)) = subscribed.map_err(|error| {
            let _ = fs::remove_file(&path);
            error.to_string()
        })?;
        let opened = Self::describe(cupti, opening, &path, &clocks);
        let opened = opened.with("unset", enabled.unset.join("; "));
        let started = spooler.opened(&opened).map_err(|error| error.to_string());
        let start = |()| {
            let writer = Writer::start(pool, &ready.strides, spooler);
            writer.map_err(|error| format!("cannot start a thread: {error}"))
        };
        match started.and_then(start) {
            Ok(writer) => {
                nvtx::record(true);
                Ok(Self {
                    ready,
                    pool,
                    subscriber,
                    enabled,
                    writer,
                    opened,
                    limits: opening.limits,
                    began: Instant::now(),
                    discarded_before,
                    state_errors_before,
                })
            }
            Err(why) => {
                let _ = enabled.disable(cupti);
                let _ = cupti.unsubscribe(subscriber);
                let _ = fs::remove_file(&path);
                Err(why)
            }
        }
    }

    /// What was said when it was opened.
    pub(crate) fn opened(&self) -> &Line {
        &self.opened
    }

    /// How much is there so far.
    pub(crate) fn status(&self) -> Line {
        let line = self.writer.counts().put(Line::new("status"));
        line.with("outstanding", self.pool.outstanding())
            .with("discarded", self.discarded())
    }

    /// Why it has to be closed, if it has to.
    pub(crate) fn is_over(&self) -> Option<&'static str> {
        if self.began.elapsed() >= Duration::from_millis(self.limits.millis) {
            return Some("max_ms");
        }
        (self.writer.counts().rows() >= self.limits.records).then_some("max_records")
    }

    /// Closes it: what is in flight is waited for a little, the rest is had as it is, and CUPTI is let go of.
    pub(crate) fn close(self, reason: &str) -> Line {
        let cupti = &self.ready.cupti;
        let mut failures = Failures::default();
        let t1 = failures.note(cupti.timestamp()).unwrap_or(0);
        nvtx::record(false);
        let grace = Duration::from_millis(self.limits.grace_millis);
        let closing = Instant::now();
        loop {
            failures.note(cupti.flush(Flush::Completed));
            if closing.elapsed() >= grace {
                break;
            }
            thread::sleep(FLUSHED);
        }
        for error in self.enabled.disable(cupti) {
            failures.note::<()>(Err(error));
        }
        failures.note(cupti.flush(Flush::Forced));
        let dropped = failures.note(cupti.dropped()).unwrap_or(0);
        let discarded = self.discarded();
        failures.note(cupti.unsubscribe(self.subscriber));
        // What the writer still has is neither free nor CUPTI's.
        let written = self.writer.join();
        let line = Line::new("closed")
            .with("reason", reason)
            .with("t1", t1)
            .with("dropped", dropped)
            .with("outstanding", self.pool.outstanding())
            .with("discarded", discarded)
            .with(
                "state_errors",
                callbacks::state_errors() - self.state_errors_before,
            )
            .with("spool", self.opened.get("spool").unwrap_or_default());
        let line = match failures.note(Clocks::read(cupti)) {
            Some(clocks) => clocks.put(line, "_at_end"),
            None => line,
        };
        written.close(line.with("failures", failures.0.join("; ")))
    }

    fn discarded(&self) -> u64 {
        self.pool.discarded.load(Ordering::Relaxed) - self.discarded_before
    }

    fn describe(cupti: &Cupti, opening: &Opening<'_>, path: &Path, clocks: &Clocks) -> Line {
        let kinds: Vec<String> = opening
            .kinds
            .iter()
            .map(|kind| kind.0.to_string())
            .collect();
        let line = Line::new("opened")
            .with("pid", process::id())
            .with("window", opening.number)
            .with("spool", path.display())
            .with("kinds", kinds.join(","))
            // The window begins once everything is on.
            .with("t0", cupti.timestamp().unwrap_or(0));
        clocks.put(line, "")
    }
}

/// Failures of a close, which goes on all the same.
#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note<T>(&mut self, outcome: Result<T, CuptiError>) -> Option<T> {
        outcome.map_err(|error| self.0.push(error.to_string())).ok()
    }
}

/// What was switched on.
#[derive(Debug, Default)]
struct Enabled {
    kinds: Vec<Kind>,
    calls: Vec<(Domain, u32)>,
    /// What could not be set.
    unset: Vec<String>,
}

impl Enabled {
    /// Takes the subscription and switches everything on. First the subscription: if another tool has it,
    /// nothing else may be touched.
    fn new(cupti: &Cupti, opening: &Opening<'_>) -> Result<(Self, Subscriber), CuptiError> {
        #[expect(unsafe_code, reason = "functions are given to CUPTI")]
        // SAFETY: the function does not unwind, needs nothing of its argument, and this library is never unloaded.
        let subscriber = unsafe { cupti.subscribe(callbacks::told, std::ptr::null_mut()) }?;
        let mut enabled = Self::default();
        match enabled.enable(cupti, &subscriber, opening) {
            Ok(()) => Ok((enabled, subscriber)),
            Err(error) => {
                let _ = enabled.disable(cupti);
                let _ = cupti.unsubscribe(subscriber);
                Err(error)
            }
        }
    }

    fn enable(
        &mut self,
        cupti: &Cupti,
        subscriber: &Subscriber,
        opening: &Opening<'_>,
    ) -> Result<(), CuptiError> {
        // A window without one of these is worse, and still one.
        let settings = [
            cupti.domain(subscriber, Domain::STATE, true),
            cupti.use_system_thread_ids(),
            cupti.set_flag(Attribute::ZEROED_OUT_ACTIVITY_BUFFER, 1),
            cupti.set_flag(Attribute::PER_THREAD_ACTIVITY_BUFFER, 1),
        ];
        let limit = Attribute::DEVICE_BUFFER_POOL_LIMIT;
        let limited = opening
            .device_buffers
            .map(|count| cupti.set_size(limit, count));
        let unset = settings.into_iter().chain(limited).filter_map(Result::err);
        self.unset = unset.map(|error| error.to_string()).collect();
        #[expect(unsafe_code, reason = "functions are given to CUPTI")]
        // SAFETY: neither unwinds, this library is never unloaded, and what is given stays CUPTI's.
        unsafe {
            cupti.register_buffers(callbacks::requested, callbacks::completed)?;
        }
        for kind in &opening.kinds {
            cupti.enable(*kind)?;
            self.kinds.push(*kind);
        }
        if opening.calls {
            self.enable_launches(cupti)?;
        }
        Ok(())
    }

    /// Records calls that launch; all calls in versions that cannot record single ones.
    fn enable_launches(&mut self, cupti: &Cupti) -> Result<(), CuptiError> {
        for (domain, kind, launches) in [
            (Domain::RUNTIME, Kind::RUNTIME, cbid::RUNTIME_LAUNCHES),
            (Domain::DRIVER, Kind::DRIVER, cbid::DRIVER_LAUNCHES),
        ] {
            for &cbid in launches {
                match cupti.enable_call(domain, cbid, true) {
                    Some(Ok(())) => self.calls.push((domain, cbid)),
                    // One that came with a later version.
                    Some(Err(error)) if error.code == Code::INVALID_PARAMETER => {}
                    Some(Err(error)) => return Err(error),
                    None => {
                        cupti.enable(kind)?;
                        self.kinds.push(kind);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Switches everything off again; what could not be.
    fn disable(&self, cupti: &Cupti) -> Vec<CuptiError> {
        let kinds = self.kinds.iter().map(|kind| cupti.disable(*kind));
        let calls = self
            .calls
            .iter()
            .filter_map(|(domain, cbid)| cupti.enable_call(*domain, *cbid, false));
        kinds.chain(calls).filter_map(Result::err).collect()
    }
}
