//! `benchwright report`: where the reports of runs are.

use super::Session;
use crate::args::Report;
use crate::exit::{self, Failure};
use crate::outputs::{self, PAGE};
use crate::{terminal, words};
use engine::library::Library;
use engine::run::history::History;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use steps::Recomputed;

/// Prints one path per line; says for a run without a report how to make one.
pub(super) fn report(arguments: &Report, session: &Session) -> Result<u8, Failure> {
    let library = (session.library)();
    let latest = ["latest".to_owned()];
    let names = if arguments.runs.is_empty() {
        &latest[..]
    } else {
        &arguments.runs
    };
    if let Some(to) = &arguments.recompute {
        return recompute(names, to, arguments.json, session);
    }
    let mut listed: Vec<Value> = Vec::new();
    let mut without = Vec::new();
    for name in names {
        let run = outputs::history(&session.out, Some(name))?;
        let reports = outputs::reports(&run, &library);
        if arguments.json {
            listed.push(json!({ "run": run.run, "reports": reports }));
        } else {
            reports
                .iter()
                .for_each(|path| terminal::line(words::path(path)));
        }
        if reports.is_empty() {
            without.push(run.run);
        }
    }
    if arguments.json {
        terminal::line(Value::Array(listed));
    }
    match without.first() {
        None => Ok(exit::DONE),
        Some(_) => Err(Failure::new(format!("no report in {}", without.join(", ")))
            .help(how_to_make_one(&library))),
    }
}

/// Computes the load tests of runs anew.
fn recompute(names: &[String], to: &Path, json: bool, session: &Session) -> Result<u8, Failure> {
    let mut listed: Vec<Value> = Vec::new();
    let mut without = Vec::new();
    for name in names {
        let run = outputs::history(&session.out, Some(name))?;
        let samples = samples(&run);
        if samples.is_empty() {
            without.push(run.run.clone());
        }
        for (node, index, sample) in samples {
            let place = format!("{}/{node}/{index}", run.run);
            let found = steps::recompute(&sample, &to.join(&place)).map_err(|error| {
                let failure = Failure::new(format!("{place}: {}", error.message));
                error.help.into_iter().fold(failure, Failure::help)
            })?;
            if json {
                listed.push(json!({ "sample": place, "recomputed": found }));
            } else {
                say(&place, &found);
            }
        }
    }
    if json {
        terminal::line(Value::Array(listed));
    }
    match without.is_empty() {
        true => Ok(exit::DONE),
        false => Err(
            Failure::new(format!("no records of requests in {}", without.join(", ")))
                .help("they are kept by `load.test`, in the samples that it finished"),
        ),
    }
}

fn say(place: &str, found: &Recomputed) {
    let requests = words::plural(found.requests, "request");
    if found.changed.is_empty() {
        return terminal::line(format!("{place}: {requests}, every number as it was"));
    }
    let changed = words::plural(found.changed.len(), "number");
    terminal::line(format!(
        "{place}: {requests}, {changed} other than they were"
    ));
    let shown = |value: &Option<f64>| value.map_or_else(|| "none".to_owned(), |v| v.to_string());
    for (name, (then, now)) in &found.changed {
        terminal::line(format!(
            "  {name}: {} then, {} now",
            shown(then),
            shown(now)
        ));
    }
}

/// The samples of a run that have records: their node, their index, the folder that shows them.
fn samples(run: &History) -> Vec<(String, String, PathBuf)> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        found.sort();
        found
    };
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut found = Vec::new();
    for node in folders(&run.folder.join("results")) {
        for sample in folders(&node) {
            if sample.join("records").is_dir() && sample.join("result.json").is_file() {
                found.push((name(&node), name(&sample), sample));
            }
        }
    }
    found
}

fn how_to_make_one(library: &Library) -> String {
    let makers: Vec<String> = library
        .steps()
        .filter(|s| s.outputs.iter().any(|o| o.kind == PAGE))
        .map(|s| format!("`{}`", s.name))
        .collect();
    format!(
        "a report is made by a step that uses {}; add one to the plan and run it again: what is there is reused",
        makers.join(" or ")
    )
}
