//! Reads the options of every instance of one declaration. What is the same for all of them is
//! read once, so that an instance costs little more than its own options.

use super::after;
use super::declared::{Declared, DeclaredAll, Entry};
use super::gpus;
use super::linker::{InstanceLinker, Outside};
use super::policies::PolicyReader;
use crate::graph::{Body, Dependency, Edge, Node, NodeId, NodeName, ServiceNode, StepNode};
use crate::interpolate::{Prepared, Scope};
use crate::options::Parser;
use crate::plan::NodeDecl;
use crate::point::Point;
use crate::policy::{Policy, ServicePolicy, Supply, port_pool};
use crate::problem::Problems;
use crate::secrets::SecretSource;
use crate::source::Sources;
use crate::value::Table;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What instances are read with, whatever they are of.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) declared: &'a DeclaredAll,
    pub(super) supply: &'a Supply,
    pub(super) secrets: &'a BTreeMap<String, SecretSource>,
    pub(super) outside: &'a Outside,
    pub(super) folder: &'a Path,
    pub(super) sources: &'a Sources,
}

/// Nodes and what they wait for, so far.
#[derive(Default)]
pub(super) struct Nodes {
    pub(super) list: Vec<Node>,
    pub(super) dependencies: Vec<Dependency>,
    /// Ports that the plan gives to services.
    pub(super) ports: BTreeSet<u16>,
}

/// What is said of a declaration besides its options.
#[derive(Clone)]
enum PolicyOf {
    Step(Arc<Policy>),
    Service(Arc<ServicePolicy>),
}

/// Reads the instances of one declaration.
struct InstanceReader<'a> {
    decl: &'a NodeDecl,
    name: Arc<str>,
    shown: String,
    entry: Option<Entry>,
    with: Prepared,
    settings: Prepared,
    /// The policy of all instances, unless it depends on an axis.
    shared: Option<PolicyOf>,
    scope: Scope,
    around: Surroundings<'a>,
    problems: &'a mut Problems,
}

/// Reads every instance of a declaration.
pub(super) fn read(
    decl: &NodeDecl,
    declared: &Declared,
    scope: &Scope,
    around: Surroundings<'_>,
    problems: &mut Problems,
    nodes: &mut Nodes,
) {
    if declared.instances.is_empty() {
        return;
    }
    let mut reader = InstanceReader {
        decl,
        name: decl.key.name.as_str().into(),
        shown: decl.shown(),
        entry: declared.entry.clone(),
        with: Prepared::new(&decl.with, scope, around.sources, problems),
        settings: Prepared::new(&decl.settings, scope, around.sources, problems),
        shared: None,
        scope: scope.clone(),
        around,
        problems,
    };
    if !reader.settings.varies() {
        reader.shared = reader.policy(&Point::default());
    }
    if reader.entry.is_some() {
        after::check(decl, around.declared, reader.problems);
    }
    nodes.list.reserve(declared.instances.len());
    for instance in &declared.instances {
        let node = reader.instance(instance.id, &instance.point, &mut nodes.dependencies);
        nodes.ports.extend(node.as_ref().and_then(fixed_port));
        nodes.list.extend(node);
    }
}

impl InstanceReader<'_> {
    fn instance(
        &mut self,
        id: NodeId,
        point: &Point,
        dependencies: &mut Vec<Dependency>,
    ) -> Option<Node> {
        self.scope.axes = Some(point.clone());
        let policy = match self.settings.varies() {
            true => self.policy(point),
            false => self.shared.clone(),
        };
        let with = self
            .with
            .fill(&self.scope, self.around.sources, self.problems);
        let entry = self.entry.as_ref()?;
        let linker = self.around.linker(point);
        let mut parser = Parser::new(self.shown.as_str(), &linker, self.problems);
        let body = body_of(
            self.decl,
            entry,
            with,
            policy,
            self.around.supply,
            &mut parser,
        )?;
        let after = after::link(self.decl, self.around.declared, point);
        let waits = linker.waits.into_inner().into_iter();
        let order = after.iter().map(|on| (*on, Edge::After));
        dependencies.extend(
            waits
                .chain(order)
                .map(|(on, edge)| Dependency { node: id, on, edge }),
        );
        Some(Node {
            name: NodeName {
                decl: self.name.clone(),
                axes: point.clone(),
            },
            place: self.decl.key.place.clone(),
            body,
            after,
        })
    }

    fn policy(&mut self, point: &Point) -> Option<PolicyOf> {
        let settings = self
            .settings
            .fill(&self.scope, self.around.sources, self.problems);
        let linker = self.around.linker(point);
        let mut reader = PolicyReader {
            decl: self.decl,
            settings,
            supply: self.around.supply,
            parser: &mut Parser::new(self.shown.as_str(), &linker, self.problems),
        };
        match self.entry.as_ref()? {
            Entry::Step(entry) => reader.step(entry).map(PolicyOf::Step),
            Entry::Service(entry) => reader.service(entry).map(PolicyOf::Service),
        }
    }
}

impl<'a> Surroundings<'a> {
    fn linker(&self, point: &'a Point) -> InstanceLinker<'a> {
        InstanceLinker {
            declared: self.declared,
            point,
            secrets: self.secrets,
            folder: self.folder,
            sources: self.sources,
            outside: self.outside,
            waits: RefCell::default(),
        }
    }
}

fn body_of(
    decl: &NodeDecl,
    entry: &Entry,
    with: &Table,
    policy: Option<PolicyOf>,
    supply: &Supply,
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
                policy,
                entry: entry.clone(),
            }))
        }
        Entry::Service(entry) => {
            let service = (entry.parse)(with, &decl.with_place, parser)?;
            let Some(PolicyOf::Service(mut policy)) = policy else {
                return None;
            };
            if let Some(port) = service.fixed_port() {
                let amounts = &mut Arc::make_mut(&mut policy).demand.amounts;
                amounts.insert(port_pool(port).0, 1);
            }
            if let Some(used) = service.gpus().filter(|used| *used > 0) {
                let demand = &mut Arc::make_mut(&mut policy).demand;
                gpus::take(decl, used, demand, supply, parser);
            }
            Some(Body::Service(ServiceNode {
                service,
                policy,
                entry: entry.clone(),
            }))
        }
    }
}

fn fixed_port(node: &Node) -> Option<u16> {
    match &node.body {
        Body::Service(service) => service.service.fixed_port(),
        Body::Step(_) => None,
    }
}
