//! `benchwright check`: every mistake of a plan at once, or what would run and why.

use super::Session;
use crate::args::{Check, PlanArguments};
use crate::columns::{Cell, Columns};
use crate::exit::{self, Failure};
use crate::outlook::{self, Prospect, Will};
use crate::terminal::{self, Ink, Terminal};
use crate::{estimate, outputs, render, words};
use engine::expand::{Expanded, Pruned};
use serde_json::{Value, json};

/// Checks a plan.
pub(super) fn check(arguments: &Check, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    if arguments.json
        && let Err(problems) = &loaded.expanded
    {
        let problems: Vec<Value> = problems
            .iter()
            .map(|p| render::problem_json(p, &loaded.sources))
            .collect();
        terminal::line(json!({ "sound": false, "problems": problems }));
        return Ok(exit::UNSOUND);
    }
    match loaded.or_draw(&session.terminal) {
        Ok(expanded) => show(&expanded, &arguments.plan, false, arguments.json, session),
        Err(code) => Ok(code),
    }
}

/// Shows what a run would do.
pub(super) fn show(
    expanded: &Expanded,
    plan: &PlanArguments,
    fresh: bool,
    json: bool,
    session: &Session,
) -> Result<u8, Failure> {
    let prospects = outlook::outlook(expanded, &outputs::peek(&session.out)?, fresh)?.prospects;
    if json {
        terminal::line(sound_json(expanded, plan, &prospects));
        return Ok(exit::DONE);
    }
    let terminal = &session.terminal;
    let description = match expanded.text.description.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    terminal::line(format!(
        "plan {}{description}",
        terminal.paint(Ink::Bold, &expanded.name)
    ));
    show_params(expanded, plan, terminal);
    if terminal.is_verbose() {
        prospects.iter().for_each(|p| show_whole(p, terminal));
    } else {
        terminal::line("");
        table(&prospects)
            .lines("  ", terminal.color)
            .iter()
            .for_each(terminal::line);
    }
    show_left_out(expanded, terminal);
    terminal::line(format!("\n{}", conclusion(&prospects)));
    if let Some(sentence) = estimate::total(&prospects).sentence(&prospects) {
        terminal::line(sentence);
    }
    Ok(exit::DONE)
}

/// So many of the instances of one declaration are shown with the reason why they are left out.
const LEFT_OUT_SHOWN: usize = 3;

fn show_left_out(expanded: &Expanded, terminal: &Terminal) {
    if expanded.pruned.is_empty() {
        return;
    }
    let mut columns = Columns::titled(&["left out", "why"]);
    let declaration = |pruned: &Pruned| pruned.node.split('[').next().map(str::to_owned);
    let same = |a: &Pruned, b: &Pruned| declaration(a) == declaration(b);
    for all in expanded.pruned.chunk_by(same) {
        let shown = match all.len() <= LEFT_OUT_SHOWN + 1 || terminal.is_verbose() {
            true => all.len(),
            false => LEFT_OUT_SHOWN,
        };
        for pruned in &all[..shown] {
            let why = Cell::new(Ink::Dim, pruned.reason.as_str());
            columns.row(vec![Cell::new(Ink::Bold, pruned.node.as_str()), why]);
        }
        if let (more @ 1.., Some(name)) = (all.len() - shown, declaration(&all[0])) {
            let why = Cell::new(Ink::Dim, "`--verbose` shows each with its reason");
            columns.row(vec![
                Cell::new(Ink::Dim, format!("{more} more of {name}")),
                why,
            ]);
        }
    }
    terminal::line("");
    let lines = columns.lines("  ", terminal.color);
    lines.iter().for_each(terminal::line);
}

fn show_params(expanded: &Expanded, plan: &PlanArguments, terminal: &Terminal) {
    let mut columns = Columns::default();
    for (name, value, is_set) in &expanded.text.params {
        let origin = Cell::new(
            if *is_set { Ink::Yellow } else { Ink::Dim },
            origin(plan, name, *is_set),
        );
        columns.row(vec![name.as_str().into(), value.as_str().into(), origin]);
    }
    columns
        .lines("  ", terminal.color)
        .iter()
        .for_each(terminal::line);
}

/// Says where the value of a parameter comes from.
fn origin(plan: &PlanArguments, name: &str, is_set: bool) -> String {
    let by_hand = plan
        .set
        .iter()
        .any(|(set, _)| set.strip_prefix("params.").unwrap_or(set) == name);
    match (is_set, by_hand, &plan.variant) {
        (false, ..) => "default".to_owned(),
        (true, false, Some(variant)) => format!("variant {variant}"),
        (true, ..) => "--set".to_owned(),
    }
}

pub(super) fn ink(will: Will) -> Ink {
    match will {
        Will::Run => Ink::Yellow,
        Will::Perhaps => Ink::Cyan,
        Will::Rest => Ink::Green,
    }
}

fn table(prospects: &[Prospect]) -> Columns {
    let mut columns = Columns::titled(&[
        "step or service",
        "uses",
        "kind",
        "samples",
        "what would happen",
    ]);
    for p in prospects {
        let samples = if p.kind == "measure" {
            p.target.to_string()
        } else {
            String::new()
        };
        let why = Cell::new(ink(p.will), p.why.as_str());
        columns.row(vec![
            Cell::new(Ink::Bold, p.node.as_str()),
            p.uses.as_str().into(),
            p.kind.into(),
            samples.into(),
            why,
        ]);
    }
    columns
}

/// Shows a node with its options, its edges and everything that changed.
fn show_whole(p: &Prospect, terminal: &Terminal) {
    let samples = if p.kind == "measure" {
        format!(", {}", words::plural(p.target as usize, "sample"))
    } else {
        String::new()
    };
    terminal::line(format!(
        "\n{}  {} ({}{samples})",
        terminal.paint(Ink::Bold, &p.node),
        p.uses,
        p.kind
    ));
    let changes = outlook::changes(&p.freshness);
    let why = if changes.is_empty() {
        p.why.as_str()
    } else {
        "will run: what it depends on changed"
    };
    terminal::line(format!("  {}", terminal.paint(ink(p.will), why)));
    changes
        .iter()
        .for_each(|change| terminal::line(format!("    {change}")));
    for (word, names) in [
        ("needs", &p.needs),
        ("after", &p.after),
        ("leases", &p.leases),
    ] {
        if !names.is_empty() {
            terminal::line(format!(
                "  {} {}",
                terminal.paint(Ink::Dim, word),
                names.join(", ")
            ));
        }
    }
    let mut options = Columns::default();
    p.with.iter().for_each(|(path, value)| {
        options.row(vec![
            Cell::new(Ink::Dim, path.as_str()),
            value.as_str().into(),
        ])
    });
    options
        .lines("  ", terminal.color)
        .iter()
        .for_each(terminal::line);
}

fn conclusion(prospects: &[Prospect]) -> String {
    let (services, steps): (Vec<&Prospect>, Vec<&Prospect>) =
        prospects.iter().partition(|p| p.kind == "service");
    let count = |of: &[&Prospect], will: Will| of.iter().filter(|p| p.will == will).count();
    let launched = match (count(&services, Will::Run), count(&services, Will::Perhaps)) {
        _ if services.is_empty() => String::new(),
        (0, 0) => "; no service would be launched".to_owned(),
        (0, n) => format!("; {} may be launched", words::plural(n, "service")),
        (n, _) => format!("; {} would be launched", words::plural(n, "service")),
    };
    let all = words::plural(steps.len(), "step");
    match (count(&steps, Will::Run), count(&steps, Will::Perhaps)) {
        (0, 0) => format!("nothing would run: the results of {all} are there{launched}"),
        (run, 0) => format!("{run} of {all} would run{launched}"),
        (run, perhaps) => {
            format!("{run} of {all} would run, {perhaps} more depending on their results{launched}")
        }
    }
}

fn sound_json(expanded: &Expanded, plan: &PlanArguments, prospects: &[Prospect]) -> Value {
    let param = |(name, value, is_set): &(String, String, bool)| json!({ "name": name, "value": value, "origin": origin(plan, name, *is_set) });
    let params: Vec<Value> = expanded.text.params.iter().map(param).collect();
    let left_out = expanded.pruned.iter();
    let left_out: Vec<Value> = left_out
        .map(|p| json!({ "node": p.node, "why": p.reason }))
        .collect();
    json!({
        "sound": true,
        "plan": expanded.name,
        "description": expanded.text.description,
        "params": params,
        "estimate": estimate::total(prospects),
        "nodes": prospects,
        "left_out": left_out,
    })
}
