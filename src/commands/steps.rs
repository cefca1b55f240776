//! `benchwright steps`: the step library, from the declarations that read plans.

use super::Session;
use crate::args::Steps;
use crate::columns::{Cell, Columns};
use crate::exit::{self, Failure};
use crate::reference::{self, Entry, OptionDoc, default_words};
use crate::terminal::{self, Ink, Terminal};
use crate::words;
use engine::problem::did_you_mean;
use serde_json::json;
use std::path::Path;

/// Where the meaning of an option is wrapped, in characters.
const DOC_WIDTH: usize = 88;

/// Lists the library, a family of it, or one entry with everything there is to know.
pub(super) fn steps(arguments: &Steps, session: &Session) -> Result<u8, Failure> {
    let all = all(arguments, session);
    let chosen: Vec<&Entry> = match arguments.name.as_deref() {
        Some(name) => choose(name, &all)?,
        None => all.iter().collect(),
    };
    let terminal = &session.terminal;
    let is_exact = arguments
        .name
        .as_deref()
        .is_some_and(|name| chosen.iter().any(|e| e.name == name));
    if arguments.json {
        terminal::line(json!(chosen));
    } else if arguments.markdown {
        terminal::write(reference::markdown(&all).as_bytes());
    } else if is_exact {
        chosen.iter().for_each(|entry| show(entry, &all, terminal));
    } else {
        list(&chosen, terminal);
    }
    Ok(exit::DONE)
}

/// Lists steps, services, and the fragments that a plan in the working folder can use; of those,
/// the reference as a document has what lies below the folder that it is written for.
fn all(arguments: &Steps, session: &Session) -> Vec<Entry> {
    let mut all = reference::entries(&(session.library)());
    let mut fragments = engine::compose::fragments(Path::new(""));
    // What lies above has an absolute path.
    fragments.retain(|f| !arguments.markdown || f.file.is_relative());
    reference::add_fragments(&mut all, fragments);
    all
}

fn choose<'a>(name: &str, all: &'a [Entry]) -> Result<Vec<&'a Entry>, Failure> {
    let exact: Vec<&Entry> = all.iter().filter(|e| e.name == name).collect();
    let family: Vec<&Entry> = all.iter().filter(|e| e.family() == name).collect();
    match (exact.is_empty(), family.is_empty()) {
        (false, _) => Ok(exact),
        (true, false) => Ok(family),
        (true, true) => {
            let help = did_you_mean(name, all.iter().map(|e| e.name.as_str()));
            Err(Failure::new(format!(
                "the library has no step, service or fragment `{name}`"
            ))
            .help(help))
        }
    }
}

fn list(entries: &[&Entry], terminal: &Terminal) {
    let mut columns = Columns::default();
    for entry in entries {
        let nature = if entry.sort == "service" {
            "service"
        } else {
            entry.kind
        };
        columns.row(vec![
            Cell::new(Ink::Bold, &entry.name),
            Cell::new(Ink::Dim, nature),
            entry.summary.as_str().into(),
        ]);
    }
    let mut family = entries.first().map_or("", |e| e.family());
    for (entry, line) in entries.iter().zip(columns.lines("", terminal.color)) {
        if entry.family() != family {
            family = entry.family();
            terminal::line("");
        }
        terminal::line(line);
    }
    // A family is looked at for what it offers; the whole library has enough lines.
    if entries.iter().all(|entry| entry.family() == family) {
        entries.iter().for_each(|entry| show_names(entry, terminal));
    }
    if terminal.is_talkative() {
        terminal::line(terminal.paint(
            Ink::Dim,
            "\n`benchwright steps NAME` shows options, outputs and an example",
        ));
    }
}

/// Shows name, type, default and unit on one line and the meaning below.
fn show_option(option: &OptionDoc, terminal: &Terminal) {
    let default = match default_words(option).as_str() {
        "required" => terminal.paint(Ink::Yellow, "required"),
        "none" => "optional".to_owned(),
        text => format!("default {text}"),
    };
    let unit = option
        .unit
        .as_ref()
        .map_or_else(String::new, |unit| format!(", in {unit}"));
    let name = terminal.paint(Ink::Bold, &option.name);
    terminal::line(format!("  {name}: {}, {default}{unit}", option.type_name));
    words::wrap(&option.doc, DOC_WIDTH)
        .iter()
        .for_each(|line| terminal::line(format!("      {line}")));
}

fn show(entry: &Entry, all: &[Entry], terminal: &Terminal) {
    let title = |text: &str| terminal::line(format!("\n{}", terminal.paint(Ink::Bold, text)));
    terminal::line(format!(
        "{}: {}",
        terminal.paint(Ink::Bold, &entry.name),
        entry.summary
    ));
    terminal::line(reference::nature(entry));
    if !entry.options.is_empty() {
        title(match entry.sort {
            "fragment" => "Parameters",
            _ => "Options",
        });
        entry
            .options
            .iter()
            .for_each(|option| show_option(option, terminal));
    }
    if !entry.outputs.is_empty() {
        title("Outputs");
        let mut columns = Columns::titled(&["name", "kind", "holds"]);
        entry
            .outputs
            .iter()
            .for_each(|o| columns.row(vec![o.name.into(), o.kind.into(), o.doc.into()]));
        write(&columns, terminal);
    }
    if !entry.parts.is_empty() {
        title("Parts");
        let mut columns = Columns::titled(&["", "name", "uses"]);
        for part in &entry.parts {
            let (name, uses) = (part.name.as_str(), part.uses.as_str());
            columns.row(vec![part.sort.into(), name.into(), uses.into()]);
        }
        write(&columns, terminal);
    }
    show_names(entry, terminal);
    title("Example");
    reference::example(entry, all)
        .lines()
        .for_each(|line| terminal::line(format!("  {line}").trim_end()));
}

/// Shows what short names stand for; a dash is something that is not known for sure.
fn show_names(entry: &Entry, terminal: &Terminal) {
    if entry.names.is_empty() {
        return;
    }
    terminal::line(format!("\n{}", terminal.paint(Ink::Bold, "Short names")));
    let mut columns = Columns::titled(&["name", "licence", "size", "digest", "holds"]);
    for short in &entry.names {
        columns.row(vec![
            Cell::new(Ink::Bold, short.name),
            short.licence.unwrap_or("-").into(),
            short
                .bytes
                .map_or("-".to_owned(), words::bytes)
                .as_str()
                .into(),
            short.sha256.map_or("-", |sha256| &sha256[..12]).into(),
            short.about.into(),
        ]);
    }
    write(&columns, terminal);
    let more = "where each is, and its page: `benchwright steps dataset.fetch --json`";
    terminal::line(terminal.paint(Ink::Dim, more));
}

fn write(columns: &Columns, terminal: &Terminal) {
    let lines = columns.lines("  ", terminal.color);
    lines.iter().for_each(terminal::line);
}
