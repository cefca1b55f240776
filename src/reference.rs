//! The step library as documentation: everything here comes from the declarations that parse plans.

mod brings;
mod fragments;
mod markdown;

use engine::library::{Library, ServiceEntry, StepEntry};
use engine::options::OptionSpec;
use engine::step::OutputSpec;
use engine::types::duration_text;
use serde::Serialize;

pub(crate) use brings::Brings;
pub(crate) use fragments::{Part, add_fragments};
pub(crate) use markdown::markdown;

/// A kind of step or service, or a fragment, as the documentation shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The name in `use`.
    pub(crate) name: String,
    /// `step`, `service` or `fragment`.
    pub(crate) sort: &'static str,
    /// How a step's results may be used again, what a service serves as, or `fragment`.
    pub(crate) kind: &'static str,
    /// Part of every key; a fragment has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    /// One sentence.
    pub(crate) summary: String,
    /// The keys of `with`.
    pub(crate) options: Vec<OptionDoc>,
    /// What a step leaves behind.
    pub(crate) outputs: Vec<OutputSpec>,
    /// What `${services.NAME.FACT}` may ask for.
    pub(crate) facts: Vec<&'static str>,
    /// The limit of a service's launch when the plan gives none.
    pub(crate) ready_timeout: Option<String>,
    /// The file that declares a fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// What a fragment consists of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
    /// Short names that an option takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<ShortName>,
    /// What others can refer to.
    #[serde(skip)]
    pub(crate) brings: Vec<Brings>,
}

/// An option of a step or service, or a parameter of a fragment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OptionDoc {
    /// The key in `with`.
    pub(crate) name: String,
    /// The type, as plans name it.
    pub(crate) type_name: String,
    /// The value when the plan gives none; `None` if the plan must give one.
    pub(crate) default: Option<String>,
    /// The unit of the value, if it has one.
    pub(crate) unit: Option<String>,
    /// What it means.
    pub(crate) doc: String,
    /// The type, as options name it: a fragment only says `artifact` where the option that gets it
    /// says of which kind.
    #[serde(skip)]
    pub(crate) takes: String,
    /// The default as it stands in a plan, where that is known.
    #[serde(skip)]
    pub(crate) toml: Option<String>,
}

/// A data set that a short name stands for.
#[derive(Debug, Serialize)]
pub(crate) struct ShortName {
    /// The name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) about: &'static str,
    /// The licence that its page names; `None` where none was found.
    pub(crate) licence: Option<&'static str>,
    /// Its size in bytes, where that is known of all of it.
    pub(crate) bytes: Option<u64>,
    /// Its page.
    pub(crate) page: &'static str,
    /// Where it is, as a plan would write it.
    pub(crate) source: &'static str,
    /// Its digest, if it is one file and that is known.
    pub(crate) sha256: Option<&'static str>,
}

/// The short names of `dataset.fetch`; other steps have none.
fn short_names(step: &str) -> Vec<ShortName> {
    let all = match step {
        "dataset.fetch" => steps::catalogue::all(),
        _ => &[],
    };
    let name = |dataset: &steps::catalogue::Dataset| ShortName {
        name: dataset.name,
        about: dataset.about,
        licence: dataset.licence,
        bytes: dataset.part.bytes,
        page: dataset.page,
        source: dataset.part.source,
        sha256: dataset.part.sha256,
    };
    all.iter().map(name).collect()
}

impl From<&OptionSpec> for OptionDoc {
    fn from(spec: &OptionSpec) -> Self {
        Self {
            name: spec.name.to_owned(),
            type_name: spec.type_name.clone(),
            default: spec.default.clone(),
            unit: spec.unit.map(str::to_owned),
            doc: spec.doc.clone(),
            takes: spec.type_name.clone(),
            toml: None,
        }
    }
}

impl Entry {
    /// The text before the dot: entries with the same are shown together.
    pub(crate) fn family(&self) -> &str {
        let split = self.name.split_once('.');
        split.map_or(self.name.as_str(), |(family, _)| family)
    }

    /// The text after the last dot.
    pub(crate) fn last(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The section of a plan that declares it.
    pub(crate) fn section(&self) -> &'static str {
        match self.sort {
            "service" => "services",
            _ => "steps",
        }
    }

    fn of_step(step: &StepEntry) -> Self {
        Self {
            name: step.name.to_owned(),
            sort: "step",
            kind: crate::outlook::kind_word(Some(step.kind)),
            version: Some(step.version),
            summary: step.summary.to_owned(),
            options: step.options.iter().map(OptionDoc::from).collect(),
            outputs: step.outputs.to_vec(),
            facts: Vec::new(),
            ready_timeout: None,
            file: None,
            parts: Vec::new(),
            names: short_names(step.name),
            brings: Vec::new(),
        }
        .that_brings_itself()
    }

    fn of_service(service: &ServiceEntry) -> Self {
        Self {
            name: service.name.to_owned(),
            sort: "service",
            kind: service.kind,
            version: Some(service.version),
            summary: service.summary.to_owned(),
            options: service.options.iter().map(OptionDoc::from).collect(),
            outputs: Vec::new(),
            facts: ["url"].iter().chain(service.facts).copied().collect(),
            ready_timeout: Some(duration_text(service.ready_timeout)),
            file: None,
            parts: Vec::new(),
            names: Vec::new(),
            brings: Vec::new(),
        }
        .that_brings_itself()
    }

    fn that_brings_itself(mut self) -> Self {
        self.brings = vec![Brings::whole(&self)];
        self
    }
}

/// Lists steps and services, by family and in it by name.
pub(crate) fn entries(library: &Library) -> Vec<Entry> {
    let steps = library.steps().map(|s| Entry::of_step(s));
    let mut all: Vec<Entry> = steps
        .chain(library.services().map(|s| Entry::of_service(s)))
        .collect();
    let order = |e: &Entry| (e.family().to_owned(), e.sort == "step", e.name.clone());
    all.sort_by_key(order);
    all
}

/// Says what an option's default is, for people.
pub(crate) fn default_words(option: &OptionDoc) -> String {
    match option.default.as_deref() {
        None => "required".to_owned(),
        Some("" | "none") => "none".to_owned(),
        Some(text) => text.to_owned(),
    }
}

/// Writes a declaration that could stand in a plan: what is required with a value of its type, the
/// rest as comments.
pub(crate) fn example(entry: &Entry, all: &[Entry]) -> String {
    let (section, name) = (entry.section(), entry.last());
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
pub(crate) fn value_of(option: &OptionDoc, all: &[Entry]) -> String {
    if let Some(toml) = &option.toml {
        return toml.clone();
    }
    let is_quoted = |t: &str| {
        matches!(t, "string" | "text" | "duration") || t.starts_with('`') || t.starts_with("path")
    };
    match option.default.as_deref() {
        Some(text) if is_quoted(&option.type_name) && text != "none" => format!("{text:?}"),
        Some(text) if !matches!(text, "none" | "") && !option.type_name.starts_with(['l', 't']) => {
            text.to_owned()
        }
        _ => placeholder(&option.takes, all),
    }
}

fn placeholder(type_name: &str, all: &[Entry]) -> String {
    // Of several types that an option takes the first one, unless these are words.
    let first = type_name.split(" | ").next();
    let type_name = first.filter(|t| t.ends_with('>')).unwrap_or(type_name);
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
        "artifact" => "\"PATH\"".to_owned(),
        "samples" => "\"${steps.NAME.all}\"".to_owned(),
        "service" => "\"${services.NAME}\"".to_owned(),
        "table" | "table of arguments" => "{ NAME = \"VALUE\" }".to_owned(),
        "bool" => "true".to_owned(),
        "duration" => "\"10s\"".to_owned(),
        t if t.starts_with("source") => "\"hf:OWNER/NAME\"".to_owned(),
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

/// Says in a sentence what kind of thing an entry is.
pub(crate) fn nature(entry: &Entry) -> String {
    if let Some(file) = &entry.file {
        return format!("A fragment, declared in `{file}`.");
    }
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
