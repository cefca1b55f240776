//! In what two locks differ, field by field. Pure.

use super::{Lock, Pins};
use std::collections::{BTreeMap, BTreeSet};

/// Something that is not as it was locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The node; `None` if it is about the plan as a whole.
    pub node: Option<String>,
    /// The field, such as `with.seed`; empty if the whole node is meant.
    pub field: String,
    /// What was locked; `None` if nothing was.
    pub locked: Option<String>,
    /// What was found; `None` if nothing was.
    pub found: Option<String>,
}

impl Lock {
    /// Lists in what the plan that `found` describes differs from this lock: first what concerns
    /// the plan as a whole, then its nodes in order. Results and machines are not compared.
    pub fn differences(&self, found: &Lock) -> Vec<Difference> {
        let mut list = List(Vec::new());
        list.value(None, "engine", Some(&self.engine), Some(&found.engine));
        list.value(None, "name", Some(&self.plan), Some(&found.plan));
        list.maps(None, "source ", &self.sources, &found.sources);
        list.maps(None, "params.", &self.params, &found.params);
        let locked: BTreeMap<&str, &Pins> = by_name(&self.nodes);
        for (name, pins) in &found.nodes {
            match locked.get(name.as_str()) {
                Some(known) => list.pins(name, known, pins),
                None => list.whole(name, None, Some(pins)),
            }
        }
        let there: BTreeSet<&str> = found.nodes.iter().map(|(n, _)| n.as_str()).collect();
        for (name, pins) in &self.nodes {
            if !there.contains(name.as_str()) {
                list.whole(name, Some(pins), None);
            }
        }
        list.0
    }

    /// Lists outputs of `pure` and `fetch` steps in `done` that are other than this lock has them:
    /// such steps are functions of what is pinned.
    pub fn strays(&self, done: &Lock) -> Vec<Difference> {
        let kinds = by_name(&done.nodes);
        let mut list = List(Vec::new());
        for (name, pinned) in &self.results {
            let kind = kinds
                .get(name.as_str())
                .and_then(|pins| value_of(pins, "kind"));
            let Some(result) = done.results.get(name) else {
                continue;
            };
            if matches!(kind, Some("pure" | "fetch")) {
                list.maps(Some(name), "output ", &pinned.outputs, &result.outputs);
            }
        }
        list.0
    }
}

fn by_name(nodes: &[(String, Pins)]) -> BTreeMap<&str, &Pins> {
    nodes
        .iter()
        .map(|(name, pins)| (name.as_str(), pins))
        .collect()
}

fn value_of<'a>(pins: &'a Pins, field: &str) -> Option<&'a str> {
    let found = pins.iter().find(|(known, _)| known == field);
    found.map(|(_, value)| value.as_str())
}

struct List(Vec<Difference>);

impl List {
    fn value(
        &mut self,
        node: Option<&str>,
        field: &str,
        locked: Option<&String>,
        found: Option<&String>,
    ) {
        if locked != found {
            self.0.push(Difference {
                node: node.map(str::to_owned),
                field: field.to_owned(),
                locked: locked.cloned(),
                found: found.cloned(),
            });
        }
    }

    fn maps(
        &mut self,
        node: Option<&str>,
        prefix: &str,
        locked: &BTreeMap<String, String>,
        found: &BTreeMap<String, String>,
    ) {
        let fields: BTreeSet<&String> = locked.keys().chain(found.keys()).collect();
        for field in fields {
            let (then, now) = (locked.get(field), found.get(field));
            self.value(node, &format!("{prefix}{field}"), then, now);
        }
    }

    fn pins(&mut self, node: &str, locked: &Pins, found: &Pins) {
        let map = |pins: &Pins| pins.iter().cloned().collect::<BTreeMap<String, String>>();
        let (then, now) = (map(locked), map(found));
        // Another kind of step has other options altogether.
        if then.get("use") != now.get("use") {
            return self.value(Some(node), "use", then.get("use"), now.get("use"));
        }
        self.maps(Some(node), "", &then, &now);
    }

    fn whole(&mut self, node: &str, locked: Option<&Pins>, found: Option<&Pins>) {
        let uses = |pins: &Pins| value_of(pins, "use").unwrap_or_default().to_owned();
        self.0.push(Difference {
            node: Some(node.to_owned()),
            field: String::new(),
            locked: locked.map(uses),
            found: found.map(uses),
        });
    }
}
