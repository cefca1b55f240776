//! One file per command; here only which one was asked for, and how it ends.

mod check;
mod completions;
mod explain;
mod fsck;
mod gateway;
mod gc;
mod graph;
mod lock;
mod new;
mod reap;
mod report;
mod resume;
mod run;
mod schema;
mod server;
mod status;
mod steps;
mod trace;

use crate::args::{Arguments, Command, Global};
use crate::exit::{self, Failure};
use crate::render;
use crate::terminal::{self, Terminal, Verbosity};
use clap::Parser;
use engine::library::Library;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What every command gets.
pub(crate) struct Session {
    /// What is known of the streams.
    pub(crate) terminal: Terminal,
    /// The folder for everything that is kept.
    pub(crate) out: PathBuf,
    /// Builds the step library; only where it is needed, so that `--version` answers at once.
    pub(crate) library: fn() -> Library,
}

/// Reads the command line, does what it says, and returns the exit code.
pub(crate) fn cli(library: fn() -> Library) -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let session = Session::new(global, library);
    let done = dispatch(command, &session).and_then(|code| match terminal::output_error() {
        Some(error) => Err(Failure::new(format!(
            "could not write to standard output: {error}"
        ))),
        None => Ok(code),
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            terminal::error_line(render::failure(&failure, &session.terminal));
            ExitCode::from(exit::FAILED)
        }
    }
}

fn dispatch(command: Command, session: &Session) -> Result<u8, Failure> {
    match command {
        Command::Run(arguments) => run::run(&arguments, session),
        Command::Resume(arguments) => resume::resume(&arguments, session),
        Command::Check(arguments) => check::check(&arguments, session),
        Command::Explain(arguments) => explain::explain(&arguments, session),
        Command::Gc(arguments) => gc::gc(&arguments, session),
        Command::Fsck(arguments) => fsck::fsck(&arguments, session),
        Command::New(arguments) => new::new(&arguments, session),
        Command::Lock(arguments) => lock::lock(&arguments, session),
        Command::Graph(arguments) => graph::graph(&arguments, session),
        Command::Steps(arguments) => steps::steps(&arguments, session),
        Command::Schema(arguments) => schema::schema(&arguments, session),
        Command::Status(arguments) => status::status(&arguments, session),
        Command::Trace(arguments) => trace::trace(&arguments, session),
        Command::Reap(arguments) => reap::reap(&arguments, session),
        Command::Report(arguments) => report::report(&arguments, session),
        Command::Server(arguments) => server::server(&arguments, session),
        Command::Gateway(arguments) => gateway::gateway(&arguments, session),
        Command::Completions(arguments) => Ok(completions::completions(&arguments)),
    }
}

/// Writes what a command makes to `file`, or to standard output.
fn write_out(file: Option<&Path>, bytes: &[u8]) -> Result<(), Failure> {
    let Some(file) = file else {
        terminal::write(bytes);
        return Ok(());
    };
    std::fs::write(file, bytes).map_err(|e| {
        Failure::new(format!("could not write `{}`: {e}", file.display()))
            .help("give a file in a folder that exists and is writable")
    })
}

impl Session {
    fn new(global: Global, library: fn() -> Library) -> Self {
        let verbosity = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        };
        Self {
            terminal: Terminal::detect(global.color, verbosity),
            out: global.out,
            library,
        }
    }

    /// Writes how this command is called again, with the output folder if it is not the usual one.
    pub(crate) fn command(&self, rest: &str) -> String {
        if self.out.as_os_str() == "outputs" {
            return format!("benchwright {rest}");
        }
        format!(
            "benchwright {rest} --out {}",
            crate::words::shell(&self.out.display().to_string())
        )
    }
}
