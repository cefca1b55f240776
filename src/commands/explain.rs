//! `benchwright explain`: for every node whether it is reused, topped up or will run, and because of
//! which field.

use super::Session;
use super::check::ink;
use crate::args::Explain;
use crate::exit::{self, Failure};
use crate::outlook::{self, Outlook, Prospect, Will};
use crate::terminal::{self, Ink, Terminal};
use crate::{outputs, words};
use engine::key::{Change, Manifest};
use engine::problem::did_you_mean;
use engine::run::history;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Explains a plan, or some of its nodes.
pub(super) fn explain(arguments: &Explain, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
    let peek = outputs::peek(&session.out)?;
    let outlook = outlook::outlook(&expanded, &peek, arguments.fresh)?;
    let past = match &arguments.against {
        Some(run) => Some(Past::read(run, &peek, session)?),
        None => None,
    };
    let chosen = choose(&outlook.prospects, arguments.node.as_deref())?;
    if arguments.json {
        let nodes: Vec<Value> = chosen
            .iter()
            .map(|p| node_json(p, &outlook, past.as_ref()))
            .collect();
        terminal::line(json!({ "plan": expanded.name, "nodes": nodes }));
        return Ok(exit::DONE);
    }
    for prospect in chosen {
        show(prospect, &outlook, past.as_ref(), &session.terminal);
    }
    Ok(exit::DONE)
}

/// A run that is compared with.
struct Past {
    run: String,
    manifests: BTreeMap<String, Manifest>,
}

impl Past {
    fn read(run: &str, peek: &outputs::Peek, session: &Session) -> Result<Self, Failure> {
        let folder = history::find(&session.out, Some(run)).map_err(Failure::new)?;
        let manifests = engine::past::of_run(&peek.store, &folder)
            .map_err(|error| outputs::run_failure(&session.out, &error))?;
        let run = folder.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            run: run.into_owned(),
            manifests,
        })
    }

    /// Says in what a node differs from what it was in that run.
    fn difference(&self, node: &str, outlook: &Outlook) -> Difference {
        match (outlook.manifests.get(node), self.manifests.get(node)) {
            (None, _) => Difference::NotKnownYet,
            (_, None) => Difference::WasNotThere,
            (Some(now), Some(then)) => Difference::Changes(now.changes_since(then)),
        }
    }
}

/// How a node compares with what it was in another run.
enum Difference {
    /// Its inputs have to be made first.
    NotKnownYet,
    /// The run had no such node, or did not come so far.
    WasNotThere,
    /// These fields; none if it is the same.
    Changes(Vec<Change>),
}

/// Finds the nodes that `name` means: one instance, or all of one declaration.
fn choose<'a>(prospects: &'a [Prospect], name: Option<&str>) -> Result<Vec<&'a Prospect>, Failure> {
    let Some(name) = name else {
        return Ok(prospects.iter().collect());
    };
    let declaration = |p: &Prospect| p.node.split('[').next() == Some(name);
    let found: Vec<&Prospect> = prospects
        .iter()
        .filter(|p| p.node == name || declaration(p))
        .collect();
    if found.is_empty() {
        let known = prospects.iter().map(|p| p.node.as_str());
        let message = format!("the plan has no node `{name}`");
        return Err(Failure::new(message).help(did_you_mean(name, known)));
    }
    Ok(found)
}

fn show(prospect: &Prospect, outlook: &Outlook, past: Option<&Past>, terminal: &Terminal) {
    let name = terminal.paint(Ink::Bold, &prospect.node);
    let changes = outlook::changes(&prospect.freshness);
    let why = if changes.is_empty() {
        prospect.why.clone()
    } else {
        "will run: what it depends on changed".to_owned()
    };
    terminal::line(format!(
        "{name}: {}",
        terminal.paint(ink(prospect.will), &why)
    ));
    for change in changes {
        terminal::line(format!("    {change}"));
    }
    if let Some(takes) = takes(prospect) {
        terminal::line(format!("    {}", terminal.paint(Ink::Dim, &takes)));
    }
    if let Some(past) = past {
        show_difference(prospect, outlook, past, terminal);
    }
}

fn show_difference(prospect: &Prospect, outlook: &Outlook, past: &Past, terminal: &Terminal) {
    let run = &past.run;
    let said = match past.difference(&prospect.node, outlook) {
        Difference::NotKnownYet => format!("against run {run}: not known before its inputs are"),
        Difference::WasNotThere => format!("against run {run}: it has no such node"),
        Difference::Changes(changes) if changes.is_empty() => {
            format!("against run {run}: the same")
        }
        Difference::Changes(changes) => {
            terminal::line(format!("    against run {run}:"));
            for change in outlook::change_lines(&changes) {
                terminal::line(format!("      {change}"));
            }
            return;
        }
    };
    terminal::line(format!("    {}", terminal.paint(Ink::Dim, &said)));
}

/// Says how long it would take, where it would run and that is known.
fn takes(prospect: &Prospect) -> Option<String> {
    let each = prospect.estimate.each_ms?;
    match (prospect.will, prospect.estimate.times) {
        (Will::Rest, _) | (_, 0) => None,
        (_, 1) => Some(format!("takes about {}", words::duration(each))),
        (_, times) => Some(format!(
            "takes about {} for each of {times} samples",
            words::duration(each)
        )),
    }
}

fn node_json(prospect: &Prospect, outlook: &Outlook, past: Option<&Past>) -> Value {
    let mut value = serde_json::to_value(prospect).unwrap_or_default();
    if let (Some(past), Some(fields)) = (past, value.as_object_mut()) {
        let difference = match past.difference(&prospect.node, outlook) {
            Difference::NotKnownYet => json!({ "state": "not_known_yet" }),
            Difference::WasNotThere => json!({ "state": "was_not_there" }),
            Difference::Changes(changes) => json!({ "state": "known", "changes": changes }),
        };
        fields.insert(
            "against".to_owned(),
            json!({ "run": past.run, "difference": difference }),
        );
    }
    value
}
