//! What a controller cannot stand in front of, though it is a server: the gateway speaks no TLS.
//!
//! Only the sealed graph knows both ends of a lease, so this is looked at once a plan is expanded.

use super::Controller;
use engine::graph::{Graph, Link, NodeId};
use engine::options::Walk;
use engine::problem::{Problem, Problems};
use engine::service::ServiceType;
use std::path::Path;

/// Finds controllers in front of servers whose addresses begin with `https://`.
///
/// Costs time in proportion to the nodes.
pub fn problems(graph: &Graph) -> Vec<Problem> {
    let mut problems = Problems::default();
    for front in graph.order() {
        let service = graph.service(*front);
        if service.is_none_or(|service| service.entry.name != Controller::NAME) {
            continue;
        }
        for behind in graph.leases(*front) {
            if address(graph, behind).starts_with("https://") {
                problems.push(problem(graph, *front, behind));
            }
        }
    }
    problems.into_sorted()
}

fn problem(graph: &Graph, front: NodeId, behind: NodeId) -> Problem {
    let (front, behind) = (&graph.node(front).name.decl, graph.node(behind));
    let server = &behind.name.decl;
    let message = format!(
        "`{server}` has an address with `https://`, and `{front}` in front of it speaks no TLS"
    );
    Problem::at(&behind.place, message, "behind a controller")
        .help("write an address with `http://`, if need be that of a proxy that speaks TLS")
}

/// The address that the plan gives to a server, in small letters; nothing if it gives none.
fn address(graph: &Graph, server: NodeId) -> String {
    let mut found = Address::default();
    graph.node(server).body.walk(&mut found);
    found.0
}

/// The option `url` of a service.
#[derive(Default)]
struct Address(String);

impl Walk for Address {
    fn value(&mut self, path: &str, text: &str) {
        if path == "url" {
            self.0 = text.to_ascii_lowercase();
        }
    }

    fn link(&mut self, _: &str, _: &Link) {}

    fn file(&mut self, _: &str, _: &Path) {}
}
