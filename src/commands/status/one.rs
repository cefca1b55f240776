//! One run as it is at a moment: what runs and since when, which services are up, what waits for
//! what, and what came of the rest.

use super::super::Session;
use super::state;
use super::waits::{Waits, waits};
use crate::columns::{Cell, Columns};
use crate::exit::Failure;
use crate::summary::{self, Measured};
use crate::terminal::Ink;
use crate::{outputs, plans, words};
use engine::event::Outcome;
use engine::graph::Graph;
use engine::run::folder::file_safe;
use engine::run::history::{self, History, NodeHistory, NodeState};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many waiting steps are listed; of the others only the count is said.
const WAITING_SHOWN: usize = 8;
/// How many reasons to wait are listed for each.
const REASONS_SHOWN: usize = 3;

/// A run that is looked at, perhaps several times.
pub(super) struct Watched {
    folder: PathBuf,
    /// Absent if the plan, as it was kept, cannot be read by this version.
    graph: Option<Arc<Graph>>,
}

impl Watched {
    /// Finds the run that `name` means.
    pub(super) fn find(name: Option<&str>, session: &Session) -> Result<Self, Failure> {
        let folder = history::find(&session.out, name).map_err(Failure::new)?;
        let loaded = plans::load_run(&folder, &(session.library)());
        let expanded = loaded.ok().and_then(|loaded| loaded.expanded.ok());
        Ok(Self {
            folder,
            graph: expanded.map(|expanded| expanded.graph),
        })
    }

    /// Looks at it now.
    pub(super) fn now(&self, session: &Session) -> Result<Moment, Failure> {
        let run = history::load(&self.folder)
            .map_err(|error| outputs::run_failure(&session.out, &error))?;
        let waiting = match &self.graph {
            Some(graph) if run.live => waits(&run, graph),
            _ => Vec::new(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Moment {
            now_ms: now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0)),
            run,
            waiting,
        })
    }
}

/// A run at a moment.
pub(super) struct Moment {
    now_ms: u64,
    run: History,
    waiting: Vec<Waits>,
}

impl Moment {
    /// What the journal says.
    pub(super) fn history(&self) -> &History {
        &self.run
    }

    /// Writes it for machines: the history with what waits for what and where services log.
    pub(super) fn json(&self) -> Value {
        let mut value = json!(self.run);
        value["now_ms"] = self.now_ms.into();
        value["waiting"] = json!(self.waiting);
        let log = |node: &&NodeHistory| {
            let log = service_log(&self.run.folder, node)?;
            Some((node.node.node.clone(), json!(log)))
        };
        let services = self.services();
        let logs = services.iter().filter_map(log);
        value["service_logs"] = Value::Object(logs.collect());
        value
    }

    /// Writes it for people.
    pub(super) fn lines(&self, session: &Session) -> Vec<String> {
        let mut lines = self.head(session);
        if self.run.live {
            lines.extend(self.section("now", self.running(), session));
            lines.extend(self.section("services", self.up(), session));
            lines.extend(self.section("waiting", self.kept(), session));
        }
        let came = self.outcomes(session);
        if !came.is_empty() {
            lines.push(String::new());
            lines.extend(came);
        }
        let failures = self.run.nodes.iter();
        for failure in failures.filter_map(|n| summary::failure(n, &session.terminal)) {
            lines.push(String::new());
            lines.extend(failure.lines().map(str::to_owned));
        }
        lines.extend(self.foot(session));
        lines
    }

    fn head(&self, session: &Session) -> Vec<String> {
        let (terminal, run) = (&session.terminal, &self.run);
        let (state, ink) = state(run);
        let took = match (run.live, run.took_ms) {
            (true, _) => format!(", {} ago", self.since(Some(run.began_ms))),
            (false, 0) => String::new(),
            (false, took) => format!(", took {}", words::duration(took)),
        };
        vec![
            format!(
                "run {} of plan {}: {}",
                terminal.paint(Ink::Bold, &run.run),
                run.plan,
                terminal.paint(ink, state)
            ),
            format!(
                "began {} UTC{took}, in {}",
                words::moment(run.began_ms),
                words::path(&run.folder)
            ),
        ]
    }

    /// Titles what there is; nothing if there is nothing.
    fn section(&self, title: &str, rows: Columns, session: &Session) -> Vec<String> {
        let rows = rows.lines("  ", session.terminal.color);
        if rows.is_empty() {
            return rows;
        }
        let title = session.terminal.paint(Ink::Bold, title);
        [String::new(), title].into_iter().chain(rows).collect()
    }

    fn since(&self, since_ms: Option<u64>) -> String {
        let since = since_ms.unwrap_or(self.now_ms);
        words::duration(self.now_ms.saturating_sub(since))
    }

    /// The steps that run.
    fn running(&self) -> Columns {
        let mut columns = Columns::default();
        let steps = self.run.nodes.iter().filter(|n| n.node.kind.is_some());
        for node in steps.filter(|n| n.state == NodeState::Running) {
            let sample = node
                .sample
                .map_or_else(String::new, |index| words::sample(index, node.node.target));
            let log = node.logs.as_deref().map_or_else(String::new, |logs| {
                words::path(&newest_log(logs).unwrap_or_else(|| logs.to_owned()))
            });
            columns.row(vec![
                Cell::new(Ink::Cyan, node.node.node.as_str()),
                format!("for {}", self.since(node.since_ms)).into(),
                sample.into(),
                Cell::new(Ink::Dim, log),
            ]);
        }
        columns
    }

    fn services(&self) -> Vec<&NodeHistory> {
        let nodes = self.run.nodes.iter();
        let services = nodes.filter(|n| n.node.kind.is_none());
        services.filter(|n| n.incarnation.is_some()).collect()
    }

    /// The services that are up or on their way.
    fn up(&self) -> Columns {
        let mut columns = Columns::default();
        for node in self.services() {
            let (how, ink) = match (&node.url, node.state) {
                (Some(_), _) => ("up", Ink::Green),
                (None, NodeState::Running) => ("launching", Ink::Yellow),
                (None, NodeState::Failed) => ("down", Ink::Red),
                (None, _) => ("stopped", Ink::Dim),
            };
            let launch = format!("launch {}", node.incarnation.unwrap_or(1));
            let log = service_log(&self.run.folder, node);
            columns.row(vec![
                Cell::new(Ink::Bold, node.node.node.as_str()),
                Cell::new(ink, how),
                format!("for {}", self.since(node.since_ms)).into(),
                launch.into(),
                node.url.clone().unwrap_or_default().into(),
                Cell::new(Ink::Dim, log.map_or_else(String::new, |l| words::path(&l))),
            ]);
        }
        columns
    }

    /// The steps that wait, and for what.
    fn kept(&self) -> Columns {
        let mut columns = Columns::default();
        for wait in self.waiting.iter().take(WAITING_SHOWN) {
            let mut names = wait.waits_for.iter().take(REASONS_SHOWN).cloned();
            let more = wait.waits_for.len().saturating_sub(REASONS_SHOWN);
            let reasons = match (wait.waits_for.is_empty(), more) {
                (true, _) => "for its turn".to_owned(),
                (false, 0) => format!("for {}", names.by_ref().collect::<Vec<_>>().join(", ")),
                (false, n) => format!(
                    "for {} and {n} more",
                    names.by_ref().collect::<Vec<_>>().join(", ")
                ),
            };
            columns.row(vec![
                wait.node.as_str().into(),
                Cell::new(Ink::Dim, reasons),
            ]);
        }
        if self.waiting.len() > WAITING_SHOWN {
            let more = self.waiting.len() - WAITING_SHOWN;
            columns.row(vec![Cell::new(Ink::Dim, format!("and {more} more"))]);
        }
        columns
    }

    /// What came of the steps; while the run goes on, of those that have ended.
    fn outcomes(&self, session: &Session) -> Vec<String> {
        let is_open = |n: &NodeHistory| matches!(n.state, NodeState::Waiting | NodeState::Running);
        let is_told = |n: &NodeHistory| !self.run.live || !is_open(n);
        if !self.run.nodes.iter().any(is_told) {
            return Vec::new();
        }
        let table = summary::table_of(&self.run, &Measured::default(), is_told);
        table.lines("", session.terminal.color)
    }

    fn foot(&self, session: &Session) -> Vec<String> {
        let (terminal, run) = (&session.terminal, &self.run);
        let mut lines = Vec::new();
        for report in outputs::reports(run, &(session.library)()) {
            lines.push(String::new());
            let label = terminal.paint(Ink::Bold, "report");
            lines.push(format!("{label} {}", words::path(&report)));
        }
        if !run.live && !matches!(run.outcome, Some(Outcome::Done | Outcome::Invalid)) {
            let again = session.command(&format!("resume {}", words::shell(&run.run)));
            lines.push(String::new());
            lines.push(format!("`{again}` goes on with it"));
        }
        lines
    }
}

/// Finds the log of a service's last launch: the file that was written to last in its folder.
fn service_log(run: &Path, node: &NodeHistory) -> Option<PathBuf> {
    let launch = node.incarnation?.to_string();
    let folder = run.join("logs").join(file_safe(&node.node.node));
    let is_launch = |name: &str| {
        // Launches of a run that was resumed are numbered anew: `1`, `1.2`.
        name.split('.').next() == Some(launch.as_str())
    };
    let entries = std::fs::read_dir(&folder).ok()?.flatten();
    let launches = entries.filter(|e| e.file_name().to_str().is_some_and(is_launch));
    let last = launches.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok())?;
    Some(newest_log(&last.path()).unwrap_or_else(|| last.path()))
}

/// Finds the log in `folder` that was written to last.
fn newest_log(folder: &Path) -> Option<PathBuf> {
    let is_log = |name: &str| name.ends_with(".log") || name.starts_with("std");
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let logs = entries.filter(|e| e.file_name().to_str().is_some_and(is_log));
    let newest = logs.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok())?;
    Some(newest.path())
}
