//! `benchwright graph`: a plan's graph as text or as a picture, with what would become of each
//! node, or with what became of it in a run.

use super::{Session, write_out};
use crate::args::{Graph, GraphFormat, PlanArguments};
use crate::drawing::{self, Drawing, State};
use crate::exit::{self, Failure};
use crate::{outlook, outputs, plans};
use engine::expand::Expanded;
use std::collections::BTreeMap;
use std::path::Path;

/// Above so many nodes, instances are drawn as one box for each declaration.
const LEGIBLE: usize = 60;

/// What is known of nodes by name.
type States = BTreeMap<String, (State, String)>;

/// Draws a plan or a run.
pub(super) fn graph(arguments: &Graph, session: &Session) -> Result<u8, Failure> {
    let found = match (&arguments.run, &arguments.plan) {
        (Some(run), _) => of_run(run, session)?,
        (None, Some(plan)) => of_plan(plan, arguments, session)?,
        // The command line asks for one of the two.
        (None, None) => return Ok(exit::UNSOUND),
    };
    let (title, expanded, states) = match found {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    let drawing = Drawing::of(&title, &expanded.graph).marked(|name| states.get(name).cloned());
    let is_large = drawing.boxes.len() > LEGIBLE;
    let drawing = if arguments.collapse || (is_large && !arguments.expand) {
        drawing.collapsed()
    } else {
        drawing
    };
    let text = match format(arguments) {
        GraphFormat::Dot => drawing::dot(&drawing),
        GraphFormat::Mermaid => drawing::mermaid(&drawing),
        GraphFormat::Svg => drawing::svg(&drawing),
    };
    write_out(arguments.output.as_deref(), text.as_bytes())?;
    Ok(exit::DONE)
}

/// A title, the plan, and what is known of its nodes; or the exit code for a plan that is wrong.
type Found = Result<(String, Expanded, States), u8>;

fn of_plan(plan: &Path, arguments: &Graph, session: &Session) -> Result<Found, Failure> {
    let plan = PlanArguments {
        plan: plan.to_owned(),
        set: arguments.set.clone(),
        variant: arguments.variant.clone(),
    };
    let expanded = match plan.load(&(session.library)()).or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(Err(code)),
    };
    let mut states = States::new();
    if !arguments.bare {
        let peek = outputs::peek(&session.out)?;
        for prospect in outlook::outlook(&expanded, &peek, false)?.prospects {
            states.insert(prospect.node.clone(), drawing::of_prospect(&prospect));
        }
    }
    Ok(Ok((expanded.name.clone(), expanded, states)))
}

fn of_run(name: &str, session: &Session) -> Result<Found, Failure> {
    let run = outputs::history(&session.out, Some(name))?;
    let loaded = plans::load_run(&run.folder, &(session.library)())
        .map_err(|error| outputs::run_failure(&session.out, &error))?;
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(Err(code)),
    };
    let state = |node: &_| drawing::of_history(node, run.live);
    let states = run.nodes.iter().map(|n| (n.node.node.clone(), state(n)));
    let title = format!("{}: run {}", run.plan, run.run);
    Ok(Ok((title, expanded, states.collect())))
}

fn format(arguments: &Graph) -> GraphFormat {
    let extension = arguments
        .output
        .as_deref()
        .and_then(Path::extension)
        .and_then(|e| e.to_str());
    arguments.format.unwrap_or(match extension {
        Some("svg") => GraphFormat::Svg,
        Some("md" | "mmd" | "mermaid") => GraphFormat::Mermaid,
        _ => GraphFormat::Dot,
    })
}
