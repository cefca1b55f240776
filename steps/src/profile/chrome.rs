//! Traces as torch's profiler writes them: JSON of Chrome's trace format, mostly compressed, which Perfetto shows.
//!
//! The format is Google's "Trace Event Format": a list `traceEvents`, or that list alone, of events with a phase, a
//! category, a name, a process, a thread, a beginning and a duration in microseconds. A file is read in one pass and
//! never held; what is kept of it is counts and, of nested events, where they begin and end.

use super::operators::{Operators, Span};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Bytes read together.
const READ: usize = 1 << 18;
/// A trace this long, unpacked, is of no short window.
const LONGEST: u64 = 16 << 30;
/// Categories of what a device does; such events do not nest.
const ON_DEVICE: [&str; 3] = ["kernel", "gpu_memcpy", "gpu_memset"];
/// The category of operators, which nest.
const OPERATOR: &str = "cpu_op";
/// The phase of an event with a duration.
const COMPLETE: &str = "X";

/// What was read of a trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Events of whatever kind.
    pub(super) events: u64,
    /// Its length unpacked.
    pub(super) bytes: u64,
    pub(super) operators: Operators,
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    /// It cannot be read.
    #[error(transparent)]
    Unread(#[from] io::Error),
    /// It is no trace, or one that is not whole.
    #[error("it is no whole trace in Chrome's format: {0}")]
    NoTrace(#[from] serde_json::Error),
    /// It holds more than is looked at.
    #[error("it has more than {0}; help: profile fewer steps")]
    TooLong(&'static str),
}

/// Reads a trace, compressed or not.
///
/// # Errors
/// Any [`TraceError`].
pub(super) fn read(path: &Path) -> Result<Trace, TraceError> {
    let mut trace = Trace::default();
    let mut counted = Counted {
        inner: opened(path)?,
        bytes: 0,
    };
    let mut json =
        serde_json::Deserializer::from_reader(BufReader::with_capacity(READ, &mut counted));
    let read = Whole(&mut trace).deserialize(&mut json);
    let read = read.and_then(|()| json.end());
    drop(json);
    if counted.bytes >= LONGEST {
        return Err(TraceError::TooLong("16 GiB"));
    }
    read?;
    trace.bytes = counted.bytes;
    match trace.operators.is_full() {
        true => Err(TraceError::TooLong("8 million operators")),
        false => Ok(trace),
    }
}

/// Whether a file is written to its end: a compressed one to its checksum, another to its last bracket.
///
/// # Errors
/// If it cannot be read.
pub(super) fn is_whole(path: &Path) -> io::Result<bool> {
    let mut file = opened(path)?;
    let (mut piece, mut last) = (vec![0; READ], None);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => {
                let end = piece[..n]
                    .iter()
                    .rev()
                    .find(|byte| !byte.is_ascii_whitespace());
                last = end.copied().or(last);
            }
            // What is cut off reads as damaged.
            Err(_) => return Ok(false),
        }
    }
    Ok(matches!(last, Some(b'}' | b']')))
}

fn opened(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(READ, File::open(path)?);
    Ok(match path.extension().is_some_and(|end| end == "gz") {
        true => Box::new(MultiGzDecoder::new(file).take(LONGEST)),
        false => Box::new(file.take(LONGEST)),
    })
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// An event, as far as it matters.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    ph: String,
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    pid: serde_json::Value,
    #[serde(default)]
    tid: serde_json::Value,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
}

impl Trace {
    fn add(&mut self, event: Event) {
        self.events += 1;
        if event.ph != COMPLETE {
            return;
        }
        if ON_DEVICE.contains(&event.cat.as_str()) {
            self.operators.on_device(&event.name, event.dur);
        } else if event.cat == OPERATOR {
            let thread = format!("{} {}", event.pid, event.tid);
            let span = Span {
                begins: event.ts,
                lasts: event.dur,
            };
            self.operators.nested(&thread, &event.name, span);
        }
    }
}

/// The whole of a file: a table with the list in it, or the list.
struct Whole<'a>(&'a mut Trace);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with `traceEvents`, or a list of events")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut table: M) -> Result<(), M::Error> {
        let mut has_events = false;
        while let Some(name) = table.next_key::<String>()? {
            if name == "traceEvents" {
                has_events = true;
                table.next_value_seed(Events(self.0))?;
            } else {
                table.next_value::<IgnoredAny>()?;
            }
        }
        match has_events {
            true => Ok(()),
            false => Err(serde::de::Error::custom("no `traceEvents`")),
        }
    }

    fn visit_seq<S: SeqAccess<'de>>(self, list: S) -> Result<(), S::Error> {
        Events(self.0).visit_seq(list)
    }
}

/// The list of events.
struct Events<'a>(&'a mut Trace);

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while let Some(event) = list.next_element::<Event>()? {
            self.0.add(event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::operators::Kind;
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// What torch writes, shortened: an operator within another, one of another thread, two kernels.
    const TRACE: &str = r#"{ "schemaVersion": 1, "deviceProperties": [], "traceEvents": [
        { "ph": "M", "name": "process_name", "pid": "Spans", "tid": 0, "ts": 0, "args": { "name": "python" } },
        { "ph": "X", "cat": "cpu_op", "name": "aten::linear", "pid": 7, "tid": 7, "ts": 100.5, "dur": 50, "args": { "External id": 1 } },
        { "ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 7, "tid": 7, "ts": 110.5, "dur": 30 },
        { "ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 7, "tid": 8, "ts": 110.5, "dur": 10 },
        { "ph": "X", "cat": "python_function", "name": "forward", "pid": 7, "tid": 7, "ts": 90, "dur": 100 },
        { "ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 130, "dur": 30 },
        { "ph": "X", "cat": "gpu_memcpy", "name": "copy", "pid": 0, "tid": 7, "ts": 130, "dur": 10 },
        { "ph": "i", "name": "Record Window End", "pid": "", "tid": "", "ts": 200, "s": "g" }
    ], "traceName": "x.json" }"#;

    fn packed(text: &str) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::default());
        gz.write_all(text.as_bytes()).expect("packed");
        gz.finish().expect("packed")
    }

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        (folder, path)
    }

    #[test]
    fn what_nests_and_what_runs_on_a_device_are_told_apart() {
        let (_folder, plain) = file("a.trace.json", TRACE.as_bytes());
        let (_other, packed) = file("a.trace.json.gz", &packed(TRACE));
        for path in [plain, packed] {
            let trace = read(&path).expect("a trace");
            assert_eq!((trace.events, trace.bytes), (8, TRACE.len() as u64));
            let shown: Vec<String> = trace
                .operators
                .top(9)
                .into_iter()
                .map(|t| {
                    format!(
                        "{} {} {} {} {}",
                        t.kind.word(),
                        t.name,
                        t.count,
                        t.total_ms,
                        t.self_ms
                    )
                })
                .collect();
            assert_eq!(
                shown,
                [
                    "kernel gemm 1 0.03 0.03",
                    "kernel copy 1 0.01 0.01",
                    "operator aten::addmm 2 0.04 0.04",
                    "operator aten::linear 1 0.05 0.02",
                ]
            );
        }
    }

    #[test]
    fn a_list_alone_is_a_trace_too() {
        let (_folder, path) = file(
            "a.json",
            br#"[{ "ph": "X", "cat": "kernel", "name": "k", "dur": 5 }]"#,
        );
        let trace = read(&path).expect("a trace");
        let top = trace.operators.top(1);
        assert_eq!((trace.events, top[0].kind), (1, Kind::Kernel));
    }

    #[test]
    fn what_is_cut_anywhere_is_not_whole() {
        let whole = packed(TRACE);
        for cut in (1..whole.len()).step_by(7) {
            let (_folder, path) = file("a.trace.json.gz", &whole[..cut]);
            assert!(!is_whole(&path).expect("read"), "{cut}");
            assert!(read(&path).is_err(), "{cut}");
        }
        let (_folder, path) = file("a.trace.json.gz", &whole);
        assert!(is_whole(&path).expect("read"));
        let (_folder, path) = file("a.trace.json", &TRACE.as_bytes()[..TRACE.len() - 4]);
        assert!(!is_whole(&path).expect("read"));
        let (_folder, path) = file("a.trace.json", b"");
        assert!(!is_whole(&path).expect("read"));
    }

    #[test]
    fn what_is_no_trace_says_so() {
        let (_folder, path) = file("a.trace.json", b"{\"a\": 1}");
        let error = read(&path).expect_err("no trace").to_string();
        assert!(error.contains("no `traceEvents`"), "{error}");
        let gone = path.with_file_name("gone.json");
        assert!(matches!(read(&gone), Err(TraceError::Unread(_))));
    }
}
