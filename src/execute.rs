//! A run from its first event to its exit code: watched, interruptible, summed up.

use crate::commands::Session;
use crate::exit::Failure;
use crate::terminal::{self, Ink};
use crate::{outputs, progress, signals, summary, words};
use engine::event::Outcome;
use engine::expand::Expanded;
use engine::run::folder::RunFolder;
use engine::run::{RunSettings, history};
use engine::store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long threads that still read or hash may hold up the end.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// Everything for one run.
pub(crate) struct Execution<'a> {
    pub(crate) session: &'a Session,
    pub(crate) expanded: Expanded,
    pub(crate) store: Arc<Store>,
    pub(crate) folder: RunFolder,
    pub(crate) settings: RunSettings,
    /// Whether events are written as JSON, and nothing else.
    pub(crate) json: bool,
}

/// How many steps may run at a time when nothing is said.
pub(crate) fn jobs(asked: Option<u32>) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or_else(|| u32::try_from(cores).unwrap_or(1))
}

impl Execution<'_> {
    /// Runs and returns the exit code.
    pub(crate) fn until_the_end(self) -> Result<u8, Failure> {
        let Self {
            session,
            expanded,
            store,
            folder,
            settings,
            json,
        } = self;
        let (name, path) = (folder.name().to_owned(), folder.path().to_owned());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(format!("could not start threads: {e}")))?;
        let ended = runtime.block_on(async {
            let interrupts = signals::interrupts()?;
            let listeners = vec![progress::listener(&session.terminal, json)];
            Ok(engine::run::run(
                &expanded,
                &settings,
                store.clone(),
                folder,
                listeners,
                interrupts,
            )
            .await)
        });
        runtime.shutdown_timeout(LEFTOVERS);
        for warning in store.take_warnings() {
            terminal::error_line(format!(
                "{}: {warning}",
                session.terminal.paint_error(Ink::Yellow, "warning")
            ));
        }
        let ended = ended.map_err(|e: std::io::Error| {
            Failure::new(format!("could not listen for signals: {e}"))
        })?;
        let outcome = ended.map_err(|error| {
            let mut failure = outputs::run_failure(&session.out, &error);
            failure.message.push_str(&format!(
                "; `{}` goes on with the run",
                resume_command(session, &name)
            ));
            failure
        })?;
        if !json {
            sum_up(session, &expanded, &store, &path)?;
        }
        if matches!(outcome, Outcome::Failed | Outcome::Interrupted) {
            let word = if outcome == Outcome::Failed {
                "failed"
            } else {
                "was interrupted"
            };
            terminal::error_line(format!(
                "the run {word}; what is done is kept, and `{}` goes on",
                resume_command(session, &name)
            ));
        }
        Ok(outcome.exit_code())
    }
}

fn resume_command(session: &Session, run: &str) -> String {
    session.command(&format!("resume {}", words::shell(run)))
}

/// Shows what came of the run, from the journal: what is said is what was kept.
fn sum_up(
    session: &Session,
    expanded: &Expanded,
    store: &Arc<Store>,
    path: &Path,
) -> Result<(), Failure> {
    let terminal = &session.terminal;
    let run = history::load(path).map_err(|error| outputs::run_failure(&session.out, &error))?;
    let verdicts = summary::Verdicts::gather(expanded, store);
    if terminal.is_talkative() {
        terminal::line("");
        summary::table(&run, &verdicts)
            .lines("", terminal.color)
            .iter()
            .for_each(terminal::line);
        if summary::ran_nothing(&run) {
            let has_services = run.nodes.iter().any(|n| n.node.kind.is_none());
            let servers = if has_services {
                ", no server was launched"
            } else {
                ""
            };
            terminal::line(format!("\neverything is reused: nothing ran{servers}"));
        }
    }
    verdicts
        .doubts(terminal.color)
        .iter()
        .for_each(terminal::line);
    for text in run
        .nodes
        .iter()
        .filter_map(|node| summary::failure(node, terminal))
    {
        terminal::error_line(format!("\n{text}"));
    }
    if terminal.is_talkative() {
        terminal::line("");
        for report in outputs::reports(&run, &(session.library)()) {
            terminal::line(format!(
                "{} {}",
                terminal.paint(Ink::Bold, "report"),
                words::path(&report)
            ));
        }
        terminal::line(format!(
            "{}    {}",
            terminal.paint(Ink::Bold, "run"),
            words::path(path)
        ));
    }
    Ok(())
}
