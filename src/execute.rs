//! A run from its first event to its exit code: watched, interruptible, summed up.

use crate::commands::Session;
use crate::exit::{self, Failure};
use crate::locks::Pinned;
use crate::terminal::{self, Ink};
use crate::{outputs, progress, signals, summary, words};
use engine::event::Outcome;
use engine::expand::Expanded;
use engine::run::folder::RunFolder;
use engine::run::{RunError, RunSettings, history};
use engine::step::StepKind;
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
    /// What its results must agree with.
    pub(crate) pinned: Option<Pinned>,
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
    pub(crate) fn until_the_end(mut self) -> Result<u8, Failure> {
        let pinned = self.pinned.take();
        let (path, session) = (self.folder.path().to_owned(), self.session);
        let code = self.perform_and_tell()?;
        match pinned {
            Some(pinned) if !pinned.is_met(&path, &session.terminal)? => Ok(exit::FAILED),
            _ => Ok(code),
        }
    }

    fn perform_and_tell(self) -> Result<u8, Failure> {
        let (name, path) = (self.folder.name().to_owned(), self.folder.path().to_owned());
        let (session, store, json) = (self.session, self.store.clone(), self.json);
        let (expanded, ended) = self.perform()?;
        for warning in store.take_warnings() {
            let label = session.terminal.paint_error(Ink::Yellow, "warning");
            terminal::error_line(format!("{label}: {warning}"));
        }
        let again = session.command(&format!("resume {}", words::shell(&name)));
        let outcome = ended.map_err(|error| {
            let mut failure = outputs::run_failure(&session.out, &error);
            failure
                .message
                .push_str(&format!("; `{again}` goes on with the run"));
            failure
        })?;
        if !json {
            sum_up(session, &expanded, &store, &path, outcome)?;
        }
        // Of a plan of many nodes that takes longer than a glance, and nobody waits for it.
        std::thread::spawn(move || drop(expanded));
        let word = match outcome {
            Outcome::Done | Outcome::Invalid => return Ok(outcome.exit_code()),
            Outcome::Failed => "failed",
            Outcome::Interrupted => "was interrupted",
        };
        terminal::error_line(format!(
            "the run {word}; what is done is kept, and `{again}` goes on"
        ));
        Ok(outcome.exit_code())
    }

    /// Runs on threads of its own, watched, until it ends or signals end it.
    fn perform(self) -> Result<(Expanded, Result<Outcome, RunError>), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(format!("could not start threads: {e}")))?;
        let ended = runtime.block_on(async {
            let interrupts = signals::interrupts()
                .map_err(|e| Failure::new(format!("could not listen for signals: {e}")))?;
            let listeners = vec![progress::listener(&self.session.terminal, self.json)];
            let (expanded, settings) = (&self.expanded, &self.settings);
            let run = engine::run::run(
                expanded,
                settings,
                self.store,
                self.folder,
                listeners,
                interrupts,
            );
            Ok(run.await)
        });
        runtime.shutdown_timeout(LEFTOVERS);
        Ok((self.expanded, ended?))
    }
}

/// Whether the plan measures anything, so that there may be doubts to tell.
fn has_samples(expanded: &Expanded) -> bool {
    let graph = &expanded.graph;
    let mut nodes = graph.order().iter();
    nodes.any(|id| graph.step_kind(*id) == Some(StepKind::Measure))
}

/// Shows what came of the run, from the journal: what is said is what was kept.
fn sum_up(
    session: &Session,
    expanded: &Expanded,
    store: &Arc<Store>,
    path: &Path,
    outcome: Outcome,
) -> Result<(), Failure> {
    let terminal = &session.terminal;
    // Then there is nothing that a quiet command would say.
    if outcome == Outcome::Done && !terminal.is_talkative() && !has_samples(expanded) {
        return Ok(());
    }
    let run = history::load(path).map_err(|error| outputs::run_failure(&session.out, &error))?;
    let verdicts = summary::Measured::gather(expanded, store);
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
