//! What a controller can ask for: a window is armed, opened, and closed by whatever comes first.
//!
//! Armed means that CUPTI is found and its records' sizes are known, so that opening takes the same short
//! time in every rank. Before that this library has not so much as looked for it.

use crate::pool::{self, Pool};
use crate::window::{Limits, Opening, Window};
use cupti_sys::{Cupti, Driver, Kind, Quirk, StrideError, Strides, find};
use profiler_wire::{Line, LineError};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Buffers, where the controller names no number: with 4 MiB each they stay below the 64 MiB that a
/// server is asked for.
const BUFFERS: u64 = 12;
/// Bytes of a buffer: what NVIDIA suggests is 1 to 10 MB.
const BUFFER: u64 = 4 << 20;
/// Bounds of what a controller may ask for.
const MOST_BUFFERS: u64 = 256;
const BUFFER_BOUNDS: std::ops::RangeInclusive<u64> = 4096..=(64 << 20);

/// The CUPTI of this process, once it was found.
static CUPTI: OnceLock<Ready> = OnceLock::new();

/// A CUPTI that is fit to be used.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) cupti: Cupti,
    pub(crate) strides: Strides,
}

/// The state of this process's profiling.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    open: Option<Window>,
    /// Windows that were opened so far.
    windows: u32,
    /// What was said of the last that was closed.
    closed: Option<Line>,
}

impl Session {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            open: None,
            windows: 0,
            closed: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Answers a line.
    pub(crate) fn answer(&mut self, line: &Line) -> Line {
        let answer = match line.word() {
            "status" => Ok(self.status()),
            "arm" => self.arm(line),
            "start" => self.start(line),
            "stop" => Ok(self.stop()),
            word => Err(format!(
                "`{word}` is unknown, expected `status`, `arm`, `start`, `stop` or `detach`"
            )),
        };
        answer.unwrap_or_else(|why| Line::new("refused").with("why", why))
    }

    /// Closes a window whose time is up or that has all it may have.
    pub(crate) fn tend(&mut self) {
        if let Some(reason) = self.open.as_ref().and_then(Window::is_over) {
            self.close(reason);
        }
    }

    /// Closes the window, if one is open.
    pub(crate) fn close(&mut self, reason: &str) {
        if let Some(window) = self.open.take() {
            self.closed = Some(window.close(reason));
        }
    }

    fn status(&self) -> Line {
        match (&self.open, &self.closed) {
            (Some(window), _) => window.status().with("phase", "open"),
            (None, Some(closed)) => closed.clone().with("phase", "closed"),
            (None, None) => Line::new("status").with("phase", "asleep"),
        }
    }

    fn stop(&mut self) -> Line {
        self.close("stopped");
        let nothing = || Line::new("refused").with("why", "no window was opened");
        self.closed.clone().unwrap_or_else(nothing)
    }

    fn arm(&self, line: &Line) -> Result<Line, String> {
        if self.is_open() {
            return Err("a window is open".to_owned());
        }
        let buffers = number(line, "buffers", BUFFERS)?;
        let size = number(line, "buffer_bytes", BUFFER)?;
        if !(1..=MOST_BUFFERS).contains(&buffers) || !BUFFER_BOUNDS.contains(&size) {
            return Err(format!(
                "{buffers} buffers of {size} bytes, expected 1 to {MOST_BUFFERS} of {} to {}",
                BUFFER_BOUNDS.start(),
                BUFFER_BOUNDS.end()
            ));
        }
        let ready = ready()?;
        // Those of the first time stay: CUPTI may still have some.
        let pool = pool::get_or_make(
            usize::try_from(buffers).map_err(words)?,
            usize::try_from(size).map_err(words)?,
        );
        Ok(describe(Line::new("armed"), ready, pool))
    }

    fn start(&mut self, line: &Line) -> Result<Line, String> {
        if self.is_open() {
            return Err("a window is open".to_owned());
        }
        let (Some(ready), Some(pool)) = (CUPTI.get(), pool::get()) else {
            return Err("nothing is armed; say `arm` first".to_owned());
        };
        if self.windows > 0 && Quirk::OneSession.is_of(ready.cupti.version()) {
            let version = ready.cupti.version();
            return Err(format!(
                "CUPTI {version} has one session per process, and it is over: restart the server"
            ));
        }
        let limits = Limits {
            records: number(line, "max_records", 20_000_000)?,
            millis: number(line, "max_ms", 60_000)?,
            grace_millis: number(line, "grace_ms", 100)?.min(10_000),
        };
        let opening = Opening {
            kinds: kinds(line)?,
            calls: line.get("calls") == Some("launches"),
            device_buffers: device_buffers(line)?,
            limits,
            number: self.windows + 1,
            folder: &self.folder,
        };
        let window = Window::open(ready, pool, &opening)?;
        self.windows += 1;
        let answer = describe(window.opened().clone(), ready, pool);
        self.open = Some(window);
        Ok(answer)
    }
}

/// Finds CUPTI and learns its sizes, once.
fn ready() -> Result<&'static Ready, String> {
    if let Some(ready) = CUPTI.get() {
        return Ok(ready);
    }
    let driver = Driver::loaded().ok_or("the driver is not loaded in this process")?;
    let around = find::Surroundings::of_this_process(Some(driver));
    let library = find::find(&around).map_err(words)?;
    let cupti = Cupti::open(library, driver).map_err(words)?;
    let strides = Strides::learn(&cupti).map_err(|error: StrideError| words(error))?;
    Ok(CUPTI.get_or_init(|| Ready { cupti, strides }))
}

fn describe(line: Line, ready: &Ready, pool: &Pool) -> Line {
    let version = ready.cupti.version();
    let quirks: Vec<&str> = version.quirks().map(Quirk::word).collect();
    line.with("cupti", version.0)
        .with("library", ready.cupti.path().display())
        .with("quirks", quirks.join(","))
        .with("buffers", pool.count())
        .with("buffer_bytes", pool.bytes())
}

/// The kinds that a window records; kernels one at a time are refused, since they serialise the device.
fn kinds(line: &Line) -> Result<Vec<Kind>, String> {
    let asked = line.get("kinds").ok_or("`start` lacks `kinds`")?;
    let one = |text: &str| {
        let kind = text.parse().map(Kind);
        let kind = kind.map_err(|_| format!("`{text}` is no kind, expected a number"))?;
        match kind {
            Kind::KERNEL => Err("kind 3 runs kernels one at a time, expected 10".to_owned()),
            kind => Ok(kind),
        }
    };
    asked.split(',').map(one).collect()
}

/// How many buffers CUPTI may hold on a GPU, if that is said.
fn device_buffers(line: &Line) -> Result<Option<usize>, String> {
    match number(line, "device_buffers", 0)? {
        0 => Ok(None),
        count => usize::try_from(count).map(Some).map_err(words),
    }
}

fn number(line: &Line, key: &'static str, otherwise: u64) -> Result<u64, String> {
    match line.number(key) {
        Err(LineError::Missing { .. }) => Ok(otherwise),
        number => number.map_err(words),
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}
