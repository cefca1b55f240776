//! What traces of a window hold: kept beside each other, and what took longest in each, as rows.

use super::chrome::{self, Trace};
use super::operators::{Kind, Total};
use crate::files;
use crate::result::{Definition, Row};
use engine::step::StepError;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A trace that was kept.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    name: String,
    /// Which process wrote it, by the server's own numbers.
    process: String,
    /// Which stage it is of, where they are told apart.
    stage: Option<String>,
    bytes: u64,
    bytes_unpacked: u64,
    events: u64,
}

/// What was found in traces.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) kept: Vec<Kept>,
    pub(super) rows: Vec<Row>,
    /// What could not be told of them.
    pub(super) trouble: Vec<String>,
}

impl Found {
    /// Reads traces, and moves those that lie elsewhere to where they are kept.
    pub(super) fn of(paths: &[PathBuf], to: &Path, top: usize) -> Result<Self, StepError> {
        let mut found = Self::default();
        for path in paths {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let kept = to.join(&name);
            moved(path, &kept)?;
            match chrome::read(&kept) {
                Ok(trace) => found.add(&kept, name, trace, top)?,
                Err(error) => found
                    .trouble
                    .push(format!("of `{name}` nothing is told: {error}")),
            }
        }
        Ok(found)
    }

    fn add(
        &mut self,
        path: &Path,
        name: String,
        trace: Trace,
        top: usize,
    ) -> Result<(), StepError> {
        let bytes = fs::metadata(path).map(|data| data.len());
        let bytes = bytes.map_err(|e| {
            StepError::because(format!("could not look at `{}`", path.display()), e)
        })?;
        let (process, stage) = named(&name);
        let all = trace.operators.top(top);
        if all.is_empty() {
            self.trouble.push(format!(
                "`{name}` has neither kernels nor operators: nothing was computed in the window"
            ));
        }
        let stage_of = stage.as_deref();
        self.rows
            .extend(all.iter().map(|total| row(&process, stage_of, total)));
        self.kept.push(Kept {
            name,
            process,
            stage,
            bytes,
            bytes_unpacked: trace.bytes,
            events: trace.events,
        });
        Ok(())
    }
}

/// Moves a file, also to another disk; one that lies there already stays.
fn moved(from: &Path, to: &Path) -> Result<(), StepError> {
    let same = |path: &Path| fs::canonicalize(path).ok();
    if same(from).is_some() && same(from) == same(to) {
        return Ok(());
    }
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    files::copy(from, to)?;
    fs::remove_file(from)
        .map_err(|e| StepError::because(format!("could not remove `{}`", from.display()), e))
}

/// The process and the stage that a trace is of, by its name: `ID-TP-0-EXTEND.trace.json.gz` of SGLang,
/// `PROCESS.TIME.pt.trace.json.gz` of vLLM.
fn named(file: &str) -> (String, Option<String>) {
    let stem = file.split(".trace.json").next().unwrap_or(file);
    let Some(at) = stem.find("-TP-") else {
        return (stem.split('.').next().unwrap_or(stem).to_owned(), None);
    };
    let ranks = &stem[at + 1..];
    match ranks.rsplit_once('-') {
        Some((process, stage)) if stage.chars().all(|c| c.is_ascii_alphabetic() || c == '_') => {
            (process.to_owned(), Some(stage.to_owned()))
        }
        _ => (ranks.to_owned(), None),
    }
}

fn row(process: &str, stage: Option<&str>, total: &Total) -> Row {
    let mut row = Row::default();
    let labels = [
        ("process", process),
        ("kind", total.kind.word()),
        ("name", &total.name),
    ];
    let stage = stage.map(|stage| ("stage", stage));
    row.labels = labels
        .into_iter()
        .chain(stage)
        .map(|(label, text)| (label.to_owned(), text.to_owned()))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "no trace has 2^53 events")]
    row.set("count", total.count as f64);
    row.set("total_ms", total.total_ms);
    row.set("self_ms", total.self_ms);
    row.set("share", total.share);
    row
}

/// What the values of rows mean.
pub(super) fn definitions() -> Vec<Definition> {
    let all = [
        ("count", "calls", "times that it ran within the window"),
        (
            "total_ms",
            "ms",
            "time from its beginnings to its ends, with what it called",
        ),
        (
            "self_ms",
            "ms",
            "total_ms without what it called; of kernels the same as total_ms",
        ),
        (
            "share",
            "share",
            "self_ms of that of everything of its kind in its trace",
        ),
    ];
    let definition = |(name, unit, formula): (&str, &str, &str)| Definition {
        name: name.to_owned(),
        unit: unit.to_owned(),
        formula: formula.to_owned(),
    };
    all.into_iter().map(definition).collect()
}

/// One line about traces: how many, and what took longest.
pub(super) fn summary(found: &Found) -> String {
    let processes: BTreeSet<&str> = found
        .kept
        .iter()
        .map(|kept| kept.process.as_str())
        .collect();
    let events: u64 = found.kept.iter().map(|kept| kept.events).sum();
    let longest = |kind: Kind| {
        let of_kind = |row: &&Row| {
            row.labels
                .get("kind")
                .is_some_and(|word| word == kind.word())
        };
        let first = found.rows.iter().find(of_kind)?;
        let share = charts::format_number(first.value("share")? * 100.0);
        Some(format!(
            "; {} {share} % of {}s",
            first.labels.get("name")?,
            kind.word()
        ))
    };
    let longest: String = [Kind::Kernel, Kind::Operator]
        .into_iter()
        .filter_map(longest)
        .collect();
    let (n, of) = (found.kept.len(), processes.len());
    format!("{n} traces of {of} processes, {events} events{longest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traces_say_whose_they_are() {
        let named = |file| {
            let (process, stage) = named(file);
            format!("{process} {}", stage.unwrap_or_default())
        };
        assert_eq!(named("1732730000.12-TP-0.trace.json.gz"), "TP-0 ");
        assert_eq!(
            named("a-1.5-TP-3-DP-1-DECODE.trace.json.gz"),
            "TP-3-DP-1 DECODE"
        );
        assert_eq!(named("1.5-TP-0-EXTEND.trace.json.gz"), "TP-0 EXTEND");
        assert_eq!(
            named("dp0_pp0_tp1_dcp0_ep1_rank1.1732730000123.pt.trace.json.gz"),
            "dp0_pp0_tp1_dcp0_ep1_rank1 "
        );
    }

    #[test]
    fn a_trace_is_moved_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&from, "x").expect("a file");
        moved(&from, &to).expect("moved");
        assert!(!from.exists() && to.exists());
        moved(&to, &to).expect("it stays");
        assert!(to.exists());
    }
}
