//! What an option needs, by the name of its type, and values as TOML.

use super::Node;
use crate::reference::{Brings, Entry};
use engine::source::Sources;
use engine::value::{Kind, parse_argument};

/// The kind that every artifact and every service is of.
const ANY: &str = "any";

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

/// Reads the name of a type; of several that an option takes, the first.
pub(super) fn needs(type_name: &str) -> Needs {
    let type_name = type_name.split(" | ").next().unwrap_or(type_name);
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
    match type_name {
        // A fragment's parameter that no option says more of.
        "service" => return Needs::Service(ANY.to_owned()),
        "samples" => return Needs::Samples(ANY.to_owned()),
        _ => {}
    }
    match (inner("path or artifact<"), inner("list<")) {
        // What takes anything is meant for something that only its user knows.
        (Some(kind), _) if kind != ANY => Needs::Artifact(kind),
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

    /// Whether a kind of step or service, or a part of a fragment, brings it.
    pub(super) fn met_by(&self, entry: &Entry) -> bool {
        entry.brings.iter().any(|brings| self.is(brings))
    }

    /// Whether a kind of step has its family's name from what is needed.
    pub(super) fn is_named_by(&self, name: &str) -> bool {
        match self {
            Self::Artifact(kind) => name.split('.').next() == Some(kind),
            Self::List(item) => item.is_named_by(name),
            Self::Value | Self::Service(_) | Self::Samples(_) => false,
        }
    }

    fn is(&self, brings: &Brings) -> bool {
        let is = |wanted: &str, kind: &str| wanted == ANY || wanted == kind;
        let outputs = &brings.outputs;
        match self {
            Self::Value => false,
            Self::Service(kind) => brings.is_service() && is(kind, brings.kind),
            // Samples go by their first output.
            Self::Samples(kind) => {
                brings.kind == "measure" && outputs.first().is_some_and(|o| is(kind, o.kind))
            }
            Self::Artifact(kind) => {
                let is_kept = !matches!(brings.kind, "measure" | "effect");
                is_kept && outputs.iter().any(|o| o.kind == kind)
            }
            Self::List(item) => item.is(brings),
        }
    }

    /// Refers to the first of what a node brings that is it.
    pub(super) fn reference(&self, node: &Node<'_>) -> Option<String> {
        self.references(node).into_iter().next()
    }

    /// Refers to everything that a node brings and that is it.
    pub(super) fn references(&self, node: &Node<'_>) -> Vec<String> {
        let brings = node.entry.brings.iter();
        let found = brings.filter(|brings| self.is(brings));
        found.filter_map(|b| self.refer(b, &node.name)).collect()
    }

    fn refer(&self, brings: &Brings, node: &str) -> Option<String> {
        match self {
            Self::Value => None,
            Self::Service(_) => Some(brings.reference(node, "")),
            Self::Samples(_) => Some(brings.reference(node, "all")),
            Self::Artifact(kind) => {
                let output = brings.outputs.iter().find(|o| o.kind == kind)?;
                Some(brings.reference(node, output.name))
            }
            Self::List(item) => item.refer(brings, node),
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
    let is_text = matches!(type_name, "string" | "text" | "duration" | "artifact")
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
