//! Links the references of one instance to the instances of what they name.

use super::declared::{Declared, DeclaredAll, Entry};
use crate::compose::files::search;
use crate::graph::{Edge, Link, NodeId};
use crate::interpolate::{Chosen, Mentions};
use crate::library::{ServiceEntry, StepEntry};
use crate::options::{Linked, Linker};
use crate::plan::NodeSort;
use crate::point::Point;
use crate::problem::{Problem, did_you_mean};
use crate::secrets::{self, SecretSource};
use crate::source::{Place, SourceId, Sources};
use crate::step::StepKind;
use crate::value::Target;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read instance by instance.
pub(super) fn read_by(mentions: &Mentions) -> impl Iterator<Item = (NodeSort, &str)> {
    let steps = mentions.steps.iter().map(|n| (NodeSort::Step, n.as_str()));
    let services = mentions.services.iter();
    steps.chain(services.map(|n| (NodeSort::Service, n.as_str())))
}

/// What is read by the instances for which an axis chooses it.
pub(super) fn chosen_by<'a>(mentions: &'a Mentions) -> impl Iterator<Item = (NodeSort, &'a str)> {
    let names = |chosen: &'a Chosen| chosen.names.iter().map(|n| (chosen.sort, n.as_str()));
    mentions.chosen.iter().flat_map(names)
}

/// A path that was found, or the folders that were searched for it.
type Found = Result<PathBuf, Vec<PathBuf>>;

/// What was found outside of the plan, so that it is looked for once and not for every instance.
#[derive(Default)]
pub(super) struct Outside {
    files: RefCell<HashMap<(SourceId, String), Found>>,
    /// Secrets that can be read.
    secrets: RefCell<BTreeSet<String>>,
}

/// Links the references of one instance.
pub(super) struct InstanceLinker<'a> {
    pub(super) declared: &'a DeclaredAll,
    pub(super) point: &'a Point,
    pub(super) secrets: &'a BTreeMap<String, SecretSource>,
    /// The folder of the plan.
    pub(super) folder: &'a Path,
    pub(super) sources: &'a Sources,
    pub(super) outside: &'a Outside,
    /// What the references so far make the instance wait for.
    pub(super) waits: RefCell<Vec<(NodeId, Edge)>>,
}

impl InstanceLinker<'_> {
    fn step(&self, name: &str) -> Option<(&Declared, &StepEntry)> {
        let declared = self.declared.get(NodeSort::Step, name)?;
        match declared.entry.as_ref()? {
            Entry::Step(entry) => Some((declared, entry)),
            Entry::Service(_) => None,
        }
    }

    /// The instance of a declaration that agrees with this one.
    fn first(&self, declared: &Declared, edge: Edge) -> Result<NodeId, Option<Problem>> {
        let first = declared.agreeing(self.point, |nodes| nodes.first().copied());
        let node = first.ok_or(None)?;
        self.waits.borrow_mut().push((node, edge));
        Ok(node)
    }

    fn output(&self, step: &str, output: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let (declared, entry) = self.step(step).ok_or(None)?;
        let node = self.first(declared, Edge::Needs)?;
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
                node,
                output: output.to_owned(),
            },
            kind: spec.kind,
        })
    }

    fn all(&self, step: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let (declared, entry) = self.step(step).ok_or(None)?;
        if entry.kind != StepKind::Measure {
            let message = format!("`{step}` is not a measurement, so it has no samples");
            let help = format!("refer to one output: `${{steps.{step}.OUTPUT}}`");
            return Err(Some(Problem::at(place, message, "no samples").help(help)));
        }
        let kind = entry.outputs.first().map_or("any", |o| o.kind);
        let nodes = declared.agreeing(self.point, <[NodeId]>::to_vec);
        let waits = nodes.iter().map(|node| (*node, Edge::Reads));
        self.waits.borrow_mut().extend(waits);
        Ok(Linked {
            link: Link::All { nodes },
            kind,
        })
    }

    fn secret(&self, name: &str, place: &Place) -> Result<Linked, Option<Problem>> {
        let source = self.secrets.get(name).cloned();
        let source = source.unwrap_or(SecretSource::Name);
        if !self.outside.secrets.borrow().contains(name) {
            secrets::read(name, &source).map_err(|error| {
                let problem = Problem::at(place, error.to_string(), "has no value");
                Some(problem.help(error.help(name)))
            })?;
            self.outside.secrets.borrow_mut().insert(name.to_owned());
        }
        Ok(Linked {
            link: Link::Secret {
                name: name.to_owned(),
                source,
            },
            kind: "text",
        })
    }

    fn service(&self, service: &str) -> Result<(Arc<ServiceEntry>, NodeId), Option<Problem>> {
        let declared = self.declared.get(NodeSort::Service, service).ok_or(None)?;
        match &declared.entry {
            Some(Entry::Service(entry)) => Ok((entry.clone(), self.first(declared, Edge::Leases)?)),
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
        let wanted = (place.source, path.to_owned());
        if let Some(found) = self.outside.files.borrow().get(&wanted) {
            return found.clone();
        }
        // Steps have working folders of their own, so nothing found may be relative.
        let folder = absolute(self.folder);
        let from = self.sources.folder_of(place).map(absolute);
        let found = search(from.as_deref(), &folder, Path::new(path), Path::exists);
        let mut files = self.outside.files.borrow_mut();
        files.entry(wanted).or_insert(found).clone()
    }
}

fn absolute(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() {
        return std::env::current_dir().unwrap_or_default();
    }
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}
