//! What an option needs, by the name of its type, and values as TOML.

use super::Node;
use crate::reference::Entry;
use engine::source::Sources;
use engine::value::{Kind, parse_argument};

/// What an option needs of other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: a value.
    Value,
    /// A service of a kind.
    Service(String),
    /// All samples of a measurement that brings such results.
    Samples(String),
    /// An output of a kind.
    Artifact(String),
    /// Several of those.
    List(Box<Needs>),
}

/// Reads the name of a type.
pub(super) fn needs(type_name: &str) -> Needs {
    let inner = |prefix: &str| {
        let rest = type_name.strip_prefix(prefix)?;
        rest.strip_suffix('>').map(str::to_owned)
    };
    if let Some(kind) = inner("service<") {
        return Needs::Service(kind);
    }
    if let Some(kind) = inner("samples<") {
        return Needs::Samples(kind);
    }
    match (inner("path or artifact<"), inner("list<")) {
        // What takes anything is meant for something that only its user knows.
        (Some(kind), _) if kind != "any" => Needs::Artifact(kind),
        (_, Some(item)) => match needs(&item) {
            Needs::Value => Needs::Value,
            item => Needs::List(Box::new(item)),
        },
        _ => Needs::Value,
    }
}

impl Needs {
    /// Whether several are taken.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    /// Whether a kind of step or service brings it.
    pub(super) fn met_by(&self, entry: &Entry) -> bool {
        let brings = |kind: &str| entry.outputs.iter().any(|o| o.kind == kind);
        match self {
            Self::Value => false,
            Self::Service(kind) => entry.sort == "service" && entry.kind == kind,
            // Samples go by their first output.
            Self::Samples(kind) => {
                entry.kind == "measure" && entry.outputs.first().is_some_and(|o| o.kind == kind)
            }
            Self::Artifact(kind) => !matches!(entry.kind, "measure" | "effect") && brings(kind),
            Self::List(item) => item.met_by(entry),
        }
    }

    /// Refers to what a node brings, if it is that.
    pub(super) fn reference(&self, node: &Node<'_>) -> Option<String> {
        if !self.met_by(node.entry) {
            return None;
        }
        let name = &node.name;
        match self {
            Self::Value => None,
            Self::Service(_) => Some(format!("${{services.{name}}}")),
            Self::Samples(_) => Some(format!("${{steps.{name}.all}}")),
            Self::Artifact(kind) => {
                let output = node.entry.outputs.iter().find(|o| o.kind == kind)?;
                Some(format!("${{steps.{name}.{}}}", output.name))
            }
            Self::List(item) => item.reference(node),
        }
    }

    /// Writes references as the value of an option.
    pub(super) fn written(&self, references: &[String]) -> String {
        let quoted: Vec<String> = references.iter().map(|r| format!("\"{r}\"")).collect();
        if self.is_list() {
            return format!("[{}]", quoted.join(", "));
        }
        quoted.concat()
    }
}

/// Writes what a person gave for an option as TOML: `4` and `[1, 2]` as they are, `fast` in
/// quotes, and `4` in quotes where a text is wanted.
pub(crate) fn toml_text(given: &str, type_name: &str) -> String {
    let mut sources = Sources::default();
    let value = parse_argument(&mut sources, "value", given);
    let item = type_name
        .strip_prefix("list<")
        .and_then(|rest| rest.strip_suffix('>'));
    let is_text = matches!(type_name, "string" | "text" | "duration")
        || type_name.starts_with('`')
        || type_name.starts_with("path");
    match value.kind {
        Kind::List(_) | Kind::Table(_) => given.to_owned(),
        kind => match (item, kind) {
            // One is a list of one.
            (Some(item), _) => format!("[{}]", toml_text(given, item)),
            (None, Kind::Text(text)) => quote(&text),
            (None, _) if is_text => quote(given),
            (None, _) => given.to_owned(),
        },
    }
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
