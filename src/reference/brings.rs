//! What an entry brings to a plan that others can refer to. Knows nothing of who needs it.

use super::Entry;
use engine::step::OutputSpec;

/// A step or service that comes with an entry: itself, or a part of a fragment.
#[derive(Debug, Clone)]
pub(crate) struct Brings {
    /// Its name below that of the entry's node; empty for the node itself.
    path: String,
    section: &'static str,
    /// The step's or the service's kind.
    pub(crate) kind: &'static str,
    /// What a step leaves behind.
    pub(crate) outputs: Vec<OutputSpec>,
}

impl Brings {
    /// What a step or service brings: itself.
    pub(super) fn whole(entry: &Entry) -> Self {
        Self {
            path: String::new(),
            section: entry.section(),
            kind: entry.kind,
            outputs: entry.outputs.clone(),
        }
    }

    /// The same as a part that is called `name`.
    pub(super) fn below(&self, name: &str) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{name}.{path}"),
        };
        Self {
            path,
            ..self.clone()
        }
    }

    /// Whether it is a service.
    pub(crate) fn is_service(&self) -> bool {
        self.section == "services"
    }

    /// Refers to it, or to its `what`, where its entry's node is called `node`.
    pub(crate) fn reference(&self, node: &str, what: &str) -> String {
        let words = [self.section, node, &self.path, what];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("${{{}}}", words.join("."))
    }
}
