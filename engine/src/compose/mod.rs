//! From the files of a plan to one flat declaration: what is included is taken in, parameters get
//! their values, fragments become steps and services, overlays become arguments, and what the
//! command line sets is set. Axes and late references are still as written.

pub(crate) mod files;

mod include;

mod fragments;

mod substitute;

mod library;

mod overlays;

mod set;

pub use library::{FragmentDoc, ParamDoc, PartDoc, fragments};

use crate::interpolate::{Names, Scope};
use crate::library::Library;
use crate::params::{self, ParamValue, Settings};
use crate::plan::{NodeDecl, NodeSort, Plan};
use crate::problem::{Problem, Problems};
use crate::source::Sources;
use files::Files;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// A plan of one piece.
pub(crate) struct Composed {
    /// Everything that is declared, wherever it was written.
    pub(crate) plan: Plan,
    /// What references outside of steps and services may name.
    pub(crate) scope: Scope,
    /// Parameters and other settings with their values, and whether they are not the default.
    pub(crate) params: Vec<(String, String, bool)>,
}

/// What composing works with.
pub(super) struct Workshop<'a> {
    pub(super) files: &'a Files,
    pub(super) library: &'a Library,
    pub(super) sources: &'a mut Sources,
    pub(super) problems: &'a mut Problems,
}

/// Composes the plan at `path`; nothing if it cannot be read.
pub(crate) fn compose(
    path: &Path,
    files: &Files,
    settings: &Settings,
    library: &Library,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Composed> {
    let mut workshop = Workshop {
        files,
        library,
        sources,
        problems,
    };
    let mut plan = include::read(path, &mut workshop)?;
    let (of_nodes, of_params) = set::split(settings);
    let params = params::resolve(&plan, &of_params, workshop.sources, workshop.problems);
    let mut sets = set::NodeSets::new(&of_nodes, workshop.sources);
    sets.apply_to_pools(&mut plan.resources, &mut workshop);
    sets.apply(&mut plan.nodes, |n| n.fragment().is_some(), &mut workshop);
    fragments::instantiate(&mut plan, &params, &mut workshop);
    check_nodes(&plan.nodes, &mut workshop);
    let scope = scope(&plan, &params);
    overlays::merge(&mut plan.nodes, &scope, &mut workshop);
    sets.apply(&mut plan.nodes, |_| true, &mut workshop);
    sets.finish(&plan.nodes, &mut workshop);
    let mut shown = shown_params(&plan, &params);
    shown.extend(sets.shown());
    Some(Composed {
        plan,
        scope,
        params: shown,
    })
}

fn scope(plan: &Plan, params: &BTreeMap<String, ParamValue>) -> Scope {
    let named = |sort| {
        let nodes = plan.nodes.iter().filter(move |n| n.sort == sort);
        nodes.map(|n| n.key.name.clone()).collect()
    };
    let values = params.iter().map(|(k, v)| (k.clone(), v.value.clone()));
    Scope {
        params: Arc::new(values.collect()),
        broken: Arc::new(plan.broken_params.clone()),
        axes: None,
        names: Arc::new(Names {
            steps: named(NodeSort::Step),
            services: named(NodeSort::Service),
        }),
    }
}

fn shown_params(plan: &Plan, params: &BTreeMap<String, ParamValue>) -> Vec<(String, String, bool)> {
    let names = plan.params.iter().map(|p| &p.key.name);
    let valued = names.filter_map(|name| Some((name, params.get(name)?)));
    valued
        .map(|(name, v)| (name.clone(), v.value.to_line(), v.set))
        .collect()
}

/// A step and a service of one name could not be told apart in results.
fn check_nodes(nodes: &[NodeDecl], workshop: &mut Workshop<'_>) {
    if nodes.is_empty() {
        workshop.problems.push(
            Problem::whole("the plan has no steps")
                .help("add one: `[steps.NAME]` with `use = \"…\"`"),
        );
    }
    let mut first: HashMap<&str, &NodeDecl> = HashMap::new();
    for node in nodes {
        let Some(other) = first.insert(&node.key.name, node) else {
            continue;
        };
        let (message, label) = if other.sort == node.sort {
            let place = workshop.sources.line_of(&other.key.place);
            let message = format!("{} is declared here and in {place}", node.shown());
            (message, "declared again")
        } else {
            let message = format!("a step and a service are both called `{}`", node.key.name);
            (message, "the same name again")
        };
        workshop.problems.push(
            Problem::at(&node.key.place, message, label).help("give one of them another name"),
        );
    }
}
