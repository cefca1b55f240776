//! Declarations become instances: one for each combination of the axes that they have, without
//! those that are left out, each with its options read and its references linked.

use super::Pruned;
use super::axes::{self, Axes, Point, axis_value, point_key};
use super::body;
use super::left_out::LeftOut;
use super::linker::{Declared, DeclaredAll, Entry, Instance, InstanceLinker, read_by};
use super::order::order;
use super::policies::PolicyReader;
use super::secrets;
use super::supply;
use crate::compose::Composed;
use crate::compose::files::Files;
use crate::graph::{Body, Node, NodeId, NodeName, ServiceNode, StepNode};
use crate::interpolate::{self, Mentions, Scope};
use crate::library::Library;
use crate::options::Parser;
use crate::plan::{NodeDecl, NodeSort, Plan};
use crate::policy::{Policy, ServicePolicy, Supply};
use crate::problem::{Problem, Problems, did_you_mean};
use crate::secrets::{Secret, SecretSource};
use crate::source::Sources;
use crate::value::{Table, Value};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What a plan expands to.
pub(super) struct Instances {
    pub(super) nodes: Vec<Node>,
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

/// What is said of a declaration besides its options.
enum PolicyOf {
    Step(Arc<Policy>),
    Service(Arc<ServicePolicy>),
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
            declared: BTreeMap::new(),
            pruned: Vec::new(),
            n_nodes: 0,
        }
    }

    /// Expands every declaration.
    pub(super) fn nodes(mut self) -> Instances {
        let plan = self.plan;
        let mentions: Vec<Mentions> = plan.nodes.iter().map(|n| self.mentions(n)).collect();
        let mut nodes = Vec::new();
        if let Some(order) = order(&plan.nodes, &mentions, self.problems) {
            for at in &order {
                self.declare(&plan.nodes[*at], &mentions[*at]);
            }
            self.check_something_is_left();
            for at in &order {
                self.instances(&plan.nodes[*at], &mut nodes);
            }
        }
        let named: BTreeSet<String> = mentions.into_iter().flat_map(|m| m.secrets).collect();
        let secret = |name: String| Secret {
            source: self
                .secrets
                .get(&name)
                .cloned()
                .unwrap_or(SecretSource::Name),
            name,
        };
        Instances {
            secrets: named.into_iter().map(secret).collect(),
            nodes,
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
        found
    }

    /// Finds out what a declaration uses and which instances it has.
    fn declare(&mut self, decl: &NodeDecl, mentions: &Mentions) {
        let entry = self.entry(decl);
        let axes = self.axes_of(decl, mentions);
        let (known, sources) = (&self.declared, self.sources);
        let left_out = LeftOut::new(decl, mentions, &axes, known, sources, self.problems);
        let mut declared = Declared {
            entry,
            instances: Vec::new(),
            pruned: HashSet::new(),
            axes,
        };
        for point in self.axes.product(&declared.axes) {
            match left_out.reason(&point, &self.scope, self.problems) {
                Some(reason) => {
                    declared.pruned.insert(point_key(&point));
                    let node = node_name(decl, &point).to_string();
                    self.pruned.push(Pruned { node, reason });
                }
                None => {
                    let id = NodeId(self.n_nodes);
                    self.n_nodes += 1;
                    declared.instances.push(Instance { id, axes: point });
                }
            }
        }
        self.declared.insert(key(decl), declared);
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
    fn axes_of(&mut self, decl: &NodeDecl, mentions: &Mentions) -> Vec<String> {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for (name, place) in &decl.axes {
            if self.axes.names().any(|n| n == name) {
                wanted.insert(name.clone());
            } else {
                let help = did_you_mean(name, self.axes.names());
                self.problems.push(
                    Problem::at(place, format!("there is no axis `{name}`"), "unknown axis")
                        .help(help),
                );
            }
        }
        for key in read_by(mentions) {
            if let Some(declared) = self.declared.get(&key) {
                wanted.extend(declared.axes.iter().cloned());
            }
        }
        for (axis, place) in &mentions.axes {
            if self.axes.names().any(|n| n == axis) && !wanted.contains(axis) {
                let message = format!("`{}` does not vary over axis `{axis}`", decl.key.name);
                self.problems.push(
                    Problem::at(place, message, "not one of its axes")
                        .help(format!("add `axes = [\"{axis}\"]`")),
                );
                wanted.insert(axis.clone());
            }
        }
        let names = self.axes.names().filter(|n| wanted.contains(*n));
        names.map(str::to_owned).collect()
    }

    /// Reads every instance of a declaration.
    fn instances(&mut self, decl: &NodeDecl, nodes: &mut Vec<Node>) {
        let Some(declared) = self.declared.get(&key(decl)) else {
            return;
        };
        let count = declared.instances.len();
        let settings = decl.settings.entries.iter().map(|(_, v)| v);
        let varies = !interpolate::mentions(settings, &self.scope.names, self.sources)
            .axes
            .is_empty();
        // Instances share one policy unless it depends on an axis.
        let shared = if varies || count == 0 {
            None
        } else {
            self.policy(decl, &self.scope.clone())
        };
        for i in 0..count {
            nodes.extend(self.instance(decl, i, varies, shared.as_ref()));
        }
    }

    fn policy(&mut self, decl: &NodeDecl, scope: &Scope) -> Option<PolicyOf> {
        let entry = self.declared.get(&key(decl))?.entry.clone()?;
        let settings = interpolate::table(&decl.settings, scope, self.sources, self.problems);
        let linker = InstanceLinker {
            declared: &self.declared,
            axes: &[],
            secrets: &self.secrets,
            folder: self.folder,
            sources: self.sources,
        };
        let mut reader = PolicyReader {
            decl,
            settings: &settings,
            supply: &self.supply,
            parser: &mut Parser::new(decl.shown(), &linker, self.problems),
        };
        match entry {
            Entry::Step(entry) => reader.step(&entry).map(PolicyOf::Step),
            Entry::Service(entry) => reader.service(&entry).map(PolicyOf::Service),
        }
    }

    fn instance(
        &mut self,
        decl: &NodeDecl,
        i: usize,
        varies: bool,
        shared: Option<&PolicyOf>,
    ) -> Option<Node> {
        let declared = self.declared.get(&key(decl))?;
        let axes = declared.instances[i].axes.clone();
        let entry = declared.entry.clone();
        let mut scope = self.scope.clone();
        scope.axes = Some(axes.iter().cloned().collect());
        let own = if varies {
            self.policy(decl, &scope)
        } else {
            None
        };
        let with = interpolate::table(&decl.with, &scope, self.sources, self.problems);
        let linker = InstanceLinker {
            declared: &self.declared,
            axes: &axes,
            secrets: &self.secrets,
            folder: self.folder,
            sources: self.sources,
        };
        let mut parser = Parser::new(decl.shown(), &linker, self.problems);
        let body = body_of(decl, entry?, &with, own.as_ref().or(shared), &mut parser);
        let after = body::after(decl, &self.declared, &axes, self.problems);
        Some(Node {
            name: node_name(decl, &axes),
            place: decl.key.place.clone(),
            body: body?,
            after,
        })
    }
}

fn key(decl: &NodeDecl) -> (bool, String) {
    (decl.sort == NodeSort::Service, decl.key.name.clone())
}

fn node_name(decl: &NodeDecl, point: &Point) -> NodeName {
    let value = |(name, value): &(String, Value)| Some((name.clone(), axis_value(value)?));
    NodeName {
        decl: decl.key.name.clone(),
        axes: point.iter().filter_map(value).collect(),
    }
}

fn body_of(
    decl: &NodeDecl,
    entry: Entry,
    with: &Table,
    policy: Option<&PolicyOf>,
    parser: &mut Parser<'_>,
) -> Option<Body> {
    match entry {
        Entry::Step(entry) => {
            let step = (entry.parse)(with, &decl.with_place, parser)?;
            let Some(PolicyOf::Step(policy)) = policy else {
                return None;
            };
            Some(Body::Step(StepNode {
                step,
                policy: policy.clone(),
                entry,
            }))
        }
        Entry::Service(entry) => {
            let service = body::service(decl, &entry, with, parser)?;
            let Some(PolicyOf::Service(policy)) = policy else {
                return None;
            };
            Some(Body::Service(ServiceNode {
                service,
                policy: policy.clone(),
                entry,
            }))
        }
    }
}
