//! What waits for what, from a plan's graph and what is known of its nodes. Pure.

use engine::graph::{Edge, Graph, NodeId};
use engine::run::history::{History, NodeHistory, NodeState};
use serde::Serialize;

/// A step that has not begun, and what keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Waits {
    /// The step.
    pub(super) node: String,
    /// What it waits for; nothing if it only waits for its turn.
    pub(super) waits_for: Vec<String>,
}

/// Lists the steps of a run that have not begun, in the order of the plan.
pub(super) fn waits(run: &History, graph: &Graph) -> Vec<Waits> {
    let is_waiting = |id: NodeId| {
        let known = run.find(&graph.name(id));
        known.is_some_and(|n| n.node.kind.is_some() && n.state == NodeState::Waiting)
    };
    let waiting = graph.order().iter().copied().filter(|id| is_waiting(*id));
    let wait = |id: NodeId| {
        let mut waits_for: Vec<String> = graph
            .incoming(id)
            .filter(|(from, edge)| keeps(run, &graph.name(*from), *edge))
            .map(|(from, _)| graph.name(from))
            .collect();
        waits_for.sort();
        waits_for.dedup();
        Waits {
            node: graph.name(id),
            waits_for,
        }
    };
    waiting.map(wait).collect()
}

/// Whether `name` keeps what depends on it by `edge` from beginning.
fn keeps(run: &History, name: &str, edge: Edge) -> bool {
    let Some(node) = run.find(name) else {
        return false;
    };
    match edge {
        Edge::Leases => node.url.is_none(),
        _ => !is_settled(node),
    }
}

/// A measurement has ended once none of its samples is missing.
fn is_settled(node: &NodeHistory) -> bool {
    match node.state {
        NodeState::Waiting | NodeState::Running => false,
        NodeState::Done => node.node.target <= 1 || node.n_samples() >= node.node.target,
        NodeState::Reused | NodeState::Failed | NodeState::Skipped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::expand;
    use engine::params::Settings;
    use engine::run::history::Entry;
    use engine::source::Sources;
    use serde_json::{Value, json};
    use std::path::Path;

    const PLAN: &str = r#"
schema = 1
[services.back]
use = "server.external"
with = { url = "http://127.0.0.1:9" }
[steps.a]
use = "shell.run"
with = { argv = ["true"] }
[steps.b]
use = "shell.run"
with = { argv = ["true", "${steps.a.files}", "${services.back.url}"] }
[steps.c]
use = "shell.run"
after = ["b"]
with = { argv = ["true"] }
"#;

    fn found(events: &[Value]) -> Vec<(String, Vec<String>)> {
        let mut sources = Sources::default();
        let library = steps::library();
        let path = Path::new("p.toml");
        let settings = Settings::default();
        let expanded = expand::expand(
            path,
            &[(path.to_owned(), PLAN.to_owned())],
            &settings,
            &library,
            &mut sources,
        );
        let graph = expanded.unwrap_or_else(|p| panic!("{p:?}")).graph;
        let node = |name: &str, kind: Value| json!({ "node": name, "uses": "x", "kind": kind, "target": 1 });
        let nodes = [
            node("back", Value::Null),
            node("a", "pure".into()),
            node("b", "pure".into()),
            node("c", "pure".into()),
        ];
        let begun = json!({ "event": "run_started", "run": "r", "plan": "p", "resumed": false, "seed": 0, "nodes": nodes });
        let entry = |event: &Value| -> Entry {
            serde_json::from_value(json!({ "wall_ms": 0, "at_ms": 0, "event": event }))
                .expect("an entry")
        };
        let entries: Vec<Entry> = [begun].iter().chain(events).map(entry).collect();
        let run = History::of(Path::new("r"), true, &entries, Vec::new());
        let waits = waits(&run, &graph).into_iter();
        waits.map(|w| (w.node, w.waits_for)).collect()
    }

    fn list(wanted: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect();
        wanted
            .iter()
            .map(|(n, f)| ((*n).to_owned(), names(f)))
            .collect()
    }

    #[test]
    fn a_step_waits_for_what_it_reads_leases_and_follows() {
        let at_first = list(&[("a", &[]), ("b", &["a", "back"]), ("c", &["b"])]);
        assert_eq!(found(&[]), at_first);
        let done = json!({ "event": "finished", "node": "a", "sample": null, "took_ms": 1, "summary": null, "verdict": null, "outputs": {} });
        let up =
            json!({ "event": "service_ready", "node": "back", "url": "http://x", "took_ms": 1 });
        assert_eq!(found(&[done, up]), list(&[("b", &[]), ("c", &["b"])]));
    }

    #[test]
    fn what_runs_waits_no_more_and_is_waited_for() {
        let runs = json!({ "event": "started", "node": "b", "sample": null, "logs": "l" });
        assert_eq!(found(&[runs]), list(&[("a", &[]), ("c", &["b"])]));
    }
}
