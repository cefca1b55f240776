//! The pins of a node: the fields of its manifest as they are before anything runs.
//!
//! Keys name what other nodes bring by its content. Here a stand-in takes the place of content
//! that is not known yet, and afterwards the name takes the place of the stand-in.

use super::{Pins, Subject};
use crate::graph::{Graph, NodeId};
use crate::key::{Keys, Known};
use crate::step::StepKind;
use crate::store::{Digest, StoreError};
use std::collections::HashMap;

/// Walks nodes for their pins.
pub(super) struct Walker<'a> {
    subject: &'a Subject<'a>,
    known: Known,
    /// What stands for what: `${steps.model.dir}` by the text of its stand-in.
    names: HashMap<String, String>,
    /// Stands for the plan as a whole, whose sources are pinned by themselves.
    plan: Digest,
}

impl<'a> Walker<'a> {
    pub(super) fn new(subject: &'a Subject<'a>) -> Self {
        let mut walker = Self {
            subject,
            known: Known::default(),
            names: HashMap::new(),
            plan: Digest::of(b"plan"),
        };
        for node in subject.graph.order() {
            walker.stand_in(subject.graph, *node);
        }
        walker
    }

    fn stand_in(&mut self, graph: &Graph, node: NodeId) {
        let name = graph.name(node);
        let Some(step) = graph.step(node) else {
            // What a service is stands in its own entry.
            let unknown = format!("unknown {name}");
            self.names.insert(unknown, format!("${{services.{name}}}"));
            return;
        };
        match step.entry.kind {
            StepKind::Effect => {
                let unknown = format!("unknown {name}");
                self.names.insert(unknown, format!("${{steps.{name}}}"));
            }
            StepKind::Measure => {
                let text = format!("${{steps.{name}.all}}");
                let digest = Digest::of(text.as_bytes());
                self.names.insert(digest.to_string(), text);
                self.known.samples.insert(node, digest);
            }
            StepKind::Pure | StepKind::Fetch | StepKind::Report => {
                for output in step.entry.outputs {
                    let text = format!("${{steps.{name}.{}}}", output.name);
                    let digest = Digest::of(text.as_bytes());
                    self.names.insert(digest.to_string(), text);
                    let place = (node, output.name.to_owned());
                    self.known.outputs.insert(place, digest);
                }
            }
        }
    }

    /// Lists what a node depends on.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub(super) fn pins(&self, node: NodeId) -> Result<Pins, StoreError> {
        let Subject {
            graph,
            store,
            environment,
            ..
        } = self.subject;
        let keys = Keys {
            graph,
            store,
            environment,
            known: &self.known,
            plan: &self.plan,
        };
        let mut fields = Fields::default();
        for (field, value) in keys.manifest(node)?.fields {
            if field != "plan" && !field.starts_with("environment.") {
                let value = self.names.get(&value).cloned().unwrap_or(value);
                fields.push(field, value);
            }
        }
        self.policy(node, &mut fields);
        Ok(fields.pins)
    }

    /// How often a measurement is drawn is no part of its key, and of its result all the same.
    fn policy(&self, node: NodeId, fields: &mut Fields) {
        let Some(step) = self.subject.graph.step(node) else {
            return fields.push("kind".to_owned(), "service".to_owned());
        };
        let kind = serde_json::to_value(step.entry.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default().to_owned();
        fields.push("kind".to_owned(), kind);
        if step.entry.kind == StepKind::Measure {
            fields.push("samples".to_owned(), step.target().to_string());
        }
    }
}

/// Fields, each once: a table has no other.
#[derive(Default)]
struct Fields {
    pins: Pins,
    places: HashMap<String, usize>,
}

impl Fields {
    /// Adds a field; one that is there already takes the further value in.
    fn push(&mut self, field: String, value: String) {
        match self.places.get(&field) {
            Some(place) => {
                let (_, known) = &mut self.pins[*place];
                known.push(' ');
                known.push_str(&value);
            }
            None => {
                self.places.insert(field.clone(), self.pins.len());
                self.pins.push((field, value));
            }
        }
    }
}
