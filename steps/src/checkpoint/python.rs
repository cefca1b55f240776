//! Python's safetensors as a loader: a program for each environment, started before anything is timed and
//! asked for one load after the other through a socket.
//!
//! Its time is taken here, from the request to the answer that every byte is in memory; processor time and
//! memory are what the kernel says of that program.

use super::foreign::{Foreign, ForeignLoad};
use crate::kinds::PythonEnvironment;
use crate::{files, python};
use checkpoints::Format;
use engine::process::{Process, ProcessSpec, log_tail, telling_log};
use engine::step::{FailureClass, StepContext, StepError};
use engine::types::Artifact;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The program.
const PROGRAM: &str = include_str!("safetensors_loads.py");
/// Its name among the logs of the step.
const PROGRAM_FILE: &str = "safetensors_loads.py";
/// How long it may take to import what it needs: torch, from a cold disk.
const START_LIMIT: Duration = Duration::from_secs(300);
/// The longest line that is listened to, bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// Lines of its log that tell why it ended.
const TELLING_LINES: usize = 20;
/// What it sees of this process's environment.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

engine::choices! {
    /// How Python's safetensors reads.
    pub enum BackendChoice {
        /// It maps files.
        Mmap = "mmap",
        /// It reads them by `pread`.
        Pread = "pread",
    }
}

/// A program that runs, and waits for requests.
pub(super) struct PythonSafetensors {
    name: String,
    lines: BufReader<UnixStream>,
    /// Dropping it ends the program.
    _process: Process,
    logs: PathBuf,
}

/// What it says once it is ready.
#[derive(Deserialize)]
struct Ready {
    version: String,
    /// What gets the tensors: `numpy`, or `torch` where numpy lacks types.
    by: String,
}

/// What it says of a load.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Loaded {
        bytes: u64,
        cpu_seconds: f64,
        peak_memory: Option<u64>,
    },
    Forgotten {
        #[serde(rename = "forgotten")]
        _is: bool,
    },
    Refused {
        error: String,
    },
}

/// Starts a program for each environment, and waits until all of them are ready.
pub(super) async fn start_all(
    context: &StepContext,
    environments: &[Artifact<PythonEnvironment>],
    backend: Option<BackendChoice>,
) -> Result<Vec<PythonSafetensors>, StepError> {
    let mut started: Vec<PythonSafetensors> = Vec::new();
    for (at, environment) in environments.iter().enumerate() {
        let artifact = context.path(environment)?;
        let logs = context.logs.join(format!("python-{at}"));
        let folder = python::ready(
            &artifact,
            &context.node,
            &context.supervisor,
            logs.join("environment"),
        );
        let folder = folder.await?;
        context.doing("starting Python's safetensors");
        let one = PythonSafetensors::start(context, &folder, logs, backend).await?;
        if let Some(other) = started.iter().find(|other| other.name == one.name) {
            let message = format!("two environments have `{}`", other.name);
            return Err(StepError::new(message).help("name each version once in `python`"));
        }
        started.push(one);
    }
    Ok(started)
}

impl PythonSafetensors {
    async fn start(
        context: &StepContext,
        environment: &Path,
        logs: PathBuf,
        backend: Option<BackendChoice>,
    ) -> Result<Self, StepError> {
        files::create_dir(&logs)?;
        let program = logs.join(PROGRAM_FILE);
        files::write(&program, PROGRAM)?;
        let socket = format!("benchwright-{:016x}", rand::random::<u64>());
        let listener = listen(&socket).map_err(|e| {
            StepError::because("could not listen for Python's safetensors", e)
                .class(FailureClass::Infrastructure)
        })?;
        let python = environment.join("bin/python");
        let words = [
            python.display().to_string(),
            "-B".to_owned(),
            program.display().to_string(),
            socket,
            backend.map_or("", BackendChoice::word).to_owned(),
        ];
        let inherit = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let variables: BTreeMap<_, _> = PASSED.into_iter().filter_map(inherit).collect();
        let spec = ProcessSpec::new(
            context.node.as_str(),
            words.to_vec(),
            variables,
            &logs,
            &logs,
        );
        let process = context.supervisor.start(spec).await;
        let process = process.map_err(|e| StepError::new(e.to_string()))?;
        let stream = connected(&listener, &process, &logs, context).await?;
        let mut one = Self {
            name: "safetensors".to_owned(),
            lines: BufReader::new(stream),
            _process: process,
            logs,
        };
        let ready = tokio::task::block_in_place(|| one.hear::<Ready>(START_LIMIT))?;
        let by = (ready.by != "numpy").then_some(ready.by);
        let words = by
            .into_iter()
            .chain(backend.map(|backend| backend.word().to_owned()));
        one.name = words.fold(format!("safetensors {}", ready.version), |name, word| {
            format!("{name} {word}")
        });
        Ok(one)
    }

    /// Asks, and does not wait for an answer.
    fn ask(&mut self, folder: &Path) -> Result<(), StepError> {
        let line = json!({ "folder": folder }).to_string() + "\n";
        let stream = self.lines.get_mut();
        let written = stream.write_all(line.as_bytes());
        written.map_err(|e| ended(&e.to_string(), &self.logs))
    }

    /// Waits for a line, no longer than the limit.
    fn hear<T: for<'de> Deserialize<'de>>(&mut self, limit: Duration) -> Result<T, StepError> {
        let logs = &self.logs;
        let timeout = self.lines.get_ref().set_read_timeout(Some(limit));
        timeout.map_err(|e| ended(&e.to_string(), logs))?;
        let mut line = String::new();
        let read = (&mut self.lines).take(LONGEST_LINE).read_line(&mut line);
        match read {
            Ok(0) => Err(ended("it has ended", logs)),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|e| ended(&format!("it said `{}`: {e}", line.trim()), logs)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let limit = engine::types::duration_text(limit);
                Err(ended(&format!("no answer within {limit}"), logs)
                    .class(FailureClass::Timeout)
                    .help("raise `load_timeout` if it only needs longer"))
            }
            Err(e) => Err(ended(&e.to_string(), logs)),
        }
    }

    fn refused(&self, folder: &Path, error: &str) -> StepError {
        let (name, folder) = (&self.name, folder.display());
        let message = format!("`{name}` did not load `{folder}`: {error}");
        let failed = StepError::new(message).help(
            "numpy alone has no BF16 and no types of 8 bits: add `ml_dtypes` or `torch` to the `requirements` of the environment if that is it",
        );
        match telling_log(&self.logs) {
            Some(log) => failed.log(log),
            None => failed,
        }
    }
}

impl Foreign for PythonSafetensors {
    fn name(&self) -> &str {
        &self.name
    }

    fn reads(&self, format: Format) -> bool {
        format == Format::Safetensors
    }

    fn loads_into_memory(&self) -> bool {
        true
    }

    fn load(&mut self, folder: &Path, limit: Duration) -> Result<ForeignLoad, StepError> {
        let began = Instant::now();
        self.ask(folder)?;
        let answer = self.hear(limit)?;
        let total = began.elapsed();
        let (bytes, cpu_seconds, peak_memory) = match answer {
            Answer::Loaded {
                bytes,
                cpu_seconds,
                peak_memory,
            } => (bytes, cpu_seconds, peak_memory),
            Answer::Refused { error } => return Err(self.refused(folder, &error)),
            Answer::Forgotten { .. } => return Err(ended("it answered out of turn", &self.logs)),
        };
        match self.hear(limit.saturating_sub(total).max(Duration::from_secs(1)))? {
            Answer::Forgotten { .. } => {}
            _ => return Err(ended("it answered out of turn", &self.logs)),
        }
        Ok(ForeignLoad {
            total,
            parts: Vec::new(),
            bytes,
            cpu: Duration::try_from_secs_f64(cpu_seconds).unwrap_or_default(),
            peak_memory,
        })
    }
}

/// Waits until the program has found the socket.
async fn connected(
    listener: &tokio::net::UnixListener,
    process: &Process,
    logs: &Path,
    context: &StepContext,
) -> Result<UnixStream, StepError> {
    let accepted = tokio::select! {
        accepted = listener.accept() => accepted.map(|(stream, _)| stream),
        exit = process.exited() => return Err(ended(&format!("it {exit}"), logs)),
        () = tokio::time::sleep(START_LIMIT) => {
            let limit = START_LIMIT.as_secs();
            return Err(ended(&format!("it was not there after {limit} s"), logs));
        }
        () = context.cancelled() => {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
    };
    let stream = accepted.and_then(tokio::net::UnixStream::into_std);
    let stream = stream.and_then(|stream| {
        stream.set_nonblocking(false)?;
        Ok(stream)
    });
    stream.map_err(|e| ended(&e.to_string(), logs))
}

/// Listens at a name that is no file: those of files may be longer than a socket's may be.
fn listen(name: &str) -> std::io::Result<tokio::net::UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Why the program is of no use any more, with what it said last.
fn ended(why: &str, logs: &Path) -> StepError {
    let log = telling_log(logs);
    let said = log
        .as_deref()
        .map(|log| log_tail(log, TELLING_LINES).join("\n"));
    let message = match said {
        Some(said) if !said.is_empty() => format!("Python's safetensors: {why}; it said:\n{said}"),
        _ => format!("Python's safetensors: {why}"),
    };
    let failed = StepError::new(message)
        .class(FailureClass::Infrastructure)
        .help("the environment needs `safetensors` and `numpy`");
    match log {
        Some(log) => failed.log(log),
        None => failed,
    }
}
