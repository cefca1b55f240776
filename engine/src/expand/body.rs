//! Options of one instance, read by the library into what the graph holds, and what comes before.

use super::declared::DeclaredAll;
use crate::graph::{Link, NodeId};
use crate::library::ServiceEntry;
use crate::options::{Parser, Walk};
use crate::plan::{NodeDecl, NodeSort};
use crate::point::Point;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::service::DynService;
use crate::value::Table;
use std::path::Path;
use std::sync::Arc;

/// Reads the options of a service, which cannot wait for another.
pub(super) fn service(
    decl: &NodeDecl,
    entry: &ServiceEntry,
    with: &Table,
    parser: &mut Parser<'_>,
) -> Option<Arc<dyn DynService>> {
    let service = (entry.parse)(with, &decl.with_place, parser)?;
    let mut leases = LeaseWalk::default();
    service.walk(&mut leases);
    if leases.found {
        let message = format!("service `{}` refers to another service", decl.key.name);
        let problem = Problem::at(
            &decl.with_place,
            message,
            "services cannot wait for each other",
        );
        let help = "give the other one a fixed `port`, and write its address";
        parser.problems.push(problem.help(help));
    }
    Some(service)
}

/// Finds out whether options refer to a service.
#[derive(Default)]
struct LeaseWalk {
    found: bool,
}

impl Walk for LeaseWalk {
    fn value(&mut self, _: &str, _: &str) {}

    fn link(&mut self, _: &str, link: &Link) {
        self.found |= matches!(link, Link::Service { .. } | Link::Fact { .. });
    }

    fn file(&mut self, _: &str, _: &Path) {}
}

/// Reports what stands in `after` and is no step.
pub(super) fn check_after(decl: &NodeDecl, declared: &DeclaredAll, problems: &mut Problems) {
    for (name, place) in &decl.after {
        if declared.get(NodeSort::Step, name).is_some() {
            continue;
        }
        let (message, help) = if declared.get(NodeSort::Service, name).is_some() {
            (
                format!("`{name}` is a service, and a service never ends"),
                "refer to it in `with`: a step that uses a service leases it".to_owned(),
            )
        } else {
            (
                format!("no step is called `{name}`"),
                did_you_mean(name, declared.steps()),
            )
        };
        problems.push(Problem::at(place, message, "cannot come after this").help(help));
    }
}

/// Links `after`: to every instance that agrees on the axes that both have.
pub(super) fn after(decl: &NodeDecl, declared: &DeclaredAll, point: &Point) -> Vec<NodeId> {
    let mut found = Vec::new();
    for (name, _) in &decl.after {
        if let Some(other) = declared.get(NodeSort::Step, name) {
            other.agreeing(point, |nodes| found.extend_from_slice(nodes));
        }
    }
    found
}
