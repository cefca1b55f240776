//! Keys: one walk over a node's inputs yields a manifest, and the manifest is both what is hashed
//! and what is compared to explain. They cannot disagree.

use crate::environment::Environment;
use crate::graph::{Body, Edge, Graph, Link, NodeId};
use crate::options::Walk;
use crate::policy::{Machine, is_port_pool};
use crate::step::StepKind;
use crate::store::{Digest, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Raised when the form of keys changes.
const FORM: &str = "benchwright-key-2";
/// Enough room for the fields of most steps.
const USUAL_FIELDS: usize = 16;

/// Everything that a node's result depends on, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Manifest {
    /// Field and value, in the order of the walk.
    pub fields: Vec<(String, String)>,
}

/// A field in which two manifests differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The field.
    pub field: String,
    /// Its value then; `None` if it was absent.
    pub old: Option<String>,
    /// Its value now; `None` if it is absent.
    pub new: Option<String>,
}

impl Manifest {
    fn push(&mut self, field: impl Into<String>, value: impl Into<String>) {
        self.fields.push((field.into(), value.into()));
    }

    /// Hashes the fields, each with its length, so that no two manifests look alike.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORM.as_bytes());
        for (field, value) in &self.fields {
            for part in [field, value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        Digest::from(hasher.finalize())
    }

    /// Lists the fields in which `self` differs from an `old` manifest.
    pub fn changes_since(&self, old: &Manifest) -> Vec<Change> {
        let then: BTreeMap<&str, &str> = old
            .fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let now: BTreeMap<&str, &str> = self
            .fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let mut fields: Vec<&str> = self.fields.iter().map(|(k, _)| k.as_str()).collect();
        fields.extend(
            old.fields
                .iter()
                .map(|(k, _)| k.as_str())
                .filter(|k| !now.contains_key(k)),
        );
        let owned = |value: Option<&&str>| value.map(|v| (*v).to_owned());
        let mut changes: Vec<Change> = fields
            .into_iter()
            .filter(|field| then.get(field) != now.get(field))
            .map(|field| Change {
                field: field.to_owned(),
                old: owned(then.get(field)),
                new: owned(now.get(field)),
            })
            .collect();
        drop_consequences(&mut changes);
        changes
    }
}

/// Another kind of step or service has other options altogether: that it is another is what
/// changed.
fn drop_consequences(changes: &mut Vec<Change>) {
    let kinds: Vec<String> = changes
        .iter()
        .filter(|c| c.old.is_some() && c.new.is_some())
        .filter_map(|c| c.field.strip_suffix("use").map(str::to_owned))
        .filter(|owner| owner.is_empty() || owner.ends_with('.'))
        .collect();
    changes.retain(|change| {
        let is_consequence = |owner: &String| {
            change.field.starts_with(owner.as_str()) && change.field != format!("{owner}use")
        };
        !kinds.iter().any(is_consequence)
    });
}

/// What is known of nodes that were decided already.
#[derive(Default, Clone)]
pub struct Known {
    /// Digests of outputs by node and name.
    pub outputs: BTreeMap<(NodeId, String), Digest>,
    /// Digests of the sample sets that a measurement's readers see.
    pub samples: BTreeMap<NodeId, Digest>,
    /// Manifests of services and effects: their fields are fields of what uses them, so that an
    /// explanation names the one that changed.
    pub manifests: BTreeMap<NodeId, Manifest>,
}

/// Computes manifests.
pub struct Keys<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Where files are hashed.
    pub store: &'a Store,
    /// The facts that are part of a measurement's class.
    pub environment: &'a Environment,
    /// What was decided before.
    pub known: &'a Known,
    /// The digest of the plan with its parameters, for steps that show it.
    pub plan: &'a Digest,
}

impl Keys<'_> {
    /// Walks over everything that the result of `node` depends on.
    ///
    /// # Errors
    /// If a file outside of the store could not be read.
    pub fn manifest(&self, node: NodeId) -> Result<Manifest, StoreError> {
        let mut manifest = self.fields(node, &[])?;
        self.surroundings(node, &mut manifest);
        Ok(manifest)
    }

    /// Walks over a node's own fields and those of the effects before it; of services that are
    /// `known` already it only takes in that they are the same.
    fn fields(&self, node: NodeId, known: &[NodeId]) -> Result<Manifest, StoreError> {
        let mut manifest = Manifest {
            fields: Vec::with_capacity(USUAL_FIELDS),
        };
        let body = &self.graph.node(node).body;
        let (uses, version, identity) = match body {
            Body::Step(step) => (step.entry.name, step.entry.version, step.step.identity()),
            Body::Service(service) => (
                service.entry.name,
                service.entry.version,
                service.service.identity(),
            ),
        };
        manifest.push("use", uses);
        manifest.push("version", version.to_string());
        for (field, value) in identity {
            manifest.push(field, value);
        }
        let mut walk = KeyWalk {
            keys: self,
            manifest,
            known,
            failed: None,
        };
        body.walk(&mut walk);
        share_of_machine(body, &mut walk.manifest);
        if let Some(error) = walk.failed {
            return Err(error);
        }
        let mut manifest = walk.manifest;
        self.effects(node, &mut manifest)?;
        Ok(manifest)
    }

    /// What was done to a service before belongs to the recipe of what is measured on it.
    fn effects(&self, node: NodeId, manifest: &mut Manifest) -> Result<(), StoreError> {
        let leases = self.graph.incoming(node);
        let leases: Vec<NodeId> = leases
            .filter(|(_, edge)| *edge == Edge::Leases)
            .map(|(service, _)| service)
            .collect();
        let after = self.graph.node(node).after.iter();
        // Other steps that only come before change nothing in the result.
        let effects = after.filter(|n| self.graph.step_kind(**n) == Some(StepKind::Effect));
        // By name: the order in which a plan names them is not one in which they happen.
        let effects: BTreeMap<String, NodeId> = effects
            .map(|effect| (self.graph.name(*effect), *effect))
            .collect();
        for (name, effect) in effects {
            for (field, value) in self.fields(effect, &leases)?.fields {
                manifest.push(format!("after.{name}.{field}"), value);
            }
        }
        Ok(())
    }

    /// Takes in all fields of another node's manifest.
    fn inline(&self, manifest: &mut Manifest, prefix: &str, node: NodeId) {
        let Some(inner) = self.known.manifests.get(&node) else {
            return manifest.push(prefix, format!("unknown {}", self.graph.name(node)));
        };
        for (field, value) in &inner.fields {
            manifest.push(format!("{prefix}.{field}"), value);
        }
    }

    fn surroundings(&self, node: NodeId, manifest: &mut Manifest) {
        let Some(step) = self.graph.step(node) else {
            return;
        };
        if step.entry.kind == StepKind::Measure {
            for (field, value) in &self.environment.identity {
                manifest.push(format!("environment.{field}"), value);
            }
        }
        if step.entry.reads_plan {
            manifest.push("plan", self.plan.to_string());
        }
    }
}

/// How much of the machine a node has: programs see how many GPUs there are, and a measurement beside
/// other work is another one.
fn share_of_machine(body: &Body, manifest: &mut Manifest) {
    let (demand, is_measurement) = match body {
        Body::Step(step) => (&step.policy.demand, step.entry.kind == StepKind::Measure),
        Body::Service(service) => (&service.policy.demand, false),
    };
    // A port that the plan gives is an option already.
    let amounts = demand.amounts.iter();
    for (pool, amount) in amounts.filter(|(pool, _)| !is_port_pool(pool)) {
        manifest.push(format!("resources.{pool}"), amount.to_string());
    }
    if is_measurement && demand.machine == Machine::Shared {
        manifest.push("resources.machine", "shared");
    }
}

struct KeyWalk<'a> {
    keys: &'a Keys<'a>,
    manifest: Manifest,
    /// Services whose fields are fields of the whole already.
    known: &'a [NodeId],
    failed: Option<StoreError>,
}

impl KeyWalk<'_> {
    fn named(&self, node: NodeId, digest: Option<&Digest>) -> String {
        // The node's name is not part of the value: equal content is equal, whoever brings it.
        digest.map_or_else(
            || format!("unknown {}", self.keys.graph.name(node)),
            Digest::to_string,
        )
    }
}

impl Walk for KeyWalk<'_> {
    fn value(&mut self, path: &str, text: &str) {
        self.manifest.push(format!("with.{path}"), text);
    }

    fn link(&mut self, path: &str, link: &Link) {
        let known = self.keys.known;
        let field = format!("with.{path}");
        match link {
            Link::Output { node, output } => {
                let digest = known.outputs.get(&(*node, output.clone()));
                self.manifest.push(field, self.named(*node, digest));
            }
            Link::Service { node } if self.known.contains(node) => {
                self.manifest.push(field, "the same");
            }
            Link::Service { node } => self.keys.inline(&mut self.manifest, &field, *node),
            Link::Fact { node, fact } => {
                self.keys.inline(&mut self.manifest, &field, *node);
                self.manifest.push(field, fact);
            }
            Link::All { nodes } => {
                let named = nodes
                    .iter()
                    .map(|node| (self.keys.graph.name(*node), *node));
                for (name, node) in named.collect::<BTreeMap<_, _>>() {
                    let samples = self.named(node, known.samples.get(&node));
                    self.manifest.push(format!("{field}.{name}"), samples);
                }
            }
            // What it is stays outside of every key; that it is one, and which, is seen in the plan.
            Link::Secret { name, .. } => self.manifest.push(field, format!("secret {name}")),
        }
    }

    fn file(&mut self, path: &str, file: &Path) {
        match self.keys.store.digest_files(file) {
            // File by file, so that an explanation names the one that changed.
            Ok(files) => {
                for (name, digest) in files {
                    self.manifest
                        .push(format!("with.{path}{name}"), digest.to_string());
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(fields: &[(&str, &str)]) -> Manifest {
        Manifest {
            fields: fields
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn fields_cannot_be_cut_elsewhere_to_the_same_hash() {
        assert_ne!(
            manifest(&[("a", "bc")]).digest(),
            manifest(&[("ab", "c")]).digest()
        );
        assert_ne!(
            manifest(&[("a", "b"), ("c", "d")]).digest(),
            manifest(&[("a", "bcd")]).digest()
        );
    }

    #[test]
    fn a_changed_field_is_named_with_both_values() {
        let changes = manifest(&[("a", "1"), ("b", "2")]).changes_since(&manifest(&[
            ("a", "1"),
            ("b", "3"),
            ("c", "4"),
        ]));
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].field, "b");
        assert_eq!(changes[0].old.as_deref(), Some("3"));
        assert_eq!(changes[1].new, None);
    }
}
