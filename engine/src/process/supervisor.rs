//! The engine's side of a start: checks what can be checked, then starts a guardian.
//!
//! Does not know what happens to the program afterwards; that is in `running`.

use super::attempt::{self, Ending};
use super::protocol::{Launch, MAX_LAUNCH};
use super::register::REGISTER;
use super::running::{Process, State, listen, say};
use super::{GUARDIAN_ARGUMENT, Identity, ProcessSpec, ProgramError, find_program};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The variable that names the run to every program that is started for one.
pub(super) const RUN_VARIABLE: &str = "BENCHWRIGHT_RUN";
/// The variable that names the run's folder: names of runs in different folders may be equal.
pub(super) const FOLDER_VARIABLE: &str = "BENCHWRIGHT_RUN_FOLDER";

/// How long a guardian may take to start its program; a slow network file system counts.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no command.
    #[error("`{label}` has an empty command; give at least a program")]
    Empty {
        /// Whose command it is.
        label: String,
    },
    /// The program is missing or no program.
    #[error("cannot start `{label}`: {source}")]
    Program {
        /// Whose program it is.
        label: String,
        /// What is wrong with it.
        source: ProgramError,
    },
    /// The folder to start in is missing or no folder.
    #[error("cannot start `{label}` in `{}`: {source}", path.display())]
    Folder {
        /// Whose folder it is.
        label: String,
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A log file cannot be written.
    #[error("cannot write the log of `{label}` to `{}`: {source}", path.display())]
    Log {
        /// Whose log it is.
        label: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record of a command cannot be written.
    #[error("cannot record the command of `{label}` in `{}`: {source}", path.display())]
    Record {
        /// Whose command it is.
        label: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The command and its environment are beyond what a system takes.
    #[error("the command of `{label}` cannot be passed on: {reason}")]
    Unpassable {
        /// Whose command it is.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused to run the program, such as a script without an interpreter.
    #[error("cannot start `{label}`: the system refused `{}`: {reason}", program.display())]
    Refused {
        /// Whose program it is.
        label: String,
        /// The program.
        program: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The guardian itself could not be started.
    #[error("cannot start a guardian for `{label}`: {source}")]
    Guardian {
        /// For whom.
        label: String,
        /// What the system said.
        source: io::Error,
    },
    /// The guardian ended, or said nothing for 30 s; what it wrote is in the log.
    #[error("the guardian of `{label}` neither started it nor said why; see `{}`", log.display())]
    GuardianSilent {
        /// For whom.
        label: String,
        /// Where its errors went.
        log: PathBuf,
    },
}

/// Starts programs under guardians.
#[derive(Debug, Clone)]
pub struct Supervisor {
    guardian: Vec<OsString>,
    /// What the guardian is called in lists of processes, if not as its program.
    shown: Option<OsString>,
    /// For which run, if for one.
    run: Option<Arc<OfRun>>,
}

/// The run that processes are started for.
#[derive(Debug)]
struct OfRun {
    name: String,
    folder: PathBuf,
}

impl Supervisor {
    /// Uses `guardian_argv`, which must run [`guardian::main`](super::guardian::main).
    pub fn new(guardian_argv: Vec<OsString>) -> Self {
        Self {
            guardian: guardian_argv,
            shown: None,
            run: None,
        }
    }

    /// Uses this very program, which must call [`guardian::main`](super::guardian::main) when its
    /// first argument is [`GUARDIAN_ARGUMENT`].
    ///
    /// It stays the same program even if its file is replaced or deleted while the engine runs.
    pub fn this_binary() -> Self {
        Self {
            guardian: vec!["/proc/self/exe".into(), GUARDIAN_ARGUMENT.into()],
            shown: std::env::args_os().next(),
            run: None,
        }
    }

    /// Starts programs for the run `name`, whose folder is `folder`.
    #[must_use]
    pub fn of_run(mut self, name: &str, folder: &Path) -> Self {
        self.run = Some(Arc::new(OfRun {
            name: name.to_owned(),
            folder: folder.to_owned(),
        }));
        self
    }

    /// Returns the name of the run that programs are started for, if for one.
    pub fn run_name(&self) -> Option<&str> {
        self.run.as_ref().map(|run| run.name.as_str())
    }

    /// Starts the program that `spec` describes, and returns once it runs.
    ///
    /// Needs a tokio runtime with time. Takes some milliseconds, at most 30 s. Relative paths are
    /// relative to the engine's folder; the program is searched in the `PATH` of `spec`, or the
    /// engine's if it has none. Cancelling the future ends the program.
    ///
    /// # Errors
    /// One [`StartError`] for each thing that can be wrong; nothing is left running then.
    pub async fn start(&self, spec: ProcessSpec) -> Result<Process, StartError> {
        let mut launch = prepare(spec)?;
        record(&launch)?;
        // Only now: who runs the recorded command by hand is no part of the run.
        if let Some(run) = &self.run {
            mark(&mut launch.spec.env, run);
            launch.register = Some(run.folder.join(REGISTER));
        }
        let line = encode(&launch)?;
        let label = launch.spec.label.clone();
        let failed = |source| StartError::Guardian {
            label: label.clone(),
            source,
        };
        let ending = Ending::of(&launch.spec);
        let (handle, input, reports) = self.launch_guardian(&launch)?;
        let guardian = handle.pids().first().copied().and_then(Identity::of);
        let (publish, mut news) = watch::channel(State::default());
        let first = input.try_clone().map_err(failed)?;
        let listener = move || {
            say(first, &line);
            listen(&handle, reports, &publish, &ending);
        };
        std::thread::Builder::new()
            .name("guardian-reports".into())
            .spawn(listener)
            .map_err(failed)?;
        // Whether it was in time is seen from the state.
        let _ = tokio::time::timeout(START_TIMEOUT, news.wait_for(State::has_begun))
            .await
            .is_ok();
        let state = news.borrow().clone();
        match (state.identity, state.failed) {
            (Some(identity), _) => Ok(Process::new(label, identity, guardian, input, news)),
            (None, Some(reason)) => Err(StartError::Refused {
                label,
                program: launch.program,
                reason,
            }),
            (None, None) => Err(StartError::GuardianSilent {
                label,
                log: launch.spec.stderr,
            }),
        }
    }

    /// Starts a guardian with its standard streams: commands, reports, and its own errors to the
    /// log of the program.
    fn launch_guardian(
        &self,
        launch: &Launch,
    ) -> Result<(duct::Handle, PipeWriter, PipeReader), StartError> {
        let label = &launch.spec.label;
        open_log(label, &launch.spec.stdout)?;
        let errors = open_log(label, &launch.spec.stderr)?;
        self.spawn_guardian(label, errors)
            .map_err(|source| StartError::Guardian {
                label: label.clone(),
                source,
            })
    }

    fn spawn_guardian(
        &self,
        label: &str,
        errors: File,
    ) -> io::Result<(duct::Handle, PipeWriter, PipeReader)> {
        let (commands, input) = io::pipe()?;
        let (reports, output) = io::pipe()?;
        let (program, arguments) = self
            .guardian
            .split_first()
            .ok_or_else(|| io::Error::other("its command is empty"))?;
        let shown = self.shown.clone();
        // The label is only for who looks at a list of processes.
        let arguments = arguments.iter().cloned().chain([label.into()]);
        let handle = duct::cmd(program, arguments)
            .stdin_file(commands)
            .stdout_file(output)
            .stderr_file(errors)
            .before_spawn(move |command| {
                // A terminal's ^C is for the engine alone.
                command.process_group(0);
                if let Some(shown) = &shown {
                    command.arg0(shown);
                }
                Ok(())
            })
            .unchecked()
            .start()?;
        Ok((handle, input, reports))
    }
}

/// Marks what descends from a program, so that it is found when engine and guardian were killed.
fn mark(env: &mut BTreeMap<String, String>, run: &OfRun) {
    env.insert(RUN_VARIABLE.to_owned(), run.name.clone());
    let folder = run.folder.display().to_string();
    env.insert(FOLDER_VARIABLE.to_owned(), folder);
}

/// Makes every path absolute and finds the program, before anything is started.
fn prepare(mut spec: ProcessSpec) -> Result<Launch, StartError> {
    let label = spec.label.clone();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = spec.folder.iter_mut();
    for path in [&mut spec.cwd, &mut spec.stdout, &mut spec.stderr]
        .into_iter()
        .chain(folder)
    {
        *path = absolute(path);
    }
    // Listing rather than looking: a file is not a folder, and says so.
    if let Err(source) = fs::read_dir(&spec.cwd) {
        return Err(StartError::Folder {
            label,
            path: spec.cwd,
            source,
        });
    }
    let Some(name) = spec.argv.first() else {
        return Err(StartError::Empty { label });
    };
    let inherited = || std::env::var_os("PATH").unwrap_or_default();
    let search = spec.env.get("PATH").map_or_else(inherited, OsString::from);
    match find_program(name, &spec.cwd, &search) {
        Ok(program) => Ok(Launch {
            program,
            spec,
            register: None,
        }),
        Err(source) => Err(StartError::Program { label, source }),
    }
}

/// Keeps what is started, in the folder of its logs.
fn record(launch: &Launch) -> Result<(), StartError> {
    let recorded = attempt::record_start(&launch.spec, &launch.program);
    recorded.map_err(|(path, source)| StartError::Record {
        label: launch.spec.label.clone(),
        path,
        source,
    })
}

fn encode(launch: &Launch) -> Result<Vec<u8>, StartError> {
    let unpassable = |reason| StartError::Unpassable {
        label: launch.spec.label.clone(),
        reason,
    };
    let mut line = serde_json::to_vec(launch).map_err(|error| unpassable(error.to_string()))?;
    line.push(b'\n');
    if line.len() > MAX_LAUNCH {
        let reason = format!(
            "{} bytes of arguments and environment, at most {MAX_LAUNCH} are possible",
            line.len()
        );
        return Err(unpassable(reason));
    }
    Ok(line)
}

fn open_log(label: &str, path: &Path) -> Result<File, StartError> {
    let opened = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| OpenOptions::new().append(true).create(true).open(path));
    opened.map_err(|source| StartError::Log {
        label: label.to_owned(),
        path: path.to_owned(),
        source,
    })
}
