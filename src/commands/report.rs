//! `benchwright report`: where the reports of runs are.

use super::Session;
use crate::args::Report;
use crate::exit::{self, Failure};
use crate::outputs::{self, PAGE};
use crate::{terminal, words};
use engine::library::Library;
use serde_json::{Value, json};

/// Prints one path per line; says for a run without a report how to make one.
pub(super) fn report(arguments: &Report, session: &Session) -> Result<u8, Failure> {
    let library = (session.library)();
    let latest = ["latest".to_owned()];
    let names = if arguments.runs.is_empty() {
        &latest[..]
    } else {
        &arguments.runs
    };
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
