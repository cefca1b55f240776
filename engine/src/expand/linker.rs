//! Links the references of one instance to the instances of what they name.

use super::axes::agree;
use crate::compose::files::search;
use crate::graph::{Link, NodeId};
use crate::interpolate::Mentions;
use crate::library::{ServiceEntry, StepEntry};
use crate::options::{Linked, Linker};
use crate::problem::{Problem, did_you_mean};
use crate::secrets::{self, SecretSource};
use crate::source::{Place, Sources};
use crate::step::StepKind;
use crate::value::{Target, Value};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a declaration uses.
#[derive(Clone)]
pub(super) enum Entry {
    Step(Arc<StepEntry>),
    Service(Arc<ServiceEntry>),
}

/// An instance before its options are read.
pub(super) struct Instance {
    pub(super) id: NodeId,
    pub(super) axes: Vec<(String, Value)>,
}

/// What is known of a declaration while others are linked to it.
pub(super) struct Declared {
    pub(super) entry: Option<Entry>,
    pub(super) instances: Vec<Instance>,
    pub(super) axes: Vec<String>,
    /// The points on its axes that are left out, see [`point_key`](super::axes::point_key).
    pub(super) pruned: HashSet<String>,
}

/// Declarations by whether they are services and by name.
pub(super) type DeclaredAll = BTreeMap<(bool, String), Declared>;

/// What is read instance by instance.
pub(super) fn read_by(mentions: &Mentions) -> impl Iterator<Item = (bool, String)> {
    let steps = mentions.steps.iter().map(|n| (false, n.clone()));
    steps.chain(mentions.services.iter().map(|n| (true, n.clone())))
}

/// Links the references of one instance.
pub(super) struct InstanceLinker<'a> {
    pub(super) declared: &'a DeclaredAll,
    pub(super) axes: &'a [(String, Value)],
    pub(super) secrets: &'a BTreeMap<String, SecretSource>,
    /// The folder of the plan.
    pub(super) folder: &'a Path,
    pub(super) sources: &'a Sources,
}

impl InstanceLinker<'_> {
    fn instances(&self, service: bool, name: &str) -> (Option<&Entry>, Vec<NodeId>) {
        match self.declared.get(&(service, name.to_owned())) {
            Some(declared) => {
                let ids = declared
                    .instances
                    .iter()
                    .filter(|i| agree(&i.axes, self.axes))
                    .map(|i| i.id)
                    .collect();
                (declared.entry.as_ref(), ids)
            }
            None => (None, Vec::new()),
        }
    }

    fn output(&self, step: &str, output: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let (entry, ids) = self.instances(false, step);
        let (Some(Entry::Step(entry)), Some(node)) = (entry, ids.first()) else {
            return Err(None);
        };
        let spec = entry
            .outputs
            .iter()
            .find(|o| o.name == output)
            .ok_or_else(|| {
                let known = entry.outputs.iter().map(|o| o.name);
                let problem = Problem::at(
                    place,
                    format!("`{}` brings no `{output}`", entry.name),
                    "unknown output",
                );
                Some(problem.help(did_you_mean(output, known)))
            })?;
        if entry.kind == StepKind::Measure {
            let message = format!("`{step}` is a measurement: it has samples, not one `{output}`");
            let help = format!("read all samples: `${{steps.{step}.all}}`");
            return Err(Some(
                Problem::at(place, message, "which sample?").help(help),
            ));
        }
        if entry.kind == StepKind::Effect {
            let message = format!("`{step}` acts on a service and leaves nothing to read");
            let help = format!("use `after = [\"{step}\"]` for the order");
            return Err(Some(Problem::at(place, message, "no artifact").help(help)));
        }
        Ok(Linked {
            link: Link::Output {
                node: *node,
                output: output.to_owned(),
            },
            kind: spec.kind,
        })
    }

    fn all(&self, step: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let (entry, nodes) = self.instances(false, step);
        let Some(Entry::Step(entry)) = entry else {
            return Err(None);
        };
        if entry.kind != StepKind::Measure {
            let message = format!("`{step}` is not a measurement, so it has no samples");
            let help = format!("refer to one output: `${{steps.{step}.OUTPUT}}`");
            return Err(Some(Problem::at(place, message, "no samples").help(help)));
        }
        let kind = entry.outputs.first().map_or("any", |o| o.kind);
        Ok(Linked {
            link: Link::All { nodes },
            kind,
        })
    }

    fn secret(&self, name: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let source = self.secrets.get(name).cloned();
        let source = source.unwrap_or(SecretSource::Name);
        match secrets::read(name, &source) {
            Ok(_) => Ok(Linked {
                link: Link::Secret {
                    name: name.to_owned(),
                    source,
                },
                kind: "text",
            }),
            Err(error) => {
                let problem = Problem::at(place, error.to_string(), "has no value");
                Err(Some(problem.help(error.help(name))))
            }
        }
    }

    fn service(&self, service: &str) -> Result<(Arc<ServiceEntry>, NodeId), Option<Problem>> {
        let (entry, ids) = self.instances(true, service);
        match (entry, ids.first()) {
            (Some(Entry::Service(entry)), Some(node)) => Ok((entry.clone(), *node)),
            _ => Err(None),
        }
    }
}

impl Linker for InstanceLinker<'_> {
    fn link(&self, target: &Target, place: &Place) -> Result<Linked, Option<Problem>> {
        match target {
            Target::Output { step, output } => self.output(step, output, place),
            Target::All { step } => self.all(step, place),
            Target::Service { service } => {
                let (entry, node) = self.service(service)?;
                Ok(Linked {
                    link: Link::Service { node },
                    kind: entry.kind,
                })
            }
            Target::Fact { service, fact } => {
                let (entry, node) = self.service(service)?;
                if fact != "url" && !entry.facts.contains(&fact.as_str()) {
                    let known = ["url"].into_iter().chain(entry.facts.iter().copied());
                    let message = format!("`{}` has no `{fact}`", entry.name);
                    return Err(Some(
                        Problem::at(place, message, "unknown fact").help(did_you_mean(fact, known)),
                    ));
                }
                Ok(Linked {
                    link: Link::Fact {
                        node,
                        fact: fact.clone(),
                    },
                    kind: "text",
                })
            }
            Target::Secret { name } => self.secret(name, place),
        }
    }

    fn find(&self, path: &str, place: &Place) -> Result<PathBuf, Vec<PathBuf>> {
        // Steps have working folders of their own, so nothing found may be relative.
        let folder = absolute(self.folder);
        let from = self.sources.folder_of(place).map(absolute);
        search(from.as_deref(), &folder, Path::new(path), Path::exists)
    }
}

fn absolute(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() {
        return std::env::current_dir().unwrap_or_default();
    }
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}
