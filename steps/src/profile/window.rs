//! A window of a server's profiler: opened, passed, closed, its files waited for.
//!
//! Whatever happens behind the opening, the profiler is told to close: a server whose profiler is left open is of no use
//! for any measurement.

use super::chrome::is_whole;
use crate::http::{self, Peer};
use crate::server::known::profiler::{Dialect, Opening, START, STOP};
use engine::step::{FailureClass, StepContext, StepError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks for files.
const PAUSE: Duration = Duration::from_millis(200);
/// What an opening may take: the first one of a process loads libraries.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// How traces end, as both servers write them.
const ENDINGS: [&str; 2] = [".trace.json", ".trace.json.gz"];
/// How much of a refusal is shown, characters.
const SHOWN: usize = 300;

/// How long the profiler is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many forward steps of each process.
    Steps(u32),
    /// So much time.
    Time(Duration),
}

/// Who closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The server, after its steps.
    ByItself,
    /// The end of the time that was asked for.
    AfterItsTime,
    /// The limit: its steps had not passed by then.
    AtTheLimit,
}

impl Closed {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::ByItself => "by itself",
            Self::AfterItsTime => "after its time",
            Self::AtTheLimit => "at the limit",
        }
    }
}

/// A window that is to be.
pub(super) struct Window<'a> {
    pub(super) server: Peer<'a>,
    pub(super) dialect: Dialect,
    pub(super) length: Length,
    pub(super) by_stage: bool,
    /// Where traces will lie.
    pub(super) folder: &'a Path,
    /// How many there will be.
    pub(super) traces: usize,
    /// How long its steps may take, and then its files.
    pub(super) limit: Duration,
}

/// A window that was.
pub(super) struct Passed {
    pub(super) closed: Closed,
    /// From its opening until it was told to close, or until its files were seen to be whole.
    pub(super) took: Duration,
    /// Whole traces, in the order of their names.
    pub(super) files: Vec<PathBuf>,
}

impl Window<'_> {
    /// Opens the profiler, lets the window pass, closes it, and waits until its files are whole.
    ///
    /// # Errors
    /// If it cannot be opened, or no file is whole in time.
    pub(super) async fn pass(&self, context: &StepContext) -> Result<Passed, StepError> {
        let before = traces_in(self.folder);
        let began = Instant::now();
        self.open().await?;
        let passed = tokio::select! {
            passed = self.passed(context, &before, began) => passed,
            () = context.cancelled() => Err(StepError::new("interrupted").class(FailureClass::Interrupted)),
        };
        if passed.is_err() {
            // What went wrong matters more than whether this does.
            let _ = self.close().await;
        }
        passed
    }

    async fn passed(
        &self,
        context: &StepContext,
        before: &BTreeSet<PathBuf>,
        began: Instant,
    ) -> Result<Passed, StepError> {
        let (closed, took) = match self.length {
            Length::Time(time) => {
                context.doing("profiling");
                tokio::time::sleep(time).await;
                self.close().await?;
                (Closed::AfterItsTime, began.elapsed())
            }
            Length::Steps(n) => {
                context.doing(format!("profiling {n} steps"));
                let files = self.whole(before).await;
                let took = began.elapsed();
                let is_all = files.len() >= self.traces;
                if !is_all || self.dialect.is_closed_twice() {
                    let closed = self.close().await;
                    // One that has closed already may say so; what it has written is enough.
                    if files.is_empty() {
                        closed?;
                    }
                }
                match is_all {
                    true => (Closed::ByItself, took),
                    false => (Closed::AtTheLimit, began.elapsed()),
                }
            }
        };
        context.doing("waiting for traces");
        let files = self.whole(before).await;
        match files.is_empty() {
            true => Err(self.nothing()),
            false => Ok(Passed {
                closed,
                took,
                files,
            }),
        }
    }

    async fn open(&self) -> Result<(), StepError> {
        let opening = Opening {
            steps: match self.length {
                Length::Steps(steps) => Some(steps),
                Length::Time(_) => None,
            },
            by_stage: self.by_stage,
        };
        let body = self.dialect.opening(opening, self.folder).to_string();
        self.ask(START, body, OPEN_LIMIT).await
    }

    async fn close(&self) -> Result<(), StepError> {
        self.ask(STOP, String::new(), self.limit).await
    }

    async fn ask(&self, route: &str, body: String, limit: Duration) -> Result<(), StepError> {
        let (status, said) = http::post_text(self.server, route, body, limit, None).await?;
        if status == 200 {
            return Ok(());
        }
        let said: String = said.trim().chars().take(SHOWN).collect();
        let message = format!("the server answered {status} to `{route}`: {said}");
        Err(StepError::new(message)
            .help("its own log says more; another profile may be under way")
            .class(FailureClass::Infrastructure))
    }

    /// Waits until there are as many whole traces as there will be, at most the limit; those that there are then.
    async fn whole(&self, before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let began = Instant::now();
        let mut looked = Looked::default();
        loop {
            let folder = self.folder.to_owned();
            let before = before.clone();
            let look = tokio::task::spawn_blocking(move || {
                looked.look(&folder, &before);
                looked
            });
            looked = look.await.unwrap_or_default();
            let whole = looked.whole();
            if whole.len() >= self.traces || began.elapsed() >= self.limit {
                return whole;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn nothing(&self) -> StepError {
        let (folder, limit) = (self.folder.display(), self.limit.as_secs());
        StepError::new(format!(
            "the profiler left no whole trace in `{folder}` within {limit} s"
        ))
        .help("raise `limit`, or profile fewer steps: what is written of each is large; the server's own log says whether it profiles at all")
    }
}

/// What is known of files, between looks.
#[derive(Debug, Default)]
struct Looked(BTreeMap<PathBuf, Seen>);

/// A file: its length when it was last looked at, and whether it was whole then.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Seen {
    bytes: u64,
    is_whole: bool,
}

impl Looked {
    /// Looks at what was not there before. A file is read to its end only once it has stopped growing.
    fn look(&mut self, folder: &Path, before: &BTreeSet<PathBuf>) {
        for path in traces_in(folder).difference(before) {
            let Ok(bytes) = fs::metadata(path).map(|data| data.len()) else {
                continue;
            };
            let seen = self.0.entry(path.clone()).or_default();
            if seen.bytes == bytes && !seen.is_whole {
                seen.is_whole = is_whole(path).unwrap_or(false);
            } else if seen.bytes != bytes {
                *seen = Seen {
                    bytes,
                    is_whole: false,
                };
            }
        }
    }

    fn whole(&self) -> Vec<PathBuf> {
        let whole = self.0.iter().filter(|(_, seen)| seen.is_whole);
        whole.map(|(path, _)| path.clone()).collect()
    }
}

/// The traces of a folder, which need not be there yet.
fn traces_in(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_trace = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
    };
    entries.map(|entry| entry.path()).filter(is_trace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_counts_once_it_is_whole_and_has_stopped_growing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("old.trace.json"), "{}").expect("a file");
        let before = traces_in(folder.path());
        fs::write(path("notes.json"), "{}").expect("a file");
        fs::write(path("new.trace.json"), "{\"traceEvents\": [").expect("a file");
        let mut looked = Looked::default();
        for _ in 0..3 {
            looked.look(folder.path(), &before);
            assert!(looked.whole().is_empty());
        }
        fs::write(path("new.trace.json"), "{\"traceEvents\": []}").expect("a file");
        looked.look(folder.path(), &before);
        assert!(looked.whole().is_empty(), "it may grow on");
        looked.look(folder.path(), &before);
        assert_eq!(looked.whole(), [path("new.trace.json")]);
    }
}
