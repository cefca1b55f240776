//! What came of a run: a table of its nodes, what speaks against its measurements, its failures.

use crate::columns::{Cell, Columns};
use crate::terminal::{Ink, Terminal};
use crate::words;
use engine::decide::Ledger;
use engine::environment::Environment;
use engine::expand::Expanded;
use engine::freshness::Wish;
use engine::run::history::{History, NodeHistory, NodeState};
use engine::samples::SampleRecord;
use engine::step::{FailureClass, Figure, Grade, StepKind, Verdict};
use engine::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use steps::figures;

/// Where a failure is cut in the table, in characters; it is shown in full below.
const MAX_RESULT: usize = 80;

/// What is known of every sample that counts for the plan, reused ones too, by measurement.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    verdicts: BTreeMap<String, Vec<Verdict>>,
    /// What sets of several samples show together: one sample alone would stand for nothing.
    medians: BTreeMap<String, String>,
}

impl Measured {
    /// Looks the samples up in the store; what cannot be read has no verdicts.
    pub(crate) fn gather(expanded: &Expanded, store: &Arc<Store>) -> Self {
        let graph = expanded.graph.clone();
        let measures = |id| graph.step_kind(id) == Some(StepKind::Measure);
        if !graph.order().iter().any(|id| measures(*id)) {
            return Self::default();
        }
        let environment = Arc::new(Environment::detect());
        let mut ledger = Ledger::new(
            graph.clone(),
            store.clone(),
            environment,
            expanded.text.clone(),
            Wish::Enough,
        );
        // A run that failed half way leaves some nodes undecided; those have no samples yet.
        let _ = ledger.assess();
        let mut known = Self::default();
        for id in graph.order().iter().filter(|id| measures(**id)) {
            if let Some(set) = ledger.samples(*id) {
                known.learn(graph.name(*id), &set.records);
            }
        }
        known
    }

    fn learn(&mut self, node: String, records: &[SampleRecord]) {
        let figures: Vec<&[Figure]> = records.iter().map(|r| r.figures.as_slice()).collect();
        let medians = figures::medians(&figures);
        if records.len() > 1 && !medians.is_empty() {
            let line = format!("{}; median of {}", figures::line(&medians), records.len());
            self.medians.insert(node.clone(), line);
        }
        let verdicts = records.iter().map(|r| r.verdict.clone());
        self.verdicts.insert(node, verdicts.collect());
    }

    fn get(&self, node: &str) -> &[Verdict] {
        self.verdicts.get(node).map_or(&[], Vec::as_slice)
    }

    /// Says for each measurement that is not valid throughout what speaks against it.
    pub(crate) fn doubts(&self, color: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for (node, verdicts) in &self.verdicts {
            let Some(worst) = worst(verdicts).filter(|grade| *grade != Grade::Valid) else {
                continue;
            };
            let doubtful = verdicts.iter().filter(|v| v.grade != Grade::Valid).count();
            let count = if verdicts.len() > 1 {
                format!(" ({doubtful} of {} samples)", verdicts.len())
            } else {
                String::new()
            };
            lines.push(String::new());
            lines.push(format!(
                "{} is {}{count}:",
                Ink::Bold.paint(node, color),
                ink(worst).paint(worst, color)
            ));
            lines.extend(reasons(verdicts));
        }
        lines
    }
}

/// Lists every reason once, with how many samples it was given for.
fn reasons(verdicts: &[Verdict]) -> Vec<String> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for reason in verdicts.iter().flat_map(|v| &v.reasons) {
        match counted.iter_mut().find(|(known, _)| known == reason) {
            Some((_, n)) => *n += 1,
            None => counted.push((reason, 1)),
        }
    }
    let shown = |(reason, n): (&str, usize)| {
        if n > 1 {
            format!("  - {reason} ({n} samples)")
        } else {
            format!("  - {reason}")
        }
    };
    counted.into_iter().map(shown).collect()
}

fn worst(verdicts: &[Verdict]) -> Option<Grade> {
    verdicts.iter().map(|v| v.grade).max()
}

fn ink(grade: Grade) -> Ink {
    match grade {
        Grade::Valid => Ink::Green,
        Grade::Degraded => Ink::Yellow,
        Grade::Invalid => Ink::Red,
    }
}

/// Lays out every node of a run but the services that nobody asked for.
pub(crate) fn table(run: &History, verdicts: &Measured) -> Columns {
    table_of(run, verdicts, |_| true)
}

/// Lays out the nodes of a run that `is_told` picks.
pub(crate) fn table_of(
    run: &History,
    verdicts: &Measured,
    is_told: impl Fn(&NodeHistory) -> bool,
) -> Columns {
    let mut columns = Columns::titled(&["step", "state", "samples", "verdict", "time", "result"]);
    for node in run
        .nodes
        .iter()
        .filter(|n| n.node.kind.is_some() || n.state != NodeState::Waiting)
        .filter(|n| is_told(n))
    {
        let known = verdicts.get(&node.node.node);
        let median = verdicts.medians.get(&node.node.node);
        // Without a look into the store, what was drawn in this run is what is known.
        let (verdicts, n_samples) = if known.is_empty() {
            (&*node.verdicts, node.n_samples() as usize)
        } else {
            (known, known.len())
        };
        let mut row = row(node, verdicts, n_samples, run.live);
        let median = median.filter(|_| node.state == NodeState::Done);
        row.push(median.cloned().unwrap_or_else(|| result(node)).into());
        columns.row(row);
    }
    columns
}

/// All cells but the last.
fn row(node: &NodeHistory, verdicts: &[Verdict], n_samples: usize, live: bool) -> Vec<Cell> {
    let is_measurement = node.node.kind == Some(StepKind::Measure);
    let samples = if is_measurement {
        format!("{n_samples}/{}", node.node.target)
    } else {
        String::new()
    };
    let verdict = worst(verdicts).map_or_else(
        || Cell::from(""),
        |grade| Cell::new(ink(grade), grade.to_string()),
    );
    let time = if node.finished > 0 {
        words::duration(node.took_ms)
    } else {
        String::new()
    };
    let (state, ink) = state(node, live);
    vec![
        Cell::new(Ink::Bold, node.node.node.as_str()),
        Cell::new(ink, state),
        samples.into(),
        if is_measurement { verdict } else { "".into() },
        time.into(),
    ]
}

/// Names the state of a node; a service that ended as it should has stopped, not finished.
fn state(node: &NodeHistory, live: bool) -> (&'static str, Ink) {
    let is_service = node.node.kind.is_none();
    let was_interrupted = node
        .failure
        .as_ref()
        .is_some_and(|f| f.class == FailureClass::Interrupted);
    match node.state {
        NodeState::Waiting => ("waiting", Ink::Dim),
        NodeState::Running if live && node.url.is_some() => ("up", Ink::Green),
        NodeState::Running if live && is_service => ("launching", Ink::Cyan),
        NodeState::Running if live => ("running", Ink::Cyan),
        NodeState::Running => ("cut off", Ink::Yellow),
        NodeState::Done if is_service => ("stopped", Ink::Plain),
        NodeState::Done => ("done", Ink::Green),
        NodeState::Reused => ("reused", Ink::Green),
        NodeState::Failed if was_interrupted => ("interrupted", Ink::Yellow),
        NodeState::Failed => ("failed", Ink::Red),
        // An effect that was performed and not asked for again.
        NodeState::Skipped if node.finished > 0 => ("done", Ink::Green),
        NodeState::Skipped => ("skipped", Ink::Dim),
    }
}

fn result(node: &NodeHistory) -> String {
    let failure = node
        .failure
        .as_ref()
        .filter(|f| f.class != FailureClass::Interrupted)
        .map(|f| words::cut(&f.message, MAX_RESULT));
    let found = node
        .freshness
        .as_ref()
        .filter(|_| node.state == NodeState::Reused)
        .map(|f| {
            let text = f.to_string();
            text.strip_prefix("reused, ")
                .or(text.strip_prefix("reused "))
                .unwrap_or(&text)
                .to_owned()
        });
    failure
        .or_else(|| node.summary.clone())
        .or(found)
        .unwrap_or_default()
}

/// Whether every step of a run was reused, or only asked for by steps that were.
pub(crate) fn ran_nothing(run: &History) -> bool {
    let rests = |n: &NodeHistory| match n.node.kind {
        None => n.state == NodeState::Waiting,
        Some(StepKind::Effect) => n.state == NodeState::Skipped,
        Some(_) => n.state == NodeState::Reused,
    };
    run.nodes.iter().all(rests) && run.nodes.iter().any(|n| n.state == NodeState::Reused)
}

/// Draws how a node failed: what, the log and its last lines, the mend. Interruptions are none.
pub(crate) fn failure(node: &NodeHistory, terminal: &Terminal) -> Option<String> {
    let failure = node
        .failure
        .as_ref()
        .filter(|f| f.class != FailureClass::Interrupted)?;
    let sort = if node.node.kind.is_some() {
        "step"
    } else {
        "service"
    };
    let sample = failure
        .sample
        .map_or_else(String::new, |n| format!(", sample {}", n + 1));
    let label = terminal.paint_error(Ink::Red, "error");
    let mut lines = vec![format!(
        "{label}: {sort} `{}`{sample} failed: {}",
        failure.node, failure.message
    )];
    let dim = |text: &str| terminal.paint_error(Ink::Dim, text);
    if let Some(log) = &failure.log {
        lines.push(format!("  {} {}", dim("-->"), words::path(log)));
    }
    lines.extend(
        failure
            .log_tail
            .iter()
            .map(|line| format!("   {} {line}", dim("|"))),
    );
    if let Some(help) = &failure.help {
        lines.push(format!(
            "{}: {help}",
            terminal.paint_error(Ink::Cyan, "help")
        ));
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Verbosity;
    use engine::event::{Failure, NodeSummary};
    use std::path::Path;

    fn node(name: &str, kind: Option<StepKind>, state: NodeState) -> NodeHistory {
        let mut node = NodeHistory::new(NodeSummary {
            node: name.into(),
            uses: "x.y".into(),
            kind,
            target: 3,
        });
        node.state = state;
        node
    }

    fn run(nodes: Vec<NodeHistory>) -> History {
        let mut run = History::of(Path::new("r"), false, &[], Vec::new());
        run.nodes = nodes;
        run
    }

    fn verdict(grade: Grade, reasons: &[&str]) -> Verdict {
        Verdict {
            grade,
            reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    #[test]
    fn nothing_ran_only_if_every_step_was_reused_and_no_service_was_launched() {
        let reused = node("a", Some(StepKind::Pure), NodeState::Reused);
        let idle = node("s", None, NodeState::Waiting);
        let unasked = node("w", Some(StepKind::Effect), NodeState::Skipped);
        assert!(ran_nothing(&run(vec![
            reused.clone(),
            idle.clone(),
            unasked
        ])));
        assert!(!ran_nothing(&run(vec![
            reused.clone(),
            node("s", None, NodeState::Done)
        ])));
        assert!(!ran_nothing(&run(vec![
            reused,
            node("b", Some(StepKind::Pure), NodeState::Done)
        ])));
        assert!(!ran_nothing(&run(vec![idle])));
    }

    #[test]
    fn the_table_counts_samples_and_shows_the_worst_verdict() {
        let mut measured = node("load", Some(StepKind::Measure), NodeState::Done);
        measured.finished = 2;
        measured.took_ms = 2500;
        measured.summary = Some("TTFT p50 12 ms".into());
        measured.verdicts = vec![verdict(Grade::Valid, &[]), verdict(Grade::Degraded, &["x"])];
        let lines = table(
            &run(vec![measured, node("server", None, NodeState::Waiting)]),
            &Measured::default(),
        )
        .lines("", false);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            "load  done   2/3      degraded  2.5 s  TTFT p50 12 ms"
        );
    }

    #[test]
    fn a_set_of_samples_shows_its_medians() {
        let mut measured = node("load", Some(StepKind::Measure), NodeState::Done);
        measured.summary = Some("TTFT p50 99 ms".into());
        let known = Measured {
            verdicts: BTreeMap::from([("load".to_owned(), vec![verdict(Grade::Valid, &[]); 3])]),
            medians: BTreeMap::from([(
                "load".to_owned(),
                "TTFT p50 12 ms; median of 3".to_owned(),
            )]),
        };
        let lines = table(&run(vec![measured.clone()]), &known).lines("", false);
        assert!(
            lines[1].ends_with("valid    TTFT p50 12 ms; median of 3"),
            "{lines:?}"
        );
        // Of one that failed there is no whole set.
        measured.state = NodeState::Failed;
        let lines = table(&run(vec![measured]), &known).lines("", false);
        assert!(lines[1].ends_with("TTFT p50 99 ms"), "{lines:?}");
    }

    #[test]
    fn doubts_are_listed_once_with_how_often() {
        let late = verdict(Grade::Invalid, &["the client was late", "too few requests"]);
        let of = BTreeMap::from([
            (
                "load".to_owned(),
                vec![
                    late.clone(),
                    verdict(Grade::Valid, &[]),
                    verdict(Grade::Degraded, &["the client was late"]),
                ],
            ),
            ("other".to_owned(), vec![verdict(Grade::Valid, &[])]),
        ]);
        let all = Measured {
            verdicts: of,
            ..Measured::default()
        };
        let lines = all.doubts(false);
        let wanted = [
            "",
            "load is invalid (2 of 3 samples):",
            "  - the client was late (2 samples)",
            "  - too few requests",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_failure_shows_its_log_and_its_mend_and_an_interruption_is_none() {
        let terminal = Terminal {
            verbosity: Verbosity::Normal,
            color: false,
            error_color: false,
            live: false,
        };
        let failed = Failure {
            retry_ms: None,
            node: "load".into(),
            sample: Some(1),
            message: "it broke".into(),
            help: Some("mend it".into()),
            class: FailureClass::Step,
            log: Some("/logs/x.log".into()),
            log_tail: vec!["a".into(), "b".into()],
        };
        let mut load = node("load", Some(StepKind::Measure), NodeState::Failed);
        load.failure = Some(failed.clone());
        let drawn = failure(&load, &terminal).expect("a failure");
        let wanted = "error: step `load`, sample 2 failed: it broke\n  --> /logs/x.log\n   | a\n   | b\nhelp: mend it";
        assert_eq!(drawn, wanted);
        load.failure = Some(Failure {
            class: FailureClass::Interrupted,
            ..failed
        });
        assert_eq!(failure(&load, &terminal), None);
    }
}
