//! The step library as documentation: everything here comes from the declarations that parse plans.

use engine::library::{Library, ServiceEntry, StepEntry};
use engine::options::OptionSpec;
use engine::step::OutputSpec;
use engine::types::duration_text;
use serde::Serialize;

/// A kind of step or service as the documentation shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The name in `use`.
    pub(crate) name: &'static str,
    /// `step` or `service`.
    pub(crate) sort: &'static str,
    /// How a step's results may be used again, or what a service serves as.
    pub(crate) kind: &'static str,
    /// Part of every key.
    pub(crate) version: u32,
    /// One sentence.
    pub(crate) summary: &'static str,
    /// The keys of `with`.
    pub(crate) options: Vec<OptionSpec>,
    /// What a step leaves behind.
    pub(crate) outputs: Vec<OutputSpec>,
    /// What `${services.NAME.FACT}` may ask for.
    pub(crate) facts: Vec<&'static str>,
    /// The limit of a service's launch when the plan gives none.
    pub(crate) ready_timeout: Option<String>,
}

impl Entry {
    /// The text before the dot: entries with the same are shown together.
    pub(crate) fn family(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(family, _)| family)
    }

    fn of_step(step: &StepEntry) -> Self {
        Self {
            name: step.name,
            sort: "step",
            kind: crate::outlook::kind_word(Some(step.kind)),
            version: step.version,
            summary: step.summary,
            options: step.options.clone(),
            outputs: step.outputs.to_vec(),
            facts: Vec::new(),
            ready_timeout: None,
        }
    }

    fn of_service(service: &ServiceEntry) -> Self {
        Self {
            name: service.name,
            sort: "service",
            kind: service.kind,
            version: service.version,
            summary: service.summary,
            options: service.options.clone(),
            outputs: Vec::new(),
            facts: ["url"].iter().chain(service.facts).copied().collect(),
            ready_timeout: Some(duration_text(service.ready_timeout)),
        }
    }
}

/// Lists everything, by family and in it by name.
pub(crate) fn entries(library: &Library) -> Vec<Entry> {
    let steps = library.steps().map(|s| Entry::of_step(s));
    let mut all: Vec<Entry> = steps
        .chain(library.services().map(|s| Entry::of_service(s)))
        .collect();
    all.sort_by_key(|e| (e.family(), e.sort == "step", e.name));
    all
}

/// Says what an option's default is, for people.
pub(crate) fn default_words(option: &OptionSpec) -> String {
    match option.default.as_deref() {
        None => "required".to_owned(),
        Some("" | "none") => "none".to_owned(),
        Some(text) => text.to_owned(),
    }
}

/// Writes a declaration that could stand in a plan: what is required with a value of its type, the
/// rest as comments.
pub(crate) fn example(entry: &Entry, all: &[Entry]) -> String {
    let section = if entry.sort == "service" {
        "services"
    } else {
        "steps"
    };
    let name = entry.name.rsplit('.').next().unwrap_or(entry.name);
    let mut text = format!("[{section}.{name}]\nuse = \"{}\"\n", entry.name);
    if entry.options.is_empty() {
        return text;
    }
    let width = entry
        .options
        .iter()
        .map(|o| o.name.len())
        .max()
        .unwrap_or(0);
    text.push_str(&format!("\n[{section}.{name}.with]\n"));
    for option in &entry.options {
        let value = value_of(option, all);
        let line = match option.default {
            None => format!("{:<width$} = {value}\n", option.name),
            Some(_) => format!("# {:<width$} = {value}\n", option.name),
        };
        text.push_str(&line);
    }
    text
}

/// Writes the default as TOML, or a value of the option's type.
pub(crate) fn value_of(option: &OptionSpec, all: &[Entry]) -> String {
    let is_quoted = |t: &str| {
        matches!(t, "string" | "text" | "duration") || t.starts_with('`') || t.starts_with("path")
    };
    match option.default.as_deref() {
        Some(text) if is_quoted(&option.type_name) && text != "none" => format!("{text:?}"),
        Some(text) if !matches!(text, "none" | "") && !option.type_name.starts_with(['l', 't']) => {
            text.to_owned()
        }
        _ => placeholder(&option.type_name, all),
    }
}

fn placeholder(type_name: &str, all: &[Entry]) -> String {
    let inner = |prefix: &str| {
        type_name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix('>'))
    };
    if let Some(kind) = inner("path or artifact<") {
        return producer(all, kind).unwrap_or_else(|| "\"PATH\"".to_owned());
    }
    if inner("samples<").is_some() {
        return "\"${steps.NAME.all}\"".to_owned();
    }
    if inner("service<").is_some() {
        return "\"${services.NAME}\"".to_owned();
    }
    if let Some(item) = inner("list<") {
        return format!("[{}]", placeholder(item, all));
    }
    if let Some(item) = inner("table<") {
        return format!("{{ NAME = {} }}", placeholder(item, all));
    }
    match type_name {
        "table" | "table of arguments" => "{ NAME = \"VALUE\" }".to_owned(),
        "bool" => "true".to_owned(),
        "duration" => "\"10s\"".to_owned(),
        t if t.starts_with("int") => "1".to_owned(),
        t if t.starts_with("float") => "1.0".to_owned(),
        t if t.starts_with('`') => format!("\"{}\"", t.split('`').nth(1).unwrap_or_default()),
        _ => "\"TEXT\"".to_owned(),
    }
}

/// Refers to the first step of the library that brings such an artifact.
fn producer(all: &[Entry], kind: &str) -> Option<String> {
    let brings = |e: &Entry| e.kind != "measure" && e.outputs.iter().any(|o| o.kind == kind);
    let step = all.iter().find(|e| brings(e))?;
    let output = step.outputs.iter().find(|o| o.kind == kind)?;
    Some(format!("\"${{steps.NAME.{}}}\"", output.name))
}

/// Writes the whole reference as Markdown.
pub(crate) fn markdown(all: &[Entry]) -> String {
    let mut text = String::from(
        "# Steps and services\n\n\
         Generated by `benchwright steps --markdown` from the declarations that read plans; do not edit.\n",
    );
    let mut family = "";
    for entry in all {
        if entry.family() != family {
            family = entry.family();
            text.push_str(&format!("\n## {family}\n"));
        }
        text.push_str(&section(entry, all));
    }
    text
}

fn section(entry: &Entry, all: &[Entry]) -> String {
    let mut text = format!(
        "\n### `{}`\n\n{}\n\n{}\n",
        entry.name,
        entry.summary,
        nature(entry)
    );
    if !entry.options.is_empty() {
        text.push_str(
            "\n| Option | Type | Default | Unit | Meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for option in &entry.options {
            let default = match option.default {
                Some(_) => format!("`{}`", default_words(option)),
                None => "required".to_owned(),
            };
            let cells = [
                format!("`{}`", option.name),
                code(&option.type_name),
                default,
                option.unit.unwrap_or("").to_owned(),
                option.doc.clone(),
            ];
            text.push_str(&format!(
                "| {} |\n",
                cells.map(|c| c.replace('|', "\\|")).join(" | ")
            ));
        }
    }
    if !entry.outputs.is_empty() {
        text.push_str("\n| Output | Kind | Holds |\n| --- | --- | --- |\n");
        for output in &entry.outputs {
            text.push_str(&format!(
                "| `{}` | {} | {} |\n",
                output.name,
                output.kind,
                output.doc.replace('|', "\\|")
            ));
        }
    }
    text.push_str(&format!("\n```toml\n{}```\n", example(entry, all)));
    text
}

fn code(type_name: &str) -> String {
    // Choices come in backticks already.
    if type_name.contains('`') {
        type_name.to_owned()
    } else {
        format!("`{type_name}`")
    }
}

/// Says in a sentence what kind of thing an entry is.
pub(crate) fn nature(entry: &Entry) -> String {
    let how = match (entry.sort, entry.kind) {
        ("service", kind) => {
            let limit = entry.ready_timeout.as_deref().unwrap_or("");
            let facts: Vec<String> = entry.facts.iter().map(|f| format!("`{f}`")).collect();
            return format!(
                "A service that serves as `{kind}`; it must be ready within {limit} unless the plan says otherwise. Facts: {}.",
                facts.join(", ")
            );
        }
        (_, "pure") => "its result is a function of its inputs and cached by content",
        (_, "fetch") => "what it brings never changes once pinned",
        (_, "measure") => "it draws samples, kept by recipe and environment",
        (_, "effect") => "it acts on one launch of a service and is never cached",
        (_, "report") => "its result is a function of a set of samples",
        (_, other) => other,
    };
    format!("A step of kind `{}`: {how}.", entry.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_an_example_that_is_toml() {
        let all = entries(&steps::library());
        assert!(!all.is_empty());
        for entry in &all {
            let text = example(entry, &all);
            let mut sources = engine::source::Sources::default();
            let id = sources.add("example.toml", text.clone());
            let mut problems = engine::problem::Problems::default();
            engine::value::parse(&sources, id, &mut problems);
            assert!(problems.is_empty(), "{text}\n{:?}", problems.into_sorted());
        }
    }

    #[test]
    fn the_reference_names_every_option_with_its_type() {
        let all = entries(&steps::library());
        let text = markdown(&all);
        for entry in &all {
            assert!(
                text.contains(&format!("### `{}`\n\n{}", entry.name, entry.summary)),
                "{}",
                entry.name
            );
            for option in &entry.options {
                assert!(
                    text.contains(&format!("| `{}` | ", option.name)),
                    "{}.{}",
                    entry.name,
                    option.name
                );
            }
        }
    }

    #[test]
    fn placeholders_follow_types() {
        let written = [
            "service<x>",
            "samples<x>",
            "list<float > 0>",
            "`a` | `b`",
            "int >= 1",
            "text",
        ]
        .map(|t| placeholder(t, &[]));
        assert_eq!(
            written,
            [
                "\"${services.NAME}\"",
                "\"${steps.NAME.all}\"",
                "[1.0]",
                "\"a\"",
                "1",
                "\"TEXT\""
            ]
        );
    }
}
