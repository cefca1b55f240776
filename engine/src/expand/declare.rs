//! Declarations become instances: one for each combination of the axes that they have, without
//! those that are left out.

use super::Pruned;
use super::axes::{self, Axes};
use super::declared::{Declared, DeclaredAll, Entry, Instance};
use super::instances::{self, Nodes, Surroundings};
use super::left_out::LeftOut;
use super::linker::{Outside, chosen_by, read_by};
use super::order::order;
use super::secrets;
use super::supply;
use crate::compose::Composed;
use crate::compose::files::Files;
use crate::graph::{Dependency, Node, NodeId, NodeName};
use crate::interpolate::{self, Mentions, Scope};
use crate::library::Library;
use crate::plan::{NodeDecl, NodeSort, Plan};
use crate::policy::{Supply, port_pool};
use crate::problem::{Problem, Problems, did_you_mean};
use crate::secrets::{Secret, SecretSource};
use crate::source::Sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What a plan expands to.
pub(super) struct Instances {
    pub(super) nodes: Vec<Node>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) supply: Supply,
    pub(super) pruned: Vec<Pruned>,
    pub(super) secrets: Vec<Secret>,
}

/// Expands a composed plan.
pub(super) struct Expansion<'a> {
    plan: &'a Plan,
    library: &'a Library,
    sources: &'a Sources,
    problems: &'a mut Problems,
    folder: &'a Path,
    scope: Scope,
    axes: Axes,
    supply: Supply,
    secrets: BTreeMap<String, SecretSource>,
    declared: DeclaredAll,
    pruned: Vec<Pruned>,
    n_nodes: u32,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(
        composed: &'a Composed,
        library: &'a Library,
        files: &'a Files,
        sources: &'a mut Sources,
        problems: &'a mut Problems,
    ) -> Self {
        let (plan, scope) = (&composed.plan, &composed.scope);
        let axes = axes::read(&plan.axes, scope, files, sources, problems);
        let secrets = secrets::sources(&plan.secrets, files, sources, problems);
        Self {
            plan,
            library,
            folder: files.folder(),
            axes,
            supply: supply::read(&plan.resources, scope, sources, problems),
            secrets,
            scope: scope.clone(),
            sources,
            problems,
            declared: DeclaredAll::default(),
            pruned: Vec::new(),
            n_nodes: 0,
        }
    }

    /// Expands every declaration.
    pub(super) fn nodes(mut self) -> Instances {
        let plan = self.plan;
        let mentions: Vec<Mentions> = plan.nodes.iter().map(|n| self.mentions(n)).collect();
        let mut nodes = Nodes::default();
        let order = order(&plan.nodes, &mentions, self.problems);
        for at in &order {
            self.declare(&plan.nodes[*at], &mentions[*at]);
        }
        self.check_something_is_left();
        self.read_instances(&order, &mut nodes);
        let named: BTreeSet<String> = mentions.into_iter().flat_map(|m| m.secrets).collect();
        let secret = |name: String| Secret {
            source: self
                .secrets
                .get(&name)
                .cloned()
                .unwrap_or(SecretSource::Name),
            name,
        };
        self.supply.extend(nodes.ports.into_iter().map(port_pool));
        Instances {
            secrets: named.into_iter().map(secret).collect(),
            nodes: nodes.list,
            dependencies: nodes.dependencies,
            supply: self.supply,
            pruned: self.pruned,
        }
    }

    /// What a declaration refers to; its settings and conditions only to axes.
    fn mentions(&self, decl: &NodeDecl) -> Mentions {
        let names = &self.scope.names;
        let with = decl.with.entries.iter().map(|(_, v)| v);
        let mut found = interpolate::mentions(with, names, self.sources);
        let besides = decl
            .settings
            .entries
            .iter()
            .map(|(_, v)| v)
            .chain(&decl.when);
        let besides = interpolate::mentions(besides, names, self.sources);
        found.axes.extend(besides.axes);
        for chosen in &mut found.chosen {
            let texts = self.axes.texts(&chosen.axis).into_iter();
            let name = |text| format!("{}{text}", chosen.within);
            chosen.names = texts.map(name).collect();
        }
        found
    }

    /// Finds out what a declaration uses and which instances it has.
    fn declare(&mut self, decl: &NodeDecl, mentions: &Mentions) {
        let entry = self.entry(decl);
        let axes = self.axes_of(decl, mentions);
        let known = &self.declared;
        let left_out = LeftOut::new(decl, mentions, known, self.sources, self.problems);
        let mut scope = self.scope.clone();
        let points = self.axes.product(&axes);
        let mut declared = Declared::new(entry, axes);
        for point in points {
            match left_out.reason(&point, &mut scope, self.problems) {
                Some(reason) => {
                    declared.pruned.insert(point.key());
                    let name = NodeName {
                        decl: decl.key.name.as_str().into(),
                        axes: point,
                    };
                    let node = name.to_string();
                    self.pruned.push(Pruned { node, reason });
                }
                None => {
                    let id = NodeId(self.n_nodes);
                    self.n_nodes += 1;
                    declared.instances.push(Instance { id, point });
                }
            }
        }
        self.declared.insert(decl.sort, &decl.key.name, declared);
    }

    fn read_instances(&mut self, order: &[usize], nodes: &mut Nodes) {
        let around = Surroundings {
            declared: &self.declared,
            supply: &self.supply,
            secrets: &self.secrets,
            outside: &Outside::default(),
            folder: self.folder,
            sources: self.sources,
        };
        for at in order {
            let decl = &self.plan.nodes[*at];
            if let Some(declared) = self.declared.get(decl.sort, &decl.key.name) {
                instances::read(decl, declared, &self.scope, around, self.problems, nodes);
            }
        }
    }

    fn check_something_is_left(&mut self) {
        if self.n_nodes == 0 && !self.pruned.is_empty() {
            let problem =
                Problem::whole("nothing of the plan is left: `when` leaves out everything");
            self.problems
                .push(problem.help("loosen a `when`, or give an axis more values"));
        }
    }

    fn entry(&mut self, decl: &NodeDecl) -> Option<Entry> {
        let (name, place) = decl.uses.as_ref()?;
        let (step, service) = (
            self.library.find_step(name),
            self.library.find_service(name),
        );
        match (decl.sort, step, service) {
            (NodeSort::Step, Some(step), _) => return Some(Entry::Step(step.clone())),
            (NodeSort::Service, _, Some(service)) => return Some(Entry::Service(service.clone())),
            _ => {}
        }
        let known: Vec<&str> = match decl.sort {
            NodeSort::Step => self.library.steps().map(|s| s.name).collect(),
            NodeSort::Service => self.library.services().map(|s| s.name).collect(),
        };
        let help = match (step, service) {
            (None, None) => did_you_mean(name, known),
            (Some(_), _) => format!("declare it as `[steps.{}]`", decl.key.name),
            (None, Some(_)) => format!("declare it as `[services.{}]`", decl.key.name),
        };
        let what = decl.sort.word();
        let message = format!("the library has no {what} `{name}`");
        self.problems
            .push(Problem::at(place, message, format!("unknown kind of {what}")).help(help));
        None
    }

    /// The axes of a declaration in the plan's order: its own and those of what it reads.
    fn axes_of(&mut self, decl: &NodeDecl, mentions: &Mentions) -> Vec<Arc<str>> {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        for (name, place) in &decl.axes {
            if self.axes.names().any(|n| **n == **name) {
                wanted.insert(name);
            } else {
                let help = did_you_mean(name, self.axes.names().map(|n| &**n));
                self.problems.push(
                    Problem::at(place, format!("there is no axis `{name}`"), "unknown axis")
                        .help(help),
                );
            }
        }
        for (sort, name) in read_by(mentions).chain(chosen_by(mentions)) {
            if let Some(declared) = self.declared.get(sort, name) {
                wanted.extend(declared.axes.iter().map(|axis| &**axis));
            }
        }
        for (axis, place) in &mentions.axes {
            if self.axes.names().any(|n| **n == **axis) && !wanted.contains(axis.as_str()) {
                let message = format!("`{}` does not vary over axis `{axis}`", decl.key.name);
                self.problems.push(
                    Problem::at(place, message, "not one of its axes")
                        .help(format!("add `axes = [\"{axis}\"]`")),
                );
                wanted.insert(axis);
            }
        }
        let names = self.axes.names().filter(|n| wanted.contains(&***n));
        names.cloned().collect()
    }
}
