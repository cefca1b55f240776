//! What a store's log says of a load.
//!
//! A pure function of lines. No call tells when a load to the host ends: the request is answered when the load
//! begins, and only copies to GPUs can be confirmed. Its log has a line for each, with the time to the
//! microsecond, as glog writes it: `I20260301 18:12:39.123456  4711 model.cpp:97] TEXT`.

use std::time::Duration;

/// Times of a log are those of a clock on the wall.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was said of the load of one model so far.
#[derive(Debug, Clone, Default)]
pub struct LoadLog {
    model: String,
    begun: Option<Duration>,
    done: Option<Duration>,
    copy_begun: Option<Duration>,
    copied: Option<Duration>,
    failure: Option<String>,
    complaint: Option<String>,
}

/// A line of glog.
struct Line<'a> {
    is_complaint: bool,
    /// Since midnight.
    at: Duration,
    text: &'a str,
}

impl LoadLog {
    /// Expects lines of a load that is about to be asked for. `model` is the folder as it is asked for.
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            ..Self::default()
        }
    }

    /// Takes a line.
    pub fn read(&mut self, line: &str) {
        let Some(Line {
            is_complaint,
            at,
            text,
        }) = parse(line)
        else {
            return;
        };
        let model = &self.model;
        if text.starts_with(&format!("Loading model {model} to host with ")) {
            self.begun = Some(at);
        } else if text == format!("Finished loading model {model} from disk") {
            self.done = Some(at);
        } else if text.starts_with("Created replica ") {
            self.copy_begun = Some(at);
        } else if text.starts_with("Finished loading tensor from memory to device ") {
            self.copied = Some(at);
        } else if is_complaint {
            if self.ends_it(text) {
                self.failure.get_or_insert_with(|| text.to_owned());
            } else {
                self.complaint.get_or_insert_with(|| text.to_owned());
            }
        }
    }

    /// Whether a complaint means that the load is over.
    fn ends_it(&self, text: &str) -> bool {
        let model = &self.model;
        [
            format!("Failed to load model {model} to host"),
            format!("Failed to load model {model} to GPU"),
            format!("Failed to allocate memory for model {model}"),
            format!("Failed to free enough memory for model {model}"),
            format!("Model {model} is not registered"),
        ]
        .iter()
        .any(|end| text == end)
    }

    /// Whether the store has memory for it, and reads.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether all of it is in the pool.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// Why it failed, if it did: what was complained of first.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.as_deref()?;
        Some(match self.complaint.as_deref() {
            Some(complaint) => format!("{failure} ({complaint})"),
            None => failure.to_owned(),
        })
    }

    /// What was complained of, whether it ended the load or not.
    #[must_use]
    pub fn complaint(&self) -> Option<&str> {
        self.failure.as_deref().or(self.complaint.as_deref())
    }

    /// How long it read, by the store's own clock: from when memory was there until the last byte was.
    #[must_use]
    pub fn read_time(&self) -> Option<Duration> {
        Some(since(self.begun?, self.done?))
    }

    /// How long it copied to a GPU, which begins while it reads.
    #[must_use]
    pub fn copy_time(&self) -> Option<Duration> {
        Some(since(self.copy_begun?, self.copied?))
    }
}

/// UUIDs of the GPUs that a store says it has, without `GPU-`, in its order.
#[must_use]
pub fn gpus(log: &str) -> Vec<String> {
    let uuid = |line: &str| {
        let text = parse(line)?.text;
        let (number, uuid) = text.strip_prefix("GPU ")?.split_once(" UUID: ")?;
        number.parse::<u32>().ok()?;
        Some(uuid.to_owned())
    };
    log.lines().filter_map(uuid).collect()
}

/// From one time of day to a later one, perhaps of the next day.
fn since(begin: Duration, end: Duration) -> Duration {
    match end.checked_sub(begin) {
        Some(time) => time,
        None => end + DAY - begin,
    }
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (head, text) = line.split_once("] ")?;
    let mut words = head.split_whitespace();
    let (severity, date) = words.next()?.split_at_checked(1)?;
    if date.is_empty() || !date.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_complaint = match severity {
        "I" | "W" => false,
        "E" | "F" => true,
        _ => return None,
    };
    Some(Line {
        is_complaint,
        at: time_of_day(words.next()?)?,
        text: text.trim_end(),
    })
}

/// Reads `HH:MM:SS.microseconds`.
fn time_of_day(word: &str) -> Option<Duration> {
    let (clock, micros) = word.split_once('.')?;
    let micros = format!("{micros:0<6}");
    let mut seconds = 0_u64;
    let mut parts = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok().filter(|part| *part < 60)?;
        parts += 1;
    }
    let micros: u64 = micros.get(..6)?.parse().ok()?;
    (parts == 3).then(|| Duration::from_secs(seconds) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> LoadLog {
        let mut log = LoadLog::new("/models/a");
        for line in lines {
            log.read(line);
        }
        log
    }

    const BEGIN: &str = "I20260301 23:59:59.900000  4711 model.cpp:107] Loading model /models/a to host with 4 threads, 3 chunks, 16777216 chunk size, 1 chunks per thread";
    const END: &str =
        "I20260302 00:00:00.150000  4711 model.cpp:206] Finished loading model /models/a from disk";

    #[test]
    fn a_load_is_timed_by_the_lines_of_its_model_alone() {
        let other = END.replace("/models/a", "/models/a/b");
        let log = read(&[
            BEGIN,
            &other,
            "",
            "INFO 03-01 18:12:39 server.py:97] no glog",
            "] ",
        ]);
        assert!(log.has_begun() && !log.is_done());
        let log = read(&[BEGIN, END]);
        assert!(log.is_done());
        assert_eq!(log.read_time(), Some(Duration::from_millis(250)));
        assert_eq!((log.copy_time(), log.failure()), (None, None));
    }

    #[test]
    fn copies_are_timed_apart() {
        let log = read(&[
            BEGIN,
            "I20260301 23:59:59.910000  4712 model.cpp:238] Creating replica 7",
            "I20260301 23:59:59.910001  4712 model.cpp:249] Created replica 7",
            "I20260302 00:00:00.110001  4713 model.cpp:300] Finished loading tensor from memory to device 0",
            END,
        ]);
        assert_eq!(log.copy_time(), Some(Duration::from_millis(200)));
    }

    #[test]
    fn a_failure_is_told_with_what_was_complained_of_first() {
        let first = "E20260301 23:59:59.950000  4711 model.cpp:150] pread() failed for file: \"/models/a/tensor.data_0\", error: Invalid argument";
        let log = read(&[BEGIN, first]);
        assert_eq!(log.failure(), None);
        assert!(log.complaint().unwrap().contains("Invalid argument"));
        let last = "E20260301 23:59:59.960000  4711 checkpoint_store.cpp:180] Failed to load model /models/a to host";
        let failure = read(&[BEGIN, first, last]).failure().unwrap();
        assert!(
            failure.starts_with("Failed to load model /models/a to host (pread() failed"),
            "{failure}"
        );
    }

    #[test]
    fn gpus_are_named_by_the_log() {
        let log = "I20260301 18:12:39.000001  4711 checkpoint_store.cpp:68] GPU 0 UUID: 0a-b\nGPU 1 UUID: not glog\nI20260301 18:12:39.000002  4711 checkpoint_store.cpp:68] GPU 1 UUID: 0c-d\n";
        assert_eq!(gpus(log), ["0a-b", "0c-d"]);
    }

    #[test]
    fn lines_that_are_none_of_glog_are_passed_over() {
        for line in [
            "I x] y",
            "I2026 1:2] y",
            "I2026 10:99:00.0 1 a] y",
            "Iß] ",
            "X2026 10:00:00.0 1 a] y",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
        let line = parse("E0301 10:00:00.5 1 a.cpp:1] y ").unwrap();
        assert_eq!((line.text, line.is_complaint), ("y", true));
        assert_eq!(line.at, Duration::from_millis(36_000_500));
    }
}
